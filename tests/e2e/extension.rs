//! Envoy Gateway's HTTPRouteFilter, referred to by `extensionRef`.

use crate::HOST;
use crate::harness::client::Ask;
use crate::harness::manifest::{Route, path_prefix, route, service};
use crate::harness::trigate::Trigate;
use crate::harness::upstream::Upstream;
use serde_json::{Value, json};

fn extension(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "HTTPRouteFilter",
        "metadata": { "name": name, "namespace": "apps" }, "spec": spec,
    })
}

fn refers_to(name: &str) -> Value {
    let group = "gateway.envoyproxy.io";
    let reference = json!({ "group": group, "kind": "HTTPRouteFilter", "name": name });
    json!([{ "type": "ExtensionRef", "extensionRef": reference }])
}

/// A rule for `/name` with the extension `name`, in front of `app`.
fn extended(name: &str) -> Value {
    json!({
        "matches": [path_prefix(&format!("/{name}"))],
        "filters": refers_to(name),
        "backendRefs": [{ "name": "app", "port": 80 }],
    })
}

async fn serving(route: Route, objects: impl IntoIterator<Item = Value>) -> (Trigate, Upstream) {
    let upstream = Upstream::echo("app").await;
    let mut all = service("app", &[upstream.address]);
    all.extend(objects);
    all.push(route.object());
    (Trigate::serving(all).await, upstream)
}

#[tokio::test]
async fn a_direct_response_is_what_the_filter_says_and_needs_no_backend() {
    let page = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "pages", "namespace": "apps" },
        "data": { "response.body": "<h1>closed</h1>" },
    });
    let inline = json!({ "statusCode": 404, "body": { "type": "Inline", "inline": "Not Found" } });
    let of_map = json!({
        "statusCode": 503, "contentType": "text/html",
        "body": { "type": "ValueRef", "valueRef": { "group": "", "kind": "ConfigMap", "name": "pages" } },
        "header": { "set": [{ "name": "retry-after", "value": "60" }] },
    });
    let mut without_backend = extended("inline");
    without_backend.as_object_mut().expect("a rule").remove("backendRefs");
    let at_backend = json!({
        "matches": [path_prefix("/backend")],
        "backendRefs": [{ "name": "app", "port": 80, "filters": refers_to("inline") }],
    });
    let (trigate, upstream) = serving(
        route("app")
            .on("external")
            .host(HOST)
            .rule(without_backend)
            .rule(extended("closed"))
            .rule(at_backend),
        [
            page.clone(),
            extension("inline", json!({ "directResponse": inline })),
            extension("closed", json!({ "directResponse": of_map })),
        ],
    )
    .await;
    for (target, status, kind, body, retry) in [
        ("/inline", 404, "text/plain", "Not Found", None),
        ("/closed", 503, "text/html", "<h1>closed</h1>", Some("60")),
        ("/backend", 404, "text/plain", "Not Found", None),
    ] {
        let answer = trigate.external.get(HOST, target).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{target}");
        assert_eq!(answer.header("content-type"), Some(kind), "{target}");
        assert_eq!(answer.header("retry-after"), retry, "{target}");
    }
    assert_eq!(upstream.accepted(), 0);
    // A page that changes is served without a change of the route.
    let mut changed = page;
    changed["data"]["response.body"] = "<h1>open</h1>".into();
    trigate.apply(changed);
    crate::harness::eventually("the new page", || async {
        (trigate.external.get(HOST, "/closed").await.text() == "<h1>open</h1>").then_some(())
    })
    .await;
}

