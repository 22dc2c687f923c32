//! `[source.kubernetes]`: a cluster as the source, and what this process keeps up there.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// The controller name of our class.
const CONTROLLER: &str = "trigate.dev/gateway-controller";

/// A Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesSource {
    /// How to reach the API server; the environment and the pod's service account say it when absent.
    pub kubeconfig: Option<PathBuf>,
    /// Gateways of all classes with this controller name are served. To take over Envoy Gateway's class:
    /// `gateway.envoyproxy.io/gatewayclass-controller`.
    pub controller_name: String,
    /// The namespace that trigate runs in; the pod's own one when absent.
    pub namespace: Option<String>,
    /// The Lease that says which replica writes status and Services.
    pub lease: String,
    /// Whether to write anything at all: status, Services, Events.
    pub write: bool,
    /// Where Gateways get their sockets that no `[gateways.*]` names.
    pub addresses: AddressPool,
    /// The Service of each Gateway.
    pub service: ServiceConfig,
    /// What is different in the Service of one of the `[gateways.*]`.
    pub services: BTreeMap<String, ServiceConfig>,
}

impl Default for KubernetesSource {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            controller_name: CONTROLLER.to_owned(),
            namespace: None,
            lease: "trigate".to_owned(),
            write: true,
            addresses: AddressPool::default(),
            service: ServiceConfig::default(),
            services: BTreeMap::new(),
        }
    }
}

impl KubernetesSource {
    /// As whom the API server notes what is written, so that any replica knows it for ours later.
    pub fn field_manager(&self) -> String {
        /// The API server takes no more.
        const LONGEST: usize = 128;
        self.controller_name.chars().take(LONGEST).collect()
    }

    /// The Service of a gateway, by its name: what its own table leaves open is as for all.
    pub fn service(&self, gateway: &str) -> ServiceConfig {
        let all = self.service.clone();
        let Some(own) = self.services.get(gateway).cloned() else { return all };
        ServiceConfig {
            r#type: own.r#type.or(all.r#type),
            place: own.place.or(all.place),
            load_balancer_class: own.load_balancer_class.or(all.load_balancer_class),
            external_traffic_policy: own.external_traffic_policy.or(all.external_traffic_policy),
            selector: own.selector.or(all.selector),
            labels: all.labels.into_iter().chain(own.labels).collect(),
            annotations: all.annotations.into_iter().chain(own.annotations).collect(),
        }
    }
}

/// Sockets for further Gateways: each its own address, or each its own ports. With neither they are not served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AddressPool {
    /// Every further Gateway gets an address of this network and binds its listeners' ports there. The machine
    /// must take the network's packets for its own (`ip route add local 10.97.0.0/16 dev lo`).
    #[serde(deserialize_with = "network")]
    #[schemars(with = "Option<String>")]
    pub pool: Option<IpNet>,
    /// Every listener port of every further Gateway gets one of these ports on all addresses; its Service leads
    /// there.
    #[schemars(with = "Option<String>")]
    pub ports: Option<PortRange>,
}

/// Ports, the last one included, written `"20000-20999"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = String::deserialize(source)?;
        let ports = text.split_once('-').and_then(|(first, last)| {
            let first = first.trim().parse::<u16>().ok().filter(|first| *first > 0)?;
            let last = last.trim().parse().ok().filter(|last| *last >= first)?;
            Some(Self(first..=last))
        });
        ports.ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is no range of ports such as \"20000-20999\""))
        })
    }
}

/// A Service that leads to a Gateway. What is absent has its default in the method of that name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// `LoadBalancer`, or `ClusterIP` for a Gateway with an address of the pool.
    pub r#type: Option<ServiceType>,
    /// In which namespace it is.
    pub place: Option<ServicePlace>,
    /// Who provides the load balancer: `tailscale`.
    pub load_balancer_class: Option<String>,
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// The labels of trigate's pods. Without any, the Service leads nowhere by itself.
    pub selector: Option<BTreeMap<String, String>>,
    /// More labels, beside those of the Gateway's infrastructure.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl ServiceConfig {
    /// Where the Service is: beside its Gateway, unless it is told otherwise. A selector finds pods of its own
    /// namespace only, so this one asks for trigate to run there.
    pub fn place(&self) -> ServicePlace {
        self.place.unwrap_or_default()
    }
}

/// The namespace of a Gateway's Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServicePlace {
    /// The Gateway's own, and the Service is called like the Gateway.
    #[default]
    Gateway,
    /// Trigate's.
    Trigate,
}

/// How a Service can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ServiceType {
    LoadBalancer,
    NodePort,
    ClusterIP,
    /// There is no Service.
    None,
}

impl ServiceType {
    /// As Kubernetes calls it; `None` when there is no Service.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::LoadBalancer => Some("LoadBalancer"),
            Self::NodePort => Some("NodePort"),
            Self::ClusterIP => Some("ClusterIP"),
            Self::None => None,
        }
    }
}

/// `externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TrafficPolicy {
    /// Only to pods of the node that took the packet, whose sender stays what it was.
    Local,
    Cluster,
}

impl TrafficPolicy {
    /// As Kubernetes calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::Cluster => "Cluster",
        }
    }
}

/// A network, or one address.
fn network<'de, D: Deserializer<'de>>(source: D) -> Result<Option<IpNet>, D::Error> {
    let text = String::deserialize(source)?;
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network
        .map(Some)
        .map_err(|_| serde::de::Error::custom(format!("`{text}` is no network such as \"10.97.0.0/16\"")))
}
