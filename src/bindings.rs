//! Which Gateway objects this process serves, and at which addresses.
//!
//! A Gateway that a table `[gateways.*]` names is served at the addresses of that table. With Kubernetes as the
//! source every further Gateway of our classes is served too, at an address or at ports of
//! `[source.kubernetes.addresses]`. All replicas must come to the same answer without asking each other: what is
//! already reported in a Gateway's status or written into its Service counts first, and then a hash of its name.

use crate::compile::Binding;
use crate::config::{AddressPool, Config, KubernetesSource, ObjectName};
use crate::resource::{Gateway, GatewayAddress, PortName, Resource, Service, Snapshot};
use crate::routing::GatewayId;
use foldhash::fast::FixedState;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// The label of a Service that leads to a Gateway: the Gateway's name.
pub const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// The longest name of a Service and value of a label.
const LONGEST_NAME: usize = 63;

/// A Gateway that is served.
#[derive(Debug, Clone)]
pub struct Served {
    pub binding: Binding,
    pub place: Place,
    /// What is wrong with the addresses that it asks for.
    pub refusal: Option<Refusal>,
}

/// Where the sockets of a Gateway are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Where its table `[gateways.*]` says.
    Configured,
    /// At these addresses of its own, on the ports of its listeners.
    Addresses(Vec<IpAddr>),
    /// At all addresses, on ports of the configured range.
    Ports,
    /// Nowhere, and why.
    Nowhere(String),
}

/// Why an address of a Gateway's spec cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not of this kind: the Gateway is not accepted.
    Unsupported(String),
    /// Of the right kind, and not ours to use: the Gateway is not programmed.
    NotUsable(String),
}

/// Gives Gateways their identity and place, for as long as the process runs.
pub struct Bindings {
    config: Arc<Config>,
    /// Never taken away, so that what is counted by id stays with its Gateway.
    ids: BTreeMap<ObjectName, GatewayId>,
    addresses: BTreeMap<ObjectName, Vec<IpAddr>>,
    ports: BTreeMap<(ObjectName, u16), u16>,
}

impl Bindings {
    /// The gateways of the configuration have the first ids, in their order.
    pub fn new(config: Arc<Config>) -> Self {
        let named = config.gateways.values().zip(0..);
        let ids = named.map(|(gateway, id)| (gateway.object.clone(), GatewayId(id))).collect();
        Self { config, ids, addresses: BTreeMap::new(), ports: BTreeMap::new() }
    }

    /// The Gateways to serve, those of the configuration first. `reported` are the addresses in the status of a
    /// Gateway.
    pub fn update(
        &mut self,
        snapshot: &Snapshot,
        reported: impl Fn(&ObjectName) -> Vec<IpAddr>,
    ) -> Vec<Served> {
        let config = self.config.clone();
        let Some(kubernetes) = &config.source.kubernetes else { return self.configured(|_| true) };
        let ours = of_our_classes(snapshot, &kubernetes.controller_name);
        let mut served = self.configured(|object| {
            // A table may come before its Gateway, but a Gateway of somebody else is not ours to serve.
            ours.contains(object) || snapshot.gateways.get(&object.namespace, &object.name).is_none()
        });
        let named: BTreeSet<&ObjectName> = config.gateways.values().map(|gateway| &gateway.object).collect();
        let mut further: Vec<&Gateway> = snapshot
            .gateways
            .iter()
            .map(|entry| &*entry.object)
            .filter(|gateway| ours.contains(&name(gateway)) && !named.contains(&name(gateway)))
            .collect();
        further.sort_by_key(|gateway| (gateway.metadata.creation_timestamp, name(gateway)));
        self.addresses.retain(|object, _| further.iter().any(|gateway| name(gateway) == *object));
        self.ports.retain(|(object, port), _| {
            let mut of_object = further.iter().filter(|gateway| name(gateway) == *object);
            of_object.any(|gateway| listens(snapshot, gateway, *port))
        });
        self.place(&further, kubernetes, reported, snapshot);
        let further = further.into_iter().filter_map(|gateway| self.further(gateway, &kubernetes.addresses));
        served.extend(further.collect::<Vec<_>>());
        served
    }

