//! Under which addresses a Gateway can be reached, and what is missing until it can.

use super::publication::Publication;
use super::services;
use crate::bindings::{Place, Refusal, Served};
use crate::compile::{GatewayReport, Verdict};
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
        Place::Addresses(addresses) => Reach { addresses: addresses.iter().map(ip).collect(), lacking: None },
        Place::Nowhere(why) => {
            Reach { addresses: Vec::new(), lacking: Some(Verdict::no("NoResources", why.clone())) }
        }
        Place::Configured | Place::Ports => {
            let service = services::Plan::new(served, config, namespace);
            match service.r#type {
                ServiceType::None => Reach { addresses: bound(publication, served), lacking: None },
                ServiceType::LoadBalancer => balanced(publication, &service, records),
                ServiceType::ClusterIP | ServiceType::NodePort => inner(publication, &service),
            }
        }
    };
    if let Some(Refusal::NotUsable(message)) = &served.refusal {
        reach.lacking = Some(Verdict::no("AddressNotUsable", message.clone()));
    }
    if reach.lacking.is_none() {
        reach.lacking = closed(publication, served);
    }
    reach
}

/// What the addresses mean for the conditions of a Gateway.
pub(super) fn judge(mut report: GatewayReport, served: &Served, reach: &Reach) -> GatewayReport {
    if let Some(Refusal::Unsupported(message)) = &served.refusal {
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
    let waiting = |message: String| Reach {
        addresses: Vec::new(),
        lacking: Some(Verdict::no("AddressNotAssigned", message)),
    };
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
    Reach { addresses, lacking: None }
}

/// The address of a Service within the cluster.
fn inner(publication: &Publication, service: &services::Plan) -> Reach {
    let found = publication.snapshot.services.get(&service.namespace, &service.name);
    let service: Option<&Arc<Service>> = found.map(|entry| &entry.object);
    let address = service.and_then(|service| service.spec.cluster_ip.as_deref()?.parse().ok());
    match address {
        Some(address) => Reach { addresses: vec![ip(&address)], lacking: None },
        None => Reach {
            addresses: Vec::new(),
            lacking: Some(Verdict::no("AddressNotAssigned", "its Service has no cluster address yet")),
        },
    }
}
