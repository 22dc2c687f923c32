//! The Service that leads to a Gateway.
//!
//! It is called like its Gateway and stands beside it, because tunnels and policies name it. A Service of that
//! name which is Envoy Gateway's becomes ours without losing its address; one that is somebody's own stays so.

use super::difference::{ANNOTATIONS, FIELDS, LABELS, lay_over};
use super::publication::Publication;
use crate::bindings::{GATEWAY_LABEL, Place, Served, shortened};
use crate::config::{KubernetesSource, ServiceConfig, ServicePlace, ServiceType, TrafficPolicy};
use crate::resource::{
    EnvoyProxy, EnvoyService, Gateway, Labels, Metadata, PortName, Record, Service, ServicePort, Snapshot,
};
use crate::routing::{SocketId, Transport};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "trigate");
const GATEWAY_NAMESPACE: &str = "trigate.dev/gateway-namespace";
/// Envoy Gateway's label on what it makes for a Gateway.
const ENVOY_OWNING: &str = "gateway.envoyproxy.io/owning-gateway-name";
/// Which controller made it, for there may be several in a cluster.
const CONTROLLER: &str = "trigate.dev/controller";

/// Which Service a Gateway has.
#[derive(Debug)]
pub(super) struct Plan {
    pub namespace: String,
    pub name: String,
    pub r#type: ServiceType,
    /// Whether the Gateway's parameters are known. Without them its Service stays as it is.
    pub is_certain: bool,
    config: ServiceConfig,
    /// What the Gateway's EnvoyProxy says of it, which counts more than proxy.toml.
    proxy: Option<Arc<EnvoyProxy>>,
    gateway: (String, String),
    controller: String,
}

impl Plan {
    /// The Service of a Gateway; `namespace` is trigate's own.
    pub fn new(
        publication: &Publication,
        served: &Served,
        config: &KubernetesSource,
        namespace: &str,
    ) -> Self {
        let binding = &served.binding;
        let report = publication.gateways.iter().find(|report| report.id == binding.id);
        let parameters = report.map(|report| report.parameters.as_ref());
        let proxy = parameters.flatten().and_then(|parameters| parameters.proxy.clone());
        let asked = proxy.as_ref().and_then(|proxy| proxy.service());
        let service = asked_of(config.service(&binding.name), asked);
        let gateway = (binding.namespace.clone(), binding.object.clone());
        let (namespace, name) = match service.place() {
            ServicePlace::Gateway => (gateway.0.clone(), shortened(&gateway.1)),
            ServicePlace::Trigate => {
                (namespace.to_owned(), shortened(&format!("{}-{}", gateway.0, gateway.1)))
            }
        };
        let name = asked.and_then(|asked| asked.name.as_deref()).map_or(name, shortened);
        let default = match served.place {
            Place::Addresses(_) => ServiceType::ClusterIP,
            _ => ServiceType::LoadBalancer,
        };
        Self {
            namespace,
            name,
            r#type: service.r#type.unwrap_or(default),
            is_certain: parameters.is_none_or(|parameters| parameters.is_some()),
            config: service,
            proxy,
            gateway,
            controller: config.controller_name.clone(),
        }
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
        let known = publication.snapshot.services.get(&self.namespace, &self.name);
        let known = known.map(|known| &*known.object.spec.ports).unwrap_or_default();
        let ports = ports(publication, served, known);
        if ports.is_empty() {
            return None;
        }
        let mut spec = json!({ "type": kind, "ports": ports });
        if let (Some(selector), false) = (&self.config.selector, matches!(served.place, Place::Addresses(_)))
        {
            spec["selector"] = json!(selector);
        }
        if self.r#type == ServiceType::LoadBalancer {
            self.balance(gateway, &mut spec);
        }
        if let (Some(policy), true) =
            (self.config.external_traffic_policy, self.r#type != ServiceType::ClusterIP)
        {
            spec["externalTrafficPolicy"] = json!(policy.name());
        }
        let mut service = json!({
            "metadata": { "labels": self.labels(gateway), "annotations": self.annotations(gateway) },
            "spec": spec,
        });
        if let Some(patch) = self.asked().and_then(|asked| asked.patch.as_ref()) {
            lay_over(&mut service, patch);
        }
        self.sign(&mut service, owner);
        Some(service)
    }

    fn asked(&self) -> Option<&EnvoyService> {
        self.proxy.as_ref().and_then(|proxy| proxy.service())
    }

