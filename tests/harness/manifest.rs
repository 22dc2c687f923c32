//! Manifests, written as the objects they are: JSON, which is YAML too.

use serde_json::{Value, json};
use std::net::SocketAddr;

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// A Gateway in the namespace `network` with these listeners.
pub fn gateway(name: &str, listeners: &[Value]) -> Value {
    json!({
        "apiVersion": GATEWAY_API, "kind": "Gateway",
        "metadata": { "name": name, "namespace": "network" },
        "spec": { "gatewayClassName": "trigate", "listeners": listeners },
    })
}

/// A listener in clear text for every host.
pub fn http_listener(name: &str, port: u16) -> Value {
    json!({
        "name": name, "protocol": "HTTP", "port": port,
        "allowedRoutes": { "namespaces": { "from": "All" } },
    })
}

/// A listener that ends TLS with the certificate in this Secret of `network`; `""` is every host.
pub fn https_listener(name: &str, port: u16, hostname: &str, secret: &str) -> Value {
    let mut listener = json!({
        "name": name, "protocol": "HTTPS", "port": port,
        "tls": { "mode": "Terminate", "certificateRefs": [{ "name": secret }] },
        "allowedRoutes": { "namespaces": { "from": "All" } },
    });
    if !hostname.is_empty() {
        listener["hostname"] = hostname.into();
    }
    listener
}

/// The objects that every test has: the class and the namespaces.
pub fn basics() -> Vec<Value> {
    let namespace = |name: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } } });
    let class = json!({
        "apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": { "name": "trigate" },
        "spec": { "controllerName": "trigate.dev/gateway-controller" },
    });
    vec![class, namespace("network"), namespace("apps")]
}

/// A TLS Secret in the namespace `network`.
pub fn secret(name: &str, chain_pem: &str, key_pem: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": name, "namespace": "network" },
        "stringData": { "tls.crt": chain_pem, "tls.key": key_pem },
    })
}

/// A Service of the namespace `apps` with one port, 80, and its endpoints.
pub fn service(name: &str, endpoints: &[SocketAddr]) -> Vec<Value> {
    service_speaking(name, endpoints, None)
}

/// The same with an `appProtocol`.
pub fn service_speaking(name: &str, endpoints: &[SocketAddr], app_protocol: Option<&str>) -> Vec<Value> {
    let mut port = json!({ "name": "http", "port": 80, "protocol": "TCP" });
    if let Some(protocol) = app_protocol {
        port["appProtocol"] = protocol.into();
    }
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "apps" },
        "spec": { "ports": [port] },
    });
    // A slice has one port for all of its endpoints, so each endpoint gets a slice of its own.
    let slices = endpoints.iter().enumerate().map(|(index, endpoint)| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{name}-{index}"), "namespace": "apps",
                "labels": { "kubernetes.io/service-name": name },
            },
            "ports": [{ "name": "http", "port": endpoint.port(), "protocol": "TCP" }],
            "endpoints": [{ "addresses": [endpoint.ip().to_string()], "conditions": { "ready": true } }],
        })
    });
    std::iter::once(service).chain(slices).collect()
}

/// Begins an HTTPRoute of the namespace `apps`.
pub fn route(name: &str) -> Route {
    Route { name: name.to_owned(), parents: Vec::new(), hostnames: Vec::new(), rules: Vec::new() }
}

/// An HTTPRoute in the making.
#[derive(Debug, Clone)]
pub struct Route {
    name: String,
    parents: Vec<Value>,
    hostnames: Vec<String>,
    rules: Vec<Value>,
}

impl Route {
    /// Attaches it to a Gateway of `network`.
    pub fn on(mut self, gateway: &str) -> Self {
        self.parents.push(json!({ "name": gateway, "namespace": "network" }));
        self
    }

    pub fn host(mut self, hostname: &str) -> Self {
        self.hostnames.push(hostname.to_owned());
        self
    }

    /// A rule for all paths that goes to port 80 of a Service.
    pub fn to(self, service: &str) -> Self {
        self.rule(json!({ "backendRefs": [{ "name": service, "port": 80 }] }))
    }

    /// A rule for a path prefix that goes to port 80 of a Service.
    pub fn prefix_to(self, prefix: &str, service: &str) -> Self {
        self.rule(
            json!({ "matches": [path_prefix(prefix)], "backendRefs": [{ "name": service, "port": 80 }] }),
        )
    }

    /// A rule as it stands in an HTTPRoute.
    pub fn rule(mut self, rule: Value) -> Self {
        self.rules.push(rule);
        self
    }

    pub fn object(self) -> Value {
        let Self { name, parents, hostnames, rules } = self;
        json!({
            "apiVersion": GATEWAY_API, "kind": "HTTPRoute",
            "metadata": { "name": name, "namespace": "apps" },
            "spec": { "parentRefs": parents, "hostnames": hostnames, "rules": rules },
        })
    }
}

impl From<Route> for Value {
    fn from(route: Route) -> Self {
        route.object()
    }
}

/// One element of `matches`.
pub fn path_prefix(prefix: &str) -> Value {
    json!({ "path": { "type": "PathPrefix", "value": prefix } })
}

/// A ConfigMap of a namespace with a certificate of an authority.
pub fn authority(namespace: &str, name: &str, pem: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": namespace },
        "data": { "ca.crt": pem },
    })
}

/// A BackendTLSPolicy of `apps` for a Service, trusting the authority in a ConfigMap.
pub fn backend_tls(name: &str, service: &str, authority: &str, hostname: &str) -> Value {
    json!({
        "apiVersion": GATEWAY_API, "kind": "BackendTLSPolicy",
        "metadata": { "name": name, "namespace": "apps" },
        "spec": {
            "targetRefs": [{ "group": "", "kind": "Service", "name": service }],
            "validation": {
                "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": authority }],
                "hostname": hostname,
            },
        },
    })
}

/// A listener of protocol TCP, UDP or TLS for routes of all namespaces.
pub fn stream_listener(name: &str, port: u16, protocol: &str) -> Value {
    json!({
        "name": name, "protocol": protocol, "port": port,
        "allowedRoutes": { "namespaces": { "from": "All" } },
    })
}

/// A TLSRoute, TCPRoute or UDPRoute of `apps` on `external`, with Services and their weights.
pub fn stream_route(kind: &str, name: &str, section: &str, backends: &[(&str, u32)]) -> Value {
    let backends: Vec<_> =
        backends.iter().map(|(name, weight)| json!({ "name": name, "port": 80, "weight": weight })).collect();
    json!({
        "apiVersion": GATEWAY_API, "kind": kind,
        "metadata": { "name": name, "namespace": "apps" },
        "spec": {
            "parentRefs": [{ "name": "external", "namespace": "network", "sectionName": section }],
            "rules": [{ "backendRefs": backends }],
        },
    })
}
