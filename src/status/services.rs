//! The Service that leads to a Gateway.
//!
//! It is called like its Gateway and stands beside it, because tunnels and policies name it. A Service of that
//! name which is Envoy Gateway's becomes ours without losing its address; one that is somebody's own stays so.

use super::publication::Publication;
use crate::bindings::{GATEWAY_LABEL, Place, Served};
use crate::config::{KubernetesSource, ServiceConfig, ServicePlace, ServiceType};
use crate::resource::{Gateway, Record, Service, Snapshot};
use crate::routing::{SocketId, Transport};
use foldhash::fast::FixedState;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::hash::BuildHasher;

const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "trigate");
const GATEWAY_NAMESPACE: &str = "trigate.dev/gateway-namespace";
/// Envoy Gateway's label on what it makes for a Gateway.
const ENVOY_OWNING: &str = "gateway.envoyproxy.io/owning-gateway-name";
/// Which annotations came from us, so that they can go again.
const PROPAGATED: &str = "trigate.dev/propagated-annotations";
/// Which controller made it, for there may be several in a cluster.
const CONTROLLER: &str = "trigate.dev/controller";
const LONGEST_NAME: usize = 63;

/// Which Service a Gateway has.
#[derive(Debug)]
pub(super) struct Plan {
    pub namespace: String,
    pub name: String,
    pub r#type: ServiceType,
    config: ServiceConfig,
    gateway: (String, String),
    controller: String,
}

impl Plan {
    /// The Service of a Gateway; `namespace` is trigate's own.
    pub fn new(served: &Served, config: &KubernetesSource, namespace: &str) -> Self {
        let binding = &served.binding;
        let service = config.service(&binding.name);
        let gateway = (binding.namespace.clone(), binding.object.clone());
        let (namespace, name) = match service.place() {
            ServicePlace::Gateway => (gateway.0.clone(), shortened(&gateway.1)),
            ServicePlace::Trigate => {
                (namespace.to_owned(), shortened(&format!("{}-{}", gateway.0, gateway.1)))
            }
        };
        let default = match served.place {
            Place::Addresses(_) => ServiceType::ClusterIP,
            _ => ServiceType::LoadBalancer,
        };
        let r#type = service.r#type.unwrap_or(default);
        Self { namespace, name, r#type, config: service, gateway, controller: config.controller_name.clone() }
    }

    /// Why the Service cannot be ours: one of that name is somebody's own.
    pub fn obstacle(&self, snapshot: &Snapshot) -> Option<String> {
        let found = snapshot.services.get(&self.namespace, &self.name)?;
        (!self.is_ours(&found.object)).then(|| {
            format!(
                "Service {}/{} belongs to somebody else; rename it, or label it {GATEWAY_LABEL}: {} to hand it over",
                self.namespace,
                self.name,
                shortened(&self.gateway.1)
            )
        })
    }

    fn is_ours(&self, service: &Service) -> bool {
        let labels = &service.metadata.labels;
        let name = shortened(&self.gateway.1);
        labels.get(GATEWAY_LABEL) == Some(&name) || labels.get(ENVOY_OWNING) == Some(&self.gateway.1)
    }

    /// The Service as it should be; `None` while it would lead nowhere.
    pub fn desired(&self, publication: &Publication, served: &Served, owner: &Record) -> Option<Value> {
        let kind = self.r#type.name()?;
        let gateway = &publication.snapshot.gateways.get(&self.gateway.0, &self.gateway.1)?.object;
        let ports = ports(publication, served);
        if ports.is_empty() {
            return None;
        }
        let mut spec = json!({ "type": kind, "ports": ports });
        if let (Some(selector), false) = (&self.config.selector, matches!(served.place, Place::Addresses(_)))
        {
            spec["selector"] = json!(selector);
        }
        if self.r#type == ServiceType::LoadBalancer {
            if let Some(class) = &self.config.load_balancer_class {
                spec["loadBalancerClass"] = json!(class);
            }
            let asked = gateway.spec.addresses.iter().find_map(|address| address.value.as_deref());
            if let Some(address) = asked {
                spec["loadBalancerIP"] = json!(address);
            }
        }
        if let (Some(policy), true) =
            (self.config.external_traffic_policy, self.r#type != ServiceType::ClusterIP)
        {
            spec["externalTrafficPolicy"] = json!(policy.name());
        }
        let mut metadata = json!({
            "name": self.name,
            "namespace": self.namespace,
            "labels": self.labels(gateway),
            "annotations": self.annotations(gateway),
        });
        // An owner of another namespace would have the garbage collector remove the Service.
        if self.namespace == self.gateway.0 {
            metadata["ownerReferences"] = json!([{
                "apiVersion": &*owner.api_version, "kind": "Gateway", "name": self.gateway.1, "uid": &*owner.uid,
                "controller": true, "blockOwnerDeletion": false,
            }]);
        }
        Some(json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec }))
    }

    fn labels(&self, gateway: &Gateway) -> BTreeMap<String, String> {
        let own = [
            (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
            (GATEWAY_LABEL.to_owned(), shortened(&self.gateway.1)),
            (GATEWAY_NAMESPACE.to_owned(), self.gateway.0.clone()),
        ];
        let wished =
            gateway.spec.infrastructure.iter().flat_map(|infrastructure| infrastructure.labels.iter());
        let wished = wished.map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.config.labels.clone().into_iter().chain(wished).chain(own).collect()
    }

    fn annotations(&self, gateway: &Gateway) -> BTreeMap<String, String> {
        let wished =
            gateway.spec.infrastructure.iter().flat_map(|infrastructure| infrastructure.annotations.iter());
        let wished = wished.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut annotations: BTreeMap<String, String> =
            self.config.annotations.clone().into_iter().chain(wished).collect();
        let keys: Vec<&str> = annotations.keys().map(String::as_str).collect();
        let keys = keys.join(",");
        annotations.insert(PROPAGATED.to_owned(), keys);
        annotations.insert(CONTROLLER.to_owned(), self.controller.clone());
        annotations
    }
}

