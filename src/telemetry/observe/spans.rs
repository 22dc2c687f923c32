//! Spans, with the names and tags that Envoy gives them.

use super::WHOLE;
use super::exporter::Collector;
use super::messages::{KeyValue, Span, Status, nanoseconds};
use super::propagation::{self, Heading};
use crate::access_log::{Format, Record, Trace, protocol};
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
const X_ENVOY_FORCE_TRACE: HeaderName = HeaderName::from_static("x-envoy-force-trace");
/// Envoy's `max_path_tag_length`.
const MOST_PATH: usize = 256;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

/// How a gateway traces.
#[derive(Debug, Clone)]
pub struct Tracing {
    pub collector: Collector,
    /// Of a million requests that come without a decision, so many are sampled.
    pub share: u32,
    /// Of a million requests with `x-client-trace-id`, so many are sampled for it.
    pub by_client: u32,
    /// Of a million requests that would be sampled, so many are.
    pub overall: u32,
    /// Whether a backend's side has a span of its own.
    pub upstream_spans: bool,
    /// The headers in which backends are told.
    pub headings: Vec<Heading>,
    /// The `node_id`.
    pub node: String,
    /// What the spans of both sides are called, where the operator says so.
    pub names: Names,
    /// Tags of the operator's own, by their names.
    pub tags: Vec<(String, Tag)>,
}

/// Names of spans.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Of an exchange.
    pub server: Option<Format>,
    /// Of the backend's side of it.
    pub client: Option<Format>,
}

/// The value of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    Literal(String),
    /// A field of the request, and what stands for it where it is missing.
    Header(HeaderName, Option<String>),
    /// A text with operators, as in an access log.
    Text(Format),
}

impl Tracing {
    /// The fields that spans tell: of requests, of responses, of trailers.
    pub(super) fn reads(&self) -> [Vec<HeaderName>; 3] {
        let status = || vec![HeaderName::from_static("grpc-status")];
        let mut all = [vec![USER_AGENT, X_REQUEST_ID, X_CLIENT_TRACE_ID], status(), status()];
        let Names { server, client } = &self.names;
        let texts = self.tags.iter().filter_map(|(_, tag)| match tag {
            Tag::Text(format) => Some(format),
            Tag::Header(..) | Tag::Literal(_) => None,
        });
        for format in texts.chain(server).chain(client) {
            all.iter_mut().zip(format.reads()).for_each(|(all, more)| all.extend(more));
        }
        all[0].extend(self.tags.iter().filter_map(|(_, tag)| match tag {
            Tag::Header(name, _) => Some(name.clone()),
            Tag::Literal(_) | Tag::Text(_) => None,
        }));
        all
    }

    /// The trace that a request belongs to, and whether it is sampled: as whoever sent it decided, else because it is
    /// asked for in a header (`x-envoy-force-trace` from those who are trusted), else by share.
    pub fn begin(&self, headers: &HeaderMap, trusted: bool, drawn: u32) -> Trace {
        let forced = trusted && headers.contains_key(X_ENVOY_FORCE_TRACE)
            || headers.contains_key(X_CLIENT_TRACE_ID) && is_within(self.by_client);
        let parent = propagation::extract(headers);
        let decided = parent.and_then(|parent| parent.sampled);
        Trace {
            trace: parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace),
            span: fastrand::u64(1..),
            upstream: self.upstream_spans.then(|| fastrand::u64(1..)),
            parent: parent.map_or(0, |parent| parent.span),
            sampled: (forced || decided.unwrap_or(drawn < self.share)) && is_within(self.overall),
        }
    }

    /// Tells the backend of the trace.
    pub fn inject(&self, trace: &Trace, headers: &mut HeaderMap) {
        propagation::inject(&self.headings, trace, headers);
    }
}

/// Whether one of a million is among so many. Nothing is drawn where that is certain.
fn is_within(share: u32) -> bool {
    share == WHOLE || fastrand::u32(..WHOLE) < share
}

