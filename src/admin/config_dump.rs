//! The revision that serves, as Envoy's `/config_dump` has its configuration: what `egctl` and its like parse.
//!
//! Only messages and fields that Envoy knows: those tools refuse a dump with a field they do not know. What Envoy has
//! no word for is in the page of text, `?format=text`.

use super::config_routes;
use crate::live::Revision;
use crate::routing::{SocketId, Transport};
use crate::telemetry::{Registry, Socket};
use crate::upstream::{Address, Cluster};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3";
/// `[redacted]`, as Envoy writes a key.
const REDACTED: &str = "W3JlZGFjdGVkXQ==";

/// What is asked for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Only the elements of this field of a dump, `dynamic_listeners`.
    pub resource: Option<String>,
    /// Whether endpoints have a dump of their own.
    pub endpoints: bool,
}

/// The dump of what serves now.
pub fn dump(revision: &Revision, registry: &Registry, wanted: &Wanted) -> Value {
    let sockets = registry.sockets();
    let revised = registry.revision();
    let age = revised.installed.elapsed();
    let installed = Timestamp::now().checked_sub(age).map(|time| time.to_string()).unwrap_or_default();
    let made = Made { version: revision.number.to_string(), at: installed };
    let mut dumps = vec![bootstrap(&made), clusters(revision, &made)];
    if wanted.endpoints {
        dumps.push(endpoints(revision, &made));
    }
    dumps.extend([listeners(&sockets, &made), routes(revision, registry, &made), secrets(&sockets, &made)]);
    match &wanted.resource {
        None => json!({ "configs": dumps }),
        Some(field) => json!({ "configs": elements(dumps, field) }),
    }
}

/// The number and the time of the revision.
struct Made {
    version: String,
    at: String,
}

fn bootstrap(made: &Made) -> Value {
    let node = json!({ "user_agent_name": "trigate", "user_agent_version": env!("CARGO_PKG_VERSION") });
    json!({
        "@type": format!("{ADMIN}.BootstrapConfigDump"),
        "bootstrap": { "node": node },
        "last_updated": made.at,
    })
}

fn clusters(revision: &Revision, made: &Made) -> Value {
    let clusters = revision.clusters.iter().map(|cluster| {
        let timeout = format!("{}s", cluster.connect_timeout().as_secs_f64());
        json!({
            "version_info": made.version,
            "cluster": {
                "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                "name": cluster.name(),
                "type": "STATIC",
                "connect_timeout": timeout,
                "load_assignment": assignment(cluster),
            },
            "last_updated": made.at,
        })
    });
    json!({
        "@type": format!("{ADMIN}.ClustersConfigDump"),
        "version_info": made.version,
        "dynamic_active_clusters": clusters.collect::<Vec<_>>(),
    })
}

fn endpoints(revision: &Revision, made: &Made) -> Value {
    let assignments = revision.clusters.iter().map(|cluster| {
        let mut assignment = assignment(cluster);
        assignment["@type"] = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment".into();
        json!({ "version_info": made.version, "endpoint_config": assignment, "last_updated": made.at })
    });
    json!({
        "@type": format!("{ADMIN}.EndpointsConfigDump"),
        "dynamic_endpoint_configs": assignments.collect::<Vec<_>>(),
    })
}

/// A locality for each backend, as Envoy Gateway makes them.
fn assignment(cluster: &Cluster) -> Value {
    let localities = cluster.backends().iter().enumerate().map(|(index, backend)| {
        let all = backend.endpoints.all();
        let endpoints = all.iter().map(|one| json!({ "endpoint": { "address": address(&one.address) } }));
        json!({
            "locality": { "region": format!("{}/backend/{index}", cluster.name()) },
            "lb_endpoints": endpoints.collect::<Vec<_>>(),
        })
    });
    json!({ "cluster_name": cluster.name(), "endpoints": localities.collect::<Vec<_>>() })
}

/// An address as Envoy's messages have it.
pub fn address(address: &Address) -> Value {
    match address {
        Address::Ip(address) => json!({
            "socket_address": { "address": address.ip().to_string(), "port_value": address.port() }
        }),
        Address::Unix(path) => json!({ "pipe": { "path": path.display().to_string() } }),
    }
}

