//! What an operator says of a record, and how that stands in a line so that nothing can break out of it.

use super::operator::{Case, Field, Moment, Operator, Part, PathFrom};
use super::record::{Record, Routed};
use crate::upstream::Address;
use http::Version;
use http::uri::PathAndQuery;
use ipnet::IpNet;
use jiff::fmt::strtime::BrokenDownTime;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// What an operator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null` in JSON, `-` in text.
    Absent,
    Number(u64),
    /// As it came; whoever writes it escapes it.
    Text(Vec<u8>),
}

/// ISO 8601 with milliseconds, as Envoy writes it.
const ISO_8601: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";

/// The name of this machine, which is the pod's in Kubernetes. It does not change while the process runs.
static HOSTNAME: LazyLock<String> = LazyLock::new(|| {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
});

impl Value {
    /// At most so many bytes of a text, whole characters only.
    pub(super) fn cut(self, most: Option<usize>) -> Self {
        match (self, most) {
            (Self::Text(mut text), Some(most)) if text.len() > most => {
                let whole = |end: &usize| text.get(*end).is_none_or(|byte| byte & 0xc0 != 0x80);
                let end = (0..=most).rev().find(whole).unwrap_or(0);
                text.truncate(end);
                Self::Text(text)
            }
            (value, _) => value,
        }
    }
}

impl<T: ToString> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, |value| Self::Text(value.to_string().into_bytes()))
    }
}

/// What the operator says of the record.
pub fn value(operator: &Operator, record: &Record) -> Value {
    let upstream = &record.upstream;
    let number = |number| Value::Number(number);
    match operator {
        Operator::Request(first, second) => field(first, record)
            .or_else(|| second.as_ref().and_then(|second| field(second, record)))
            .map_or(Value::Absent, |text| Value::Text(text.into_owned())),
        Operator::Response(first, second) => {
            bytes(record.response_field(first), second.as_ref().and_then(|name| record.response_field(name)))
        }
        Operator::Trailer(first, second) => {
            bytes(record.trailer_field(first), second.as_ref().and_then(|name| record.trailer_field(name)))
        }
        Operator::Protocol => record.version.map(protocol).into(),
        Operator::UpstreamProtocol => upstream.version.map(protocol).into(),
        Operator::ResponseCode => number(record.status.into()),
        Operator::ResponseCodeDetails => details(record),
        Operator::ResponseFlags => Some(record.outcome.flags).into(),
        Operator::ResponseFlagsLong => Some(record.outcome.flags.long()).into(),
        Operator::GrpcStatus(case) => grpc_status(record, *case),
        Operator::BytesReceived => number(record.received),
        Operator::BytesSent => number(record.sent),
        Operator::AttemptCount => number(upstream.attempts.into()),
        Operator::RouteName => record.route.as_ref().map(route_name).into(),
        Operator::RuleName => record.route.as_ref().and_then(|route| route.rule.own_name()).into(),
        Operator::UpstreamCluster => upstream.cluster.as_ref().map(|cluster| cluster.name()).into(),
        Operator::UpstreamHost(part) => match &upstream.endpoint {
            Some(Address::Ip(ip)) => address(Some(*ip), *part),
            Some(Address::Unix(path)) if *part != Part::Port => Some(path.display()).into(),
            _ => Value::Absent,
        },
        Operator::UpstreamLocal(part) => address(upstream.local, *part),
        Operator::UpstreamFailure => upstream.failure.as_ref().into(),
        Operator::Client(part) => address(record.client.or(record.peer), *part),
        Operator::Peer(part) => address(record.peer, *part),
        Operator::Local(part) => address(record.local, *part),
        Operator::ServerName => record.server_name.as_ref().filter(|name| !name.is_empty()).into(),
        Operator::TlsVersion => record.tls.map(|(version, _)| version).into(),
        Operator::TlsCipher => record.tls.map(|(_, cipher)| cipher.replacen("TLS13_", "TLS_", 1)).into(),
        Operator::ConnectionId => number(record.connection),
        Operator::StreamId => Value::Text(uuid(stream_number(record)).into_bytes()),
        Operator::UniqueId => Value::Text(uuid(fastrand::u128(..)).into_bytes()),
        Operator::LogType => Some(if record.is_http() { "DownstreamEnd" } else { "TcpConnectionEnd" }).into(),
        Operator::Path { query, from } => {
            let path = path(record, *from);
            path.map(|path| if *query { path.as_str() } else { path.path() }).into()
        }
        Operator::Query => path(record, PathFrom::Either).and_then(PathAndQuery::query).into(),
        Operator::QueryParameter(name) => query_parameter(record, name),
        Operator::TraceId => record.trace.map(|trace| format!("{:032x}", trace.trace)).into(),
        Operator::SpanId => record.trace.map(|trace| format!("{:016x}", trace.span)).into(),
        Operator::Gateway => Some(&record.gateway).filter(|name| !name.is_empty()).into(),
        Operator::Hostname => Some(HOSTNAME.as_str()).filter(|name| !name.is_empty()).into(),
        Operator::Cel(expression) => expression.text(record).into(),
        Operator::Environment { value, .. } => Some(value.as_deref().unwrap_or("-")).into(),
        Operator::Absent | Operator::Blank(_) => Value::Absent,
        timed => of_time(timed, record),
    }
}

