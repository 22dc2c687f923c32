//! What is noted of an exchange while it goes on: what became of it always, the rest only where somebody wants to
//! know.

use super::asked::Asked;
use super::outgoing::Address;
use super::{Connection, Gateway};
use crate::access_log::{Record, Routed, pick};
use crate::live::Revision;
use crate::reply::{Flag, Flags, Outcome};
use crate::routing::{ClusterId, Found};
use crate::telemetry::{Observing, WHOLE};
use crate::upstream::{Active, Address as Endpoint, Upstream, UpstreamError};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, StatusCode, Version, request, response};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Notes of one exchange.
#[derive(Debug, Default)]
pub struct Notes {
    /// What is known better than by the answer that the client gets.
    said: Option<Outcome>,
    flags: Flags,
    /// Of the head that the client was sent.
    status: Option<StatusCode>,
    /// Bytes of the request's body.
    received: u64,
    /// Bytes of the response's body.
    sent: u64,
    more: Option<Box<More>>,
}

/// What is noted only where somebody wants to know.
#[derive(Debug)]
struct More {
    observing: Arc<Observing>,
    record: Box<Record>,
    started: Instant,
}

impl Notes {
    /// Begins notes of a request. What was read of its head is noted when it is known to be one.
    pub fn begin(revision: Option<&Revision>, connection: &Connection, started: Instant) -> Self {
        let observing = revision.and_then(|revision| revision.observers.of(connection.gateway.id.0));
        Self {
            more: observing.and_then(|observing| More::begin(observing, connection, started)),
            ..Self::default()
        }
    }

    /// Whether more is noted than what became of it.
    pub fn are_wanted(&self) -> bool {
        self.more.is_some()
    }

