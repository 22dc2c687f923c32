//! What rules do to requests and responses: redirects, rewrites, header edits, and what happens without a backend.

use crate::HOST;
use crate::harness::client::{Ask, Client};
use crate::harness::manifest::{Route, path_prefix, route, service};
use crate::harness::trigate::Trigate;
use crate::harness::upstream::Upstream;
use serde_json::{Value, json};

async fn serving(route: Route) -> (Trigate, Upstream) {
    let upstream = Upstream::echo("app").await;
    let mut objects = service("app", &[upstream.address]);
    objects.push(route.object());
    (Trigate::serving(objects).await, upstream)
}

fn filtered(prefix: &str, filter: Value) -> Value {
    let mut rule = json!({ "matches": [path_prefix(prefix)], "filters": [filter] });
    if rule["filters"][0]["type"] != "RequestRedirect" {
        rule["backendRefs"] = json!([{ "name": "app", "port": 80 }]);
    }
    rule
}

fn redirect(prefix: &str, redirect: Value) -> Value {
    filtered(prefix, json!({ "type": "RequestRedirect", "requestRedirect": redirect }))
}

fn rewrite(prefix: &str, rewrite: Value) -> Value {
    filtered(prefix, json!({ "type": "URLRewrite", "urlRewrite": rewrite }))
}

#[tokio::test]
async fn a_redirect_answers_with_the_location_the_gateway_api_prescribes() {
    let prefix = |value: &str| json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": value });
    let (trigate, upstream) = serving(
        route("app")
            .on("external")
            .host(HOST)
            .rule(redirect("/https", json!({ "scheme": "https", "statusCode": 301 })))
            .rule(redirect("/host", json!({ "hostname": "other.test" })))
            .rule(redirect("/port", json!({ "port": 8080, "statusCode": 302 })))
            .rule(redirect("/both", json!({ "scheme": "https", "port": 8443, "statusCode": 308 })))
            .rule(redirect(
                "/full",
                json!({ "path": { "type": "ReplaceFullPath", "replaceFullPath": "/new" } }),
            ))
            .rule(redirect("/old", json!({ "path": prefix("/young"), "statusCode": 307 })))
            .rule(redirect("/gone", json!({ "path": prefix("/"), "statusCode": 303 }))),
    )
    .await;
    for (target, status, location) in [
        ("/https/a?b=c", 301, "https://app.example.test/https/a?b=c"),
        ("/host", 302, "http://other.test/host"),
        ("/port", 302, "http://app.example.test:8080/port"),
        ("/both", 308, "https://app.example.test:8443/both"),
        ("/full/a?b", 302, "http://app.example.test/new?b"),
        ("/old/a/b?c", 307, "http://app.example.test/young/a/b?c"),
        ("/old", 307, "http://app.example.test/young"),
        ("/gone/a", 303, "http://app.example.test/a"),
        ("/gone", 303, "http://app.example.test/"),
    ] {
        let answer = trigate.external.get(HOST, target).await;
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{target}");
        assert!(answer.body.is_empty(), "{target}: {answer:?}");
    }
    let mut client = Client::https2(&trigate, trigate.external, HOST).await;
    let answer = client.send(Ask::get(HOST, "/host")).await;
    assert_eq!(answer.header("location"), Some("https://other.test/host"));
    assert_eq!(upstream.accepted(), 0);
}

#[tokio::test]
async fn a_rewrite_changes_what_the_upstream_sees_and_nothing_else() {
    let prefix =
        |value: &str| json!({ "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": value } });
    let (trigate, _upstream) = serving(
        route("app")
            .on("external")
            .host(HOST)
            .rule(rewrite("/strip", prefix("/")))
            .rule(rewrite("/old", prefix("/new/")))
            .rule(rewrite(
                "/full",
                json!({ "path": { "type": "ReplaceFullPath", "replaceFullPath": "/one" } }),
            ))
            .rule(rewrite("/host", json!({ "hostname": "inner.test" }))),
    )
    .await;
    for (target, want, host) in [
        ("/strip/a%20b?c=%2f", "/a%20b?c=%2f", HOST),
        ("/strip", "/", HOST),
        ("/strip/", "/", HOST),
        ("/old", "/new", HOST),
        ("/old/", "/new/", HOST),
        ("/old/a//b", "/new/a/b", HOST),
        ("/full/a?b", "/one?b", HOST),
        ("/host/a", "/host/a", "inner.test"),
    ] {
        let seen = trigate.external.get(HOST, target).await.seen();
        assert_eq!((seen.target.as_str(), seen.header("host")), (want, Some(host)), "{target}");
    }
}

