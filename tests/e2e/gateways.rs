//! A gateway serves the routes attached to it, and no trick of a client reaches another gateway's.

use crate::harness::client::{Ask, Client};
use crate::harness::manifest::{route, service};
use crate::harness::raw::Raw;
use crate::harness::trigate::Trigate;
use crate::harness::upstream::Upstream;

const PUBLIC: &str = "app.example.test";
const SECRET: &str = "secret.example.test";

/// `app` is on all three gateways, `secret` on the internal one alone.
async fn three_gateways() -> (Trigate, Upstream, Upstream) {
    let (app, secret) = (Upstream::echo("app").await, Upstream::echo("secret").await);
    let mut objects = service("app", &[app.address]);
    objects.extend(service("secret", &[secret.address]));
    objects.push(route("app").on("external").on("internal").on("tailscale").host(PUBLIC).to("app").object());
    objects.push(route("secret").on("internal").host(SECRET).to("secret").object());
    (Trigate::serving(objects).await, app, secret)
}

#[tokio::test]
async fn a_route_of_three_gateways_is_served_alike_on_each() {
    let (trigate, _app, _secret) = three_gateways().await;
    for gateway in [trigate.external, trigate.internal, trigate.tailscale] {
        let clear = gateway.get(PUBLIC, "/a/b?c=d").await.seen();
        assert_eq!((clear.upstream.as_str(), clear.target.as_str()), ("app", "/a/b?c=d"));
        let mut client = Client::https2(&trigate, gateway, PUBLIC).await;
        assert_eq!(client.send(Ask::get(PUBLIC, "/x")).await.seen().upstream, "app");
    }
}

#[tokio::test]
async fn a_route_of_one_gateway_is_served_there_alone() {
    let (trigate, _app, secret) = three_gateways().await;
    assert_eq!(trigate.internal.get(SECRET, "/").await.seen().upstream, "secret");
    let before = secret.accepted();
    for gateway in [trigate.external, trigate.tailscale] {
        assert_eq!(gateway.get(SECRET, "/").await.status, 404);
    }
    assert_eq!(secret.accepted(), before, "nothing reached it from outside");
}

#[tokio::test]
async fn no_spelling_of_the_host_reaches_an_internal_route_from_outside() {
    let (trigate, _app, secret) = three_gateways().await;
    for request in [
        format!("GET / HTTP/1.1\r\nHost: {SECRET}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", SECRET.to_uppercase()),
        format!("GET / HTTP/1.1\r\nHost: {SECRET}.\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {SECRET}:80\r\n\r\n"),
        format!("GET http://{SECRET}/ HTTP/1.1\r\nHost: {PUBLIC}\r\n\r\n"),
        format!("GET http://{SECRET}/ HTTP/1.1\r\nHost: {SECRET}\r\n\r\n"),
        format!("GET http://{PUBLIC}@{SECRET}/ HTTP/1.1\r\nHost: {PUBLIC}\r\n\r\n"),
        format!("GET //{SECRET}/ HTTP/1.1\r\nHost: {PUBLIC}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {PUBLIC}\r\nHost: {SECRET}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {PUBLIC}\r\nX-Forwarded-Host: {SECRET}\r\n\r\n"),
        format!("GET / HTTP/1.0\r\nHost: {SECRET}\r\n\r\n"),
    ] {
        let mut connection = Raw::connect(trigate.external.http).await;
        connection.send(&request).await;
        let answer = connection.response().await.expect("an answer");
        let served_as_public = answer.status() == 200 && answer.text().contains(r#""upstream":"app""#);
        assert!(served_as_public || matches!(answer.status(), 400 | 404), "{request:?}: {answer:?}");
    }
    assert_eq!(secret.accepted(), 0, "nothing reached it from outside");
}

#[tokio::test]
async fn an_absolute_form_target_names_the_host_and_one_that_contradicts_host_is_not_split() {
    let (trigate, _app, _secret) = three_gateways().await;
    for (host, statuses) in [(SECRET, &[200][..]), (PUBLIC, &[200, 400])] {
        let mut connection = Raw::connect(trigate.internal.http).await;
        connection.send(format!("GET http://{SECRET}/x HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let answer = connection.response().await.expect("an answer");
        assert!(statuses.contains(&answer.status()), "{host}: {answer:?}");
        if answer.status() == 200 {
            assert!(answer.text().contains(r#""upstream":"secret""#), "{answer:?}");
            assert!(answer.text().contains(r#"["host","secret.example.test"]"#), "{answer:?}");
            assert!(answer.text().contains(r#""target":"/x""#), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_opened_for_one_host_does_not_carry_requests_to_an_internal_one() {
    let (trigate, _app, secret) = three_gateways().await;
    for server_name in [PUBLIC, SECRET] {
        let mut http2 = Client::https2(&trigate, trigate.external, server_name).await;
        let mut http1 = Client::https1(&trigate, trigate.external, server_name).await;
        for client in [&mut http2, &mut http1] {
            assert_eq!(client.send(Ask::get(PUBLIC, "/")).await.status, 200, "{server_name}");
            assert_eq!(client.send(Ask::get(SECRET, "/")).await.status, 404, "{server_name}");
            assert_eq!(client.send(Ask::get(PUBLIC, "/")).await.status, 200, "{server_name}");
        }
    }
    assert_eq!(secret.accepted(), 0, "nothing reached it from outside");
}

#[tokio::test]
async fn a_gateway_that_a_route_leaves_answers_404_and_the_others_go_on() {
    let (trigate, _app, _secret) = three_gateways().await;
    trigate.apply(route("app").on("internal").on("tailscale").host(PUBLIC).to("app"));
    trigate.until_status(trigate.external.http, PUBLIC, "/", 404).await;
    assert_eq!(trigate.internal.get(PUBLIC, "/").await.status, 200);
    assert_eq!(trigate.tailscale.get(PUBLIC, "/").await.status, 200);
}
