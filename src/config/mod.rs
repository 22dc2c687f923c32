//! proxy.toml: what the operator decides before the first socket opens. Every key has its default here.
//!
//! The types are what the rest of the program reads: addresses are addresses and times are times, so nothing
//! is checked again later. What one value cannot tell alone (two gateways on one socket) is in `conflicts`.

mod acme;
mod conflicts;
mod fault;
mod kubernetes;
mod observing;
mod tls;
mod units;

pub use acme::{
    Acme, AcmeCertificate, Cloudflare, DnsPropagation, DnsProvider, ExternalAccount, Proof, Rfc2136,
    TsigAlgorithm,
};
pub use fault::{ConfigError, Fault};
pub use kubernetes::TrafficPolicy;
pub use kubernetes::{AddressPool, KubernetesSource, PortRange, ServiceConfig, ServicePlace, ServiceType};
pub use observing::{AccessLog, EnvoyProxies, Only, Otlp, OtlpProtocol, Percent, Propagation, Tracing};
pub use tls::{CipherSuite, Curve, SessionTickets, TlsOptions, TlsVersion, named};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub source: Source,
    /// By name, in the order of their names, which is the order of `routing::GatewayId`.
    #[serde(default)]
    pub gateways: BTreeMap<String, Gateway>,
    /// Certificates in files, by a name of the user's choice.
    #[serde(default)]
    pub certificates: BTreeMap<String, CertificateFiles>,
    /// What is agreed on in TLS handshakes, where a gateway says nothing else.
    #[serde(default = "TlsOptions::everywhere", deserialize_with = "tls::complete")]
    pub tls: TlsOptions,
    #[serde(default)]
    pub session_tickets: SessionTickets,
    /// Certificates that are ordered; none without the table.
    #[serde(default)]
    pub acme: Option<Acme>,
    #[serde(default)]
    pub runtime: Runtime,
    #[serde(default)]
    pub node: Node,
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    pub stats: Stats,
    #[serde(default)]
    pub ready: Ready,
    #[serde(default)]
    pub drain: Drain,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub echo: Echo,
    #[serde(default)]
    pub access_log: AccessLog,
    #[serde(default)]
    pub tracing: Tracing,
    #[serde(default)]
    pub envoy_proxy: EnvoyProxies,
    /// The file itself, to say later where in it a key stands.
    #[serde(skip)]
    pub written: Written,
}

/// The text that a configuration was read from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    pub file: PathBuf,
    pub text: String,
}

/// Where objects come from: one of both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    #[serde(default)]
    pub files: FilesSource,
    #[serde(default)]
    pub kubernetes: Option<KubernetesSource>,
}

/// Watched files and folders of YAML or JSON manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesSource {
    /// Files and folders, relative to the folder of proxy.toml.
    pub paths: Vec<PathBuf>,
}

/// The name of an object, written `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One gateway: a set of sockets that serves one Gateway object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// The Gateway object it serves, `namespace/name`.
    #[schemars(with = "String")]
    pub object: ObjectName,
    /// The addresses it binds.
    #[serde(default = "everywhere", deserialize_with = "units::addresses")]
    #[schemars(with = "Vec<String>")]
    pub bind: Vec<IpAddr>,
    /// Listener port to bound port. A port that is not named here is bound as it is, or plus 10000 below 1024.
    #[serde(default)]
    pub ports: Ports,
    /// Peers whose X-Forwarded-* headers and PROXY header are believed.
    #[serde(default, deserialize_with = "units::networks")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// How many proxies stand in front of this gateway, whoever they are: so many of the last addresses in
    /// X-Forwarded-For are believed (Envoy Gateway's `numTrustedHops`). Not together with `trusted_proxies`.
    #[serde(default)]
    pub trusted_hops: u8,
    /// Whether connections from `trusted_proxies` begin with a PROXY protocol header, version 1 or 2.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// What is agreed on in the TLS handshakes of this gateway; the rest is as in `[tls]`.
    #[serde(default)]
    pub tls: TlsOptions,
    /// Whether its exchanges are in the access log, where there is one.
    #[serde(default = "yes")]
    pub access_log: bool,
    /// Whether clients that speak HTTP/1.0 are served; without, they are told 426, as Envoy Gateway's pods do.
    #[serde(default = "yes")]
    pub accept_http10: bool,
    /// Whether backends are told `x-envoy-expected-rq-timeout-ms` and `x-envoy-external-address`, and clients
    /// `x-envoy-upstream-service-time` and `x-envoy-overloaded` (Envoy Gateway's `enableEnvoyHeaders`).
    #[serde(default)]
    pub enable_envoy_headers: bool,
}

