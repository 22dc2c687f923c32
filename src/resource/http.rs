//! HTTPRoute.

use super::metadata::or_default;
use super::{BackendRef, CookieConfig, HttpFilter, List, Metadata, ParentRefs, RareList, Word};
use serde::Deserialize;

/// Which HTTP requests go where.
#[derive(Debug, Clone, Deserialize)]
pub struct HttpRoute {
    pub metadata: Metadata,
    pub spec: HttpRouteSpec,
}

/// `spec` of an HTTPRoute.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    #[serde(default)]
    pub parent_refs: ParentRefs,
    #[serde(default)]
    pub hostnames: List<Box<str>>,
    /// `None` is one rule that matches everything, as the API server would fill in.
    pub rules: Option<List<HttpRule>>,
    pub use_default_gateways: Option<Word>,
}

/// `rules[]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRule {
    pub name: Option<Word>,
    #[serde(default)]
    pub matches: List<HttpMatch>,
    #[serde(default)]
    pub filters: RareList<HttpFilter>,
    #[serde(default)]
    pub backend_refs: List<HttpBackendRef>,
    pub timeouts: Option<Box<Timeouts>>,
    pub retry: Option<Box<Retry>>,
    pub session_persistence: Option<Box<SessionPersistence>>,
}

/// `matches[]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch {
    #[serde(default, deserialize_with = "or_default")]
    pub path: HttpPathMatch,
    pub method: Option<Word>,
    #[serde(default)]
    pub headers: RareList<ValueMatch>,
    #[serde(default)]
    pub query_params: RareList<ValueMatch>,
}

/// `path` of a match.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct HttpPathMatch {
    /// `PathPrefix` (which it is when absent), `Exact` or `RegularExpression`.
    pub r#type: Option<Word>,
    /// `/` when absent.
    pub value: Option<Box<str>>,
}

/// A header or a query parameter of a match.
#[derive(Debug, Clone, Deserialize)]
pub struct ValueMatch {
    /// `Exact` (which it is when absent) or `RegularExpression`.
    pub r#type: Option<Box<str>>,
    pub name: Box<str>,
    pub value: Box<str>,
}

/// `backendRefs[]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpBackendRef {
    pub group: Option<Word>,
    pub kind: Option<Word>,
    pub namespace: Option<Word>,
    pub name: Box<str>,
    pub port: Option<u16>,
    pub weight: Option<u32>,
    #[serde(default)]
    pub filters: RareList<HttpFilter>,
}

impl HttpBackendRef {
    /// The reference alone.
    pub fn backend(&self) -> BackendRef {
        let Self { group, kind, namespace, name, port, weight: _, filters: _ } = self.clone();
        BackendRef { group, kind, namespace, name, port }
    }
}

/// `timeouts` (GEP-2257 durations).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    pub request: Option<Box<str>>,
    pub backend_request: Option<Box<str>>,
}

/// `retry` (GEP-1731).
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Retry {
    #[serde(default)]
    pub codes: List<u16>,
    pub attempts: Option<u32>,
    pub backoff: Option<Box<str>>,
}

/// `sessionPersistence` (GEP-1619).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPersistence {
    pub session_name: Option<Box<str>>,
    pub absolute_timeout: Option<Box<str>>,
    pub idle_timeout: Option<Box<str>>,
    /// `Cookie` (which it is when absent) or `Header`.
    pub r#type: Option<Box<str>>,
    pub cookie_config: Option<CookieConfig>,
}
