//! Where the endpoints of Services and Backends are. Apart from the other passes, because endpoints change far
//! more often than anything else.

use super::nearness::Nearness;
use crate::resource::{Backend, BackendEndpoint, Endpoint, EndpointSlice, Service, ServicePort, Snapshot};
use crate::upstream::{Address, DnsName, EndpointSpec, EndpointsKey, EndpointsSpec, EndpointsSpecs};
use foldhash::fast::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The endpoint sets of these keys as a snapshot has them. A key whose object is gone has no endpoints.
pub fn endpoints<'k>(
    snapshot: &Snapshot,
    keys: impl IntoIterator<Item = &'k EndpointsKey>,
) -> EndpointsSpecs {
    of_slices(&mut Slices::new(snapshot), keys)
}

/// The same, where the slices are known by Service already.
pub(super) fn of_slices<'k>(
    slices: &mut Slices<'_>,
    keys: impl IntoIterator<Item = &'k EndpointsKey>,
) -> EndpointsSpecs {
    let mut endpoints = EndpointsSpecs::default();
    for key in keys {
        if !endpoints.contains_key(key) {
            endpoints.insert(key.clone(), resolve(slices, key));
        }
    }
    endpoints
}

/// EndpointSlices by the namespace and name of their Service, of the namespaces that somebody asked for.
pub(super) struct Slices<'s> {
    snapshot: &'s Snapshot,
    known: HashMap<Box<str>, ByName<'s, Vec<&'s EndpointSlice>>, RandomState>,
}

type ByName<'s, T> = HashMap<&'s str, T, RandomState>;

impl<'s> Slices<'s> {
    pub fn new(snapshot: &'s Snapshot) -> Self {
        Self { snapshot, known: HashMap::default() }
    }

    /// The slices of a Service.
    pub fn of(&mut self, namespace: &str, service: &str) -> &[&'s EndpointSlice] {
        if !self.known.contains_key(namespace) {
            let mut services: ByName<'_, Vec<_>> = HashMap::default();
            for entry in self.snapshot.endpoint_slices.in_namespace(namespace) {
                if let Some(service) = entry.object.metadata.labels.get(SERVICE_NAME) {
                    services.entry(service).or_default().push(&*entry.object);
                }
            }
            self.known.insert(namespace.into(), services);
        }
        self.known.get(namespace).and_then(|services| services.get(service)).map_or(&[], Vec::as_slice)
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

fn resolve(slices: &mut Slices<'_>, key: &EndpointsKey) -> EndpointsSpec {
    let snapshot = slices.snapshot;
    let parts: Vec<&str> = key.0.split('/').collect();
    let found = match parts.as_slice() {
        ["service", namespace, name, port, rest @ ..] => {
            let service = snapshot.services.get(namespace, name);
            let (port, transport) = (port.parse().ok(), if rest == ["udp"] { "UDP" } else { "TCP" });
            service.zip(port).map(|(service, port)| {
                of_service(snapshot, &service.object, (port, transport), slices.of(namespace, name))
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
fn of_service(
    snapshot: &Snapshot,
    service: &Service,
    wanted: (u16, &str),
    slices: &[&EndpointSlice],
) -> EndpointsSpec {
    let (port, transport) = wanted;
    let spec = &service.spec;
    if spec.r#type.as_deref() == Some("ExternalName") {
        return match &spec.external_name {
            Some(host) => EndpointsSpec::Dns { names: vec![dns_name(host, port)], addresses: Vec::new() },
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
    let endpoints = slices.flat_map(|slice| {
        let target = target_port(port, slice);
        slice.endpoints.iter().filter_map(move |endpoint| Some((address_of(endpoint, target?)?, endpoint)))
    });
    let usable = usable(&endpoints.collect::<Vec<_>>(), Nearness::of(service, &snapshot.here));
    EndpointsSpec::Addresses(usable.into_iter().map(|ip| EndpointSpec { address: Address::Ip(ip) }).collect())
}

/// All addresses of an endpoint are the same pod; the first is the one to use.
fn address_of(endpoint: &Endpoint, port: u16) -> Option<SocketAddr> {
    let ip = endpoint.addresses.first()?.parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(ip, port))
}

/// The endpoints that kube-proxy would use: those that are ready, of them those that are meant for us; where none is
/// left, those that are going away and still answer are better than none.
fn usable(endpoints: &[(SocketAddr, &Endpoint)], nearness: Nearness<'_>) -> BTreeSet<SocketAddr> {
    let is_ready = |endpoint: &Endpoint| endpoint.conditions.ready.unwrap_or(true);
    let ready: Vec<_> = endpoints.iter().filter(|(_, endpoint)| is_ready(endpoint)).copied().collect();
    if ready.is_empty() {
        let leaving = endpoints.iter().filter(|(_, endpoint)| {
            let conditions = endpoint.conditions;
            conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false)
        });
        return leaving.map(|(address, _)| *address).collect();
    }
    let near = nearness.choose(&ready);
    near.unwrap_or(ready).into_iter().map(|(address, _)| address).collect()
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
    let names: Vec<_> = endpoints
        .iter()
        .filter_map(|endpoint| endpoint.fqdn.as_ref())
        .map(|name| dns_name(&name.address, name.port))
        .collect();
    let addresses = endpoints.iter().filter_map(address).map(|address| EndpointSpec { address }).collect();
    if names.is_empty() {
        EndpointsSpec::Addresses(addresses)
    } else {
        EndpointsSpec::Dns { names, addresses }
    }
}

fn dns_name(host: &str, port: u16) -> DnsName {
    DnsName { host: host.trim_end_matches('.').to_ascii_lowercase(), port }
}

/// The address of an endpoint that needs no resolver.
fn address(endpoint: &BackendEndpoint) -> Option<Address> {
    let BackendEndpoint { ip, fqdn, unix, hostname: _, zone: _ } = endpoint;
    match (fqdn, ip, unix) {
        (Some(_), _, _) | (None, None, None) => None,
        (None, Some(ip), _) => Some(Address::Ip(SocketAddr::new(ip.address.parse().ok()?, ip.port))),
        (None, None, Some(unix)) => Some(Address::Unix(PathBuf::from(&*unix.path))),
    }
}
