//! HTTPRouteFilter of Envoy Gateway: what an `extensionRef` of a filter may name.

use super::{HeaderModifier, List, LocalRef, Metadata, ObjectReference, ValueMatch};
use serde::Deserialize;

/// Filters that the Gateway API itself does not have.
#[derive(Debug, Clone, Deserialize)]
pub struct HttpRouteFilter {
    pub metadata: Metadata,
    pub spec: HttpRouteFilterSpec,
}

/// `spec` of an HTTPRouteFilter; what is there is applied, all of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteFilterSpec {
    pub url_rewrite: Option<Box<UrlRewriteExtension>>,
    pub direct_response: Option<Box<FixedAnswer>>,
    pub credential_injection: Option<Box<CredentialInjection>>,
    /// More conditions for the rule.
    #[serde(default)]
    pub matches: List<ExtraMatch>,
}

/// `matches[]`.
#[derive(Debug, Clone, Deserialize)]
pub struct ExtraMatch {
    #[serde(default)]
    pub cookies: List<ValueMatch>,
}

/// `urlRewrite`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UrlRewriteExtension {
    pub hostname: Option<HostRewrite>,
    pub path: Option<PathRewrite>,
    #[serde(rename = "appendXForwardedHost")]
    pub append_forwarded_host: Option<bool>,
}

/// `urlRewrite.hostname`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRewrite {
    /// `Header`, `Backend` or `PathRegex`.
    pub r#type: Box<str>,
    pub header: Option<Box<str>>,
    pub path_regex: Option<RegexReplacement>,
}

/// `urlRewrite.path`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathRewrite {
    /// `ReplaceRegexMatch`.
    pub r#type: Box<str>,
    pub replace_regex_match: Option<RegexReplacement>,
}

/// A pattern and what becomes of its matches, both in RE2's syntax.
#[derive(Debug, Clone, Deserialize)]
pub struct RegexReplacement {
    pub pattern: Box<str>,
    #[serde(default)]
    pub substitution: Box<str>,
}

/// `directResponse`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FixedAnswer {
    /// 200 when absent.
    pub status_code: Option<u16>,
    pub content_type: Option<Box<str>>,
    pub body: Option<BodySource>,
    pub header: Option<HeaderModifier>,
}

/// `directResponse.body`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BodySource {
    /// `Inline` (which it is when absent) or `ValueRef`.
    pub r#type: Option<Box<str>>,
    pub inline: Option<Box<str>>,
    pub value_ref: Option<LocalRef>,
}

/// `credentialInjection`.
#[derive(Debug, Clone, Deserialize)]
pub struct CredentialInjection {
    /// `Authorization` when absent.
    pub header: Option<Box<str>>,
    pub overwrite: Option<bool>,
    pub credential: CredentialSource,
}

/// `credentialInjection.credential`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialSource {
    pub value_ref: ObjectReference,
}
