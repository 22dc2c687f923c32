//! The rules that both gateways are given, each in its own language, and what both are asked.

use crate::harness::client::Ask;
use serde_json::{Value, json};

const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io";

/// A request: method, target and fields.
pub type Asking = (&'static str, &'static str, Vec<(&'static str, &'static str)>);

/// One rule for a path prefix.
pub struct Case {
    pub prefix: &'static str,
    /// Of an HTTPRoute, beside `matches` and `backendRefs`.
    rule: Value,
    /// `redirect`, or fields of a `route` action.
    envoy: Value,
    /// Fields of Envoy's route itself.
    around: Value,
    cluster: &'static str,
    /// `spec` of an HTTPRouteFilter that the rule refers to.
    extension: Option<Value>,
    pub asks: Vec<Asking>,
}

impl Case {
    fn new(prefix: &'static str, rule: Value, envoy: Value) -> Self {
        Self { prefix, rule, envoy, around: json!({}), cluster: "app", extension: None, asks: Vec::new() }
    }

    fn around(mut self, around: Value) -> Self {
        self.around = around;
        self
    }

    fn to(mut self, cluster: &'static str) -> Self {
        self.cluster = cluster;
        self
    }

    fn extended(mut self, spec: Value) -> Self {
        self.extension = Some(spec);
        self
    }

    fn get(mut self, targets: &[&'static str]) -> Self {
        self.asks.extend(targets.iter().map(|target| ("GET", *target, Vec::new())));
        self
    }

    fn ask(mut self, method: &'static str, fields: &[(&'static str, &'static str)]) -> Self {
        self.asks.push((method, self.prefix, fields.to_vec()));
        self
    }

    /// The rule of an HTTPRoute.
    pub fn rule(&self) -> Value {
        let mut rule = self.rule.clone();
        rule["matches"] = json!([{ "path": { "type": "PathPrefix", "value": self.prefix } }]);
        if self.extension.is_some() {
            let name = self.prefix.trim_start_matches('/');
            let reference = json!({ "group": ENVOY_GATEWAY, "kind": "HTTPRouteFilter", "name": name });
            rule["filters"] = json!([{ "type": "ExtensionRef", "extensionRef": reference }]);
        }
        if !self.answers() {
            rule["backendRefs"] = json!([{ "name": self.cluster, "port": 80 }]);
        }
        rule
    }

    /// The HTTPRouteFilter that the rule refers to.
    pub fn filter(&self) -> Option<Value> {
        let spec = self.extension.as_ref()?;
        let name = self.prefix.trim_start_matches('/');
        Some(json!({
            "apiVersion": format!("{ENVOY_GATEWAY}/v1alpha1"), "kind": "HTTPRouteFilter",
            "metadata": { "name": name, "namespace": "apps" }, "spec": spec,
        }))
    }

    /// Whether the rule answers without a backend.
    fn answers(&self) -> bool {
        ["redirect", "direct_response"].iter().any(|action| self.envoy.get(action).is_some())
    }

    /// A route of a virtual host.
    pub fn envoy_route(&self) -> Value {
        let mut route = self.around.clone();
        route["match"] = json!({ "path_separated_prefix": self.prefix });
        if self.answers() {
            let action = self.envoy.as_object().expect("an action").clone();
            route.as_object_mut().expect("a route").extend(action);
        } else {
            route["route"] = self.envoy.clone();
            route["route"]["cluster"] = self.cluster.into();
        }
        route
    }
}

/// What is sent for one ask.
pub fn request(host: &str, (method, target, fields): &Asking) -> Ask {
    fields.iter().fold(Ask::new(method, host, target), |ask, (name, value)| ask.header(name, value))
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut all = redirects();
    all.extend(rewrites());
    all.extend(header_edits());
    all.extend(extensions());
    all.push(cors());
    all.extend(failures());
    all
}

fn filter(kind: &str, field: &str, value: Value) -> Value {
    json!({ "filters": [{ "type": kind, field: value }] })
}

fn redirects() -> Vec<Case> {
    let case = |prefix: &'static str, ours: Value, envoy: Value| {
        let rule = filter("RequestRedirect", "requestRedirect", ours);
        Case::new(prefix, rule, json!({ "redirect": envoy }))
    };
    let prefix = |value: &str| json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": value });
    let full = json!({ "path": { "type": "ReplaceFullPath", "replaceFullPath": "/new" }, "statusCode": 303 });
    vec![
        case(
            "/to-https",
            json!({ "scheme": "https", "statusCode": 301 }),
            json!({ "https_redirect": true, "response_code": "MOVED_PERMANENTLY" }),
        )
        .get(&["/to-https", "/to-https/a?b=c", "/to-https/%C3%A4"]),
        case(
            "/to-host",
            json!({ "hostname": "other.test" }),
            json!({ "host_redirect": "other.test", "response_code": "FOUND" }),
        )
        .get(&["/to-host/a"]),
        case(
            "/to-port",
            json!({ "hostname": "other.test", "port": 8443, "scheme": "https", "statusCode": 308 }),
            json!({ "host_redirect": "other.test", "port_redirect": 8443, "scheme_redirect": "https", "response_code": "PERMANENT_REDIRECT" }),
        )
        .get(&["/to-port/a?b"]),
        case("/to-full", full, json!({ "path_redirect": "/new", "response_code": "SEE_OTHER" }))
            .get(&["/to-full", "/to-full/a", "/to-full?b"]),
        case(
            "/to-prefix",
            json!({ "path": prefix("/young"), "statusCode": 307 }),
            json!({ "prefix_rewrite": "/young", "response_code": "TEMPORARY_REDIRECT" }),
        )
        .get(&["/to-prefix", "/to-prefix/", "/to-prefix/a?b"]),
    ]
}

