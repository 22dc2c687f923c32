//! Settings of a rule: timeouts, retries, sessions.

use crate::HOST;
use crate::harness::client::{Answer, Ask, Client};
use crate::harness::manifest::{path_prefix, route, service};
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::{Upstream, data, refusing, response, streamed};
use futures::SinkExt;
use http::Response;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A gateway whose only rule has these settings, in front of these endpoints.
async fn set(settings: Value, endpoints: &[SocketAddr]) -> Trigate {
    let mut rule = settings;
    rule["backendRefs"] = json!([{ "name": "app", "port": 80 }]);
    let mut objects = service("app", endpoints);
    objects.push(route("app").on("external").host(HOST).rule(rule).object());
    Trigate::serving(objects).await
}

async fn timed(trigate: &Trigate, target: &str) -> (Answer, Duration) {
    let start = Instant::now();
    (trigate.external.get(HOST, target).await, start.elapsed())
}

/// Answers 200 after as many failures as it is given; each failure is this answer, or silence.
async fn failing(times: usize, failure: Option<u16>) -> (Upstream, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let upstream = Upstream::raw(move |mut connection| {
        let count = Arc::clone(&count);
        async move {
            while let Some(request) = connection.request().await {
                let answer = match (count.fetch_add(1, Relaxed) < times, failure) {
                    (true, None) => std::future::pending().await,
                    (true, Some(code)) => response(code, "failed"),
                    (false, _) => response(200, &request.text()),
                };
                if connection.try_send(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (upstream, asked)
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_with_504() {
    let (silent, _) = failing(usize::MAX, None).await;
    for timeouts in [json!({ "request": "300ms" }), json!({ "backendRequest": "300ms" })] {
        let trigate = set(json!({ "timeouts": timeouts }), &[silent.address]).await;
        let (answer, took) = timed(&trigate, "/").await;
        assert_eq!((answer.status, answer.text().as_str()), (504, "upstream request timeout"), "{timeouts}");
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{timeouts}: {took:?}");
    }
}

#[tokio::test]
async fn a_response_whose_body_takes_too_long_is_cut() {
    let upstream = Upstream::serve(|_| async {
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            // Until the gateway hangs up.
            while sender.send(data("drip ")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Response::new(body)
    })
    .await;
    let trigate = set(json!({ "timeouts": { "request": "400ms" } }), &[upstream.address]).await;
    let mut client = Client::http1(trigate.external.http).await;
    let start = Instant::now();
    assert!(client.try_send(Ask::get(HOST, "/")).await.is_err(), "the body has no end");
    assert!(start.elapsed() >= Duration::from_millis(400) && start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn zero_seconds_is_no_limit_even_where_the_gateway_has_one() {
    let upstream = Upstream::raw(|mut connection| async move {
        connection.request().await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        connection.send(response(200, "late")).await;
    })
    .await;
    let rule = |prefix: &str, timeouts: Value| {
        json!({
            "matches": [path_prefix(prefix)], "timeouts": timeouts,
            "backendRefs": [{ "name": "app", "port": 80 }],
        })
    };
    let mut objects = service("app", &[upstream.address]);
    let route = route("app")
        .on("external")
        .host(HOST)
        .rule(rule("/never", json!({ "request": "0s", "backendRequest": "0s" })))
        .rule(rule("/default", json!({})));
    objects.push(route.object());
    let trigate = Builder::new().set("limits.request_timeout", "300ms").with_all(objects).start().await;
    assert_eq!(trigate.external.get(HOST, "/default").await.status, 504);
    assert_eq!(trigate.external.get(HOST, "/never").await.text(), "late");
}

#[tokio::test]
async fn codes_that_the_rule_lists_are_tried_again_with_the_same_body() {
    for (failures, attempts, status, tries) in [(2, 2, 200, 3), (3, 2, 503, 3), (1, 0, 503, 1)] {
        let (upstream, asked) = failing(failures, Some(503)).await;
        let retry = json!({ "codes": [503], "attempts": attempts, "backoff": "10ms" });
        let trigate = set(json!({ "retry": retry }), &[upstream.address]).await;
        let answer = trigate.external.ask(Ask::post(HOST, "/", "once more")).await;
        assert_eq!((answer.status, asked.load(Relaxed)), (status, tries), "{failures} {attempts}");
        assert_eq!(answer.text(), if status == 200 { "once more" } else { "failed" });
    }
    let (upstream, asked) = failing(1, Some(500)).await;
    let trigate = set(json!({ "retry": { "codes": [503], "attempts": 2 } }), &[upstream.address]).await;
    assert_eq!(trigate.external.get(HOST, "/").await.status, 500, "another code is what the backend says");
    assert_eq!(asked.load(Relaxed), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_and_a_try_that_takes_too_long_are_tried_again() {
    let closing = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closing);
    let broken = Upstream::raw(move |mut connection| {
        let first = count.fetch_add(1, Relaxed) == 0;
        async move {
            while connection.request().await.is_some() && !first {
                connection.send(response(200, "again")).await;
            }
        }
    })
    .await;
    let retry = json!({ "attempts": 1, "backoff": "10ms" });
    let trigate = set(json!({ "retry": retry }), &[broken.address]).await;
    assert_eq!(trigate.external.ask(Ask::post(HOST, "/", "x")).await.text(), "again");
    let (slow, asked) = failing(1, None).await;
    let timeouts = json!({ "backendRequest": "200ms" });
    let trigate = set(json!({ "retry": retry, "timeouts": timeouts }), &[slow.address]).await;
    let answer = trigate.external.ask(Ask::post(HOST, "/", "patience")).await;
    assert_eq!((answer.text().as_str(), asked.load(Relaxed)), ("patience", 2));
    let trigate = set(json!({ "retry": { "attempts": 3, "backoff": "100ms" } }), &[refusing().await]).await;
    let (answer, took) = timed(&trigate, "/").await;
    assert_eq!(answer.status, 503);
    assert!(took >= Duration::from_millis(300), "it waits before each try: {took:?}");
}

/// The values that keep a session, from a response.
fn cookie(answer: &Answer) -> Option<String> {
    answer.header("set-cookie").and_then(|value| value.split(';').next()).map(str::to_owned)
}

#[tokio::test]
async fn a_session_stays_at_one_endpoint_by_cookie_or_by_header() {
    let mut upstreams = Vec::new();
    for name in ["a", "b", "c", "d"] {
        upstreams.push(Upstream::echo(name).await);
    }
    let endpoints: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    let settings = [
        json!({ "sessionName": "sticky", "type": "Cookie" }),
        json!({ "sessionName": "x-sticky", "type": "Header" }),
    ];
    for session in settings {
        let trigate = set(json!({ "sessionPersistence": session }), &endpoints).await;
        let first = trigate.external.get(HOST, "/").await;
        let (field, token) = match cookie(&first) {
            Some(cookie) => ("cookie", cookie),
            None => ("x-sticky", first.header("x-sticky").expect("a token").to_owned()),
        };
        assert_eq!(field == "cookie", session["type"] == "Cookie", "{first:?}");
        let home = first.seen().upstream;
        for number in 0..12 {
            let seen = trigate.external.ask(Ask::get(HOST, "/").header(field, &token)).await.seen();
            assert_eq!(seen.upstream, home, "request {number} of a session by {field}");
        }
        let forged = Ask::get(HOST, "/").header(field, "sticky=127.0.0.1:1.0");
        assert_eq!(trigate.external.ask(forged).await.status, 200, "a token that is none begins a session");
    }
}

#[tokio::test]
async fn a_session_whose_endpoint_is_gone_begins_anew() {
    let (gone, stays) = (Upstream::echo("gone").await, Upstream::echo("stays").await);
    let session = json!({ "sessionPersistence": { "sessionName": "sticky" } });
    let trigate = set(session, &[gone.address]).await;
    let first = trigate.external.get(HOST, "/").await;
    let token = cookie(&first).expect("a session");
    trigate.apply_all(service("app", &[stays.address]));
    crate::harness::eventually("a session with the endpoint that is left", || async {
        let answer = trigate.external.ask(Ask::get(HOST, "/").header("cookie", &token)).await;
        (answer.seen().upstream == "stays" && cookie(&answer).is_some_and(|new| new != token)).then_some(())
    })
    .await;
}
