//! TLSRoute, TCPRoute, UDPRoute: which connections and flows go where.

use super::{HttpBackendRef, List, Metadata, ParentRefs, Word};
use serde::Deserialize;

/// Which TLS connections go where, by their server name.
#[derive(Debug, Clone, Deserialize)]
pub struct TlsRoute {
    pub metadata: Metadata,
    pub spec: TlsRouteSpec,
}

/// Which TCP connections go where: all of a listener's.
#[derive(Debug, Clone, Deserialize)]
pub struct TcpRoute {
    pub metadata: Metadata,
    pub spec: StreamRouteSpec,
}

/// Which UDP flows go where: all of a listener's.
#[derive(Debug, Clone, Deserialize)]
pub struct UdpRoute {
    pub metadata: Metadata,
    pub spec: StreamRouteSpec,
}

/// `spec` of a TLSRoute.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsRouteSpec {
    #[serde(default)]
    pub parent_refs: ParentRefs,
    #[serde(default)]
    pub hostnames: List<Box<str>>,
    #[serde(default)]
    pub rules: List<StreamRule>,
    pub use_default_gateways: Option<Word>,
}

/// `spec` of a TCPRoute or a UDPRoute.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRouteSpec {
    #[serde(default)]
    pub parent_refs: ParentRefs,
    #[serde(default)]
    pub rules: List<StreamRule>,
    pub use_default_gateways: Option<Word>,
}

/// `rules[]`. Its references are those of an HTTPRoute without filters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRule {
    pub name: Option<Word>,
    #[serde(default)]
    pub backend_refs: List<HttpBackendRef>,
}