    /// What only a load balancer has.
    fn balance(&self, gateway: &Gateway, spec: &mut Value) {
        if let Some(class) = &self.config.load_balancer_class {
            spec["loadBalancerClass"] = json!(class);
        }
        let asked = gateway.spec.addresses.iter().find_map(|address| address.value.as_deref());
        let Some(EnvoyService {
            load_balancer_ip,
            load_balancer_source_ranges,
            allocate_load_balancer_node_ports,
            name: _,
            r#type: _,
            labels: _,
            annotations: _,
            load_balancer_class: _,
            external_traffic_policy: _,
            patch: _,
        }) = self.asked()
        else {
            if let Some(address) = asked {
                spec["loadBalancerIP"] = json!(address);
            }
            return;
        };
        if let Some(address) = asked.or(load_balancer_ip.as_deref()) {
            spec["loadBalancerIP"] = json!(address);
        }
        if !load_balancer_source_ranges.is_empty() {
            spec["loadBalancerSourceRanges"] = json!(&**load_balancer_source_ranges);
        }
        if let Some(allocate) = allocate_load_balancer_node_ports {
            spec["allocateLoadBalancerNodePorts"] = json!(allocate);
        }
    }

    /// Says what the Service is and whose, and what of it came from us, so that it can go again.
    fn sign(&self, service: &mut Value, owner: &Record) {
        let keys =
            |value: &Value| value.as_object().map_or_else(Vec::new, |map| map.keys().cloned().collect());
        let labels = keys(&service["metadata"]["labels"]).join(",");
        let annotations = keys(&service["metadata"]["annotations"]).join(",");
        // Every Service has these, and the class stays what it is.
        const LASTING: [&str; 4] = ["type", "ports", "selector", "loadBalancerClass"];
        let fields = keys(&service["spec"]).into_iter().filter(|field| !LASTING.contains(&field.as_str()));
        let fields = fields.collect::<Vec<_>>().join(",");
        service["apiVersion"] = json!("v1");
        service["kind"] = json!("Service");
        let metadata = &mut service["metadata"];
        metadata["name"] = json!(self.name);
        metadata["namespace"] = json!(self.namespace);
        metadata["labels"][MANAGED_BY.0] = json!(MANAGED_BY.1);
        metadata["labels"][GATEWAY_LABEL] = json!(shortened(&self.gateway.1));
        metadata["labels"][GATEWAY_NAMESPACE] = json!(self.gateway.0);
        metadata["annotations"][LABELS] = json!(labels);
        metadata["annotations"][ANNOTATIONS] = json!(annotations);
        metadata["annotations"][FIELDS] = json!(fields);
        metadata["annotations"][CONTROLLER] = json!(self.controller);
        // An owner of another namespace would have the garbage collector remove the Service.
        if self.namespace == self.gateway.0 {
            metadata["ownerReferences"] = json!([{
                "apiVersion": &*owner.api_version, "kind": "Gateway", "name": self.gateway.1, "uid": &*owner.uid,
                "controller": true, "blockOwnerDeletion": false,
            }]);
        }
    }

    fn labels(&self, gateway: &Gateway) -> BTreeMap<String, String> {
        let wished = gateway.spec.infrastructure.as_ref().map(|infrastructure| &infrastructure.labels);
        let asked = self.asked().map(|asked| &asked.labels);
        collected(&self.config.labels, [wished, asked])
    }

    fn annotations(&self, gateway: &Gateway) -> BTreeMap<String, String> {
        let wished = gateway.spec.infrastructure.as_ref().map(|infrastructure| &infrastructure.annotations);
        let asked = self.asked().map(|asked| &asked.annotations);
        collected(&self.config.annotations, [wished, asked])
    }
}

/// Of two with one key the later one counts, as with Envoy Gateway.
fn collected(first: &BTreeMap<String, String>, later: [Option<&Labels>; 2]) -> BTreeMap<String, String> {
    let later = later.into_iter().flatten().flat_map(Labels::iter);
    let later = later.map(|(key, value)| (key.to_owned(), value.to_owned()));
    first.clone().into_iter().chain(later).collect()
}

