//! What an operator says of a record, and how that stands in a line so that nothing can break out of it.

use super::operator::{Field, Operator, Part};
use super::record::Record;
use crate::upstream::Address;
use http::Version;
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
const START_TIME: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";

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
        Operator::StartTime(format) => start_time(record.started, format.as_deref().unwrap_or(START_TIME)),
        Operator::Protocol => record.version.map(protocol).into(),
        Operator::UpstreamProtocol => upstream.version.map(protocol).into(),
        Operator::ResponseCode => number(record.status.into()),
        Operator::ResponseCodeDetails => details(record),
        Operator::ResponseFlags => Some(record.outcome.flags).into(),
        Operator::ResponseFlagsLong => Some(record.outcome.flags.long()).into(),
        Operator::GrpcStatus => record.grpc_status().map_or(Value::Absent, |status| number(status.into())),
        Operator::BytesReceived => number(record.received),
        Operator::BytesSent => number(record.sent),
        Operator::Duration => number(milliseconds(record.duration)),
        Operator::RequestDuration => duration(record.request_duration),
        Operator::ResponseDuration => duration(record.response_duration),
        Operator::ResponseTxDuration => {
            duration(record.response_duration.map(|first| record.duration.saturating_sub(first)))
        }
        Operator::AttemptCount => number(upstream.attempts.into()),
        Operator::RouteName => record.rule.as_ref().map(|rule| &rule.name).into(),
        Operator::RuleName => record.rule.as_ref().and_then(|rule| rule.name.name.as_ref()).into(),
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
        Operator::TraceId => record.trace.map(|trace| format!("{:032x}", trace.trace)).into(),
        Operator::SpanId => record.trace.map(|trace| format!("{:016x}", trace.span)).into(),
        Operator::Gateway => Some(&record.gateway).filter(|name| !name.is_empty()).into(),
        Operator::Hostname => Some(HOSTNAME.as_str()).filter(|name| !name.is_empty()).into(),
        Operator::Absent => Value::Absent,
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
    }
}

fn duration(duration: Option<Duration>) -> Value {
    duration.map_or(Value::Absent, |duration| Value::Number(milliseconds(duration)))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn start_time(at: SystemTime, format: &str) -> Value {
    let Ok(at) = jiff::Timestamp::try_from(at) else { return Value::Absent };
    let at = jiff::Zoned::new(at, jiff::tz::TimeZone::UTC);
    BrokenDownTime::from(&at).to_string(format).ok().into()
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
