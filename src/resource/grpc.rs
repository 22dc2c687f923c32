//! GRPCRoute.

use super::{
    BackendRef, HttpBackendRef, HttpFilter, List, Metadata, ParentRefs, RareList, SessionPersistence,
    ValueMatch, Word,
};
use serde::Deserialize;

/// Which gRPC calls go where.
#[derive(Debug, Clone, Deserialize)]
pub struct GrpcRoute {
    pub metadata: Metadata,
    pub spec: GrpcRouteSpec,
}

/// `spec` of a GRPCRoute.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteSpec {
    #[serde(default)]
    pub parent_refs: ParentRefs,
    #[serde(default)]
    pub hostnames: List<Box<str>>,
    /// Without rules a GRPCRoute serves nothing.
    #[serde(default)]
    pub rules: List<GrpcRule>,
    pub use_default_gateways: Option<Word>,
}

/// `rules[]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRule {
    pub name: Option<Word>,
    #[serde(default)]
    pub matches: List<GrpcMatch>,
    #[serde(default)]
    pub filters: RareList<HttpFilter>,
    #[serde(default)]
    pub backend_refs: List<GrpcBackendRef>,
    pub session_persistence: Option<Box<SessionPersistence>>,
}

/// `matches[]`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct GrpcMatch {
    pub method: Option<GrpcMethodMatch>,
    #[serde(default)]
    pub headers: RareList<ValueMatch>,
}

/// `method` of a match.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct GrpcMethodMatch {
    /// `Exact` (which it is when absent) or `RegularExpression`.
    pub r#type: Option<Box<str>>,
    pub service: Option<Box<str>>,
    pub method: Option<Box<str>>,
}

/// `backendRefs[]`, which are written as those of an HTTPRoute.
pub type GrpcBackendRef = HttpBackendRef;

impl From<BackendRef> for HttpBackendRef {
    fn from(reference: BackendRef) -> Self {
        let BackendRef { group, kind, namespace, name, port } = reference;
        Self { group, kind, namespace, name, port, weight: None, filters: RareList::default() }
    }
}