/// What proxy.toml says of a Service with what an EnvoyProxy says instead.
fn asked_of(config: ServiceConfig, asked: Option<&EnvoyService>) -> ServiceConfig {
    let Some(asked) = asked else { return config };
    let policy = asked.external_traffic_policy.as_deref();
    let policy =
        [TrafficPolicy::Local, TrafficPolicy::Cluster].into_iter().find(|known| policy == Some(known.name()));
    let kind = [ServiceType::LoadBalancer, ServiceType::NodePort, ServiceType::ClusterIP]
        .into_iter()
        .find(|known| known.name() == asked.r#type.as_deref());
    // Whoever runs trigate decides whether there are Services at all.
    let none = config.r#type.filter(|kind| *kind == ServiceType::None);
    ServiceConfig {
        r#type: none.or(kind).or(config.r#type),
        load_balancer_class: asked
            .load_balancer_class
            .as_deref()
            .map(str::to_owned)
            .or(config.load_balancer_class),
        external_traffic_policy: policy.or(config.external_traffic_policy),
        ..config
    }
}

/// The ports of the listeners of a Gateway and its ListenerSets, leading to its sockets. Where a socket is not open, a
/// port that the Service has already stays as it is, for other replicas may serve it; a new one has to wait.
fn ports(publication: &Publication, served: &Served, known: &[ServicePort]) -> Vec<Value> {
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
        let open = publication.sockets.get(&id).and_then(|socket| socket.as_ref().ok()?.first());
        let before = || {
            let of_listener = |known: &&ServicePort| {
                known.port == listener.port && known.protocol.as_deref().unwrap_or("TCP") == transport
            };
            match known.iter().find(of_listener)?.target_port {
                Some(PortName::Number(number)) => Some(number),
                _ => None,
            }
        };
        let Some(target) = open.map(SocketAddr::port).or_else(before) else { continue };
        let name = format!("{}-{}", listener.protocol.to_lowercase(), listener.port);
        ports.entry((listener.port, transport)).or_insert_with(
            || json!({ "name": name, "port": listener.port, "targetPort": target, "protocol": transport }),
        );
    }
    ports.into_values().collect()
}

/// A Service of ours that no Gateway of ours has any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leftover {
    pub namespace: String,
    pub name: String,
    /// Why it is not needed.
    pub why: Uncalled,
}

/// Why nobody needs a Service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Uncalled {
    /// Its Gateway has a class of somebody else, or its Service has another name now.
    Moved,
    /// No Gateway is to be seen in this namespace that its labels could mean. That may be because the kind is being
    /// installed anew.
    Unseen { namespace: String },
}

/// Services of ours that no Gateway has any more.
pub(super) fn leftovers(
    publication: &Publication,
    config: &KubernetesSource,
    namespace: &str,
) -> Vec<Leftover> {
    let plans: Vec<Plan> =
        publication.served.iter().map(|served| Plan::new(publication, served, config, namespace)).collect();
    let services = publication.snapshot.services.iter().map(|entry| &entry.object.metadata);
    let ours = services.filter(|metadata| {
        metadata.labels.get(MANAGED_BY.0) == Some(MANAGED_BY.1)
            && metadata.annotations.get(CONTROLLER) == Some(&config.controller_name)
    });
    let leftover = |metadata: &Metadata| {
        let why = uncalled(metadata, &plans, &publication.snapshot, config)?;
        let (namespace, name) = metadata.key();
        Some(Leftover { namespace: namespace.to_owned(), name: name.to_owned(), why })
    };
    ours.filter_map(leftover).collect()
}

fn uncalled(
    service: &Metadata,
    plans: &[Plan],
    snapshot: &Snapshot,
    config: &KubernetesSource,
) -> Option<Uncalled> {
    let home = service.labels.get(GATEWAY_NAMESPACE)?;
    let label = service.labels.get(GATEWAY_LABEL)?;
    let mut gateways = snapshot.gateways.in_namespace(home).iter().map(|entry| &entry.object);
    let Some(gateway) = gateways.find(|gateway| shortened(&gateway.metadata.name) == label) else {
        // One that stands beside its Gateway goes with it, for it is the Gateway's.
        return (*home != *service.namespace).then(|| Uncalled::Unseen { namespace: home.to_owned() });
    };
    let is_moved =
        match plans.iter().find(|plan| plan.gateway.0 == home && *plan.gateway.1 == *gateway.metadata.name) {
            Some(plan) => {
                plan.is_certain && (*plan.namespace != *service.namespace || *plan.name != *service.name)
            }
            // Where its class is missing it may come again, and the address of a load balancer would not.
            None => {
                let class = snapshot.gateway_classes.get("", &gateway.spec.gateway_class_name);
                class.is_some_and(|class| *class.object.spec.controller_name != *config.controller_name)
            }
        };
    is_moved.then_some(Uncalled::Moved)
}

/// Whether a Service, as the API server has it, is one that we made or took over, to be removed.
pub(super) fn is_ours_to_remove(service: &Value, controller: &str) -> bool {
    let metadata = &service["metadata"];
    let label = |key: &str| metadata["labels"][key].as_str();
    let owned = metadata["ownerReferences"].as_array().is_some_and(|owners| {
        owners.iter().any(|owner| {
            owner["kind"] == "Gateway"
                && owner["name"].as_str().map(shortened).as_deref() == label(GATEWAY_LABEL)
        })
    });
    label(MANAGED_BY.0) == Some(MANAGED_BY.1)
        && metadata["annotations"][CONTROLLER] == controller
        && (owned || label(GATEWAY_NAMESPACE) != metadata["namespace"].as_str())
}
