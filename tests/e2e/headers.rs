//! Headers on their way: who is believed about the client, what ends at this hop, what is left alone.

use crate::HOST;
use crate::harness::client::{Ask, Client};
use crate::harness::manifest::{route, service};
use crate::harness::raw::Raw;
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::{Seen, Upstream, response};

/// The test's own address is trusted on `internal` and a stranger on `external`.
async fn gateways() -> (Trigate, Upstream) {
    let upstream = Upstream::echo("app").await;
    let trigate = Builder::new()
        .set("gateways.internal.trusted_proxies", vec!["127.0.0.0/8".to_owned(), "10.0.0.0/8".to_owned()])
        .set("gateways.tailscale.trusted_hops", 2)
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").on("internal").on("tailscale").host(HOST).to("app"))
        .start()
        .await;
    (trigate, upstream)
}

fn claiming(forwarded_for: &str) -> Ask {
    Ask::get(HOST, "/")
        .header("x-forwarded-for", forwarded_for)
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "claimed.test")
        .header("x-request-id", "claimed-id")
        .header("x-real-ip", "6.6.6.6")
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

#[tokio::test]
async fn a_stranger_is_not_believed_about_himself() {
    let (trigate, _upstream) = gateways().await;
    let seen = trigate.external.ask(claiming("6.6.6.6, 203.0.113.7")).await.seen();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some(HOST));
    assert_eq!(seen.header("x-real-ip"), None);
    assert!(seen.header("x-request-id").is_some_and(is_uuid), "{seen:?}");
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_about_its_client() {
    let (trigate, _upstream) = gateways().await;
    let seen = trigate.internal.ask(claiming("203.0.113.7, 10.1.1.1")).await.seen();
    assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.7, 10.1.1.1, 127.0.0.1"]);
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("claimed.test"));
    assert_eq!(seen.header("x-request-id"), Some("claimed-id"));
}

#[tokio::test]
async fn counted_hops_keep_what_the_proxies_in_front_have_written() {
    let (trigate, _upstream) = gateways().await;
    let seen = trigate.tailscale.ask(claiming("203.0.113.7, 10.1.1.1")).await.seen();
    assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.7, 10.1.1.1, 127.0.0.1"]);
    assert_eq!(seen.header("x-request-id"), Some("claimed-id"));
}

#[tokio::test]
async fn what_nobody_said_is_made() {
    let (trigate, _upstream) = gateways().await;
    for gateway in [trigate.external, trigate.internal, trigate.tailscale] {
        let clear = gateway.get(HOST, "/").await.seen();
        let over_tls = Client::https2(&trigate, gateway, HOST).await.send(Ask::get(HOST, "/")).await.seen();
        for (seen, scheme) in [(&clear, "http"), (&over_tls, "https")] {
            assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
            assert_eq!(seen.header("x-forwarded-proto"), Some(scheme));
            assert_eq!(seen.header("x-forwarded-host"), Some(HOST));
            assert!(seen.header("x-request-id").is_some_and(is_uuid), "{seen:?}");
        }
        assert_ne!(clear.header("x-request-id"), over_tls.header("x-request-id"));
    }
}

async fn seen_of(trigate: &Trigate, fields: &str) -> Seen {
    let mut connection = Raw::connect(trigate.external.http).await;
    connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).await;
    let answer = connection.response().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_slice(&answer.body).expect("the echo's JSON")
}

#[tokio::test]
async fn what_ends_at_this_hop_does_not_go_on() {
    let (trigate, _upstream) = gateways().await;
    let seen = seen_of(
        &trigate,
        "Connection: keep-alive, X-Secret, X-Forwarded-For\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: gzip, trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n\
         X-Kept: 1\r\n",
    )
    .await;
    for gone in ["connection", "x-secret", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        assert_eq!(seen.all(gone), <[&str; 0]>::default(), "{gone}");
    }
    assert_eq!((seen.header("te"), seen.header("x-kept")), (Some("trailers"), Some("1")));
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"], "a client cannot nominate what the gateway adds");
}

#[tokio::test]
async fn connection_cannot_take_away_what_the_message_is() {
    let (trigate, _upstream) = gateways().await;
    let seen =
        seen_of(&trigate, "Connection: Host, Cookie, Authorization\r\nCookie: a=1\r\nAuthorization: b\r\n")
            .await;
    assert_eq!((seen.header("host"), seen.header("cookie")), (Some(HOST), Some("a=1")));
}

#[tokio::test]
async fn envoys_own_fields_are_not_taken_from_outside() {
    let (trigate, _upstream) = gateways().await;
    for gateway in [trigate.external, trigate.internal] {
        let ask = Ask::get(HOST, "/")
            .header("x-envoy-original-path", "/admin")
            .header("X-Envoy-Upstream-Rq-Timeout-Ms", "1")
            .header("x-envoy-external-address", "6.6.6.6")
            .header("x-environment", "kept");
        let seen = gateway.ask(ask).await.seen();
        let from_envoy: Vec<_> =
            seen.headers.iter().filter(|(name, _)| name.starts_with("x-envoy-")).collect();
        assert!(from_envoy.is_empty(), "{from_envoy:?}");
        assert_eq!(seen.header("x-environment"), Some("kept"));
    }
}

#[tokio::test]
async fn the_upstreams_answer_keeps_its_headers_but_for_those_of_its_hop() {
    let upstream = Upstream::recording(|_| {
        b"HTTP/1.1 200 OK\r\nServer: their/1.0\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nSet-Cookie: a=1\r\n\
          Set-Cookie: b=2\r\nConnection: X-Internal\r\nX-Internal: 1\r\nKeep-Alive: timeout=5\r\n\
          Content-Length: 2\r\n\r\nok"
            .to_vec()
    })
    .await;
    let trigate = crate::in_front_of(&upstream).await;
    let http1 = Client::http1(trigate.external.http).await;
    let http2 = Client::http2(trigate.external.http).await;
    for mut client in [http1, http2] {
        let answer = client.send(Ask::get(HOST, "/")).await;
        assert_eq!(answer.header("server"), Some("their/1.0"));
        assert_eq!(answer.header("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        for gone in ["x-internal", "keep-alive"] {
            assert_eq!(answer.header(gone), None, "{gone}");
        }
    }
}

#[tokio::test]
async fn an_upstream_without_server_and_date_gets_no_server() {
    let upstream = Upstream::recording(|_| response(200, "ok")).await;
    let trigate = crate::in_front_of(&upstream).await;
    assert_eq!(trigate.external.get(HOST, "/").await.header("server"), None);
}

#[tokio::test]
async fn the_upstream_sees_the_host_as_the_client_wrote_it() {
    let (trigate, _upstream) = gateways().await;
    for host in ["APP.example.test", "app.example.test:8080"] {
        assert_eq!(trigate.external.get(host, "/").await.seen().header("host"), Some(host));
    }
}