#[tokio::test]
async fn paths_and_hosts_are_rewritten_by_regular_expression_and_from_headers() {
    let path = json!({
        "type": "ReplaceRegexMatch",
        "replaceRegexMatch": { "pattern": "^/path/([^/]+)(/.*)$", "substitution": r"\2/instance/\1" },
    });
    let of_path = json!({
        "type": "PathRegex",
        "pathRegex": { "pattern": "^/tenant/([a-z0-9-]+)/.*", "substitution": r"\1.example.internal" },
    });
    let (trigate, _upstream) = serving(
        route("app")
            .on("external")
            .host(HOST)
            .rule(extended("path"))
            .rule(extended("header"))
            .rule(extended("tenant")),
        [
            extension("path", json!({ "urlRewrite": { "path": path } })),
            extension(
                "header",
                json!({ "urlRewrite": { "hostname": { "type": "Header", "header": "x-tenant" } } }),
            ),
            extension("tenant", json!({ "urlRewrite": { "hostname": of_path } })),
        ],
    )
    .await;
    for (target, tenant, want, host) in [
        ("/path/foo/v1/api?q=/path/a/b", "", "/v1/api/instance/foo?q=/path/a/b", HOST),
        ("/path/foo", "", "/path/foo", HOST),
        ("/header/a", "t1.test", "/header/a", "t1.test"),
        ("/header/a", "", "/header/a", HOST),
        ("/tenant/t1/api", "", "/tenant/t1/api", "t1.example.internal"),
        ("/tenant", "", "/tenant", HOST),
    ] {
        let ask = Ask::get(HOST, target);
        let ask = if tenant.is_empty() { ask } else { ask.header("x-tenant", tenant) };
        let seen = trigate.external.ask(ask).await.seen();
        assert_eq!((seen.target.as_str(), seen.header("host")), (want, Some(host)), "{target}");
        assert_eq!(seen.header("x-forwarded-host"), Some(HOST), "{target}");
    }
    let ask = Ask::get(HOST, "/header").header("x-tenant", "no host/");
    assert_eq!(trigate.external.ask(ask).await.status, 400, "a client must not make up what is no host");
}

#[tokio::test]
async fn a_backend_with_a_name_may_be_asked_for_by_it() {
    let upstream = Upstream::echo("named").await;
    let endpoint = json!({ "hostname": "inner.test", "ip": { "address": "127.0.0.1", "port": upstream.address.port() } });
    let backend = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
        "metadata": { "name": "named", "namespace": "apps" }, "spec": { "endpoints": [endpoint] },
    });
    let rule = json!({
        "filters": refers_to("own-name"),
        "backendRefs": [{ "group": "gateway.envoyproxy.io", "kind": "Backend", "name": "named" }],
    });
    let rewrite = json!({ "urlRewrite": { "hostname": { "type": "Backend" } } });
    let route = route("named").on("external").host(HOST).rule(rule).object();
    let trigate = Trigate::serving([backend, extension("own-name", rewrite), route]).await;
    assert_eq!(trigate.external.get(HOST, "/").await.seen().header("host"), Some("inner.test"));
}

#[tokio::test]
async fn a_credential_is_added_and_a_clients_own_is_replaced_only_when_asked() {
    let token = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "token", "namespace": "apps" },
        "stringData": { "credential": "Bearer secret" },
    });
    let injecting = |overwrite: bool| json!({ "credentialInjection": { "overwrite": overwrite, "credential": { "valueRef": { "name": "token" } } } });
    let (trigate, _upstream) = serving(
        route("app").on("external").host(HOST).rule(extended("kept")).rule(extended("replaced")),
        [token, extension("kept", injecting(false)), extension("replaced", injecting(true))],
    )
    .await;
    for (target, sent, want) in [
        ("/kept", None, "Bearer secret"),
        ("/kept", Some("Basic own"), "Basic own"),
        ("/replaced", Some("Basic own"), "Bearer secret"),
    ] {
        let mut ask = Ask::get(HOST, target);
        if let Some(own) = sent {
            ask = ask.header("authorization", own);
        }
        let seen = trigate.external.ask(ask).await.seen();
        assert_eq!(seen.header("authorization"), Some(want), "{target} {sent:?}");
    }
    assert!(!trigate.log().contains("Bearer secret"), "secrets are not logged");
}