fn rewrites() -> Vec<Case> {
    let case = |prefix: &'static str, ours: Value, envoy: Value| {
        Case::new(prefix, filter("URLRewrite", "urlRewrite", ours), envoy)
    };
    let prefix =
        |value: &str| json!({ "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": value } });
    let whole = json!({ "pattern": { "regex": "^.*$" }, "substitution": "/one" });
    let strip = json!({ "pattern": { "regex": "^/strip/*" }, "substitution": "/" });
    vec![
        Case::new("/plain", json!({}), json!({})).get(&[
            "/plain",
            "/plain/a//b/../c?d=../e",
            "/plain/%41%2e%2E/x",
            "/plain/a%2Fb?c",
            "/plain/%C3%A4",
        ]),
        case("/old", prefix("/new"), json!({ "prefix_rewrite": "/new" }))
            .get(&["/old", "/old/", "/old/a?b", "/older"]),
        case("/strip", prefix("/"), json!({ "regex_rewrite": strip })).get(&[
            "/strip",
            "/strip/",
            "/strip/a%20b?c=%2f",
        ]),
        case(
            "/full",
            json!({ "path": { "type": "ReplaceFullPath", "replaceFullPath": "/one" } }),
            json!({ "regex_rewrite": whole }),
        )
        .get(&["/full", "/full/a?b"]),
        case(
            "/host",
            json!({ "hostname": "inner.test" }),
            json!({ "host_rewrite_literal": "inner.test", "append_x_forwarded_host": true }),
        )
        .get(&["/host/a"]),
    ]
}

fn header_edits() -> Vec<Case> {
    let edits = json!({
        "set": [{ "name": "x-set", "value": "new" }],
        "add": [{ "name": "x-add", "value": "second" }],
        "remove": ["x-remove"],
    });
    let envoy = |side: &str| {
        let change = |name: &str, value: &str, action: &str| json!({ "header": { "key": name, "value": value }, "append_action": action });
        json!({
            format!("{side}_headers_to_add"): [
                change("x-set", "new", "OVERWRITE_IF_EXISTS_OR_ADD"),
                change("x-add", "second", "APPEND_IF_EXISTS_OR_ADD"),
            ],
            format!("{side}_headers_to_remove"): ["x-remove"],
        })
    };
    let fields = [("x-set", "old"), ("x-add", "first"), ("x-remove", "a"), ("x-keep", "b")];
    vec![
        Case::new(
            "/request",
            filter("RequestHeaderModifier", "requestHeaderModifier", edits.clone()),
            json!({}),
        )
        .around(envoy("request"))
        .ask("GET", &fields),
        Case::new("/response", filter("ResponseHeaderModifier", "responseHeaderModifier", edits), json!({}))
            .around(envoy("response"))
            .ask("GET", &fields),
    ]
}