    /// The sockets of a Gateway for a port of its listeners.
    pub fn sockets(&mut self, served: &Served, port: u16) -> Vec<SocketAddr> {
        let Binding { name, namespace, object, .. } = &served.binding;
        match &served.place {
            Place::Configured => {
                self.config.gateways.get(name).map(|gateway| gateway.addresses(port)).unwrap_or_default()
            }
            Place::Addresses(addresses) => addresses.iter().map(|&ip| SocketAddr::new(ip, port)).collect(),
            Place::Ports => {
                let object = ObjectName { namespace: namespace.clone(), name: object.clone() };
                let Some(port) = self.port(object, port) else { return Vec::new() };
                vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
            }
            Place::Nowhere(_) => Vec::new(),
        }
    }

    fn configured(&self, ours: impl Fn(&ObjectName) -> bool) -> Vec<Served> {
        let served = self.config.gateways.iter().zip(0..).filter(|((_, gateway), _)| ours(&gateway.object));
        served
            .map(|((name, gateway), id)| Served {
                binding: self.binding(GatewayId(id), name.clone(), &gateway.object),
                place: Place::Configured,
                refusal: None,
            })
            .collect()
    }

    fn binding(&self, id: GatewayId, name: String, object: &ObjectName) -> Binding {
        let ObjectName { namespace, name: object } = object.clone();
        let of_table = self.config.gateways.get(&name).map(|gateway| gateway.tls.clone());
        let tls = of_table.unwrap_or_default().within(&self.config.tls);
        Binding { id, name, namespace, object, tls }
    }

    fn further(&mut self, gateway: &Gateway, pool: &AddressPool) -> Option<Served> {
        let object = name(gateway);
        let next = u16::try_from(self.ids.len()).ok().map(GatewayId);
        let id = match self.ids.get(&object) {
            Some(id) => *id,
            None => *self.ids.entry(object.clone()).or_insert(next?),
        };
        let (place, refusal) = match (&pool.pool, &pool.ports) {
            (Some(_), _) => {
                let addresses = self.addresses.get(&object).cloned().unwrap_or_default();
                let place = match addresses.is_empty() {
                    true => {
                        Place::Nowhere("no address of [source.kubernetes.addresses] is left for it".into())
                    }
                    false => Place::Addresses(addresses.clone()),
                };
                (place, refusal(&gateway.spec.addresses, &addresses))
            }
            (None, Some(_)) => (Place::Ports, refusal(&gateway.spec.addresses, &[])),
            (None, None) => {
                let message = "no table [gateways.*] of proxy.toml names it, and [source.kubernetes.addresses] has neither pool nor ports";
                (Place::Nowhere(message.to_owned()), None)
            }
        };
        Some(Served { binding: self.binding(id, object.to_string(), &object), place, refusal })
    }

    /// Gives addresses to Gateways that have none yet, and notes which ports their Services lead to.
    fn place(
        &mut self,
        further: &[&Gateway],
        kubernetes: &KubernetesSource,
        reported: impl Fn(&ObjectName) -> Vec<IpAddr>,
        snapshot: &Snapshot,
    ) {
        if let Some(range) = &kubernetes.addresses.ports {
            for entry in snapshot.services.iter() {
                for (port, target) in targets(&entry.object).filter(|(_, target)| range.0.contains(target)) {
                    let gateway = further
                        .iter()
                        .map(|gateway| name(gateway))
                        .find(|object| leads_to(&entry.object, object));
                    let taken = self.ports.values().any(|bound| *bound == target);
                    if let Some(object) = gateway.filter(|_| !taken) {
                        self.ports.entry((object, port)).or_insert(target);
                    }
                }
            }
        }
        let Some(pool) = &kubernetes.addresses.pool else { return };
        let mut taken: HashSet<IpAddr> = HashSet::new();
        // What somebody asks for by name is his before anybody gets anything by chance.
        for gateway in further {
            let asked: Vec<IpAddr> =
                asked(gateway).filter(|ip| pool.contains(ip) && taken.insert(*ip)).collect();
            if !asked.is_empty() || asks(gateway) {
                self.addresses.insert(name(gateway), asked);
            }
        }
        for gateway in further.iter().filter(|gateway| !asks(gateway)) {
            let object = name(gateway);
            let held = self.addresses.remove(&object).unwrap_or_default();
            let kept =
                held.into_iter().chain(reported(&object)).find(|ip| pool.contains(ip) && taken.insert(*ip));
            if let Some(ip) = kept {
                self.addresses.insert(object, vec![ip]);
            }
        }
        for gateway in further.iter().filter(|gateway| !asks(gateway)) {
            let object = name(gateway);
            if self.addresses.contains_key(&object) {
                continue;
            }
            if let Some(ip) = candidates(pool, &object).find(|ip| !taken.contains(ip)) {
                taken.insert(ip);
                self.addresses.insert(object, vec![ip]);
            }
        }
    }