impl Gateway {
    /// The port that is bound for a port of its listeners. Envoy Gateway's rule: unprivileged ports stay.
    pub fn bound_port(&self, listener: u16) -> u16 {
        match self.ports.0.get(&listener) {
            Some(&bound) => bound,
            None if listener < 1024 => listener + 10_000,
            None => listener,
        }
    }

    /// The addresses that are bound for a port of its listeners.
    pub fn addresses(&self, listener: u16) -> Vec<SocketAddr> {
        let port = self.bound_port(listener);
        self.bind.iter().map(|&address| SocketAddr::new(address, port)).collect()
    }
}

/// Listener ports with the ports that are bound for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, u16>")]
#[schemars(with = "BTreeMap<String, u16>")]
pub struct Ports(pub BTreeMap<u16, u16>);

impl TryFrom<BTreeMap<String, u16>> for Ports {
    type Error = String;

    /// TOML keys are text, so the listener ports are read here.
    fn try_from(written: BTreeMap<String, u16>) -> Result<Self, String> {
        let mut ports = BTreeMap::new();
        for (listener, bound) in written {
            match listener.parse() {
                Ok(0) | Err(_) => return Err(format!("`{listener}` is no port, expected 1 to 65535")),
                Ok(_) if bound == 0 => {
                    return Err(format!("port 0 cannot be bound for listener port {listener}"));
                }
                Ok(listener) => ports.insert(listener, bound),
            };
        }
        Ok(Self(ports))
    }
}

/// What is expected at the start of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// No PROXY header; one would be malformed HTTP or TLS.
    #[default]
    Off,
    /// From trusted peers with or without a header.
    Optional,
    /// From trusted peers only with a header; everybody else is refused.
    Required,
}

/// A certificate in PEM files, offered to the Gateway objects as a Secret of type `kubernetes.io/tls`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The Secret's `namespace/name`, which a listener's `certificateRefs` name.
    #[schemars(with = "String")]
    pub secret: ObjectName,
    /// The chain, leaf first; relative to the folder of proxy.toml.
    #[serde(deserialize_with = "units::path")]
    pub chain: PathBuf,
    /// The private key of the leaf.
    #[serde(deserialize_with = "units::path")]
    pub key: PathBuf,
    /// A response of the authority to staple (RFC 6960), DER; without it nothing is stapled.
    #[serde(default, deserialize_with = "units::optional_path")]
    pub ocsp: Option<PathBuf>,
    /// When neither file is there: make a development authority and a leaf for these names.
    #[serde(default)]
    pub generate: Vec<String>,
}

/// Threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// Worker threads; 0 is one for each core that this process may use.
    pub threads: usize,
}

/// Where this process runs, for Services that want to be served from near by (`trafficDistribution`, or the
/// annotation `service.kubernetes.io/topology-mode`), by the hints of their EndpointSlices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// The node's name; the environment variable `NODE_NAME` when empty.
    pub name: String,
    /// Its label `topology.kubernetes.io/zone`; the environment variable `NODE_ZONE` when empty.
    pub zone: String,
}

impl Runtime {
    /// The number of worker threads.
    pub fn workers(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// The admin interface: configuration dumps, statistics, log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    pub address: SocketAddr,
    /// Must be true where `address` is not a loopback address: who reaches it reads everything.
    pub allow_public: bool,
}

/// Metrics at `/stats/prometheus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stats {
    pub address: SocketAddr,
}

/// `/ready`, for probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ready {
    pub address: SocketAddr,
}

/// What happens between SIGTERM and the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long sockets still accept while `/ready` already says 503.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub grace: Duration,
    /// When the process ends, whatever is still in flight; counted from the signal.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
}

/// The built-in echo backend, which answers with what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Echo {
    pub enabled: bool,
    pub address: SocketAddr,
}

/// Bounds on what a client or an upstream may take.
///
/// Sizes are in bytes; `None` is no limit, written `"0s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open client connections, all sockets together; more are closed at once.
    pub connections: u32,
    /// From accept to the end of the TLS handshake, a PROXY header included.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub handshake_timeout: Duration,
    /// Request line and header fields together; more is 431. The same bound holds for a response's head.
    #[serde(with = "units::size")]
    #[schemars(with = "units::SizeText")]
    pub head_bytes: u32,
    /// Header fields of a request; more is 431.
    pub head_fields: u32,
    /// From the first byte of a request head to its last; longer is 408.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub head_timeout: Duration,
    /// A client connection without a request.
    #[serde(with = "units::limit")]
    #[schemars(with = "units::DurationText")]
    pub idle_timeout: Option<Duration>,
    /// A request or upgraded connection on which no byte moves in either direction.
    #[serde(with = "units::limit")]
    #[schemars(with = "units::DurationText")]
    pub stream_idle_timeout: Option<Duration>,
    /// From the request's head to the response's end, where the route says nothing.
    #[serde(with = "units::limit")]
    #[schemars(with = "units::DurationText")]
    pub request_timeout: Option<Duration>,
    /// Concurrent HTTP/2 requests of one connection.
    pub http2_streams: u32,
    /// What a client may send of one request body before the upstream took it.
    #[serde(with = "units::size")]
    #[schemars(with = "units::SizeText")]
    pub http2_stream_window: u32,
    /// The same for all requests of a connection together.
    #[serde(with = "units::size")]
    #[schemars(with = "units::SizeText")]
    pub http2_connection_window: u32,
    /// A new connection to an endpoint, TLS handshake included.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub connect_timeout: Duration,
    /// A connection to an endpoint that is kept for the next request.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub upstream_idle_timeout: Duration,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, 19_000).into(), allow_public: false }
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self { address: (Ipv4Addr::UNSPECIFIED, 19_001).into() }
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self { address: (Ipv4Addr::UNSPECIFIED, 19_003).into() }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { grace: Duration::from_secs(5), timeout: Duration::from_secs(60) }
    }
}

