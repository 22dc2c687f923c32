//! Rules of the Gateway API that take a running gateway to see, and that no other file is about.

use crate::HOST;
use crate::harness::client::{Answer, Ask};
use crate::harness::eventually;
use crate::harness::manifest::{gateway, http_listener, path_prefix, route, service};
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::{Upstream, data, streamed};
use futures::SinkExt;
use http::Response;
use serde_json::{Value, json};
use std::time::Duration;

/// A rule for one exact path that answers by redirecting to this host, so that answers tell rules apart.
fn told(kind: &str, path: &str, host: &str) -> Value {
    json!({
        "matches": [{ "path": { "type": kind, "value": path } }],
        "filters": [{ "type": "RequestRedirect", "requestRedirect": { "hostname": host } }],
    })
}

/// The host that a redirect leads to.
fn of(answer: &Answer) -> &str {
    let location = answer.header("location").unwrap_or("http://nobody/");
    location.trim_start_matches("http://").split('/').next().unwrap_or_default()
}

#[tokio::test]
async fn the_host_name_of_a_route_goes_before_its_paths_on_every_listener() {
    let mut narrow = http_listener("narrow", 80);
    narrow["hostname"] = HOST.into();
    for listener in [narrow, http_listener("wide", 80)] {
        let trigate = Builder::new()
            .without_gateways()
            .with(gateway("external", std::slice::from_ref(&listener)))
            .with(
                route("a-wildcard")
                    .on("external")
                    .host("*.example.test")
                    .rule(told("Exact", "/a", "wildcard")),
            )
            .with(route("b-exact").on("external").host(HOST).rule(told("PathPrefix", "/", "exact")))
            .with(route("c-nameless").on("external").rule(told("Exact", "/a", "nameless")))
            .start()
            .await;
        let answer = trigate.external.get(HOST, "/a").await;
        assert_eq!(of(&answer), "exact", "{listener}: {answer:?}");
    }
}

#[tokio::test]
async fn paths_are_compared_by_segments_and_hosts_without_port_and_case() {
    let trigate = Trigate::serving([route("app")
        .on("external")
        .host(HOST)
        .rule(told("PathPrefix", "/v2/", "prefix"))
        .rule(told("Exact", "/exact", "exact"))
        .object()])
    .await;
    let port = format!("{HOST}:8080");
    for (host, target, want) in [
        (HOST, "/v2", "prefix"),
        (HOST, "/v2/", "prefix"),
        (HOST, "/v2/a?b", "prefix"),
        (HOST, "/v2example", "nobody"),
        (HOST, "/V2", "nobody"),
        (HOST, "/exact", "exact"),
        (HOST, "/exact?q", "exact"),
        (HOST, "/exact/", "nobody"),
        (HOST, "/Exact", "nobody"),
        (&port, "/exact", "exact"),
        ("APP.Example.test", "/exact", "exact"),
        ("app.example.test.", "/exact", "exact"),
    ] {
        let answer = trigate.external.get(host, target).await;
        assert_eq!(of(&answer), want, "{host}{target}");
        assert_eq!(answer.status, if want == "nobody" { 404 } else { 302 }, "{host}{target}");
    }
}

#[tokio::test]
async fn a_grant_that_is_withdrawn_counts_no_more_at_once() {
    let upstream = Upstream::echo("app").await;
    let mut objects = service("app", &[upstream.address]);
    for object in &mut objects {
        object["metadata"]["namespace"] = "elsewhere".into();
    }
    let backend = json!([{ "name": "app", "namespace": "elsewhere", "port": 80 }]);
    objects.push(route("app").on("external").host(HOST).rule(json!({ "backendRefs": backend })).object());
    let grant = |to: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ReferenceGrant",
            "metadata": { "name": "grant", "namespace": "elsewhere" },
            "spec": {
                "from": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "apps" }],
                "to": [to],
            },
        })
    };
    let trigate = Trigate::serving(objects).await;
    assert_eq!(trigate.external.get(HOST, "/").await.status, 500, "there is no grant yet");
    for (to, status) in [
        (json!({ "group": "", "kind": "Service" }), 200),
        (json!({ "group": "", "kind": "Service", "name": "other" }), 500),
        (json!({ "group": "", "kind": "Service", "name": "app" }), 200),
    ] {
        trigate.apply(grant(to));
        trigate.until_status(trigate.external.http, HOST, "/", status).await;
    }
    trigate.delete("ReferenceGrant", "elsewhere", "grant");
    trigate.until_status(trigate.external.http, HOST, "/", 500).await;
}