#[tokio::test]
async fn header_modifiers_set_add_and_remove() {
    let edits = json!({
        "set": [{ "name": "X-Set", "value": "new" }],
        "add": [{ "name": "x-add", "value": "second" }],
        "remove": ["X-Remove", "server"],
    });
    let rule = json!({
        "filters": [
            { "type": "RequestHeaderModifier", "requestHeaderModifier": edits },
            { "type": "ResponseHeaderModifier", "responseHeaderModifier": edits },
        ],
        "backendRefs": [{ "name": "app", "port": 80 }],
    });
    let (trigate, _upstream) = serving(route("app").on("external").host(HOST).rule(rule)).await;
    let ask = || {
        Ask::get(HOST, "/")
            .header("x-set", "old")
            .header("x-set", "older")
            .header("x-add", "first")
            .header("x-remove", "a")
            .header("x-remove", "b")
            .header("x-keep", "")
    };
    let http1 = Client::http1(trigate.external.http).await;
    let http2 = Client::http2(trigate.external.http).await;
    for mut client in [http1, http2] {
        let answer = client.send(ask()).await;
        let seen = answer.seen();
        assert_eq!(seen.header("x-set"), Some("new"));
        assert_eq!(seen.all("x-add").join(","), "first,second");
        assert_eq!((seen.header("x-remove"), seen.header("x-keep")), (None, Some("")));
        assert_eq!((answer.header("x-set"), answer.header("x-add")), (Some("new"), Some("second")));
        assert_eq!(answer.header("server"), None, "the upstream's is removed and none takes its place");
    }
}

#[tokio::test]
async fn the_filters_of_a_backend_run_after_those_of_its_rule() {
    let set = |value: &str| json!([{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "x-from", "value": value }] } }]);
    let rule = json!({
        "filters": set("rule"),
        "backendRefs": [{ "name": "app", "port": 80, "filters": set("backend") }],
    });
    let (trigate, _upstream) = serving(route("app").on("external").host(HOST).rule(rule)).await;
    assert_eq!(trigate.external.get(HOST, "/").await.seen().header("x-from"), Some("backend"));
}

#[tokio::test]
async fn each_backend_of_a_rule_may_redirect_or_rewrite_on_its_own() {
    let prefix = |value: &str| json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": value });
    let rewrite = json!({ "hostname": "inner.test", "path": prefix("/new") });
    let rule = |path: &str, filter: Value| {
        json!({
            "matches": [path_prefix(path)],
            "backendRefs": [{ "name": "app", "port": 80, "filters": [filter] }],
        })
    };
    let redirect = json!({ "hostname": "other.test", "path": prefix("/away"), "statusCode": 307 });
    let (trigate, _upstream) = serving(
        route("app")
            .on("external")
            .host(HOST)
            .rule(rule("/rewrite", json!({ "type": "URLRewrite", "urlRewrite": rewrite })))
            .rule(rule("/redirect", json!({ "type": "RequestRedirect", "requestRedirect": redirect }))),
    )
    .await;
    let seen = trigate.external.get(HOST, "/rewrite/a?b").await.seen();
    assert_eq!((seen.target.as_str(), seen.header("host")), ("/new/a?b", Some("inner.test")));
    let answer = trigate.external.get(HOST, "/redirect/a?b").await;
    assert_eq!((answer.status, answer.header("location")), (307, Some("http://other.test/away/a?b")));
}

#[tokio::test]
async fn requests_go_to_backends_by_weight() {
    let (heavy, light) = (Upstream::echo("heavy").await, Upstream::echo("light").await);
    let mut objects = service("heavy", &[heavy.address]);
    objects.extend(service("light", &[light.address]));
    let backends = json!([
        { "name": "heavy", "port": 80, "weight": 9 },
        { "name": "light", "port": 80, "weight": 1 },
        { "name": "absent", "port": 80, "weight": 0 },
    ]);
    objects.push(route("app").on("external").host(HOST).rule(json!({ "backendRefs": backends })).object());
    let trigate = Trigate::serving(objects).await;
    let mut client = Client::http1(trigate.external.http).await;
    let mut lights = 0;
    for _ in 0..1000 {
        lights += usize::from(client.send(Ask::get(HOST, "/")).await.seen().upstream == "light");
    }
    // One connection is one thread of the gateway, whose shares are even.
    assert!((90..=110).contains(&lights), "{lights} of 1000");
}
