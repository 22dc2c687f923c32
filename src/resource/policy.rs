//! BackendTLSPolicy: how TLS to a backend is done.

use super::metadata::or_default;
use super::{Labels, List, LocalRef, Metadata};
use serde::Deserialize;

/// How TLS to some Services is done.
#[derive(Debug, Clone, Deserialize)]
pub struct BackendTlsPolicy {
    pub metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    pub spec: BackendTlsPolicySpec,
}

/// `spec` of a BackendTLSPolicy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsPolicySpec {
    #[serde(default)]
    pub target_refs: List<PolicyTarget>,
    #[serde(default, deserialize_with = "or_default")]
    pub validation: BackendTlsValidation,
    #[serde(default)]
    pub options: Labels,
}

/// `targetRefs[]`: an object of the policy's own namespace, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTarget {
    #[serde(default, deserialize_with = "or_default")]
    pub group: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    /// The name of a Service's port; without it the whole Service is meant.
    pub section_name: Option<Box<str>>,
}

/// `validation`: who the backend must be.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsValidation {
    #[serde(default)]
    pub ca_certificate_refs: List<LocalRef>,
    /// `System`.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<Box<str>>,
    #[serde(default, deserialize_with = "or_default")]
    pub hostname: Box<str>,
    #[serde(default)]
    pub subject_alt_names: List<WrittenAltName>,
}

/// `subjectAltNames[]`. `type` says which field counts.
#[derive(Debug, Clone, Deserialize)]
pub struct WrittenAltName {
    /// `Hostname` or `URI`.
    pub r#type: Box<str>,
    pub hostname: Option<Box<str>>,
    pub uri: Option<Box<str>>,
}
