//! Envoy Gateway's `Backend`: endpoints that are no Service.

use super::metadata::or_default;
use super::{List, LocalRef, Metadata, ObjectReference};
use serde::Deserialize;

/// A backend with its endpoints written down.
#[derive(Debug, Clone, Deserialize)]
pub struct Backend {
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: BackendSpec,
}

/// `spec` of a Backend.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSpec {
    /// `Endpoints` (which it is when absent) or `DynamicResolver`.
    pub r#type: Option<Box<str>>,
    #[serde(default)]
    pub endpoints: List<BackendEndpoint>,
    #[serde(default)]
    pub app_protocols: List<Box<str>>,
    pub fallback: Option<bool>,
    pub tls: Option<Box<BackendTls>>,
}

/// `endpoints[]`; one of the three addresses is set.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct BackendEndpoint {
    pub ip: Option<HostPort>,
    pub fqdn: Option<HostPort>,
    pub unix: Option<UnixPath>,
    pub hostname: Option<Box<str>>,
    pub zone: Option<Box<str>>,
}

/// An IP address or a DNS name with a port.
#[derive(Debug, Clone, Deserialize)]
pub struct HostPort {
    #[serde(alias = "hostname")]
    pub address: Box<str>,
    pub port: u16,
}

/// A socket in the file system.
#[derive(Debug, Clone, Deserialize)]
pub struct UnixPath {
    pub path: Box<str>,
}

/// `tls`: how TLS to the endpoints is done.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTls {
    #[serde(default)]
    pub ca_certificate_refs: List<LocalRef>,
    /// `System`.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<Box<str>>,
    #[serde(default, deserialize_with = "or_default")]
    pub insecure_skip_verify: bool,
    pub sni: Option<Box<str>>,
    #[serde(rename = "autoSNIFromEndpointHostname")]
    pub auto_sni: Option<bool>,
    pub client_certificate_ref: Option<ObjectReference>,
    pub min_version: Option<Box<str>>,
    pub max_version: Option<Box<str>>,
    #[serde(default)]
    pub alpn_protocols: List<Box<str>>,
    #[serde(default)]
    pub ciphers: List<Box<str>>,
    #[serde(default)]
    pub ecdh_curves: List<Box<str>>,
    #[serde(default)]
    pub signature_algorithms: List<Box<str>>,
    #[serde(default)]
    pub fingerprints: List<Box<str>>,
}