    /// The port of the range for a listener port; `None` when all are taken.
    fn port(&mut self, object: ObjectName, listener: u16) -> Option<u16> {
        let key = (object, listener);
        if let Some(port) = self.ports.get(&key) {
            return Some(*port);
        }
        let range = self.config.source.kubernetes.as_ref()?.addresses.ports.as_ref()?.0.clone();
        let taken: BTreeSet<u16> = self.ports.values().copied().collect();
        let length = u64::from(range.end() - range.start()) + 1;
        let start = hash(&key) % length;
        let ports = (0..length).filter_map(|step| u16::try_from((start + step) % length).ok());
        let free = ports.map(|offset| range.start() + offset).find(|port| !taken.contains(port))?;
        self.ports.insert(key, free);
        Some(free)
    }
}

impl Served {
    /// The Gateway object.
    pub fn object(&self) -> ObjectName {
        ObjectName { namespace: self.binding.namespace.clone(), name: self.binding.object.clone() }
    }
}

fn name(gateway: &Gateway) -> ObjectName {
    let (namespace, name) = gateway.metadata().key();
    ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }
}

/// Whether a Gateway, or a ListenerSet that names it, has a listener on this port.
fn listens(snapshot: &Snapshot, gateway: &Gateway, port: u16) -> bool {
    let (namespace, name) = gateway.metadata.key();
    let sets = snapshot.listener_sets.iter().map(|entry| &entry.object).filter(|set| {
        let parent = &set.spec.parent_ref;
        *parent.name == *name && parent.namespace.as_deref().unwrap_or(&set.metadata.namespace) == namespace
    });
    let listeners = gateway.spec.listeners.iter().chain(sets.flat_map(|set| set.spec.listeners.iter()));
    listeners.into_iter().any(|listener| listener.port == port)
}

fn of_our_classes(snapshot: &Snapshot, controller: &str) -> BTreeSet<ObjectName> {
    let ours = |class: &str| {
        snapshot
            .gateway_classes
            .get("", class)
            .is_some_and(|entry| &*entry.object.spec.controller_name == controller)
    };
    let gateways = snapshot.gateways.iter().map(|entry| &*entry.object);
    gateways.filter(|gateway| ours(&gateway.spec.gateway_class_name)).map(name).collect()
}

/// Addresses of the spec that can be read.
fn asked(gateway: &Gateway) -> impl Iterator<Item = IpAddr> {
    let addresses = gateway.spec.addresses.iter().filter(|address| is_ip(address));
    addresses.filter_map(|address| address.value.as_deref()?.parse().ok())
}

/// Whether the spec asks for a certain address; one without a value leaves it to us.
fn asks(gateway: &Gateway) -> bool {
    gateway
        .spec
        .addresses
        .iter()
        .any(|address| address.value.as_deref().is_some_and(|value| !value.is_empty()))
}

fn is_ip(address: &GatewayAddress) -> bool {
    address.r#type.as_deref().is_none_or(|kind| kind == "IPAddress")
}

/// What is wrong with the addresses of a spec when these can be had.
fn refusal(asked: &[GatewayAddress], had: &[IpAddr]) -> Option<Refusal> {
    if let Some(address) = asked.iter().find(|address| !is_ip(address)) {
        let kind = address.r#type.as_deref().unwrap_or_default();
        return Some(Refusal::Unsupported(format!(
            "addresses of type {kind} are not supported, only IPAddress"
        )));
    }
    let values =
        asked.iter().filter_map(|address| address.value.as_deref()).filter(|value| !value.is_empty());
    let lost: Vec<&str> =
        values.filter(|value| !value.parse().is_ok_and(|ip: IpAddr| had.contains(&ip))).collect();
    (!lost.is_empty()).then(|| {
        let lost = lost.join(", ");
        Refusal::NotUsable(format!(
            "{lost} is outside of [source.kubernetes.addresses] pool, or another Gateway has it"
        ))
    })
}

