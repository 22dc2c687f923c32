//! Filters that answer or ask beside the backend: CORS, mirrors, external authorizers.

use crate::HOST;
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::harness::manifest::{route, service, service_speaking};
use crate::harness::trigate::Trigate;
use crate::harness::upstream::{Body, Upstream, data, full, refusing, response, streamed};
use futures::SinkExt;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use prost::Message;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A gateway whose only rule has these filters, in front of an echo upstream.
async fn filtered(filters: Value, mut objects: Vec<Value>) -> (Trigate, Upstream) {
    let upstream = Upstream::echo("app").await;
    objects.extend(service("app", &[upstream.address]));
    let rule = json!({ "filters": filters, "backendRefs": [{ "name": "app", "port": 80 }] });
    objects.push(route("app").on("external").host(HOST).rule(rule).object());
    (Trigate::serving(objects).await, upstream)
}

#[tokio::test]
async fn a_preflight_is_answered_for_origins_that_are_allowed_and_never_reaches_the_backend() {
    let cors = json!({
        "allowOrigins": ["https://*.allowed.test", "https://one.test:8443"],
        "allowMethods": ["GET", "PUT"], "allowHeaders": ["x-a", "x-b"], "exposeHeaders": ["x-c"],
        "allowCredentials": true, "maxAge": 600,
    });
    let (trigate, upstream) = filtered(json!([{ "type": "CORS", "cors": cors }]), Vec::new()).await;
    for (origin, allowed) in [
        ("https://www.allowed.test", true),
        ("https://one.test:8443", true),
        ("https://one.test", false),
        ("https://allowed.test.evil.test", false),
        ("null", false),
    ] {
        let ask = Ask::new("OPTIONS", HOST, "/a")
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "x-a");
        let answer = trigate.external.ask(ask).await;
        let granted = allowed.then_some(origin);
        assert_eq!(answer.header("access-control-allow-origin"), granted, "{answer:?}");
        if allowed {
            assert_eq!(answer.status, 200, "{origin}");
            assert_eq!(answer.header("access-control-allow-methods"), Some("GET, PUT"));
            assert_eq!(answer.header("access-control-allow-headers"), Some("x-a, x-b"));
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
            assert_eq!(answer.header("access-control-max-age"), Some("600"));
        }
    }
    assert_eq!(upstream.accepted(), 0);
    let answer = trigate.external.ask(Ask::get(HOST, "/").header("origin", "https://one.test:8443")).await;
    assert_eq!(answer.seen().header("origin"), Some("https://one.test:8443"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://one.test:8443"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-c"));
    let answer = trigate.external.ask(Ask::get(HOST, "/").header("origin", "https://evil.test")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
}

fn mirror(name: &str) -> Value {
    json!({ "type": "RequestMirror", "requestMirror": { "backendRef": { "name": name, "port": 80 } } })
}

#[tokio::test]
async fn every_mirror_gets_the_request_with_its_body_and_nobody_hears_its_answer() {
    let one = Upstream::recording(|_| response(500, "from a mirror")).await;
    let two = Upstream::recording(|_| response(200, "from a mirror")).await;
    let mut objects = service("one", &[one.address]);
    objects.extend(service("two", &[two.address]));
    let (trigate, _upstream) = filtered(json!([mirror("one"), mirror("two")]), objects).await;
    let body = "0123456789".repeat(20_000);
    let seen = trigate.external.ask(Ask::post(HOST, "/a?b", body.clone()).header("x-a", "1")).await.seen();
    assert_eq!((seen.upstream.as_str(), seen.body.len()), ("app", body.len()));
    for (name, mirror) in [("one", &one), ("two", &two)] {
        eventually(&format!("the copy at mirror {name}"), || async {
            let record = mirror.records().concat();
            let text = String::from_utf8_lossy(&record);
            let whole = text.starts_with("POST /a?b HTTP/1.1\r\n")
                && text.contains("\r\nx-a: 1\r\n")
                && text.matches("0123456789").count() == 20_000;
            whole.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_mirror_that_is_dead_or_never_answers_delays_no_request() {
    let silent = Upstream::raw(|mut connection| async move {
        connection.request_head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut objects = service("dead", &[refusing().await]);
    objects.extend(service("silent", &[silent.address]));
    objects.extend(service("empty", &[]));
    let filters = json!([mirror("dead"), mirror("silent"), mirror("empty")]);
    let (trigate, _upstream) = filtered(filters, objects).await;
    let mut client = Client::http1(trigate.external.http).await;
    let start = Instant::now();
    for number in 0..20 {
        let answer = client.send(Ask::post(HOST, "/", format!("body {number}"))).await;
        assert_eq!(answer.seen().body, format!("body {number}"));
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// Lets pass who has the header `x-key: right`.
async fn http_authorizer() -> Upstream {
    Upstream::recording(|request| match request.header("x-key") {
        Some("right") => {
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-User: ada\r\nX-Other: not-asked-for\r\n\r\n".into()
        }
        _ => {
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 8\r\nWWW-Authenticate: Basic\r\n\r\nwho goes".into()
        }
    })
    .await
}

fn auth(protocol: &str, name: &str, settings: Value) -> Value {
    let mut auth = json!({ "protocol": protocol, "backendRef": { "name": name, "port": 80 } });
    auth.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
    json!([{ "type": "ExternalAuth", "externalAuth": auth }])
}

#[tokio::test]
async fn an_http_authorizer_decides_and_what_it_knows_reaches_the_backend() {
    let authorizer = http_authorizer().await;
    let settings = json!({
        "http": { "path": "/check", "allowedHeaders": ["x-key"], "allowedResponseHeaders": ["x-user"] },
        "forwardBody": { "maxSize": 1024 },
    });
    let (trigate, upstream) =
        filtered(auth("HTTP", "auth", settings), service("auth", &[authorizer.address])).await;
    let ask = |key: &str| {
        Ask::post(HOST, "/a?b", "the body")
            .header("x-key", key)
            .header("x-user", "forged")
            .header("x-more", "1")
    };
    let answer = trigate.external.ask(ask("wrong")).await;
    assert_eq!((answer.status, answer.text().as_str()), (401, "who goes"));
    assert_eq!(answer.header("www-authenticate"), Some("Basic"));
    assert_eq!(upstream.accepted(), 0);
    let seen = trigate.external.ask(ask("right")).await.seen();
    assert_eq!((seen.header("x-user"), seen.header("x-other")), (Some("ada"), None));
    assert_eq!(seen.body, "the body", "the backend gets what the authorizer has read already");
    let asked = String::from_utf8_lossy(&authorizer.records().concat()).into_owned();
    assert!(asked.starts_with("POST /check/a?b HTTP/1.1\r\n") && asked.contains("the body"), "{asked}");
    assert!(!asked.contains("x-more"), "only headers that are allowed are shown: {asked}");
    let large = Ask::post(HOST, "/", "x".repeat(2000)).header("x-key", "right");
    assert_eq!(trigate.external.ask(large).await.status, 413);
}

#[tokio::test]
async fn an_authorizer_that_cannot_be_asked_lets_nobody_pass() {
    for (objects, status) in
        [(service("auth", &[refusing().await]), 403), (service("auth", &[]), 403), (Vec::new(), 500)]
    {
        let (trigate, upstream) = filtered(auth("HTTP", "auth", json!({})), objects).await;
        assert_eq!(trigate.external.get(HOST, "/").await.status, status);
        assert_eq!(upstream.accepted(), 0);
    }
}

/// What of `ext_authz`'s question a test looks at; its fields have Envoy's numbers.
#[derive(Clone, PartialEq, Message)]
struct Check {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, optional, tag = "4")]
    request: Option<Asked>,
}

#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(message, optional, tag = "2")]
    http: Option<AskedHttp>,
}

#[derive(Clone, PartialEq, Message)]
struct AskedHttp {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
}

/// Lets pass who asks for `/open`, as the user `ada`; refuses all others with 418.
async fn grpc_authorizer() -> Upstream {
    Upstream::serve(|request: Request<Incoming>| async move {
        assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
        let body = request.into_body().collect().await.expect("a whole question").to_bytes();
        let check = Check::decode(&body[5..]).expect("a question");
        let http =
            check.attributes.and_then(|all| all.request).and_then(|asked| asked.http).expect("all is told");
        assert_eq!((http.method.as_str(), http.host.as_str()), ("GET", HOST));
        // Written by hand: status code 0 with a header to set, or code 7 with an HTTP status and a body.
        let verdict: &[u8] = match http.path.as_str() {
            "/open" => b"\x1a\x11\x12\x0f\x0a\x0d\x0a\x06x-user\x12\x03ada",
            _ => b"\x0a\x02\x08\x07\x12\x0b\x0a\x03\x08\xa2\x03\x1a\x04nope",
        };
        let mut message = vec![0, 0, 0, 0, verdict.len() as u8];
        message.extend_from_slice(verdict);
        let (mut sender, body): (_, Body) = streamed();
        tokio::spawn(async move {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a value"));
            // A gateway that is gone needs no verdict.
            let _ = sender.send(data(message)).await;
            let _ = sender.send(Ok(Frame::trailers(trailers))).await;
        });
        Response::builder()
            .header("content-type", "application/grpc")
            .body(body)
            .unwrap_or_else(|_| Response::new(full("")))
    })
    .await
}

#[tokio::test]
async fn a_grpc_authorizer_decides_too() {
    let authorizer = grpc_authorizer().await;
    let objects = service_speaking("auth", &[authorizer.address], Some("kubernetes.io/h2c"));
    let (trigate, upstream) = filtered(auth("GRPC", "auth", json!({})), objects).await;
    let answer = trigate.external.get(HOST, "/closed").await;
    assert_eq!((answer.status, answer.text().as_str()), (418, "nope"));
    assert_eq!(upstream.accepted(), 0);
    let seen = trigate.external.ask(Ask::get(HOST, "/open").header("x-user", "forged")).await.seen();
    assert_eq!(seen.header("x-user"), Some("ada"));
}
