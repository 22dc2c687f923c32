//! What clusters should be: plain values that `compile` makes and `control` reconciles with what is running.

use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The cluster of one rule, with one backend for each valid `backendRef`, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Envoy Gateway's name, `httproute/<namespace>/<name>/rule/<index>`: the metrics' `envoy_cluster_name`.
    pub name: String,
    pub backends: Vec<BackendSpec>,
    /// How long a connection may take to open, TLS handshake included.
    pub connect_timeout: Duration,
}

/// One backend of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSpec {
    pub endpoints: EndpointsKey,
    pub protocol: Protocol,
    /// `None` is cleartext.
    pub tls: Option<Arc<TlsSpec>>,
}

/// The name of a set of endpoints, which several clusters may share: `service/<namespace>/<name>/<port>` or
/// `backend/<namespace>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointsKey(pub Arc<str>);

/// What is spoken to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1, WebSocket included.
    Http1,
    /// HTTP/2: with prior knowledge in cleartext, by ALPN over TLS.
    Http2,
}

/// Where the endpoints of a set are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointsSpec {
    /// Known addresses: ready ones, or, where there are none, those that terminate and still serve.
    Addresses(Vec<EndpointSpec>),
    /// A DNS name, resolved again when its records' time to live is over.
    Dns { host: String, port: u16 },
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    pub address: Address,
}

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Ip(SocketAddr),
    Unix(PathBuf),
}

/// How TLS to a backend is done (BackendTLSPolicy, or a `Backend`'s `tls`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsSpec {
    /// The server name sent, and the one verified where `subject_alt_names` is empty.
    pub server_name: String,
    /// Trusted authorities.
    pub roots: Roots,
    /// Names of which the certificate must have one, DNS names or URIs.
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Roots {
    /// The system's store.
    System,
    /// These certificates.
    Given(Vec<CertificateDer<'static>>),
    /// Everybody: `insecureSkipVerify`.
    Unverified,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SubjectAltName {
    Dns(String),
    Uri(String),
}
