//! What clusters should be: plain values that `compile` makes and `control` reconciles with what is running.

use foldhash::fast::FixedState;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The cluster of one rule, with one backend for each valid `backendRef`, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Envoy Gateway's name, `httproute/<namespace>/<name>/rule/<index>`: the metrics' `envoy_cluster_name`.
    pub name: Arc<str>,
    pub backends: Box<[BackendSpec]>,
    /// How long a connection may take to open, TLS handshake included.
    pub connect_timeout: Duration,
}

/// What a cluster should be, where there may be one at its place in the list of all already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    New(ClusterSpec),
    /// The one that is there stays.
    Same,
}

impl Planned {
    /// The spec of one that is new.
    pub fn spec(&self) -> Option<&ClusterSpec> {
        match self {
            Self::New(spec) => Some(spec),
            Self::Same => None,
        }
    }
}

/// One backend of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSpec {
    pub endpoints: EndpointsKey,
    pub protocol: Protocol,
    /// `None` is cleartext.
    pub tls: Option<Box<BackendTls>>,
}

/// TLS to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    pub spec: Arc<TlsSpec>,
    /// How it is done for gateways (by number) that show a certificate of their own.
    pub of: Vec<(u16, Arc<TlsSpec>)>,
}

impl BackendSpec {
    /// A backend that every gateway speaks to alike.
    pub fn new(endpoints: EndpointsKey, protocol: Protocol, tls: Option<Arc<TlsSpec>>) -> Self {
        let tls = tls.map(|spec| Box::new(BackendTls { spec, of: Vec::new() }));
        Self { endpoints, protocol, tls }
    }
}

/// The name of a set of endpoints, which several clusters may share: `service/<namespace>/<name>/<port>` (with `/udp`
/// for a port of UDP) or `backend/<namespace>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointsKey(pub Arc<str>);

/// What sets of endpoints are to be, by their names.
pub type EndpointsSpecs = HashMap<EndpointsKey, EndpointsSpec, FixedState>;

/// What is spoken to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1, WebSocket included.
    Http1,
    /// HTTP/2: with prior knowledge in cleartext, by ALPN over TLS.
    Http2,
    /// Bytes or datagrams that only the two ends understand.
    Opaque,
}

/// Where the endpoints of a set are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointsSpec {
    /// Known addresses: ready ones, or, where there are none, those that terminate and still serve.
    Addresses(Vec<EndpointSpec>),
    /// DNS names, each resolved again when its records' time to live is over, beside addresses that are known.
    Dns { names: Vec<DnsName>, addresses: Vec<EndpointSpec> },
}

/// A DNS name with the port of all that it resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsName {
    pub host: String,
    pub port: u16,
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
    /// What is shown when the backend asks who we are.
    pub client: Option<ClientCertificate>,
}

/// A certificate of ours with its key, which are known to belong together.
#[derive(Clone)]
pub struct ClientCertificate(pub Arc<CertifiedKey>);

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCertificate({} certificates, key [redacted])", self.0.cert.len())
    }
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.cert == other.0.cert
    }
}

impl Eq for ClientCertificate {}

impl Hash for ClientCertificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.cert.hash(state);
    }
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Roots {
    /// The system's store.
    System,
    /// These certificates; with none of them nobody is trusted, and no request goes out.
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
