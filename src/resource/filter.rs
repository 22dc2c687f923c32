//! Filters as they are written in HTTPRoutes and GRPCRoutes.

use super::{BackendRef, List, LocalRef};
use serde::Deserialize;

/// One filter. `type` says which field counts.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpFilter {
    /// `RequestHeaderModifier`, `RequestRedirect`, …
    pub r#type: Box<str>,
    pub request_header_modifier: Option<Box<HeaderModifier>>,
    pub response_header_modifier: Option<Box<HeaderModifier>>,
    pub request_redirect: Option<Box<Redirect>>,
    pub url_rewrite: Option<Box<UrlRewrite>>,
    pub request_mirror: Option<Box<RequestMirror>>,
    pub cors: Option<Box<Cors>>,
    pub external_auth: Option<Box<ExternalAuth>>,
    pub extension_ref: Option<Box<LocalRef>>,
}

/// `requestHeaderModifier` and `responseHeaderModifier`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct HeaderModifier {
    #[serde(default)]
    pub set: List<Header>,
    #[serde(default)]
    pub add: List<Header>,
    #[serde(default)]
    pub remove: List<Box<str>>,
}

/// A header with its value.
#[derive(Debug, Clone, Deserialize)]
pub struct Header {
    pub name: Box<str>,
    #[serde(default, deserialize_with = "super::metadata::or_default")]
    pub value: Box<str>,
}

/// `requestRedirect`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    pub scheme: Option<Box<str>>,
    pub hostname: Option<Box<str>>,
    pub path: Option<PathModifier>,
    pub port: Option<u16>,
    pub status_code: Option<u16>,
}

/// `urlRewrite`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct UrlRewrite {
    pub hostname: Option<Box<str>>,
    pub path: Option<PathModifier>,
}

/// `path` of a redirect or a rewrite.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    pub r#type: Box<str>,
    pub replace_full_path: Option<Box<str>>,
    pub replace_prefix_match: Option<Box<str>>,
}

/// `requestMirror`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestMirror {
    pub backend_ref: BackendRef,
    pub percent: Option<u32>,
    pub fraction: Option<Fraction>,
}

/// A share of all requests.
#[derive(Debug, Clone, Deserialize)]
pub struct Fraction {
    pub numerator: u32,
    pub denominator: Option<u32>,
}

/// `cors`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    #[serde(default)]
    pub allow_origins: List<Box<str>>,
    pub allow_credentials: Option<bool>,
    #[serde(default)]
    pub allow_methods: List<Box<str>>,
    #[serde(default)]
    pub allow_headers: List<Box<str>>,
    #[serde(default)]
    pub expose_headers: List<Box<str>>,
    /// In seconds.
    pub max_age: Option<u32>,
}

/// `externalAuth` (GEP-1494).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAuth {
    /// `HTTP` or `GRPC`.
    pub protocol: Box<str>,
    pub backend_ref: BackendRef,
    pub grpc: Option<GrpcAuth>,
    pub http: Option<HttpAuth>,
    pub forward_body: Option<ForwardBody>,
}

/// `externalAuth.grpc`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcAuth {
    #[serde(default)]
    pub allowed_headers: List<Box<str>>,
}

/// `externalAuth.http`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpAuth {
    pub path: Option<Box<str>>,
    #[serde(default)]
    pub allowed_headers: List<Box<str>>,
    #[serde(default)]
    pub allowed_response_headers: List<Box<str>>,
}

/// `externalAuth.forwardBody`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardBody {
    /// In bytes.
    pub max_size: u32,
}

/// `sessionPersistence.cookieConfig`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CookieConfig {
    /// `Session` (which it is when absent) or `Permanent`.
    pub lifetime_type: Option<Box<str>>,
}
