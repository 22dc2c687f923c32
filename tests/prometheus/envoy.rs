//! Real Envoy with the names that Envoy Gateway gives: stat prefixes by port, a cluster for each rule, a label for the
//! priority of circuit breakers.

use crate::harness;
use crate::harness::certificate::Leaf;
use crate::harness::envoy::free_address;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;

/// A running Envoy; it ends when this is dropped.
pub struct Envoy {
    _running: harness::envoy::Envoy,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub tcp: SocketAddr,
    pub admin: SocketAddr,
}

impl Envoy {
    /// Serves each of these clusters at the path of its name's third part, and `tcp` over TCP; `None` when no `envoy`
    /// is installed.
    pub async fn serving(clusters: &[(&str, SocketAddr)], leaf: &Leaf) -> Option<Self> {
        let [http, https, tcp, admin] = std::array::from_fn(|_| free_address());
        let listeners = json!([
            listener("http", http, json!([hcm("http-10080", clusters)]), Value::Null),
            listener("https", https, json!([hcm("https-10443", clusters)]), tls(leaf)),
            listener("tcp", tcp, json!([tcp_proxy()]), Value::Null),
        ]);
        let bootstrap = json!({
            "admin": { "address": socket_address(admin) },
            "stats_config": {
                "use_all_default_tags": true,
                "stats_tags": [{ "tag_name": "priority", "regex": r"circuit_breakers\.((.+?)\.).+" }],
            },
            "static_resources": {
                "listeners": listeners,
                "clusters": clusters.iter().map(|(name, address)| cluster(name, *address)).collect::<Vec<_>>(),
            },
        });
        let running = harness::envoy::Envoy::start(|_| bootstrap, &[http, https, tcp]).await?;
        Some(Self { _running: running, http, https, tcp, admin })
    }
}

/// Whether Envoy takes these clusters and route configurations; `None` when none is installed.
pub fn accepts(clusters: &[Value], routes: &[Value]) -> Option<Result<(), String>> {
    let listeners = routes.iter().enumerate().map(|(number, routes)| {
        let connections = typed(
            "http",
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            json!({
                "stat_prefix": "http",
                "route_config": routes,
                "http_filters": [typed("router", "envoy.extensions.filters.http.router.v3.Router", json!({}))],
            }),
        );
        listener(&format!("listener-{number}"), free_address(), json!([connections]), Value::Null)
    });
    let bootstrap = json!({
        "static_resources": { "listeners": listeners.collect::<Vec<_>>(), "clusters": clusters },
    });
    let mut file = tempfile::Builder::new().suffix(".json").tempfile().expect("a temporary file");
    std::io::Write::write_all(&mut file, bootstrap.to_string().as_bytes()).expect("the file is ours");
    let output =
        Command::new("envoy").args(["--mode", "validate", "--config-path"]).arg(file.path()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(said) })
}

fn typed(name: &str, kind: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/{kind}").into();
    json!({ "name": name, "typed_config": fields })
}

fn hcm(prefix: &str, clusters: &[(&str, SocketAddr)]) -> Value {
    let routes: Vec<Value> = clusters
        .iter()
        .map(|(name, _)| {
            let path = format!("/{}", name.split('/').nth(2).expect("httproute/namespace/name/rule/0"));
            let retry = json!({ "retry_on": "connect-failure", "num_retries": 1 });
            json!({ "match": { "prefix": path }, "route": { "cluster": name, "retry_policy": retry } })
        })
        .collect();
    typed(
        "http",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": prefix,
            "use_remote_address": true,
            "route_config": {
                "name": "routes",
                "virtual_hosts": [{ "name": "host", "domains": ["*"], "routes": routes }],
            },
            "http_filters": [typed("router", "envoy.extensions.filters.http.router.v3.Router", json!({}))],
        }),
    )
}

fn tcp_proxy() -> Value {
    let cluster = "tcproute/apps/tcp/rule/-1";
    typed(
        "tcp",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        json!({ "stat_prefix": "tcp-15432", "cluster": cluster }),
    )
}

fn tls(leaf: &Leaf) -> Value {
    let certificate = json!({
        "certificate_chain": { "inline_string": leaf.chain_pem },
        "private_key": { "inline_string": leaf.key_pem },
    });
    typed(
        "tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        json!({ "common_tls_context": { "tls_certificates": [certificate], "alpn_protocols": ["h2", "http/1.1"] } }),
    )
}

fn listener(name: &str, address: SocketAddr, filters: Value, tls: Value) -> Value {
    let mut chain = json!({ "filters": filters });
    if !tls.is_null() {
        chain["transport_socket"] = tls;
    }
    json!({ "name": name, "address": socket_address(address), "filter_chains": [chain] })
}

fn cluster(name: &str, address: SocketAddr) -> Value {
    let endpoint = json!({ "endpoint": { "address": socket_address(address) } });
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "10s", "outlier_detection": {},
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
