//! What is known of one exchange, connection or flow when it is over.

use crate::reply::Outcome;
use crate::routing::Rule;
use crate::upstream::{Address, Cluster};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One exchange. What it has not is `None` or empty, and is printed as Envoy prints it.
#[derive(Debug, Clone)]
pub struct Record {
    pub started: SystemTime,
    /// From the head's arrival to the end of the exchange.
    pub duration: Duration,
    /// From the start to the last byte of the request.
    pub request_duration: Option<Duration>,
    /// From the start to the first byte of the backend's response.
    pub response_duration: Option<Duration>,

    /// `None` for what is no HTTP, and for a head that could not be read.
    pub method: Option<Method>,
    pub version: Option<Version>,
    pub secure: bool,
    /// As the backend gets it.
    pub authority: Option<HeaderValue>,
    /// With its query, as the backend gets it.
    pub path: Option<PathAndQuery>,
    /// What the client asked for, where a filter changed it.
    pub original_path: Option<PathAndQuery>,
    /// The request's fields that somebody wants to know, as the backend gets them.
    pub request: Vec<(HeaderName, HeaderValue)>,
    /// The same of the response, as the client gets it.
    pub response: Vec<(HeaderName, HeaderValue)>,
    /// The same of the response's trailers.
    pub trailers: Vec<(HeaderName, HeaderValue)>,

    /// 0 when the client got no response.
    pub status: u16,
    pub outcome: Outcome,
    /// Bytes of the request's body; of a connection, all that the client sent.
    pub received: u64,
    /// Bytes of the response's body; of a connection, all that the client was sent.
    pub sent: u64,

    pub connection: u64,
    /// A number below a million, drawn when it began: logs with a share take those below theirs.
    pub drawn: u32,
    /// The client: the peer, or what the proxies that are trusted say of it (with port 0).
    pub client: Option<SocketAddr>,
    /// Whoever the connection comes from.
    pub peer: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub server_name: Option<Arc<str>>,
    /// `TLSv1.3` and the name of the cipher suite, for TLS that ended here.
    pub tls: Option<(&'static str, &'static str)>,
    /// The gateway's name.
    pub gateway: Box<str>,

    pub route: Option<Routed>,
    pub upstream: Upstream,
    pub trace: Option<Trace>,
}

/// Who serves a request.
#[derive(Debug, Clone)]
pub struct Routed {
    pub rule: Arc<Rule>,
    /// Which of the rule's matches, in the order written.
    pub place: u32,
    /// The host name of listener and route, `echo.home.test`, `*.home.test` or `*`.
    pub host: Box<str>,
}

/// What is known of the backend's side.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// Once one was chosen.
    pub cluster: Option<Arc<Cluster>>,
    pub endpoint: Option<Address>,
    pub local: Option<SocketAddr>,
    pub version: Option<Version>,
    /// How many tries were made.
    pub attempts: u32,
    /// Why a connection could not be opened.
    pub failure: Option<Box<str>>,
}

/// Which trace an exchange belongs to (W3C Trace Context).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    pub trace: u128,
    /// The span of the exchange.
    pub span: u64,
    /// The span of the backend's side, where there is one of its own.
    pub upstream: Option<u64>,
    /// Who asked; 0 is nobody.
    pub parent: u64,
    /// Whether spans are exported.
    pub sampled: bool,
}

impl Record {
    /// Nothing is known yet but when it began.
    pub fn new(started: SystemTime) -> Self {
        Self {
            started,
            duration: Duration::ZERO,
            request_duration: None,
            response_duration: None,
            method: None,
            version: None,
            secure: false,
            authority: None,
            path: None,
            original_path: None,
            request: Vec::new(),
            response: Vec::new(),
            trailers: Vec::new(),
            status: 0,
            outcome: Outcome::UNKNOWN,
            received: 0,
            sent: 0,
            connection: 0,
            drawn: 0,
            client: None,
            peer: None,
            local: None,
            server_name: None,
            tls: None,
            gateway: Box::default(),
            route: None,
            upstream: Upstream::default(),
            trace: None,
        }
    }

    /// Whether it is of an HTTP request.
    pub fn is_http(&self) -> bool {
        self.version.is_some() || self.status != 0
    }

    /// A field of the request.
    pub fn request_field(&self, name: &HeaderName) -> Option<&[u8]> {
        find(&self.request, name)
    }

    /// A field of the response.
    pub fn response_field(&self, name: &HeaderName) -> Option<&[u8]> {
        find(&self.response, name)
    }

    /// A field of the response's trailers.
    pub fn trailer_field(&self, name: &HeaderName) -> Option<&[u8]> {
        find(&self.trailers, name)
    }

    /// The status of a gRPC call, wherever it stands.
    pub fn grpc_status(&self) -> Option<u16> {
        let name = HeaderName::from_static("grpc-status");
        let text = find(&self.trailers, &name).or_else(|| find(&self.response, &name))?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }
}

/// The first value of each wanted field.
pub fn pick(headers: &HeaderMap, wanted: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let found = |name: &HeaderName| headers.get(name).map(|value| (name.clone(), value.clone()));
    wanted.iter().filter_map(found).collect()
}

fn find<'a>(fields: &'a [(HeaderName, HeaderValue)], wanted: &HeaderName) -> Option<&'a [u8]> {
    fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_bytes())
}