impl Default for Echo {
    fn default() -> Self {
        Self { enabled: false, address: (Ipv4Addr::LOCALHOST, 19_080).into() }
    }
}

impl Default for Limits {
    /// Envoy Gateway's defaults. Two differ: windows are larger, because cloudflared sends a whole site over a
    /// few HTTP/2 connections, and there is no request timeout, because nearly every cluster turns Envoy's 15 s off.
    fn default() -> Self {
        const HOUR: Duration = one_hour();
        Self {
            connections: 50_000,
            handshake_timeout: Duration::from_secs(10),
            head_bytes: 60 << 10,
            head_fields: 100,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Some(HOUR),
            stream_idle_timeout: Some(HOUR),
            request_timeout: None,
            http2_streams: 100,
            http2_stream_window: 1 << 20,
            http2_connection_window: 16 << 20,
            connect_timeout: Duration::from_secs(10),
            upstream_idle_timeout: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// Reads and checks a file, and makes its paths relative to the folder it is in.
    ///
    /// # Errors
    /// Every mistake that is found, with its line; unreadable TOML hides what else may be wrong.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let config = Self::read(file)?;
        let Written { file, text } = &config.written;
        let faults = conflicts::missing_paths(&fault::Text { file, text }, &config);
        if faults.is_empty() { Ok(config) } else { Err(ConfigError::Faulty(faults)) }
    }

    /// The same, for a use that reads other manifests than those that the file names.
    ///
    /// # Errors
    /// As [`Config::load`], but for paths that are not there.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |error| ConfigError::Unreadable { file: file.to_owned(), error };
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let mut config = Self::parse(file, &text)?;
        // `proxy.toml` has the folder "".
        let folder = file.parent().unwrap_or(Path::new(""));
        let certificates = config.certificates.values_mut();
        let certificates = certificates
            .flat_map(|files| [&mut files.chain, &mut files.key].into_iter().chain(&mut files.ocsp));
        let log = Some(&mut config.access_log.path).filter(|path| !path.as_os_str().is_empty());
        let acme = config.acme.iter_mut().flat_map(Acme::paths);
        let paths = config.source.files.paths.iter_mut().chain(certificates).chain(log).chain(acme);
        for path in paths.chain(&mut config.session_tickets.file) {
            // `join` keeps a path that is absolute.
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    /// Reads and checks the text of a file, which is named in errors only. Paths stay as they are written.
    ///
    /// # Errors
    /// As [`Config::load`], but for files that are not there.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let place = fault::Text { file, text };
        let mut config: Self =
            toml::from_str(text).map_err(|error| ConfigError::Faulty(vec![place.unreadable(&error)]))?;
        if let Some(acme) = &mut config.acme
            && config.source.kubernetes.is_none()
        {
            acme.folder.get_or_insert_with(|| "acme".into());
        }
        config.written = Written { file: file.to_owned(), text: text.to_owned() };
        let faults = conflicts::find(&place, &config);
        if faults.is_empty() { Ok(config) } else { Err(ConfigError::Faulty(faults)) }
    }

    /// Whether there is an access log.
    pub fn logs_access(&self) -> bool {
        self.access_log.enabled.unwrap_or(self.source.kubernetes.is_some())
    }

    /// What is wrong when the gateways, by name, have listeners on these ports: two that bind one socket. The
    /// file alone tells this only for the ports that it maps.
    pub fn shared_sockets(&self, listeners: &[(&str, u16)]) -> Vec<Fault> {
        let Written { file, text } = &self.written;
        conflicts::shared_sockets(&fault::Text { file, text }, self, listeners)
    }

    /// The JSON schema of the file, for editors.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}

fn yes() -> bool {
    true
}

const fn one_hour() -> Duration {
    Duration::from_secs(3600)
}

fn everywhere() -> Vec<IpAddr> {
    vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
}
