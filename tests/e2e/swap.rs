//! The table is replaced while it serves: nothing fails, nothing closes, and a change is live soon.

use crate::HOST;
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::harness::manifest::{route, service};
use crate::harness::trigate::Trigate;
use crate::harness::upstream::{Upstream, data, streamed};
use crate::in_front_of;
use futures::SinkExt;
use http::Response;
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The issue asks for 100 ms; the rest is for a debug build on a machine that runs all tests at once.
const LIVE_WITHIN: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_change_in_a_file_is_live_soon() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let mut times = Vec::new();
    for number in 0..9 {
        let host = format!("new-{number}.test");
        trigate.apply(route("new").on("external").host(&host).to("app"));
        times.push(trigate.until_status(trigate.external.http, &host, "/", 200).await);
    }
    times.sort();
    assert!(times[4] < LIVE_WITHIN, "changes took {times:?}");
}

#[tokio::test]
async fn objects_come_and_go_with_their_files() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    trigate.delete("HTTPRoute", "apps", "app");
    trigate.until_status(trigate.external.http, HOST, "/", 404).await;
    trigate.apply(route("app").on("external").host(HOST).to("later"));
    trigate.until_status(trigate.external.http, HOST, "/", 500).await;
    trigate.apply_all(service("later", &[]));
    trigate.until_status(trigate.external.http, HOST, "/", 503).await;
    trigate.apply_all(service("later", &[upstream.address]));
    trigate.until_status(trigate.external.http, HOST, "/", 200).await;
}

#[tokio::test]
async fn endpoints_move_and_requests_follow() {
    let (old, new) = (Upstream::echo("old").await, Upstream::echo("new").await);
    let trigate = in_front_of(&old).await;
    let mut client = Client::http1(trigate.external.http).await;
    assert_eq!(client.send(Ask::get(HOST, "/")).await.seen().upstream, "old");
    trigate.apply_all(service("app", &[new.address]));
    let asked = || async {
        let answer = trigate.external.get(HOST, "/").await;
        (answer.seen().upstream == "new").then_some(())
    };
    eventually("requests at the new endpoint", asked).await;
    for _ in 0..10 {
        assert_eq!(client.send(Ask::get(HOST, "/")).await.seen().upstream, "new");
    }
}

#[tokio::test]
async fn a_broken_route_or_file_leaves_all_others_served() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let broken_match = json!({
        "matches": [{ "path": { "type": "RegularExpression", "value": "/(unclosed" } }],
        "backendRefs": [{ "name": "app", "port": 80 }],
    });
    trigate.apply(route("broken").on("external").host("broken.test").rule(broken_match));
    let half =
        route("half").on("external").host("half.test").prefix_to("/good", "app").prefix_to("/bad", "absent");
    trigate.apply(half);
    trigate.write_manifest("nonsense.yaml", "kind: [this is\n  no: object");
    trigate.write_manifest(
        "mixed.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: wrong, namespace: apps}\n\
         spec: {parentRefs: 7}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {name: right, namespace: apps}\nspec:\n  parentRefs: [{name: external, namespace: network}]\n  \
         hostnames: [right.test]\n  rules: [{backendRefs: [{name: app, port: 80}]}]\n",
    );
    trigate.until_status(trigate.external.http, "right.test", "/", 200).await;
    trigate.until_status(trigate.external.http, "half.test", "/good", 200).await;
    assert_eq!(trigate.external.get("half.test", "/bad").await.status, 500);
    assert_ne!(
        trigate.external.get("broken.test", "/x").await.status,
        200,
        "a rule that cannot be read serves nobody"
    );
    assert_eq!(trigate.external.get(HOST, "/").await.status, 200);
    for name in ["nonsense.yaml", "mixed.yaml", "apps/broken", "apps/half"] {
        let told = || async { trigate.log().contains(name).then_some(()) };
        eventually(&format!("a word about {name} in the log"), told).await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_any_more_keeps_its_last_content() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    trigate.write_manifest("httproute.apps.app.yaml", "{ \"kind\": \"HTTPRoute\", \"metadata\"");
    trigate.apply(route("marker").on("external").host("marker.test").to("app"));
    trigate.until_status(trigate.external.http, "marker.test", "/", 200).await;
    assert_eq!(trigate.external.get(HOST, "/").await.status, 200);
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_revision() {
    let upstream = Upstream::serve(|_| async {
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            for piece in 0..20 {
                // The client may end the test before the last piece.
                let _ = sender.send(data(format!("{piece} "))).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Response::new(body)
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let mut client = Client::http1(trigate.external.http).await;
    let response = client.begin(Ask::get(HOST, "/")).await;
    trigate.delete("HTTPRoute", "apps", "app");
    trigate.delete("Service", "apps", "app");
    trigate.until_status(trigate.external.http, HOST, "/", 404).await;
    let body = response.into_body().collect().await.expect("the body is whole").to_bytes();
    assert!(body.ends_with(b"18 19 "), "{body:?}");
}

/// Clients that each send request after request on one connection, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(trigate: &Trigate) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = Vec::new();
        for _ in 0..2 {
            clients.push(Client::http1(trigate.external.http).await);
            clients.push(Client::http2(trigate.external.http).await);
            clients.push(Client::https1(trigate, trigate.external, HOST).await);
            clients.push(Client::https2(trigate, trigate.external, HOST).await);
        }
        let run = |mut client: Client| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    // The same connection from the first to the last: one that closes fails the next request.
                    let answer = client.send(Ask::post(HOST, "/load", "hello")).await;
                    assert_eq!(answer.seen().body, "hello");
                    served.fetch_add(1, Relaxed);
                }
            })
        };
        let tasks = clients.into_iter().map(run).collect();
        Self { stop, served, tasks }
    }

    async fn end(self) -> usize {
        self.stop.store(true, Relaxed);
        for task in self.tasks {
            task.await.expect("no request failed and no connection closed");
        }
        self.served.load(Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_swaps_a_second_under_load_cost_no_request_and_no_connection() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let load = Load::start(&trigate).await;
    let start = Instant::now();
    for swap in 0..50 {
        trigate.apply(route("swapped").on("external").host(&format!("swap-{swap}.test")).to("app"));
        // The route under load changes too, and so does the set of endpoints behind it.
        trigate.apply(route("app").on("external").host(HOST).host(&format!("alias-{swap}.test")).to("app"));
        trigate.apply_all(service("app", &vec![upstream.address; 1 + swap % 2]));
        tokio::time::sleep(
            Duration::from_millis(100)
                .saturating_sub(start.elapsed() - Duration::from_millis(100) * swap as u32),
        )
        .await;
    }
    trigate.until_status(trigate.external.http, "swap-49.test", "/", 200).await;
    let served = load.end().await;
    assert!(served > 50, "only {served} requests in {:?}", start.elapsed());
}