fn extensions() -> Vec<Case> {
    let regex =
        |pattern: &str, substitution: &str| json!({ "pattern": pattern, "substitution": substitution });
    let envoy = |pattern: &str, substitution: &str| json!({ "pattern": { "regex": pattern }, "substitution": substitution });
    let path = |edit: Value| json!({ "urlRewrite": { "path": { "type": "ReplaceRegexMatch", "replaceRegexMatch": edit } } });
    let host = |hostname: Value| json!({ "urlRewrite": { "hostname": hostname } });
    let case =
        |prefix: &'static str, envoy: Value, spec: Value| Case::new(prefix, json!({}), envoy).extended(spec);
    let (swap, into) = ("^/swap/([^/]+)(/.*)$", r"\2/instance/\1");
    let (tenant, name) = ("^/tenant/([a-z0-9-]+)/.*", r"\1.example.internal");
    let answer = json!({ "status": 404, "body": { "inline_string": "Not Found" } });
    vec![
        case("/swap", json!({ "regex_rewrite": envoy(swap, into) }), path(regex(swap, into)))
            .get(&["/swap/foo/v1/api", "/swap/foo/v1?a=/swap/b/c", "/swap/foo"]),
        case("/each", json!({ "regex_rewrite": envoy("one", "two") }), path(regex("one", "two")))
            .get(&["/each/one/y/one/z", "/each"]),
        case("/fold", json!({ "regex_rewrite": envoy("(?i)/xxx/", "/yyy/") }), path(regex("(?i)/xxx/", "/yyy/")))
            .get(&["/fold/XxX/b", "/fold/xxx"]),
        case(
            "/header",
            json!({ "host_rewrite_header": "x-tenant" }),
            host(json!({ "type": "Header", "header": "x-tenant" })),
        )
        .ask("GET", &[("x-tenant", "t1.test")])
        .ask("GET", &[]),
        case(
            "/tenant",
            json!({ "host_rewrite_path_regex": envoy(tenant, name) }),
            host(json!({ "type": "PathRegex", "pathRegex": regex(tenant, name) })),
        )
        // A path that does not match would be Envoy's host, `/tenant`; trigate keeps the one there is.
        .get(&["/tenant/t1/api?b"]),
        case(
            "/direct",
            json!({ "direct_response": answer }),
            json!({ "directResponse": { "statusCode": 404, "body": { "type": "Inline", "inline": "Not Found" } } }),
        )
        .get(&["/direct/a"])
        .ask("HEAD", &[])
        .ask("POST", &[("content-type", "application/grpc")]),
    ]
}

fn cors() -> Case {
    let ours = json!({
        "allowOrigins": ["https://one.test"], "allowMethods": ["GET", "PUT"], "allowHeaders": ["x-a", "x-b"],
        "exposeHeaders": ["x-c"], "allowCredentials": true, "maxAge": 600,
    });
    let envoy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{ "exact": "https://one.test" }],
        "allow_methods": "GET, PUT", "allow_headers": "x-a, x-b", "expose_headers": "x-c",
        "allow_credentials": true, "max_age": "600",
        "forward_not_matching_preflights": false,
    });
    let preflight = [("origin", "https://one.test"), ("access-control-request-method", "PUT")];
    Case::new("/cors", filter("CORS", "cors", ours), json!({}))
        .around(json!({ "typed_per_filter_config": { "envoy.filters.http.cors": envoy } }))
        .ask("OPTIONS", &preflight)
        .ask("GET", &[("origin", "https://one.test")])
        .ask("GET", &[("origin", "https://evil.test")])
        .ask("GET", &[])
}

/// What both answer by themselves, or pass on from upstreams that fail.
pub fn replies() -> Vec<Case> {
    let plain = |prefix, cluster| Case::new(prefix, json!({}), json!({})).to(cluster);
    let retry = json!({ "codes": [503], "attempts": 2, "backoff": "10ms" });
    let policy = json!({
        "retry_on": "connect-failure,reset,retriable-status-codes", "num_retries": 2,
        "retriable_status_codes": [503], "retry_back_off": { "base_interval": "0.010s" },
    });
    let retried = |prefix, cluster| {
        Case::new(prefix, json!({ "retry": retry }), json!({ "retry_policy": policy })).to(cluster)
    };
    let mut per_try = policy.clone();
    per_try["per_try_timeout"] = "0.2s".into();
    let tried = json!({ "timeouts": { "request": "5s", "backendRequest": "200ms" }, "retry": retry });
    vec![
        plain("/there", "plain"),
        plain("/empty", "empty"),
        plain("/refusing", "refusing"),
        plain("/closing", "closing"),
        plain("/garbage", "garbage"),
        plain("/cut", "cut"),
        Case::new("/slow", json!({ "timeouts": { "request": "300ms" } }), json!({ "timeout": "0.3s" }))
            .to("silent"),
        retried("/again/refusing", "refusing"),
        retried("/again/closing", "closing"),
        retried("/again/busy", "busy"),
        Case::new("/again/silent", tried, json!({ "timeout": "5s", "retry_policy": per_try })).to("silent"),
    ]
}

fn failures() -> Vec<Case> {
    let grpc = [("content-type", "application/grpc")];
    let timeouts = json!({ "timeouts": { "request": "300ms" } });
    let plain = || Case::new("/empty", json!({}), json!({})).to("empty");
    vec![
        plain().get(&["/empty"]).ask("HEAD", &[]).ask("POST", &grpc),
        Case::new("/refusing", json!({}), json!({})).to("refusing").get(&["/refusing"]).ask("POST", &grpc),
        Case::new("/slow", timeouts, json!({ "timeout": "0.3s" }))
            .to("silent")
            .get(&["/slow"])
            .ask("POST", &grpc),
        Case::new("/closing", json!({}), json!({})).to("closing").get(&["/closing"]),
        Case::new("/garbage", json!({}), json!({})).to("garbage").get(&["/garbage"]),
        Case::new("/there", json!({}), json!({})).get(&["/nowhere", "/therefore", "/"]),
    ]
}
