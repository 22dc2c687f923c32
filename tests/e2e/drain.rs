//! SIGTERM: the probe says so, sockets still accept for a while, nothing in flight is cut, and the process ends.

use crate::harness::client::{Ask, Client, tls};
use crate::harness::manifest::{route, service};
use crate::harness::raw::Raw;
use crate::harness::soon;
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::{Upstream, data, full, streamed};
use crate::{HOST, in_front_of};
use futures::SinkExt;
use http::Response;
use http_body_util::BodyExt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

async fn with_drain(upstream: &Upstream, grace: &str, timeout: &str) -> Trigate {
    Builder::new()
        .set("drain.grace", grace)
        .set("drain.timeout", timeout)
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").host(HOST).to("app"))
        .start()
        .await
}

#[tokio::test]
async fn an_idle_gateway_ends_with_0_soon_after_its_grace() {
    let upstream = Upstream::echo("app").await;
    let mut trigate = with_drain(&upstream, "300ms", "10s").await;
    let _idle = Client::http1(trigate.external.http).await;
    let mut used = Client::https2(&trigate, trigate.external, HOST).await;
    assert_eq!(used.send(Ask::get(HOST, "/")).await.status, 200);
    let start = Instant::now();
    trigate.terminate();
    let status = trigate.ended(Duration::from_secs(8)).await;
    assert!(status.success(), "{status}\n{}", trigate.log());
    assert!(start.elapsed() >= Duration::from_millis(250), "it kept its grace");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "idle connections do not hold it: {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn the_probe_says_503_while_sockets_still_accept() {
    let upstream = Upstream::echo("app").await;
    let mut trigate = with_drain(&upstream, "2s", "10s").await;
    assert_eq!(trigate.ask_ready().await, Some(200));
    trigate.terminate();
    crate::harness::eventually("503 from the probe", || async {
        (trigate.ask_ready().await == Some(503)).then_some(())
    })
    .await;
    assert_eq!(trigate.stats_page("/ready").await.status, 503, "on the stats address too");
    let mut connection = Raw::connect(trigate.external.http).await;
    connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let answer = soon("an answer", connection.response()).await.expect("an answer");
    assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")), "{answer:?}");
    assert!(connection.closed_within(Duration::from_secs(5)).await);
    let mut over_tls = Client::https1(&trigate, trigate.external, HOST).await;
    assert_eq!(over_tls.send(Ask::get(HOST, "/")).await.status, 200);
    assert!(trigate.ended(Duration::from_secs(8)).await.success());
}

#[tokio::test]
async fn an_http2_connection_gets_goaway_and_its_streams_finish() {
    let upstream = Upstream::serve(|_| async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        Response::new(full("late"))
    })
    .await;
    let mut trigate = with_drain(&upstream, "300ms", "10s").await;
    let stream = tls(&trigate, trigate.external, HOST, &["h2"]).await.expect("the name is served");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2 is spoken");
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("https://{HOST}/")).body(()).expect("a request");
    let (answer, _) = sender.send_request(request, true).expect("the connection is open");
    tokio::time::sleep(Duration::from_millis(100)).await;
    trigate.terminate();
    let answer = soon("an answer", answer).await.expect("the stream finishes");
    let mut body = answer.into_body();
    assert_eq!(body.data().await.expect("a body").expect("it is whole"), "late");
    // GOAWAY without an error: the connection ends well once its streams have.
    drop((sender, body));
    soon("the end of the connection", connection).await.expect("a task").expect("no error");
    assert!(trigate.ended(Duration::from_secs(8)).await.success());
}

#[tokio::test]
async fn a_response_that_streams_is_finished() {
    let upstream = Upstream::serve(|_| async {
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            for piece in 0..10 {
                sender.send(data(format!("{piece} "))).await.expect("the gateway reads to the end");
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        });
        Response::new(body)
    })
    .await;
    let mut trigate = with_drain(&upstream, "300ms", "10s").await;
    let mut client = Client::http1(trigate.external.http).await;
    let response = client.begin(Ask::get(HOST, "/")).await;
    trigate.terminate();
    let body = soon("the body", response.into_body().collect()).await.expect("it is whole").to_bytes();
    assert_eq!(body, "0 1 2 3 4 5 6 7 8 9 ");
    assert!(trigate.ended(Duration::from_secs(8)).await.success());
}

#[tokio::test]
async fn what_never_ends_is_cut_at_the_timeout() {
    let upstream = Upstream::serve(|_| async {
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            while sender.send(data("for ever ")).await.is_ok() && {
                tokio::time::sleep(Duration::from_millis(50)).await;
                true
            } {}
        });
        Response::new(body)
    })
    .await;
    let mut trigate = with_drain(&upstream, "100ms", "1s").await;
    let mut client = Client::http1(trigate.external.http).await;
    let response = client.begin(Ask::get(HOST, "/")).await;
    let start = Instant::now();
    trigate.terminate();
    let (body, status) = tokio::join!(response.into_body().collect(), trigate.ended(Duration::from_secs(8)));
    assert!(body.is_err(), "a body that is cut is not whole");
    assert!(status.success(), "{status}");
    assert!(
        start.elapsed() >= Duration::from_millis(900) && start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

/// Like a careful client: a connection that said it closes is not used again. Ends when `over` is true, and
/// returns how many requests were answered.
async fn load(address: SocketAddr, over: Arc<AtomicBool>) -> usize {
    let (mut connection, mut served) = (None, 0);
    while !over.load(Relaxed) {
        let mut open = match connection.take() {
            Some(open) => open,
            None => Raw::connect(address).await,
        };
        open.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello")).await;
        let answer = open.response().await.expect("a request that was taken is answered");
        assert_eq!(answer.status(), 200, "{answer:?}");
        served += 1;
        if answer.header("connection") != Some("close") {
            connection = Some(open);
        }
    }
    served
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_under_load() {
    let upstream = Upstream::echo("app").await;
    let mut trigate = with_drain(&upstream, "2s", "10s").await;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..6).map(|_| tokio::spawn(load(trigate.external.http, Arc::clone(&over)))).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    trigate.terminate();
    // Within the grace whoever balances over several gateways sees the probe's 503 and sends no more.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    over.store(true, Relaxed);
    let mut served = 0;
    for client in clients {
        served += client.await.expect("no request failed");
    }
    assert!(served > 100, "only {served} requests");
    let status = trigate.ended(Duration::from_secs(10)).await;
    assert!(status.success(), "{status}\n{}", trigate.log());
}

#[tokio::test]
async fn a_gateway_without_drain_ends_at_once_when_nothing_runs() {
    let upstream = Upstream::echo("app").await;
    let mut trigate = in_front_of(&upstream).await;
    trigate.terminate();
    assert!(trigate.ended(Duration::from_secs(8)).await.success());
}
