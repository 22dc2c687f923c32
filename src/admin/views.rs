//! What the process is doing, in the shapes that Envoy's tools parse.

use super::config_dump::address;
use crate::telemetry::{Memory, Node, Ordered, Registry, Selection};
use crate::upstream::Cluster;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

/// `name::address` lines.
pub fn listeners(registry: &Registry) -> String {
    let mut text = String::new();
    for socket in registry.sockets().iter() {
        for address in &socket.addresses {
            let _ = writeln!(text, "{}::{address}", socket.name);
        }
    }
    text
}

/// The same as JSON.
pub fn listeners_json(registry: &Registry) -> String {
    let sockets = registry.sockets();
    let address = |address: &SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let statuses: Vec<Value> = sockets
        .iter()
        .flat_map(|socket| socket.addresses.iter().map(|one| (&socket.name, one)))
        .map(|(name, one)| json!({ "name": name, "local_address": address(one) }))
        .collect();
    pretty(&json!({ "listener_statuses": statuses }))
}

/// Clusters with their endpoints, and what goes on at each.
pub fn clusters_json(registry: &Registry, selection: &Selection) -> String {
    let revision = registry.revision();
    let clusters = revision.clusters.iter().filter(|cluster| selection.shows(cluster.name(), true));
    let clusters: Vec<Value> = clusters.map(|cluster| cluster_status(cluster)).collect();
    pretty(&json!({ "cluster_statuses": clusters }))
}

fn cluster_status(cluster: &Cluster) -> Value {
    let name = cluster.name();
    let hosts = cluster.backends().iter().enumerate().flat_map(|(index, backend)| {
        let region = format!("{name}/backend/{index}");
        let all = backend.endpoints.all();
        let hosts = all.iter().map(|endpoint| {
            // Envoy leaves a value out that is zero.
            let mut active = json!({ "type": "GAUGE", "name": "rq_active" });
            if endpoint.active() > 0 {
                active["value"] = endpoint.active().to_string().into();
            }
            json!({
                "address": address(&endpoint.address),
                "stats": [active],
                "health_status": { "eds_health_status": "HEALTHY" },
                "weight": 1,
                "locality": { "region": region },
            })
        });
        hosts.collect::<Vec<_>>()
    });
    json!({
        "name": name,
        "added_via_api": true,
        "host_statuses": hosts.collect::<Vec<_>>(),
        "observability_name": name,
    })
}

/// Every certificate that is served, once.
pub fn certs(registry: &Registry) -> String {
    let now = Timestamp::now().as_second();
    let sockets = registry.sockets();
    let mut shown = BTreeMap::new();
    for certificate in sockets.iter().flat_map(|socket| &socket.certificates) {
        let (not_before, not_after) = certificate.validity;
        let names: Vec<Value> = certificate.dns_names.iter().map(|name| json!({ "dns": name })).collect();
        let days = (not_after - now).max(0) / (24 * 60 * 60);
        let leaf = json!({
            "path": certificate.name,
            "serial_number": certificate.serial,
            "subject_alt_names": names,
            "days_until_expiration": days.to_string(),
            "valid_from": time(not_before),
            "expiration_time": time(not_after),
        });
        shown
            .insert((&certificate.name, &certificate.serial), json!({ "ca_cert": [], "cert_chain": [leaf] }));
    }
    let shown: Vec<Value> = shown.into_values().collect();
    let orders: Vec<Value> =
        registry.orders().all().into_iter().map(|(name, one)| order(&name, one)).collect();
    if orders.is_empty() {
        return pretty(&json!({ "certificates": shown }));
    }
    pretty(&json!({ "certificates": shown, "orders": orders }))
}

/// What becomes of a certificate that the process orders itself.
fn order(name: &str, Ordered { names, state, due, succeeded, failed, error }: Ordered) -> Value {
    json!({
        "path": name,
        "names": names,
        "state": state.word(),
        "next_order": due.map(|due| time(due.max(0))),
        "succeeded": succeeded,
        "failed": failed,
        "last_error": error,
    })
}

fn time(second: i64) -> String {
    Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}

/// Version, state and age.
pub fn server_info(registry: &Registry) -> String {
    let uptime = format!("{}s", registry.server().uptime().as_secs());
    let Node { cluster, id, zone } = registry.server().node();
    pretty(&json!({
        "version": concat!("trigate/", env!("CARGO_PKG_VERSION")),
        "state": registry.server().state().to_string(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": {
            "concurrency": registry.workers(), "service_cluster": cluster, "service_node": id, "service_zone": zone,
        },
        "node": { "id": id, "cluster": cluster, "locality": { "zone": zone } },
    }))
}

/// Memory of the process; Envoy writes numbers as strings.
pub fn memory() -> String {
    let Memory { anonymous, resident } = Memory::now();
    pretty(&json!({
        "allocated": anonymous.to_string(),
        "heap_size": anonymous.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": resident.to_string(),
    }))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