fn listeners(sockets: &[Socket], made: &Made) -> Value {
    let listeners = sockets.iter().flat_map(|socket| {
        socket.addresses.iter().map(|one| {
            let mut listener = json!({
                "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
                "name": socket.name,
                "address": address(&Address::Ip(*one)),
            });
            if socket.speaks_http {
                listener["filter_chains"] = json!([{ "filters": [http(socket)] }]);
            }
            json!({
                "name": socket.name,
                "active_state": { "version_info": made.version, "listener": listener, "last_updated": made.at },
            })
        })
    });
    json!({
        "@type": format!("{ADMIN}.ListenersConfigDump"),
        "version_info": made.version,
        "dynamic_listeners": listeners.collect::<Vec<_>>(),
    })
}

fn http(socket: &Socket) -> Value {
    const HTTP: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("type.googleapis.com/{HTTP}"),
            "stat_prefix": socket.http.prefix(),
            "rds": { "config_source": { "ads": {} }, "route_config_name": socket.name },
        },
    })
}

fn routes(revision: &Revision, registry: &Registry, made: &Made) -> Value {
    let table = &revision.table;
    let configs = table.sockets().iter().map(|(id, socket)| {
        let name = socket_name(*id, registry);
        json!({
            "version_info": made.version,
            "route_config": {
                "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                "name": name,
                "virtual_hosts": config_routes::virtual_hosts(&name, revision, socket),
                "ignore_port_in_host_matching": true,
            },
            "last_updated": made.at,
        })
    });
    json!({
        "@type": format!("{ADMIN}.RoutesConfigDump"),
        "dynamic_route_configs": configs.collect::<Vec<_>>(),
    })
}

/// The name of an open socket; of one that is not, something like it.
fn socket_name(id: SocketId, registry: &Registry) -> String {
    let gateway = registry.gateway_name(id.gateway.0);
    match id.transport {
        Transport::Tcp => format!("{gateway}/{}", id.port),
        Transport::Udp => format!("{gateway}/{}/udp", id.port),
    }
}

fn secrets(sockets: &[Socket], made: &Made) -> Value {
    let mut certificates = BTreeMap::new();
    for certificate in sockets.iter().flat_map(|socket| &socket.certificates) {
        certificates.insert(&certificate.name, certificate);
    }
    let secrets = certificates.into_values().map(|certificate| {
        let name = &certificate.name;
        json!({
            "name": name,
            "version_info": made.version,
            "last_updated": made.at,
            "secret": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                "name": name,
                "tls_certificate": { "private_key": { "inline_bytes": REDACTED } },
            },
        })
    });
    json!({
        "@type": format!("{ADMIN}.SecretsConfigDump"),
        "dynamic_active_secrets": secrets.collect::<Vec<_>>(),
    })
}

/// Fields of Envoy's dumps that are always empty here.
const NEVER: [&str; 9] = [
    "dynamic_scoped_route_configs",
    "dynamic_warming_clusters",
    "dynamic_warming_secrets",
    "inline_scoped_route_configs",
    "static_clusters",
    "static_endpoint_configs",
    "static_listeners",
    "static_route_configs",
    "static_secrets",
];

/// Whether Envoy's dumps have a list of this name.
pub fn is_resource(field: &str) -> bool {
    element_kind(field).is_some() || NEVER.contains(&field)
}

fn element_kind(field: &str) -> Option<&'static str> {
    Some(match field {
        "dynamic_active_clusters" => "ClustersConfigDump.DynamicCluster",
        "dynamic_endpoint_configs" => "EndpointsConfigDump.DynamicEndpointConfig",
        "dynamic_listeners" => "ListenersConfigDump.DynamicListener",
        "dynamic_route_configs" => "RoutesConfigDump.DynamicRouteConfig",
        "dynamic_active_secrets" => "SecretsConfigDump.DynamicSecret",
        _ => return None,
    })
}

/// The elements of a field of a dump, each with the type that it has there.
fn elements(dumps: Vec<Value>, field: &str) -> Vec<Value> {
    let Some(kind) = element_kind(field) else { return Vec::new() };
    let lists = dumps.into_iter().filter_map(|mut dump| match dump[field].take() {
        Value::Array(list) => Some(list),
        _ => None,
    });
    let typed = lists.flatten().map(|mut element| {
        element["@type"] = format!("{ADMIN}.{kind}").into();
        element
    });
    typed.collect()
}
