//! OTLP's messages, as far as they are told (opentelemetry-proto 1, `logs/v1`, `trace/v1`): fields keep their numbers.

use crate::access_log::{Format, Record, Value};
use prost::Message;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone, PartialEq, Message)]
pub struct ExportLogs {
    #[prost(message, repeated, tag = "1")]
    pub resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LogRecord {
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    #[prost(fixed64, tag = "11")]
    pub observed_time_unix_nano: u64,
    #[prost(message, optional, tag = "5")]
    pub body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<KeyValue>,
    #[prost(fixed32, tag = "8")]
    pub flags: u32,
    #[prost(bytes = "vec", tag = "9")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    pub span_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ExportTraces {
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    /// 2 is a server's, 3 a client's.
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// 2 is an error.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 3")]
    pub value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

impl AnyValue {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { value: Some(Any::Text(text.into())) }
    }

    fn of(value: Value) -> Self {
        match value {
            Value::Absent => Self::text("-"),
            Value::Number(number) => {
                Self { value: Some(Any::Number(i64::try_from(number).unwrap_or(i64::MAX))) }
            }
            Value::Text(text) => Self::text(String::from_utf8_lossy(&text)),
        }
    }
}

impl KeyValue {
    /// An attribute with a text.
    pub fn text(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: Some(AnyValue::text(value)) }
    }
}

impl LogRecord {
    /// A line of an access log: a text is its body, the fields of a JSON object are its attributes.
    pub fn new(format: &Format, record: &Record) -> Self {
        let mut body = None;
        let mut attributes = Vec::new();
        for (name, value) in format.values(record) {
            match name {
                "" => body = Some(AnyValue::of(value)),
                key => attributes.push(KeyValue { key: key.to_owned(), value: Some(AnyValue::of(value)) }),
            }
        }
        let trace = record.trace;
        Self {
            time_unix_nano: nanoseconds(record.started, Duration::ZERO),
            observed_time_unix_nano: nanoseconds(record.started, record.duration),
            body,
            attributes,
            flags: u32::from(trace.is_some_and(|trace| trace.sampled)),
            trace_id: trace.map(|trace| trace.trace.to_be_bytes().to_vec()).unwrap_or_default(),
            span_id: trace.map(|trace| trace.span.to_be_bytes().to_vec()).unwrap_or_default(),
        }
    }
}

/// Nanoseconds since 1970, so long after a moment.
pub(super) fn nanoseconds(at: SystemTime, later: Duration) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_add(later);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