#[tokio::test]
async fn a_namespace_whose_labels_change_has_its_routes_let_in_or_out() {
    let mut listener = http_listener("http", 80);
    let selector = json!({ "from": "Selector", "selector": { "matchLabels": { "team": "media" } } });
    listener["allowedRoutes"] = json!({ "namespaces": selector });
    let namespace = |labels: Value| {
        let metadata = json!({ "name": "apps", "labels": labels });
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
    };
    let route = route("app").on("external").host(HOST).rule(told("PathPrefix", "/", "media"));
    let trigate =
        Builder::new().without_gateways().with(gateway("external", &[listener])).with(route).start().await;
    assert_eq!(trigate.external.get(HOST, "/").await.status, 404);
    for (labels, status) in [(json!({ "team": "media" }), 302), (json!({ "team": "home" }), 404)] {
        trigate.apply(namespace(labels));
        trigate.until_status(trigate.external.http, HOST, "/", status).await;
    }
}

#[tokio::test]
async fn a_listener_that_comes_or_goes_takes_nothing_from_the_others() {
    let objects = |second: Option<&str>| {
        let mut first = http_listener("first", 80);
        first["hostname"] = HOST.into();
        let second = second.map(|hostname| {
            let mut listener = http_listener("second", 80);
            listener["hostname"] = hostname.into();
            listener
        });
        gateway("external", &std::iter::once(first).chain(second).collect::<Vec<_>>())
    };
    let all = route("all").on("external").rule(told("PathPrefix", "/", "all"));
    let trigate = Builder::new().without_gateways().with(objects(None)).with(all).start().await;
    let mut client = crate::harness::client::Client::http1(trigate.external.http).await;
    for (second, status) in [(Some("later.test"), 302), (None, 404), (Some("later.test"), 302)] {
        trigate.apply(objects(second));
        trigate.until_status(trigate.external.http, "later.test", "/", status).await;
        assert_eq!(client.send(Ask::get(HOST, "/")).await.status, 302, "the same connection goes on");
    }
}

#[tokio::test]
async fn a_backend_of_several_names_and_addresses_uses_all_of_them() {
    let (one, two, three) =
        (Upstream::echo("one").await, Upstream::echo("two").await, Upstream::echo("three").await);
    let backend = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
        "metadata": { "name": "many", "namespace": "apps" },
        "spec": { "endpoints": [
            { "fqdn": { "hostname": "one.localhost", "port": one.address.port() } },
            { "ip": { "address": "127.0.0.1", "port": two.address.port() } },
            { "fqdn": { "hostname": "three.localhost", "port": three.address.port() } },
            { "fqdn": { "hostname": "there-is-no-such-name.invalid", "port": 80 } },
        ] },
    });
    let rule =
        json!({ "backendRefs": [{ "group": "gateway.envoyproxy.io", "kind": "Backend", "name": "many" }] });
    let trigate =
        Trigate::serving([backend, route("app").on("external").host(HOST).rule(rule).object()]).await;
    eventually("answers of all three", || async {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..30 {
            let answer = trigate.external.get(HOST, "/").await;
            if answer.status == 200 {
                seen.insert(answer.seen().upstream);
            }
        }
        (seen.len() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_silent_outlives_the_limit_of_the_gateway_where_its_rule_has_none() {
    let upstream = Upstream::serve(|_| async {
        let (mut events, body) = streamed();
        tokio::spawn(async move {
            // Nobody may be listening any more.
            let _ = events.send(data("data: first\n\n")).await;
            tokio::time::sleep(Duration::from_millis(1200)).await;
            let _ = events.send(data("data: last\n\n")).await;
        });
        Response::builder().header("content-type", "text/event-stream").body(body).expect("valid headers")
    })
    .await;
    let rule = json!({
        "matches": [path_prefix("/events")], "timeouts": { "request": "0s" },
        "backendRefs": [{ "name": "app", "port": 80 }],
    });
    let mut objects = service("app", &[upstream.address]);
    objects.push(route("app").on("external").host(HOST).rule(rule).object());
    let trigate = Builder::new().set("limits.request_timeout", "400ms").with_all(objects).start().await;
    let answer = trigate.external.get(HOST, "/events").await;
    assert_eq!(answer.text(), "data: first\n\ndata: last\n\n");
}