/// The spans of an exchange: its own, and that of the backend's side.
pub(super) fn spans(tracing: &Tracing, record: &Record) -> Vec<Span> {
    let Some(trace) = record.trace else { return Vec::new() };
    let own = Span {
        trace_id: trace.trace.to_be_bytes().to_vec(),
        span_id: trace.span.to_be_bytes().to_vec(),
        parent_span_id: if trace.parent == 0 { Vec::new() } else { trace.parent.to_be_bytes().to_vec() },
        name: named(&tracing.names.server, record, || "ingress".to_owned()),
        kind: SERVER,
        start_time_unix_nano: nanoseconds(record.started, Duration::ZERO),
        end_time_unix_nano: nanoseconds(record.started, record.duration),
        attributes: tags(tracing, record),
        status: status(record),
    };
    let mut spans = Vec::with_capacity(2);
    if let (Some(id), Some(cluster)) = (trace.upstream, &record.upstream.cluster) {
        spans.push(Span {
            span_id: id.to_be_bytes().to_vec(),
            parent_span_id: trace.span.to_be_bytes().to_vec(),
            name: named(&tracing.names.client, record, || format!("router {} egress", cluster.name())),
            kind: CLIENT,
            attributes: upstream_tags(record),
            ..own.clone()
        });
    }
    spans.push(own);
    spans
}

fn named(format: &Option<Format>, record: &Record, otherwise: impl FnOnce() -> String) -> String {
    format.as_ref().and_then(|format| format.value(record)).unwrap_or_else(otherwise)
}

fn status(record: &Record) -> Option<Status> {
    is_error(record).then_some(Status { code: ERROR })
}

/// As Envoy: an answer of 5xx, or none.
fn is_error(record: &Record) -> bool {
    record.status >= 500 || record.status == 0
}

fn tags(tracing: &Tracing, record: &Record) -> Vec<KeyValue> {
    let field = |name: &HeaderName| record.request_field(name).map(lossy);
    let mut tags = common(record);
    tags.push(KeyValue::text("node_id", tracing.node.as_str()));
    tags.push(KeyValue::text("http.url", url(record)));
    tags.push(KeyValue::text("http.method", record.method.as_ref().map_or("", |method| method.as_str())));
    tags.push(KeyValue::text("downstream_cluster", "-"));
    tags.push(KeyValue::text("user_agent", field(&USER_AGENT).unwrap_or_else(|| "-".to_owned())));
    tags.push(KeyValue::text("request_size", record.received.to_string()));
    tags.push(KeyValue::text("response_size", record.sent.to_string()));
    if let Some(client) = record.client.or(record.peer) {
        tags.push(KeyValue::text("peer.address", client.ip().to_string()));
    }
    for (tag, name) in [("guid:x-request-id", &X_REQUEST_ID), ("guid:x-client-trace-id", &X_CLIENT_TRACE_ID)]
    {
        tags.extend(field(name).map(|value| KeyValue::text(tag, value)));
    }
    for (name, tag) in &tracing.tags {
        let value = match tag {
            Tag::Literal(text) => Some(text.clone()),
            Tag::Header(header, otherwise) => field(header).or_else(|| otherwise.clone()),
            Tag::Text(format) => format.value(record),
        };
        tags.extend(value.map(|value| KeyValue::text(name, value)));
    }
    tags
}

/// What both spans tell.
fn common(record: &Record) -> Vec<KeyValue> {
    let cluster = record.upstream.cluster.as_ref().map_or("-", |cluster| cluster.name());
    let mut tags = vec![
        KeyValue::text("component", "proxy"),
        KeyValue::text("http.protocol", record.version.map_or("-", protocol)),
        KeyValue::text("http.status_code", record.status.to_string()),
        KeyValue::text("response_flags", record.outcome.flags.to_string()),
        KeyValue::text("upstream_cluster", cluster),
        KeyValue::text("upstream_cluster.name", cluster),
    ];
    if let Some(status) = record.grpc_status() {
        tags.push(KeyValue::text("grpc.status_code", status.to_string()));
    }
    if is_error(record) {
        tags.push(KeyValue::text("error", "true"));
    }
    tags
}

fn upstream_tags(record: &Record) -> Vec<KeyValue> {
    let mut tags = common(record);
    if let Some(crate::upstream::Address::Ip(address)) = &record.upstream.endpoint {
        tags.push(KeyValue::text("upstream_address", address.to_string()));
        tags.push(KeyValue::text("peer.address", address.to_string()));
    }
    if record.upstream.attempts > 1 {
        tags.push(KeyValue::text("retry.count", (record.upstream.attempts - 1).to_string()));
    }
    tags
}

fn url(record: &Record) -> String {
    let scheme = if record.secure { "https" } else { "http" };
    let host = record.authority.as_ref().map(HeaderValue::as_bytes).map(lossy).unwrap_or_default();
    let path = record.original_path.as_ref().or(record.path.as_ref()).map_or("", |path| path.as_str());
    let end = (0..=path.len().min(MOST_PATH)).rev().find(|end| path.is_char_boundary(*end)).unwrap_or(0);
    format!("{scheme}://{host}{}", &path[..end])
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
