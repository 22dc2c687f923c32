//! Answers that the gateway gives itself: their statuses, bodies and headers, as Envoy gives them.

use crate::HOST;
use crate::harness::client::{Answer, Ask, Client};
use crate::harness::manifest::{path_prefix, route, service};
use crate::harness::raw::Raw;
use crate::harness::soon;
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::{Upstream, refusing};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const FAILURE: &str = "upstream connect error or disconnect/reset before headers. reset reason: ";

fn rule(prefix: &str, backends: Value) -> Value {
    json!({ "matches": [path_prefix(prefix)], "backendRefs": backends })
}

/// One prefix for each way in which a backend can fail, and `/ok`.
async fn failing() -> (Trigate, Vec<Upstream>) {
    let ok = Upstream::echo("app").await;
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
    let mut objects = service("app", &[ok.address]);
    objects.extend(service("empty", &[]));
    objects.extend(service("refusing", &[refusing().await]));
    objects.extend(service("closing", &[closing.address]));
    objects.extend(service("garbage", &[garbage.address]));
    objects.extend(service("silent", &[silent.address]));
    let route = route("app")
        .on("external")
        .host(HOST)
        .prefix_to("/ok", "app")
        .prefix_to("/empty", "empty")
        .prefix_to("/refusing", "refusing")
        .prefix_to("/closing", "closing")
        .prefix_to("/garbage", "garbage")
        .rule(rule("/absent", json!([{ "name": "absent", "port": 80 }])))
        .rule(rule("/port", json!([{ "name": "app", "port": 81 }])))
        .rule(rule("/weightless", json!([{ "name": "app", "port": 80, "weight": 0 }])))
        .rule(json!({ "matches": [path_prefix("/none")] }))
        .rule(json!({
            "matches": [path_prefix("/silent")],
            "timeouts": { "request": "300ms" },
            "backendRefs": [{ "name": "silent", "port": 80 }],
        }));
    objects.push(route.object());
    (Trigate::serving(objects).await, vec![ok, closing, garbage, silent])
}

fn assert_reply(answer: &Answer, status: u16, body: &str, case: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (status, body), "{case}");
    let kind = (!body.is_empty()).then_some("text/plain");
    assert_eq!(answer.header("content-type"), kind, "{case}: {answer:?}");
    assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()), "{case}: {answer:?}");
    assert!(answer.header("date").is_some(), "{case}: {answer:?}");
}

#[tokio::test]
async fn each_failure_has_its_status_and_body_and_the_connection_goes_on() {
    let (trigate, _upstreams) = failing().await;
    let http1 = Client::http1(trigate.external.http).await;
    let http2 = Client::http2(trigate.external.http).await;
    for mut client in [http1, http2] {
        for (path, status, body) in [
            ("/nothing", 404, String::new()),
            ("/absent", 500, String::new()),
            ("/port", 500, String::new()),
            ("/weightless", 500, String::new()),
            ("/none", 500, String::new()),
            ("/empty", 503, "no healthy upstream".to_owned()),
            ("/refusing", 503, format!("{FAILURE}remote connection failure")),
            ("/closing", 503, format!("{FAILURE}connection termination")),
            ("/garbage", 502, format!("{FAILURE}protocol error")),
            ("/silent", 504, "upstream request timeout".to_owned()),
        ] {
            assert_reply(&client.send(Ask::get(HOST, path)).await, status, &body, path);
            assert_eq!(client.send(Ask::get(HOST, "/ok")).await.status, 200, "after {path}");
        }
        assert_reply(&client.send(Ask::get("nobody.test", "/")).await, 404, "", "an unknown host");
    }
}

#[tokio::test]
async fn a_failure_with_a_body_on_its_way_leaves_the_connection_in_step() {
    let (trigate, _upstreams) = failing().await;
    let mut client = Client::http1(trigate.external.http).await;
    for path in ["/nothing", "/absent", "/empty", "/refusing"] {
        let answer = client.send(Ask::post(HOST, path, "x".repeat(20_000))).await;
        assert!(answer.status >= 404, "{path}: {answer:?}");
        if client.is_closed() {
            client = Client::http1(trigate.external.http).await;
        }
        assert_eq!(client.send(Ask::post(HOST, "/ok", "small")).await.seen().body, "small", "after {path}");
    }
}

