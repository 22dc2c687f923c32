//! Real Envoy as a child process, with the settings that Envoy Gateway gives its own.

use crate::cases::Case;
use crate::harness::PATIENCE;
use serde_json::{Value, json};
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What both write into their access logs.
pub const LINE: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS%\n";
const ACCESS_LOG: &str = "access.log";

/// A running Envoy; it ends when this is dropped.
pub struct Envoy {
    child: Child,
    pub address: SocketAddr,
    folder: TempDir,
}

impl Envoy {
    /// Serves these cases for this host; `None` when no `envoy` is installed.
    pub async fn serving(
        host: &str,
        cases: &[Case],
        clusters: &[(&str, Option<SocketAddr>)],
    ) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("envoy-").tempdir().expect("a temporary folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a loopback address can be bound");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let config = folder.path().join("envoy.json");
        let text =
            bootstrap(address, routes(host, cases), clusters, &folder.path().join(ACCESS_LOG)).to_string();
        std::fs::write(&config, text).expect("the folder is ours");
        let log = File::create(folder.path().join("log")).expect("the folder is ours");
        let child = Command::new("envoy")
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
            .args(["--file-flush-interval-msec", "20", "--config-path"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file of ours"))
            .stderr(log)
            .spawn()
            .ok()?;
        let mut envoy = Self { child, address, folder };
        envoy.listens().await;
        Some(envoy)
    }

    /// Its access log, of [`LINE`]s.
    pub fn access_log(&self) -> PathBuf {
        self.folder.path().join(ACCESS_LOG)
    }

    async fn listens(&mut self) {
        let start = Instant::now();
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            let ended = self.child.try_wait().expect("a child can be asked");
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "envoy ended at its start: {}", log());
            assert!(start.elapsed() < PATIENCE, "envoy does not listen: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // It is reaped in any case; that it has ended already is no fault.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
