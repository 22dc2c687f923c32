//! EnvoyProxy of Envoy Gateway: what `parametersRef` of a Gateway or a GatewayClass may name. What it says of the
//! Service, of the drain and of telemetry is read; the rest is about pods that somebody else deploys.

use super::metadata::or_default;
use super::{Labels, List, Metadata};
use serde::Deserialize;
use serde_json::Value;

/// Parameters of Gateways.
#[derive(Debug, Clone, Deserialize)]
pub struct EnvoyProxy {
    pub metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    pub spec: EnvoyProxySpec,
}

/// `spec` of an EnvoyProxy.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EnvoyProxySpec {
    pub provider: Option<Box<EnvoyProvider>>,
    pub shutdown: Option<Box<EnvoyShutdown>>,
    pub telemetry: Option<Box<EnvoyTelemetry>>,
}

/// `provider`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EnvoyProvider {
    /// `Kubernetes`, or `Host`, which means a process that trigate is not.
    pub r#type: Option<Box<str>>,
    pub kubernetes: Option<EnvoyKubernetes>,
}

/// `provider.kubernetes`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyKubernetes {
    pub envoy_service: Option<Box<EnvoyService>>,
}

/// `provider.kubernetes.envoyService`: the Service that leads to a Gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyService {
    pub name: Option<Box<str>>,
    /// `LoadBalancer`, `NodePort` or `ClusterIP`.
    pub r#type: Option<Box<str>>,
    #[serde(default)]
    pub labels: Labels,
    #[serde(default)]
    pub annotations: Labels,
    pub load_balancer_class: Option<Box<str>>,
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Option<Box<str>>,
    #[serde(default)]
    pub load_balancer_source_ranges: List<Box<str>>,
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// `Local` or `Cluster`.
    pub external_traffic_policy: Option<Box<str>>,
    pub patch: Option<EnvoyPatch>,
}

/// `patch`: a part of an object of Kubernetes that is laid over what was made.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EnvoyPatch {
    /// `StrategicMerge` (which it is when absent) or `JSONMerge`.
    pub r#type: Option<Box<str>>,
    #[serde(default)]
    pub value: Value,
}

/// `shutdown`: durations of the Gateway API, `180s`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyShutdown {
    /// How long requests may take to finish.
    pub drain_timeout: Option<Box<str>>,
    /// How long sockets go on accepting.
    pub min_drain_duration: Option<Box<str>>,
}

/// `telemetry`, as far as something of it is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyTelemetry {
    /// As it is written: whoever logs reads it.
    pub access_log: Option<Value>,
    /// As it is written: whoever traces reads it.
    pub tracing: Option<Value>,
}

impl EnvoyProxy {
    /// What it says of the Service.
    pub fn service(&self) -> Option<&EnvoyService> {
        self.spec.provider.as_ref()?.kubernetes.as_ref()?.envoy_service.as_deref()
    }
}