/// The addresses of a network in the order in which a Gateway tries them.
fn candidates(pool: &ipnet::IpNet, object: &ObjectName) -> impl Iterator<Item = IpAddr> + use<> {
    // The first and the last address of an IPv4 network mean the network itself and all its machines.
    let (first, bits) = match pool {
        ipnet::IpNet::V4(net) => (u128::from(u32::from(net.network())), 32 - net.prefix_len()),
        ipnet::IpNet::V6(net) => (u128::from(net.network()), 128 - net.prefix_len()),
    };
    let is_v4 = matches!(pool, ipnet::IpNet::V4(_));
    let size = 1_u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX);
    let usable = if size > 2 { size - 2 } else { size };
    let skip = u128::from(size > 2);
    let start = u128::from(hash(object)) % usable;
    // Whoever has more Gateways than this has another problem than addresses.
    const TRIES: u128 = 1 << 17;
    (0..usable.min(TRIES)).filter_map(move |step| {
        let number = first + skip + (start + step) % usable;
        if is_v4 {
            u32::try_from(number).ok().map(|ip| Ipv4Addr::from(ip).into())
        } else {
            Some(Ipv6Addr::from(number).into())
        }
    })
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    FixedState::default().hash_one(value)
}

/// The ports of a Service with the numbers of the ports they lead to.
fn targets(service: &Service) -> impl Iterator<Item = (u16, u16)> {
    service.spec.ports.iter().filter_map(|port| match port.target_port {
        Some(PortName::Number(target)) => Some((port.port, target)),
        _ => None,
    })
}

/// A Gateway's name as a Service's name and a label's value: a longer one ends in a hash of all of it.
pub fn shortened(name: &str) -> String {
    // A Service's name may have no dots, and a Gateway's may.
    let plain = name.replace('.', "-");
    let starts_well = plain.starts_with(|first: char| first.is_ascii_lowercase());
    if plain == name && name.len() <= LONGEST_NAME && starts_well {
        return plain;
    }
    let hash = format!("{:08x}", FixedState::default().hash_one(name) & 0xffff_ffff);
    let plain = if starts_well { plain } else { format!("g-{plain}") };
    let kept: String = plain.chars().take(LONGEST_NAME - hash.len() - 1).collect();
    format!("{}-{hash}", kept.trim_end_matches('-'))
}

