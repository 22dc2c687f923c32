//! Where the endpoints of Services and Backends are. Apart from the other passes, because endpoints change far
//! more often than anything else.

use crate::resource::{Backend, BackendEndpoint, EndpointSlice, Service, ServicePort, Snapshot};
use crate::upstream::{Address, EndpointSpec, EndpointsKey, EndpointsSpec};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The endpoint sets of these keys as a snapshot has them. A key whose object is gone has no endpoints.
pub fn endpoints<'k>(
    snapshot: &Snapshot,
    keys: impl IntoIterator<Item = &'k EndpointsKey>,
) -> BTreeMap<EndpointsKey, EndpointsSpec> {
    let slices = Slices::new(snapshot);
    let mut endpoints = BTreeMap::new();
    for key in keys {
        if !endpoints.contains_key(key) {
            endpoints.insert(key.clone(), resolve(snapshot, &slices, key));
        }
    }
    endpoints
}

/// EndpointSlices by Service.
pub(super) struct Slices<'s>(HashMap<&'s str, HashMap<&'s str, Vec<&'s EndpointSlice>>>);

impl<'s> Slices<'s> {
    pub fn new(snapshot: &'s Snapshot) -> Self {
        let mut namespaces: HashMap<&str, HashMap<_, Vec<_>>> = HashMap::new();
        for entry in snapshot.endpoint_slices.iter() {
            let metadata = &entry.object.metadata;
            if let Some(service) = metadata.labels.get(SERVICE_NAME) {
                let services = namespaces.entry(&*metadata.namespace).or_default();
                services.entry(service).or_default().push(&*entry.object);
            }
        }
        Self(namespaces)
    }

    /// The slices of a Service.
    pub fn of(&self, namespace: &str, service: &str) -> &[&'s EndpointSlice] {
        self.0.get(namespace).and_then(|services| services.get(service)).map_or(&[], Vec::as_slice)
    }
}

/// The key of a Service's port. One number may be a port for TCP and another one for UDP.
pub(super) fn service_key(namespace: &str, name: &str, port: u16, udp: bool) -> EndpointsKey {
    let transport = if udp { "/udp" } else { "" };
    EndpointsKey(format!("service/{namespace}/{name}/{port}{transport}").into())
}

/// The key of a Backend.
pub(super) fn backend_key(namespace: &str, name: &str) -> EndpointsKey {
    EndpointsKey(format!("backend/{namespace}/{name}").into())
}

fn resolve(snapshot: &Snapshot, slices: &Slices<'_>, key: &EndpointsKey) -> EndpointsSpec {
    let parts: Vec<&str> = key.0.split('/').collect();
    let found = match parts.as_slice() {
        ["service", namespace, name, port, rest @ ..] => {
            let service = snapshot.services.get(namespace, name);
            let (port, transport) = (port.parse().ok(), if rest == ["udp"] { "UDP" } else { "TCP" });
            service.zip(port).map(|(service, port)| {
                of_service(&service.object, (port, transport), slices.of(namespace, name))
            })
        }
        ["backend", namespace, name] => {
            snapshot.backends.get(namespace, name).map(|backend| of_backend(&backend.object))
        }
        _ => None,
    };
    found.unwrap_or(EndpointsSpec::Addresses(Vec::new()))
}

/// The endpoints of a Service's port, which is the one that clients of the Service would use.
fn of_service(service: &Service, wanted: (u16, &str), slices: &[&EndpointSlice]) -> EndpointsSpec {
    let (port, transport) = wanted;
    let spec = &service.spec;
    if spec.r#type.as_deref() == Some("ExternalName") {
        return match &spec.external_name {
            Some(host) => EndpointsSpec::Dns { host: host.trim_end_matches('.').to_ascii_lowercase(), port },
            None => EndpointsSpec::Addresses(Vec::new()),
        };
    }
    let is_wanted =
        |known: &&ServicePort| known.port == port && known.protocol.as_deref().unwrap_or("TCP") == transport;
    let Some(port) = spec.ports.iter().find(is_wanted) else {
        return EndpointsSpec::Addresses(Vec::new());
    };
    let family = family(service, slices);
    let slices = slices.iter().filter(|slice| *slice.address_type == *family);
    let (mut ready, mut serving) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let Some(target) = target_port(port, slice) else { continue };
        for endpoint in &slice.endpoints {
            // All addresses of an endpoint are the same pod; the first is the one to use.
            let Some(ip) = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok())
            else {
                continue;
            };
            let conditions = endpoint.conditions;
            let is_ready = conditions.ready.unwrap_or(true);
            if is_ready {
                ready.insert(SocketAddr::new(ip, target));
            } else if conditions.serving.unwrap_or(is_ready) && conditions.terminating.unwrap_or(false) {
                serving.insert(SocketAddr::new(ip, target));
            }
        }
    }
    // As kube-proxy: pods that are going away and still answer are better than none.
    let usable = if ready.is_empty() { serving } else { ready };
    EndpointsSpec::Addresses(usable.into_iter().map(|ip| EndpointSpec { address: Address::Ip(ip) }).collect())
}

/// The address family to use: a dual-stack Service has each pod in slices of both.
fn family<'a>(service: &'a Service, slices: &[&EndpointSlice]) -> &'a str {
    match service.spec.ip_families.first() {
        Some(family) => family,
        None if slices.iter().any(|slice| &*slice.address_type == "IPv4") => "IPv4",
        None if slices.iter().any(|slice| &*slice.address_type == "IPv6") => "IPv6",
        None => "IPv4",
    }
}

/// The number of the Service's port in a slice: they are matched by name, and a port without one has the empty
/// name.
fn target_port(port: &ServicePort, slice: &EndpointSlice) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let found = slice.ports.iter().find(|known| {
        known.name.as_deref().unwrap_or_default() == name
            && known.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    found.and_then(|known| known.port)
}

fn of_backend(backend: &Backend) -> EndpointsSpec {
    let endpoints = &backend.spec.endpoints;
    if let Some(name) = endpoints.iter().find_map(|endpoint| endpoint.fqdn.as_ref()) {
        return EndpointsSpec::Dns {
            host: name.address.trim_end_matches('.').to_ascii_lowercase(),
            port: name.port,
        };
    }
    EndpointsSpec::Addresses(
        endpoints.iter().filter_map(address).map(|address| EndpointSpec { address }).collect(),
    )
}

/// The address of an endpoint that needs no resolver.
fn address(endpoint: &BackendEndpoint) -> Option<Address> {
    let BackendEndpoint { ip, fqdn: _, unix, hostname: _, zone: _ } = endpoint;
    match (ip, unix) {
        (Some(ip), _) => Some(Address::Ip(SocketAddr::new(ip.address.parse().ok()?, ip.port))),
        (None, Some(unix)) => Some(Address::Unix(PathBuf::from(&*unix.path))),
        (None, None) => None,
    }
}
