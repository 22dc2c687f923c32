//! The kinds of Kubernetes itself: Service, EndpointSlice, ConfigMap, Namespace.

use super::metadata::or_default;
use super::{Labels, List, Metadata, Word};
use serde::Deserialize;

/// A name for endpoints.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    pub metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    pub spec: ServiceSpec,
}

/// `spec` of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP` (which it is when absent), `NodePort`, `LoadBalancer` or `ExternalName`.
    pub r#type: Option<Word>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<Box<str>>,
    pub external_name: Option<Box<str>>,
    /// `IPv4` and `IPv6`, the preferred one first.
    #[serde(default)]
    pub ip_families: List<Word>,
    #[serde(default)]
    pub ports: List<ServicePort>,
    pub traffic_distribution: Option<Word>,
    #[serde(default, deserialize_with = "or_default")]
    pub publish_not_ready_addresses: bool,
}

/// `ports[]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    pub name: Option<Word>,
    pub port: u16,
    /// `port` itself when absent.
    pub target_port: Option<PortName>,
    /// `TCP` (which it is when absent), `UDP` or `SCTP`.
    pub protocol: Option<Word>,
    pub app_protocol: Option<Word>,
}

/// A port by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PortName {
    Number(u16),
    Name(Box<str>),
}

/// Some of a Service's endpoints.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    pub metadata: Metadata,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(default, deserialize_with = "or_default")]
    pub address_type: Word,
    #[serde(default)]
    pub endpoints: List<Endpoint>,
    #[serde(default)]
    pub ports: List<EndpointPort>,
}

/// `endpoints[]`; all addresses of one are the same endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    #[serde(default)]
    pub addresses: List<Box<str>>,
    #[serde(default, deserialize_with = "or_default")]
    pub conditions: EndpointConditions,
    pub zone: Option<Word>,
    pub node_name: Option<Word>,
    pub hints: Option<Box<EndpointHints>>,
}

/// `hints` of an endpoint: for whom it is meant.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointHints {
    #[serde(default)]
    pub for_zones: List<Hint>,
    #[serde(default)]
    pub for_nodes: List<Hint>,
}

/// The name of a zone or of a node.
#[derive(Debug, Clone, Deserialize)]
pub struct Hint {
    pub name: Box<str>,
}

/// `conditions` of an endpoint; what is absent means ready, serving and not terminating.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

/// `ports[]` of a slice, which all its endpoints have.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    /// The name of the Service's port.
    pub name: Option<Word>,
    pub port: Option<u16>,
    pub protocol: Option<Word>,
    pub app_protocol: Option<Word>,
}

/// Texts by name; here certificates of authorities and bodies of answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMap {
    pub metadata: Metadata,
    #[serde(default)]
    pub data: Labels,
}

/// A namespace, of which the labels count.
#[derive(Debug, Clone, Deserialize)]
pub struct Namespace {
    pub metadata: Metadata,
}
