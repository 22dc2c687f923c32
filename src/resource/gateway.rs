//! GatewayClass and Gateway.

use super::metadata::or_default;
use super::{Labels, List, Metadata, ObjectReference, ParametersRef};
use serde::Deserialize;

/// Who serves the Gateways of a class.
#[derive(Debug, Clone, Deserialize)]
pub struct GatewayClass {
    pub metadata: Metadata,
    pub spec: GatewayClassSpec,
}

/// `spec` of a GatewayClass.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    pub controller_name: Box<str>,
    pub parameters_ref: Option<Box<ParametersRef>>,
    pub description: Option<Box<str>>,
}

/// A set of listeners with an address.
#[derive(Debug, Clone, Deserialize)]
pub struct Gateway {
    pub metadata: Metadata,
    pub spec: GatewaySpec,
}

/// `spec` of a Gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    #[serde(default, deserialize_with = "or_default")]
    pub gateway_class_name: Box<str>,
    #[serde(default)]
    pub listeners: List<Listener>,
    #[serde(default)]
    pub addresses: List<GatewayAddress>,
    pub infrastructure: Option<Box<Infrastructure>>,
    pub allowed_listeners: Option<Box<AllowedListeners>>,
    pub tls: Option<Box<GatewayTls>>,
    /// `All` or `None`.
    pub default_scope: Option<Box<str>>,
}

/// Listeners that somebody adds to a Gateway (GEP-1713).
#[derive(Debug, Clone, Deserialize)]
pub struct ListenerSet {
    pub metadata: Metadata,
    pub spec: ListenerSetSpec,
}

/// `spec` of a ListenerSet.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetSpec {
    pub parent_ref: GatewayRef,
    #[serde(default)]
    pub listeners: List<Listener>,
}

/// `spec.parentRef` of a ListenerSet: a Gateway unless another kind is named.
#[derive(Debug, Clone, Deserialize)]
pub struct GatewayRef {
    pub group: Option<Box<str>>,
    pub kind: Option<Box<str>>,
    /// The ListenerSet's own unless another one is named.
    pub namespace: Option<Box<str>>,
    pub name: Box<str>,
}

/// `spec.listeners[]`, of a Gateway or of a ListenerSet.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    pub name: Box<str>,
    pub port: u16,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP` or a name of somebody's own.
    pub protocol: Box<str>,
    pub hostname: Option<Box<str>>,
    pub tls: Option<Box<ListenerTls>>,
    #[serde(default, deserialize_with = "or_default")]
    pub allowed_routes: AllowedRoutes,
}

/// `tls` of a listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// `Terminate` (which it is when absent) or `Passthrough`.
    pub mode: Option<Box<str>>,
    #[serde(default)]
    pub certificate_refs: List<ObjectReference>,
    #[serde(default)]
    pub options: Labels,
}

/// `allowedRoutes`: which routes may attach.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AllowedRoutes {
    #[serde(default, deserialize_with = "or_default")]
    pub namespaces: RouteNamespaces,
    /// Empty is every kind that suits the protocol.
    #[serde(default)]
    pub kinds: List<RouteKind>,
}

/// `allowedRoutes.namespaces`, and `allowedListeners.namespaces` of a Gateway.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RouteNamespaces {
    /// `All`, `Same` (which it is for routes when absent), `Selector` or, for ListenerSets, `None` (which it is for
    /// them when absent).
    pub from: Option<Box<str>>,
    pub selector: Option<Box<Selector>>,
}

/// A selection by labels; an empty one selects everything.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    #[serde(default)]
    pub match_labels: Labels,
    #[serde(default)]
    pub match_expressions: List<SelectorTerm>,
}

/// `matchExpressions[]`.
#[derive(Debug, Clone, Deserialize)]
pub struct SelectorTerm {
    pub key: Box<str>,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: Box<str>,
    #[serde(default)]
    pub values: List<Box<str>>,
}

/// `allowedRoutes.kinds[]`, and `supportedKinds[]` of a status.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RouteKind {
    pub group: Option<Box<str>>,
    pub kind: Box<str>,
}

/// `spec.addresses[]`.
#[derive(Debug, Clone, Deserialize)]
pub struct GatewayAddress {
    /// `IPAddress` (which it is when absent), `Hostname` or a name of somebody's own.
    pub r#type: Option<Box<str>>,
    pub value: Option<Box<str>>,
}

/// `spec.infrastructure`: what the Gateway's own objects shall carry.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Infrastructure {
    #[serde(default)]
    pub labels: Labels,
    #[serde(default)]
    pub annotations: Labels,
    pub parameters_ref: Option<ParametersRef>,
}

/// `spec.allowedListeners`: which ListenerSets may add listeners.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AllowedListeners {
    #[serde(default, deserialize_with = "or_default")]
    pub namespaces: RouteNamespaces,
}

/// `spec.tls`: client certificates, in both directions.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct GatewayTls {
    pub frontend: Option<FrontendTls>,
    pub backend: Option<BackendTlsOfGateway>,
}

/// `spec.tls.backend`: the certificate shown to backends.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsOfGateway {
    pub client_certificate_ref: Option<ObjectReference>,
}

/// `spec.tls.frontend`: what is asked of clients.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendTls {
    pub default: Option<FrontendTlsConfig>,
    #[serde(default)]
    pub per_port: List<FrontendOfPort>,
}

/// `spec.tls.frontend.perPort[]`.
#[derive(Debug, Clone, Deserialize)]
pub struct FrontendOfPort {
    pub port: u16,
    pub tls: FrontendTlsConfig,
}

/// What is asked of the clients of some listeners.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct FrontendTlsConfig {
    pub validation: Option<ClientValidation>,
}

/// How client certificates are validated.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    #[serde(default)]
    pub ca_certificate_refs: List<ObjectReference>,
    /// `AllowValidOnly` (which it is when absent) or `AllowInsecureFallback`.
    pub mode: Option<Box<str>>,
}
