//! Real Envoy as a child process, with the settings that Envoy Gateway gives its own.

use crate::cases::Case;
use crate::harness;
use crate::harness::envoy::free_address;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What both write into their access logs.
pub const LINE: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS%\n";
const ACCESS_LOG: &str = "access.log";

/// A running Envoy; it ends when this is dropped.
pub struct Envoy {
    running: harness::envoy::Envoy,
    pub address: SocketAddr,
}

impl Envoy {
    /// Serves these cases for this host; `None` when no `envoy` is installed.
    pub async fn serving(
        host: &str,
        cases: &[Case],
        clusters: &[(&str, Option<SocketAddr>)],
    ) -> Option<Self> {
        let address = free_address();
        let made =
            |folder: &Path| bootstrap(address, routes(host, cases), clusters, &folder.join(ACCESS_LOG));
        let running = harness::envoy::Envoy::start(made, &[address]).await?;
        Some(Self { running, address })
    }

    /// Its access log, of [`LINE`]s.
    pub fn access_log(&self) -> PathBuf {
        self.running.path(ACCESS_LOG)
    }
}

fn routes(host: &str, cases: &[Case]) -> Value {
    let routes: Vec<Value> = cases.iter().map(Case::envoy_route).collect();
    json!({
        "name": "routes",
        "virtual_hosts": [{ "name": "host", "domains": [host], "routes": routes }],
        "ignore_port_in_host_matching": true,
    })
}

fn typed(name: &str, kind: &str) -> Value {
    json!({ "name": name, "typed_config": { "@type": format!("type.googleapis.com/{kind}") } })
}

fn bootstrap(
    address: SocketAddr,
    routes: Value,
    clusters: &[(&str, Option<SocketAddr>)],
    access_log: &Path,
) -> Value {
    let mut log = typed("file", "envoy.extensions.access_loggers.file.v3.FileAccessLog");
    log["typed_config"]["path"] = access_log.display().to_string().into();
    log["typed_config"]["log_format"] = json!({ "text_format_source": { "inline_string": LINE } });
    let mut router = typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router");
    router["typed_config"]["suppress_envoy_headers"] = true.into();
    let connections = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "access_log": [log],
        "route_config": routes,
        "http_filters": [typed("envoy.filters.http.cors", "envoy.extensions.filters.http.cors.v3.Cors"), router],
        "server_header_transformation": "PASS_THROUGH",
        "use_remote_address": true,
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "common_http_protocol_options": { "headers_with_underscores_action": "REJECT_REQUEST" },
    });
    let listener = json!({
        "name": "http",
        "address": socket_address(address),
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": connections }] }],
    });
    let clusters: Vec<Value> = clusters.iter().map(|(name, endpoint)| cluster(name, *endpoint)).collect();
    json!({ "static_resources": { "listeners": [listener], "clusters": clusters } })
}

fn cluster(name: &str, endpoint: Option<SocketAddr>) -> Value {
    let endpoints: Vec<Value> = endpoint
        .map(|endpoint| json!({ "endpoint": { "address": socket_address(endpoint) } }))
        .into_iter()
        .collect();
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "10s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