#[tokio::test]
async fn a_head_request_is_refused_without_a_body() {
    let (trigate, _upstreams) = failing().await;
    let mut connection = Raw::connect(trigate.external.http).await;
    for _ in 0..2 {
        connection.send(format!("HEAD /empty HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let head = soon("a head", connection.response_head()).await.expect("an answer");
        assert_eq!(head.status(), 503, "{head:?}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_ended() {
    let (trigate, _upstreams) = failing().await;
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\nHost: {HOST}\n\n"), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET /\0 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 400),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            400,
        ),
        (format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: gzip\r\n\r\n"), 501),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}\r\n\r\n", "x".repeat(70_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", "X: y\r\n".repeat(200)), 431),
    ] {
        let shown = &request[..request.len().min(60)];
        let mut connection = Raw::connect(trigate.external.http).await;
        // A refusal may come before all has been sent.
        let _ = connection.try_send(&request).await;
        let answer = soon("an answer", connection.response()).await.unwrap_or_else(|| panic!("{shown:?}"));
        assert_eq!(answer.status(), status, "{shown:?}");
        assert!(connection.closed_within(Duration::from_secs(5)).await, "{shown:?}");
    }
}

#[tokio::test]
async fn a_chunk_that_is_none_ends_the_request_and_never_reaches_the_next_client() {
    let (trigate, _upstreams) = failing().await;
    for chunks in ["zz\r\nhello\r\n0\r\n\r\n", "5\r\nhelloX0\r\n\r\n", "ffffffffffffffff1\r\nx"] {
        let mut connection = Raw::connect(trigate.external.http).await;
        let head = format!("POST /ok HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.send([head.as_bytes(), chunks.as_bytes()].concat()).await;
        if let Some(answer) = soon("an end", connection.response()).await {
            assert_eq!(answer.status(), 400, "{chunks:?}: {answer:?}");
        }
        assert!(connection.closed_within(Duration::from_secs(5)).await, "{chunks:?}");
        assert_eq!(trigate.external.get(HOST, "/ok").await.status, 200, "after {chunks:?}");
    }
}

#[tokio::test]
async fn an_escaped_slash_is_sent_to_the_unescaped_path() {
    let (trigate, _upstreams) = failing().await;
    let answer = trigate.external.get(HOST, "/ok%2fadmin?x=%2f").await;
    assert_eq!((answer.status, answer.header("location")), (307, Some("/ok/admin?x=%2f")));
}

#[tokio::test]
async fn a_path_is_routed_by_what_it_means() {
    let (trigate, _upstreams) = failing().await;
    for (path, want) in [("/none/../ok/a", "/ok/a"), ("//ok//b", "/ok/b"), ("/%6fk/./c", "/ok/c")] {
        let mut connection = Raw::connect(trigate.external.http).await;
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let answer = soon("an answer", connection.response()).await.expect("an answer");
        assert!(answer.text().contains(&format!(r#""target":"{want}""#)), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_told_so() {
    let trigate = Builder::new().set("limits.head_timeout", "300ms").start().await;
    let mut connection = Raw::connect(trigate.external.http).await;
    let start = Instant::now();
    connection.send("GET / HTT").await;
    let answer = soon("an answer", connection.response()).await.expect("an answer");
    assert_eq!(answer.status(), 408);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(connection.closed_within(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let trigate = Builder::new().set("limits.idle_timeout", "300ms").start().await;
    let mut connection = Raw::connect(trigate.external.http).await;
    assert!(connection.closed_within(Duration::from_secs(5)).await);
    assert!(connection.rest().await.is_empty());
}

#[tokio::test]
async fn the_limit_of_connections_holds_and_frees_again() {
    let trigate = Builder::new().set("limits.connections", 3).start().await;
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut client = Client::http1(trigate.external.http).await;
        assert_eq!(client.send(Ask::get("nobody.test", "/")).await.status, 404);
        connections.push(client);
    }
    let refused = async {
        let mut client = Client::try_http1(trigate.external.http).await.ok()?;
        client.try_send(Ask::get("nobody.test", "/")).await.ok()
    };
    assert!(refused.await.is_none(), "a fourth connection is closed");
    connections.clear();
    trigate.until_status(trigate.external.http, "nobody.test", "/", 404).await;
}