/// When something happened, and how long something took.
fn of_time(operator: &Operator, record: &Record) -> Value {
    match operator {
        Operator::StartTime(format) => time(record.started, format.as_deref()),
        Operator::EmitTime(format) => time(record.started + record.duration, format.as_deref()),
        Operator::Between(from, to, unit) => match (moment(*from, record), moment(*to, record)) {
            (Some(from), Some(to)) => Value::Number(nanoseconds(to.saturating_sub(from)) / unit),
            _ => Value::Absent,
        },
        Operator::Duration => Value::Number(milliseconds(record.duration)),
        Operator::RequestDuration => duration(record.request_duration),
        Operator::RequestTxDuration => {
            duration(record.upstream.endpoint.as_ref().and(record.request_duration))
        }
        Operator::ResponseDuration => duration(record.response_duration),
        Operator::ResponseTxDuration => {
            duration(record.response_duration.map(|first| record.duration.saturating_sub(first)))
        }
        _ => Value::Absent,
    }
}

/// What a field of the request is.
pub(super) fn field<'r>(field: &Field, record: &'r Record) -> Option<Cow<'r, [u8]>> {
    match field {
        Field::Method => record.method.as_ref().map(|method| method.as_str().as_bytes().into()),
        Field::Scheme => {
            record.method.as_ref().map(|_| if record.secure { &b"https"[..] } else { b"http" }.into())
        }
        Field::Authority => record.authority.as_ref().map(|value| value.as_bytes().into()),
        Field::Path => record.path.as_ref().map(|path| path.as_str().as_bytes().into()),
        Field::OriginalPath => record.original_path.as_ref().map(|path| path.as_str().as_bytes().into()),
        Field::Named(name) => record.request_field(name).map(Cow::Borrowed),
    }
}

fn bytes(first: Option<&[u8]>, second: Option<&[u8]>) -> Value {
    first.or(second).map_or(Value::Absent, |text| Value::Text(text.to_vec()))
}

/// The name that Envoy Gateway gives one match of a rule for one host.
fn route_name(Routed { rule, place, host }: &Routed) -> String {
    format!("{}/match/{place}/{}", rule.name, host.replace('.', "_"))
}

/// The details, with the reason of a connection that could not be opened, as Envoy joins them.
fn details(record: &Record) -> Value {
    let details = record.outcome.details;
    if details.is_empty() {
        return Value::Absent;
    }
    let text = match (&record.upstream.failure, details.strip_suffix('}')) {
        (Some(failure), Some(open)) if details.contains("before_response_started{") => {
            format!("{open}|{failure}}}")
        }
        _ => details.to_owned(),
    };
    Value::Text(text.into_bytes())
}

/// `HTTP/1.1`, as Envoy writes it: `HTTP/2` has no minor version.
pub fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn address(address: Option<SocketAddr>, part: Part) -> Value {
    let Some(address) = address else { return Value::Absent };
    match part {
        Part::Whole => Some(address).into(),
        Part::Host => Some(address.ip()).into(),
        Part::Port => Value::Number(address.port().into()),
        Part::Network(length) => {
            let network = IpNet::new(address.ip(), length).map(|network| network.trunc());
            network.ok().into()
        }
    }
}