/// Whether a Service is the one that leads to a Gateway.
fn leads_to(service: &Service, object: &ObjectName) -> bool {
    let metadata = service.metadata();
    *metadata.namespace == *object.namespace
        && metadata.labels.get(GATEWAY_LABEL) == Some(&shortened(&object.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{ObjectHeader, Reading, read};
    use serde_json::{Value, json};
    use std::path::Path;

    fn snapshot(objects: &[Value]) -> Snapshot {
        let read = |object: &Value| {
            let header: ObjectHeader = serde_json::from_value(object.clone()).unwrap();
            let Reading { object, .. } = read(&header, object.clone()).unwrap().unwrap();
            (object, None)
        };
        Snapshot::new(objects.iter().map(read), Vec::new())
    }

    fn class(name: &str, controller: &str) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": { "name": name }, "spec": { "controllerName": controller },
        })
    }

    fn gateway(name: &str, class: &str, addresses: Value) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": { "name": name, "namespace": "network" },
            "spec": { "gatewayClassName": class, "addresses": addresses, "listeners": [] },
        })
    }

    fn bindings(text: &str) -> Bindings {
        let text = format!("{text}\n[gateways.external]\nobject = \"network/external\"\n");
        Bindings::new(Arc::new(Config::parse(Path::new("proxy.toml"), &text).unwrap()))
    }

    const POOL: &str = "[source.kubernetes.addresses]\npool = \"10.97.0.0/16\"";
    const OURS: &str = "trigate.dev/gateway-controller";

    fn places(served: &[Served]) -> Vec<(String, Place)> {
        served.iter().map(|served| (served.binding.object.clone(), served.place.clone())).collect()
    }

    #[test]
    fn gateways_of_other_controllers_are_not_served() {
        let mut bindings = bindings(POOL);
        let objects = [
            class("ours", OURS),
            class("theirs", "example.com/other"),
            gateway("external", "theirs", json!([])),
            gateway("more", "ours", json!([])),
            gateway("other", "theirs", json!([])),
        ];
        let served = bindings.update(&snapshot(&objects), |_| Vec::new());
        assert_eq!(served.len(), 1, "{served:?}");
        assert_eq!(served[0].binding.object, "more");
        assert_eq!(served[0].binding.id, GatewayId(1));
    }

    #[test]
    fn each_further_gateway_has_an_address_of_its_own_and_keeps_it() {
        let mut bindings = bindings(POOL);
        let names: Vec<String> = (0..50).map(|number| format!("gateway-{number}")).collect();
        let all: Vec<Value> = std::iter::once(class("ours", OURS))
            .chain(names.iter().map(|name| gateway(name, "ours", json!([]))))
            .collect();
        let first = places(&bindings.update(&snapshot(&all), |_| Vec::new()));
        let distinct: BTreeSet<String> = first.iter().map(|(_, place)| format!("{place:?}")).collect();
        assert_eq!(distinct.len(), first.len());
        let later = places(&bindings.update(&snapshot(&all[..20]), |_| Vec::new()));
        assert!(later.iter().all(|one| first.contains(one)), "{later:?}");
    }

    #[test]
    fn what_the_status_reports_counts_before_what_the_name_says() {
        let mut bindings = bindings(POOL);
        let objects = [class("ours", OURS), gateway("more", "ours", json!([{}]))];
        let reported: IpAddr = "10.97.3.4".parse().unwrap();
        let served = bindings.update(&snapshot(&objects), |_| vec!["192.0.2.1".parse().unwrap(), reported]);
        assert_eq!(served.last().unwrap().place, Place::Addresses(vec![reported]));
        assert_eq!(served.last().unwrap().refusal, None);
    }

    #[test]
    fn addresses_of_the_spec_are_had_or_refused_with_the_reason() {
        let usable = json!({ "type": "IPAddress", "value": "10.97.255.10" });
        let outside = json!({ "value": "192.0.2.1" });
        let strange = json!({ "type": "test/fake", "value": "x" });
        let of = |addresses: Value| {
            let objects = [class("ours", OURS), gateway("more", "ours", addresses)];
            bindings(POOL).update(&snapshot(&objects), |_| Vec::new()).pop().unwrap()
        };
        let address = Place::Addresses(vec!["10.97.255.10".parse().unwrap()]);
        assert!(matches!(of(json!([usable, strange])).refusal, Some(Refusal::Unsupported(_))));
        let partly = of(json!([outside, usable]));
        assert_eq!(partly.place, address);
        assert!(matches!(partly.refusal, Some(Refusal::NotUsable(message)) if message.contains("192.0.2.1")));
        let fine = of(json!([usable]));
        assert_eq!((fine.place, fine.refusal), (address, None));
    }

    #[test]
    fn ports_of_a_range_are_those_that_the_service_leads_to() {
        let mut bindings = bindings("[source.kubernetes.addresses]\nports = \"20000-20003\"");
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "more", "namespace": "network", "labels": { GATEWAY_LABEL: "more" } },
            "spec": { "ports": [{ "port": 80, "targetPort": 20002 }] },
        });
        let objects = [class("ours", OURS), gateway("more", "ours", json!([])), service];
        let served = bindings.update(&snapshot(&objects), |_| Vec::new()).pop().unwrap();
        let port = |bindings: &mut Bindings, listener| bindings.sockets(&served, listener)[0].port();
        assert_eq!(port(&mut bindings, 80), 20002);
        let other = port(&mut bindings, 443);
        assert!(other != 20002 && (20000..=20003).contains(&other));
        assert_eq!(port(&mut bindings, 443), other);
    }

    #[test]
    fn names_that_are_too_long_or_have_dots_stay_apart() {
        assert_eq!(shortened("envoy-external"), "envoy-external");
        let long = "a".repeat(253);
        assert_eq!(shortened(&long).len(), LONGEST_NAME);
        assert_ne!(shortened(&long), shortened(&long[1..]));
        assert!(shortened("a.b").starts_with("a-b-"));
        assert!(shortened("1a").starts_with("g-1a-"));
    }
}