#[tokio::test]
async fn an_extension_that_is_missing_answers_500_until_it_is_there() {
    let (trigate, upstream) =
        serving(route("app").on("external").host(HOST).rule(extended("late")).prefix_to("/other", "app"), [])
            .await;
    assert_eq!(trigate.external.get(HOST, "/late").await.status, 500);
    assert_eq!(upstream.accepted(), 0, "a filter that cannot be applied is never skipped");
    assert_eq!(trigate.external.get(HOST, "/other").await.status, 200);
    trigate.apply(extension("late", json!({ "directResponse": { "statusCode": 403 } })));
    trigate.until_status(trigate.external.http, HOST, "/late", 403).await;
}

#[tokio::test]
async fn cookies_that_a_filter_asks_for_choose_among_rules() {
    let (stable, canary) = (Upstream::echo("stable").await, Upstream::echo("canary").await);
    let mut objects = service("stable", &[stable.address]);
    objects.extend(service("canary", &[canary.address]));
    let asked = json!({ "matches": [
        { "cookies": [{ "name": "canary", "value": "always" }] },
        { "cookies": [{ "name": "user", "type": "RegularExpression", "value": "[a-m].*" }, { "name": "beta", "value": "1" }] },
    ] });
    objects.push(extension("asked", asked));
    let canary = json!({ "filters": refers_to("asked"), "backendRefs": [{ "name": "canary", "port": 80 }] });
    objects.push(route("app").on("external").host(HOST).to("stable").rule(canary).object());
    let trigate = Trigate::serving(objects).await;
    for (cookies, want) in [
        (&[][..], "stable"),
        (&["canary=always"], "canary"),
        (&["a=1; canary=always; b=2"], "canary"),
        (&["canary=never; canary=always"], "stable"),
        (&["user=anna", "beta=1"], "canary"),
        (&["user=anna"], "stable"),
        (&["user=zoe; beta=1"], "stable"),
    ] {
        let ask = cookies.iter().fold(Ask::get(HOST, "/"), |ask, line| ask.header("cookie", line));
        assert_eq!(trigate.external.ask(ask).await.seen().upstream, want, "{cookies:?}");
    }
}

#[tokio::test]
async fn operators_in_a_body_are_filled_in_for_each_request() {
    let answer = |body: &str| json!({ "directResponse": { "statusCode": 404, "body": { "inline": body } } });
    let (trigate, _upstream) = serving(
        route("app").on("external").host(HOST).rule(extended("told")).rule(extended("unknown")),
        [
            extension("told", answer("%REQ(:METHOD)% %REQ(:PATH)% of %REQ(:AUTHORITY)%: %RESPONSE_CODE%, %REQ(x-id?x-other):3%")),
            extension("unknown", answer("100% of %UPSTREAM_HOST%")),
        ],
    )
    .await;
    let text = trigate.external.ask(Ask::get(HOST, "/told/a?b").header("x-other", "abcdef")).await.text();
    assert_eq!(text, format!("GET /told/a?b of {HOST}: 404, abc"));
    assert_eq!(trigate.external.get(HOST, "/told").await.text(), format!("GET /told of {HOST}: 404, -"));
    assert_eq!(trigate.external.get(HOST, "/unknown").await.text(), "100% of %UPSTREAM_HOST%");
    assert!(trigate.log().contains("%UPSTREAM_HOST%"), "what is not filled in is told");
}

#[tokio::test]
async fn the_host_that_was_asked_for_is_not_told_when_the_filter_says_so() {
    let hiding = |append: bool| json!({ "urlRewrite": { "hostname": { "type": "Header", "header": "x-to" }, "appendXForwardedHost": append } });
    let (trigate, _upstream) = serving(
        route("app").on("external").host(HOST).rule(extended("told")).rule(extended("hidden")),
        [extension("told", hiding(true)), extension("hidden", hiding(false))],
    )
    .await;
    for (target, want) in [("/told", Some(HOST)), ("/hidden", None)] {
        let seen = trigate.external.ask(Ask::get(HOST, target).header("x-to", "inner.test")).await.seen();
        assert_eq!(
            (seen.header("host"), seen.header("x-forwarded-host")),
            (Some("inner.test"), want),
            "{target}"
        );
    }
}