fn duration(duration: Option<Duration>) -> Value {
    duration.map_or(Value::Absent, |duration| Value::Number(milliseconds(duration)))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Since the beginning; `None` when it did not come.
fn moment(moment: Moment, record: &Record) -> Option<Duration> {
    match moment {
        Moment::Began => Some(Duration::ZERO),
        Moment::Asked => record.request_duration,
        Moment::Answered => record.response_duration,
        Moment::Over => Some(record.duration),
    }
}

fn time(at: SystemTime, format: Option<&str>) -> Value {
    let Ok(at) = jiff::Timestamp::try_from(at) else { return Value::Absent };
    let at = jiff::Zoned::new(at, jiff::tz::TimeZone::UTC);
    BrokenDownTime::from(&at).to_string(format.unwrap_or(ISO_8601)).ok().into()
}

fn path(record: &Record, from: PathFrom) -> Option<&PathAndQuery> {
    match from {
        PathFrom::Original => record.original_path.as_ref(),
        PathFrom::Sent => record.path.as_ref(),
        PathFrom::Either => record.original_path.as_ref().or(record.path.as_ref()),
    }
}

fn query_parameter(record: &Record, name: &str) -> Value {
    let query = path(record, PathFrom::Either).and_then(PathAndQuery::query).unwrap_or_default();
    let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
    found.map(|(_, value)| value).into()
}

/// A number for the exchange, for as long as it is told of.
fn stream_number(record: &Record) -> u128 {
    let started = record.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (started.as_nanos() << 64) | (u128::from(record.connection) << 32) | u128::from(record.drawn)
}

/// As RFC 9562 writes a number of version 4.
fn uuid(number: u128) -> String {
    let number = (number & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let part = |from: u32, bits: u32| (number >> from) & ((1 << bits) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 32),
        part(80, 16),
        part(64, 16),
        part(48, 16),
        part(0, 48)
    )
}

/// The codes of gRPC in their order.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn grpc_status(record: &Record, case: Case) -> Value {
    let Some(status) = record.grpc_status() else { return Value::Absent };
    match (case, GRPC_CODES.get(usize::from(status))) {
        (Case::Number, _) => Value::Number(status.into()),
        (_, None) => Some(status).into(),
        (Case::Snake, Some(name)) => Some(name).into(),
        // Envoy has these two in capitals, and in American spelling.
        (Case::Camel, Some(name @ &"OK")) => Some(name).into(),
        (Case::Camel, Some(&"CANCELLED")) => Some("Canceled").into(),
        (Case::Camel, Some(name)) => {
            let word = |word: &str| word[..1].to_owned() + &word[1..].to_ascii_lowercase();
            Some(name.split('_').map(word).collect::<String>()).into()
        }
    }
}

/// A value in a line of text. Control bytes, quotes, backslashes and what is no UTF-8 are written as `\x0A`, so that a
/// value can end neither its line nor quotes around it.
pub(super) fn text(value: &[u8], out: &mut Vec<u8>) {
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => hexadecimal(c as u8, out),
                c if c.is_control() || ends_a_line(c) => {
                    let mut buffer = [0; 4];
                    c.encode_utf8(&mut buffer).bytes().for_each(|byte| hexadecimal(byte, out));
                }
                c => {
                    let mut buffer = [0; 4];
                    out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                }
            }
        }
        chunk.invalid().iter().for_each(|&byte| hexadecimal(byte, out));
    }
}

fn hexadecimal(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]];
    out.extend_from_slice(b"\\x");
    out.extend_from_slice(&digits);
}

/// A JSON string. What is no UTF-8 becomes U+FFFD; control characters beyond those that JSON forbids are escaped, too.
pub(super) fn json_text(value: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(value);
    let is_plain = |c: char| c < '\u{7f}' || !(c.is_control() || ends_a_line(c));
    if text.chars().all(is_plain) {
        // Writing to a vector cannot fail, and a string is always valid JSON.
        let _ = serde_json::to_writer(out, text.as_ref());
        return;
    }
    out.push(b'"');
    for part in text.split_inclusive(|c| !is_plain(c)) {
        let (plain, last) = match part.char_indices().next_back() {
            Some((at, last)) if !is_plain(last) => (&part[..at], Some(last)),
            _ => (part, None),
        };
        let from = out.len();
        let _ = serde_json::to_writer(&mut *out, plain);
        // The quotes around a part are none of the whole.
        out.pop();
        out.remove(from);
        if let Some(c) = last {
            out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes());
        }
    }
    out.push(b'"');
}

/// What Unicode takes for the end of a line beside control characters.
fn ends_a_line(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests;
