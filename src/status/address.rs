//! Under which addresses a Gateway can be reached, and what is missing until it can.

use super::publication::Publication;
use super::services;
use crate::bindings::{Place, Refusal, Served};
use crate::compile::{Binding, GatewayReport, Verdict};
use crate::config::{KubernetesSource, ServiceType};
use crate::resource::{ObjectRef, Records, Service};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// The addresses of a Gateway.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// `status.addresses`.
    pub addresses: Vec<Value>,
    /// Why it is not reachable, or not at every address that it asks for.
    pub lacking: Option<Verdict>,
    /// Why it cannot be had at the addresses that it asks for.
    pub refusal: Option<Refusal>,
}

impl Reach {
    fn at(addresses: Vec<Value>) -> Self {
        Self { addresses, ..Self::default() }
    }

    fn lacking(verdict: Verdict) -> Self {
        Self { lacking: Some(verdict), ..Self::default() }
    }
}

/// Where a Gateway can be reached.
pub(super) fn reach(
    publication: &Publication,
    served: &Served,
    config: &KubernetesSource,
    namespace: &str,
    records: &Records,
) -> Reach {
    let mut reach = match &served.place {
        Place::Addresses(addresses) => Reach::at(addresses.iter().map(ip).collect()),
        Place::Nowhere(why) => Reach::lacking(Verdict::no("NoResources", why.clone())),
        Place::Configured | Place::Ports => {
            let service = services::Plan::new(publication, served, config, namespace);
            match service.r#type {
                ServiceType::None => Reach::at(bound(publication, served)),
                ServiceType::LoadBalancer => balanced(publication, &service, records),
                ServiceType::ClusterIP | ServiceType::NodePort => inner(publication, &service),
            }
        }
    };
    reach.refusal = served.refusal.clone().or_else(|| refused(publication, served, &reach));
    if let Some(Refusal::NotUsable(message)) = &reach.refusal {
        reach.lacking = Some(Verdict::no("AddressNotUsable", message.clone()));
    }
    if reach.lacking.is_none() {
        reach.lacking = closed(publication, served);
    }
    reach
}

/// What the addresses mean for the conditions of a Gateway.
pub(super) fn judge(mut report: GatewayReport, reach: &Reach) -> GatewayReport {
    if let Some(Refusal::Unsupported(message)) = &reach.refusal {
        report.accepted = Verdict::no("UnsupportedAddress", message.clone());
        report.programmed = Verdict::no("Invalid", message.clone());
    } else if let Some(lacking) = reach.lacking.as_ref().filter(|_| report.programmed.holds) {
        report.programmed = lacking.clone();
    }
    report
}

/// The addresses in a Gateway's status.
pub fn reported(status: &str) -> Vec<IpAddr> {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let addresses = status.get("addresses").and_then(Value::as_array);
    addresses.into_iter().flatten().filter_map(|address| address["value"].as_str()?.parse().ok()).collect()
}

fn ip(address: &IpAddr) -> Value {
    json!({ "type": "IPAddress", "value": address.to_string() })
}

/// Why addresses that the spec asks for are not those that there are. While there are none, they may still come.
fn refused(publication: &Publication, served: &Served, reach: &Reach) -> Option<Refusal> {
    let Binding { namespace, object, .. } = &served.binding;
    let gateway = publication.snapshot.gateways.get(namespace, object)?;
    let asked = &gateway.object.spec.addresses;
    let foreign = asked.iter().find_map(|address| {
        let kind = address.r#type.as_deref().filter(|kind| *kind != "IPAddress")?;
        Some(Refusal::Unsupported(format!("addresses of type {kind} are not supported, only IPAddress")))
    });
    if foreign.is_some() || reach.addresses.is_empty() {
        return foreign;
    }
    // One IPv6 address can be written in several ways.
    let address = |text: &str| text.parse::<IpAddr>().ok();
    let reached = || reach.addresses.iter().filter_map(|address| address["value"].as_str());
    let had = |wanted: &str| reached().any(|there| there == wanted || address(there) == address(wanted));
    let values =
        asked.iter().filter_map(|address| address.value.as_deref()).filter(|value| !value.is_empty());
    let lost: Vec<&str> = values.filter(|wanted| !had(wanted)).collect();
    (!lost.is_empty()).then(|| {
        let (lost, count) = (lost.join(", "), reach.addresses.len());
        Refusal::NotUsable(format!("{lost} is none of the {count} addresses that the Gateway has got"))
    })
}

/// Why a socket of the Gateway is not open.
fn closed(publication: &Publication, served: &Served) -> Option<Verdict> {
    let sockets = publication.sockets.iter().filter(|(id, _)| id.gateway == served.binding.id);
    let failed: Vec<String> = sockets
        .filter_map(|(id, socket)| socket.as_ref().err().map(|error| format!("port {}: {error}", id.port)))
        .collect();
    (!failed.is_empty()).then(|| Verdict::no("NoResources", failed.join("; ")))
}

/// The addresses that the Gateway's sockets are bound to, but for those that mean every address.
fn bound(publication: &Publication, served: &Served) -> Vec<Value> {
    let sockets = publication.sockets.iter().filter(|(id, _)| id.gateway == served.binding.id);
    let mut addresses: Vec<IpAddr> = sockets
        .filter_map(|(_, socket)| socket.as_ref().ok())
        .flatten()
        .map(|address| address.ip().to_canonical())
        .filter(|address| !address.is_unspecified())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses.iter().map(ip).collect()
}

/// What the load balancer of a Service reports.
fn balanced(publication: &Publication, service: &services::Plan, records: &Records) -> Reach {
    let named = ObjectRef {
        kind: "Service".to_owned(),
        namespace: service.namespace.clone(),
        name: service.name.clone(),
    };
    let waiting = |message: String| Reach::lacking(Verdict::no("AddressNotAssigned", message));
    if let Some(problem) = service.obstacle(&publication.snapshot) {
        return waiting(problem);
    }
    let status = records.get(&named).and_then(|record| record.status.clone());
    let status: Value = status.and_then(|status| serde_json::from_str(&status).ok()).unwrap_or_default();
    let ingress = status.pointer("/loadBalancer/ingress").and_then(Value::as_array);
    let mut addresses = Vec::new();
    for entry in ingress.into_iter().flatten() {
        addresses.extend(entry["ip"].as_str().map(|value| json!({ "type": "IPAddress", "value": value })));
        addresses
            .extend(entry["hostname"].as_str().map(|value| json!({ "type": "Hostname", "value": value })));
    }
    // Readers of one address take the first: an IP address is what all of them understand.
    addresses.sort_by_key(|address| address["type"] != "IPAddress");
    // The API takes no more.
    addresses.truncate(16);
    if addresses.is_empty() {
        let message =
            format!("the load balancer of Service {}/{} has no address yet", named.namespace, named.name);
        return waiting(message);
    }
    Reach::at(addresses)
}

/// The address of a Service within the cluster.
fn inner(publication: &Publication, service: &services::Plan) -> Reach {
    let found = publication.snapshot.services.get(&service.namespace, &service.name);
    let service: Option<&Arc<Service>> = found.map(|entry| &entry.object);
    let address = service.and_then(|service| service.spec.cluster_ip.as_deref()?.parse().ok());
    match address {
        Some(address) => Reach::at(vec![ip(&address)]),
        None => Reach::lacking(Verdict::no("AddressNotAssigned", "its Service has no cluster address yet")),
    }
}