/// The ports of the listeners of a Gateway and its ListenerSets, leading to its sockets.
fn ports(publication: &Publication, served: &Served) -> Vec<Value> {
    let report = publication.gateways.iter().find(|report| report.id == served.binding.id);
    let listeners = report.into_iter().flat_map(|report| {
        report.listeners.iter().chain(report.listener_sets.iter().flat_map(|set| &set.listeners))
    });
    let mut ports = BTreeMap::new();
    for listener in listeners.filter(|listener| listener.accepted.holds) {
        let (transport, id) = match listener.protocol.as_str() {
            "UDP" => ("UDP", Transport::Udp),
            _ => ("TCP", Transport::Tcp),
        };
        let id = SocketId { gateway: served.binding.id, port: listener.port, transport: id };
        let socket = publication.sockets.get_key_value(&id);
        let target = socket
            .and_then(|(_, socket)| socket.as_ref().ok()?.first())
            .map_or(listener.port, |bound| bound.port());
        let name = format!("{}-{}", listener.protocol.to_lowercase(), listener.port);
        ports.entry((listener.port, transport)).or_insert_with(
            || json!({ "name": name, "port": listener.port, "targetPort": target, "protocol": transport }),
        );
    }
    ports.into_values().collect()
}

/// Services that we made for Gateways that are not served any more. Those beside their Gateway go with it.
pub(super) fn leftover(publication: &Publication, config: &KubernetesSource, namespace: &str) -> Vec<String> {
    let plans: Vec<Plan> =
        publication.served.iter().map(|served| Plan::new(served, config, namespace)).collect();
    let of_ours =
        publication.snapshot.services.in_namespace(namespace).iter().map(|entry| &entry.object.metadata);
    of_ours
        .filter(|metadata| metadata.labels.get(MANAGED_BY.0) == Some(MANAGED_BY.1))
        .filter(|metadata| metadata.annotations.get(CONTROLLER) == Some(&config.controller_name))
        .filter(|metadata| metadata.labels.get(GATEWAY_NAMESPACE).is_some_and(|other| other != namespace))
        .filter(|metadata| {
            !plans.iter().any(|plan| plan.namespace == namespace && *plan.name == *metadata.name)
        })
        .map(|metadata| metadata.name.to_string())
        .collect()
}