    /// The head as it came.
    pub fn asked(&mut self, head: &request::Parts, gateway: &Gateway) {
        let Some(More { observing, record, .. }) = self.more.as_deref_mut() else { return };
        record.method = Some(head.method.clone());
        record.version = Some(head.version);
        record.authority = match head.uri.authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => head.headers.get(HOST).cloned(),
        };
        record.path = head.uri.path_and_query().cloned();
        record.request = pick(&head.headers, &observing.request);
        if let Some(tracing) = &observing.tracing {
            let peer = record.peer.map(|peer| peer.ip());
            let trusted = gateway.trusted_hops > 0 || peer.is_some_and(|peer| gateway.trusts(peer));
            record.trace = Some(tracing.begin(&head.headers, trusted, record.drawn));
        }
    }

    /// Who serves it, and the head as filters get it.
    pub fn introduced(&mut self, asked: &Asked, headers: &HeaderMap, client: IpAddr) {
        let Some(More { observing, record, .. }) = self.more.as_deref_mut() else { return };
        record.path = Some(asked.target.clone());
        record.request = pick(headers, &observing.request);
        // Envoy gives an address that a header tells the port 0.
        let told = record.peer.is_none_or(|peer| peer.ip() != client);
        record.client = if told { Some(SocketAddr::new(client, 0)) } else { record.peer };
    }

    /// The rule that serves it.
    pub fn routed(&mut self, found: &Found<'_>, asked: &Asked) {
        if let Some(More { record, .. }) = self.more.as_deref_mut() {
            let host = found.host_name(asked.name()).into();
            record.route = Some(Routed { rule: Arc::clone(found.rule), place: found.place, host });
        }
    }

    /// The head as the backend gets it, which is told of the trace.
    pub fn leaving(
        &mut self,
        head: &mut request::Parts,
        address: &Address,
        revision: &Revision,
        to: ClusterId,
    ) {
        let Some(More { observing, record, .. }) = self.more.as_deref_mut() else { return };
        if let (Some(tracing), Some(trace)) = (&observing.tracing, &record.trace) {
            tracing.inject(trace, &mut head.headers);
        }
        record.request = pick(&head.headers, &observing.request);
        record.authority = Some(address.host.clone());
        if record.path.as_ref() != Some(&address.target) {
            record.original_path = record.path.replace(address.target.clone());
        }
        record.upstream.cluster = revision.clusters.get(to.0 as usize).cloned();
    }

    /// A connection to an endpoint is there.
    pub fn reached(&mut self, endpoint: &Active, up: &Upstream) {
        let Some(More { record, .. }) = self.more.as_deref_mut() else { return };
        record.upstream.endpoint = Some(endpoint.endpoint().address.clone());
        record.upstream.local = up.local();
        record.upstream.version = Some(if up.is_http2() { Version::HTTP_2 } else { Version::HTTP_11 });
    }

    /// A try begins.
    pub fn tried(&mut self) {
        if let Some(More { record, .. }) = self.more.as_deref_mut() {
            record.upstream.attempts += 1;
        }
    }

    /// No connection to an endpoint could be opened.
    pub fn not_reached(&mut self, endpoint: Option<&Endpoint>, failure: Option<Box<str>>) {
        if let Some(More { record, .. }) = self.more.as_deref_mut() {
            record.upstream.endpoint = endpoint.cloned();
            record.upstream.failure = failure;
        }
    }

    /// So many bytes of the request's body came, or its end.
    pub fn received(&mut self, bytes: usize, end: bool) {
        self.received += bytes as u64;
        if end && let Some(More { record, started, .. }) = self.more.as_deref_mut() {
            record.request_duration = Some(started.elapsed());
        }
    }

    /// The head of a backend's response came.
    pub fn answered(&mut self) {
        if let Some(More { record, started, .. }) = self.more.as_deref_mut() {
            record.response_duration = Some(started.elapsed());
        }
    }

    /// The head that the client is sent.
    pub fn responds(&mut self, head: &response::Parts) {
        self.status = Some(head.status);
        if let Some(More { observing, record, .. }) = self.more.as_deref_mut() {
            record.response = pick(&head.headers, &observing.response);
        }
    }

    /// So many bytes of the response's body are sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The response's trailers.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(More { observing, record, .. }) = self.more.as_deref_mut() {
            record.trailers = pick(trailers, &observing.trailers);
        }
    }

    /// What became of it, where that is known better than by what the client is answered.
    pub fn say(&mut self, outcome: Outcome) {
        self.said = Some(outcome);
    }

    /// What became of it, now that there is another try: nothing yet.
    pub fn unsay(&mut self) {
        self.said = None;
    }

    /// One flag more, whatever else is said.
    pub fn flag(&mut self, flag: Flag) {
        self.flags = self.flags.with(flag);
    }

    /// A response that began breaks off. What ends before its framing says so is no HTTP.
    pub fn cut_short(&mut self, error: &UpstreamError, http2: bool) {
        self.say(match error {
            UpstreamError::Reset(_) | UpstreamError::Refused(_) => Outcome::RESET_LATE,
            UpstreamError::Closed(_) if http2 => Outcome::CLOSED_LATE,
            UpstreamError::Closed(_) | UpstreamError::Protocol(_) => Outcome::CUT_SHORT,
        });
    }

    /// The exchange is over.
    pub fn end(self, outcome: Outcome, took: Duration) {
        let Self { said, flags, status, received, sent, more } = self;
        let Some(more) = more else { return };
        let More { observing, mut record, started: _ } = *more;
        let Outcome { flags: own, details } = said.unwrap_or(outcome);
        record.outcome = Outcome { flags: own.and(flags), details };
        record.status = status.map_or(0, |status| status.as_u16());
        (record.received, record.sent, record.duration) = (received, sent, took);
        // Without a body it ended with its head.
        record.request_duration.get_or_insert(Duration::ZERO);
        observing.tell(record);
    }

    /// Tells of a head that could not be taken.
    pub fn refused(
        revision: Option<&Revision>,
        connection: &Connection,
        (head, body): (&response::Parts, usize),
        outcome: Outcome,
    ) {
        let mut notes = Self::begin(revision, connection, Instant::now());
        notes.responds(head);
        notes.sent(body);
        if let Some(More { record, .. }) = notes.more.as_deref_mut() {
            record.version = Some(head.version);
        }
        notes.end(outcome, Duration::ZERO);
    }
}

impl More {
    fn begin(observing: &Arc<Observing>, connection: &Connection, started: Instant) -> Option<Box<Self>> {
        let drawn = fastrand::u32(..WHOLE);
        if !observing.wants(drawn) {
            return None;
        }
        let mut record = Box::new(Record::new(SystemTime::now()));
        record.drawn = drawn;
        record.secure = connection.server_name.is_some();
        record.connection = connection.number;
        record.peer = Some(connection.peer);
        record.local = Some(connection.local);
        record.server_name = connection.server_name.clone();
        record.tls = connection.tls;
        record.gateway = connection.gateway.name.as_str().into();
        Some(Box::new(Self { observing: Arc::clone(observing), record, started }))
    }
}