/// What to change in a Service as a merge patch; `None` when it is as it should be.
pub(super) fn difference(current: &Value, desired: &Value) -> Option<Value> {
    let mut metadata = Map::new();
    for field in ["labels", "annotations"] {
        let mut changed: Map<String, Value> = Map::new();
        let now = desired.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
        for (key, value) in now.into_iter().flatten() {
            if current["metadata"][field][key] != *value {
                changed.insert(key.clone(), value.clone());
            }
        }
        if field == "annotations" {
            let before = current["metadata"][field][PROPAGATED].as_str().unwrap_or_default();
            let gone = before.split(',').filter(|key| !key.is_empty()).chain([PROPAGATED]);
            for key in gone.filter(|key| now.is_none_or(|now| !now.contains_key(*key))) {
                if current["metadata"][field].get(key).is_some() {
                    changed.insert(key.to_owned(), Value::Null);
                }
            }
        }
        if !changed.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(changed));
        }
    }
    let owners = &desired["metadata"]["ownerReferences"];
    let uid = |owners: &Value| owners.pointer("/0/uid").cloned();
    if owners.is_array() && uid(owners) != uid(&current["metadata"]["ownerReferences"]) {
        metadata.insert("ownerReferences".to_owned(), owners.clone());
    }
    let spec = changed_spec(&current["spec"], &desired["spec"]);
    if metadata.is_empty() && spec.is_empty() {
        return None;
    }
    Some(json!({ "metadata": metadata, "spec": spec }))
}

fn changed_spec(current: &Value, desired: &Value) -> Map<String, Value> {
    let mut changed = Map::new();
    let Some(fields) = desired.as_object() else { return changed };
    for (field, value) in fields {
        let same = match field.as_str() {
            "ports" => ports_of(current) == *value,
            // It can be set only when the Service becomes a load balancer.
            "loadBalancerClass" => current["type"] == "LoadBalancer",
            _ => current[field] == *value,
        };
        if !same {
            changed.insert(field.clone(), value.clone());
        }
    }
    // A merge patch merges maps, and a label that stays in the selector would choose nothing.
    if let Some(selector) = changed.get_mut("selector").and_then(Value::as_object_mut) {
        for key in current["selector"].as_object().into_iter().flatten().map(|(key, _)| key) {
            selector.entry(key.clone()).or_insert(Value::Null);
        }
    }
    changed
}

/// The ports of a Service as far as we decide them.
fn ports_of(spec: &Value) -> Value {
    let ports = spec["ports"].as_array().into_iter().flatten();
    ports
        .map(|port| {
            json!({
                "name": port["name"], "port": port["port"], "targetPort": port["targetPort"],
                "protocol": port["protocol"],
            })
        })
        .collect()
}

/// A name that fits into a label: a longer one ends in a hash of all of it.
pub(super) fn shortened(name: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn service(annotations: Value, spec: Value) -> Value {
        json!({ "metadata": { "labels": { "a": "b" }, "annotations": annotations }, "spec": spec })
    }

    #[test]
    fn a_service_that_is_right_is_not_written() {
        let port = json!({ "name": "http-80", "port": 80, "targetPort": 10080, "protocol": "TCP" });
        let mut given = port.clone();
        given["nodePort"] = json!(30123);
        let current = service(
            json!({ "theirs": "x" }),
            json!({ "type": "LoadBalancer", "ports": [given], "clusterIP": "10.96.0.9" }),
        );
        let desired = service(json!({}), json!({ "type": "LoadBalancer", "ports": [port] }));
        assert_eq!(difference(&current, &desired), None);
    }

    #[test]
    fn annotations_that_a_gateway_no_longer_wishes_go_and_others_stay() {
        let current =
            service(json!({ "theirs": "x", "old": "1", PROPAGATED: "old,kept", "kept": "2" }), json!({}));
        let desired = service(json!({ "kept": "2", PROPAGATED: "kept" }), json!({}));
        let patch = difference(&current, &desired).unwrap();
        assert_eq!(patch["metadata"]["annotations"], json!({ "old": null, PROPAGATED: "kept" }));
    }

    #[test]
    fn the_selector_of_a_service_that_is_adopted_is_replaced_as_a_whole() {
        let current = service(json!({}), json!({ "selector": { "app": "envoy", "name": "x" } }));
        let desired = service(json!({}), json!({ "selector": { "name": "trigate" } }));
        let patch = difference(&current, &desired).unwrap();
        assert_eq!(patch["spec"]["selector"], json!({ "app": null, "name": "trigate" }));
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
