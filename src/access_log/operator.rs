//! Envoy's command operators: `%REQ(X?Y):Z%` and their kin, read once.

use http::HeaderName;
use jiff::fmt::strtime::BrokenDownTime;

/// Something that a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// The first of both that is there.
    Request(Field, Option<Field>),
    Response(HeaderName, Option<HeaderName>),
    Trailer(HeaderName, Option<HeaderName>),
    /// With its own format, or that of ISO 8601 with milliseconds.
    StartTime(Option<Box<str>>),
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    GrpcStatus,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    AttemptCount,
    RouteName,
    /// `rules[].name`: ours, for Envoy does not know it.
    RuleName,
    UpstreamCluster,
    UpstreamHost(Part),
    UpstreamLocal(Part),
    UpstreamFailure,
    Client(Part),
    Peer(Part),
    Local(Part),
    ServerName,
    TlsVersion,
    TlsCipher,
    ConnectionId,
    TraceId,
    SpanId,
    Gateway,
    Hostname,
    /// What Envoy knows and trigate never has: printed as what is not there.
    Absent,
}

/// Which part of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Whole,
    Host,
    Port,
}

/// A field of a request, or one of HTTP/2's pseudo fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Method,
    Scheme,
    Authority,
    Path,
    /// `x-envoy-original-path`: the path before a rewrite.
    OriginalPath,
    Named(HeaderName),
}

/// Operators without arguments.
const PLAIN: &[(&str, Operator)] = &[
    ("PROTOCOL", Operator::Protocol),
    ("UPSTREAM_PROTOCOL", Operator::UpstreamProtocol),
    ("RESPONSE_CODE", Operator::ResponseCode),
    ("RESPONSE_CODE_DETAILS", Operator::ResponseCodeDetails),
    ("RESPONSE_FLAGS", Operator::ResponseFlags),
    ("RESPONSE_FLAGS_LONG", Operator::ResponseFlagsLong),
    ("GRPC_STATUS_NUMBER", Operator::GrpcStatus),
    ("BYTES_RECEIVED", Operator::BytesReceived),
    ("BYTES_SENT", Operator::BytesSent),
    ("DURATION", Operator::Duration),
    ("REQUEST_DURATION", Operator::RequestDuration),
    ("REQUEST_TX_DURATION", Operator::RequestDuration),
    ("RESPONSE_DURATION", Operator::ResponseDuration),
    ("RESPONSE_TX_DURATION", Operator::ResponseTxDuration),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Operator::AttemptCount),
    ("ROUTE_NAME", Operator::RouteName),
    ("RULE_NAME", Operator::RuleName),
    ("UPSTREAM_CLUSTER", Operator::UpstreamCluster),
    ("UPSTREAM_CLUSTER_RAW", Operator::UpstreamCluster),
    ("UPSTREAM_HOST", Operator::UpstreamHost(Part::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS", Operator::UpstreamHost(Part::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Operator::UpstreamHost(Part::Host)),
    ("UPSTREAM_REMOTE_PORT", Operator::UpstreamHost(Part::Port)),
    ("UPSTREAM_LOCAL_ADDRESS", Operator::UpstreamLocal(Part::Whole)),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Operator::UpstreamLocal(Part::Host)),
    ("UPSTREAM_LOCAL_PORT", Operator::UpstreamLocal(Part::Port)),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Operator::UpstreamFailure),
    ("DOWNSTREAM_REMOTE_ADDRESS", Operator::Client(Part::Whole)),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Operator::Client(Part::Host)),
    ("DOWNSTREAM_REMOTE_PORT", Operator::Client(Part::Port)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Operator::Peer(Part::Whole)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Operator::Peer(Part::Host)),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Operator::Peer(Part::Port)),
    ("DOWNSTREAM_LOCAL_ADDRESS", Operator::Local(Part::Whole)),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Operator::Local(Part::Host)),
    ("DOWNSTREAM_LOCAL_PORT", Operator::Local(Part::Port)),
    ("REQUESTED_SERVER_NAME", Operator::ServerName),
    ("DOWNSTREAM_TLS_VERSION", Operator::TlsVersion),
    ("DOWNSTREAM_TLS_CIPHER", Operator::TlsCipher),
    ("CONNECTION_ID", Operator::ConnectionId),
    ("TRACE_ID", Operator::TraceId),
    ("SPAN_ID", Operator::SpanId),
    ("FILTER_CHAIN_NAME", Operator::Gateway),
    ("HOSTNAME", Operator::Hostname),
    ("CONNECTION_TERMINATION_DETAILS", Operator::Absent),
    ("VIRTUAL_CLUSTER_NAME", Operator::Absent),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", Operator::Absent),
    ("DOWNSTREAM_LOCAL_URI_SAN", Operator::Absent),
    ("DOWNSTREAM_PEER_URI_SAN", Operator::Absent),
    ("DOWNSTREAM_PEER_SUBJECT", Operator::Absent),
    ("DOWNSTREAM_PEER_ISSUER", Operator::Absent),
];

/// Operators with arguments that name what only Envoy's filters make.
const FOREIGN: [&str; 4] = ["DYNAMIC_METADATA", "CLUSTER_METADATA", "UPSTREAM_METADATA", "FILTER_STATE"];

impl Operator {
    /// Reads what stands between two `%`, without a length limit: `REQ(:PATH)`.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, argument) = match text.split_once('(') {
            None => (text, None),
            Some((name, rest)) => {
                let argument =
                    rest.strip_suffix(')').ok_or_else(|| format!("`{text}` lacks a closing `)`"))?;
                (name, Some(argument))
            }
        };
        match (name, argument) {
            ("REQ" | "REQUEST_HEADER", Some(argument)) => {
                let (first, second) = alternatives(argument);
                Ok(Self::Request(Field::parse(first)?, second.map(Field::parse).transpose()?))
            }
            ("RESP" | "RESPONSE_HEADER", Some(argument)) => {
                let (first, second) = header_names(argument)?;
                Ok(Self::Response(first, second))
            }
            ("TRAILER" | "RESPONSE_TRAILER", Some(argument)) => {
                let (first, second) = header_names(argument)?;
                Ok(Self::Trailer(first, second))
            }
            ("START_TIME", None) => Ok(Self::StartTime(None)),
            ("START_TIME", Some(format)) => Ok(Self::StartTime(time_format(format)?)),
            ("GRPC_STATUS", Some("NUMBER")) => Ok(Self::GrpcStatus),
            (name, Some(_)) if FOREIGN.contains(&name) => Ok(Self::Absent),
            (name, None) => {
                let known = PLAIN.iter().find(|(known, _)| *known == name);
                known.map(|(_, operator)| operator.clone()).ok_or_else(|| unknown(name))
            }
            (name, Some(_)) => Err(match PLAIN.iter().any(|(known, _)| *known == name) {
                true => format!("%{name}% takes no argument in parentheses"),
                false => unknown(name),
            }),
        }
    }

    /// The fields that it reads, in this order: of requests, of responses, of trailers.
    pub fn reads(&self) -> [Vec<HeaderName>; 3] {
        let named = |field: &Field| match field {
            Field::Named(name) => Some(name.clone()),
            _ => None,
        };
        let both = |first: &HeaderName, second: &Option<HeaderName>| {
            std::iter::once(first.clone()).chain(second.clone()).collect()
        };
        let status = || vec![HeaderName::from_static("grpc-status")];
        let none = Vec::new;
        match self {
            Self::Request(first, second) => {
                [named(first).into_iter().chain(second.as_ref().and_then(named)).collect(), none(), none()]
            }
            Self::Response(first, second) => [none(), both(first, second), none()],
            Self::Trailer(first, second) => [none(), none(), both(first, second)],
            Self::GrpcStatus => [none(), status(), status()],
            _ => [none(), none(), none()],
        }
    }
}

fn unknown(name: &str) -> String {
    let close = PLAIN.iter().map(|(known, _)| (strsim::damerau_levenshtein(known, name), *known)).min();
    match close {
        Some((distance, known)) if distance <= 3 => {
            format!("%{name}% is no operator of Envoy's; did you mean %{known}%?")
        }
        _ => format!("%{name}% is no operator of Envoy's that trigate knows"),
    }
}

impl Field {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Path,
            "x-envoy-original-path" => Self::OriginalPath,
            _ => Self::Named(header_name(text)?),
        })
    }
}

fn alternatives(argument: &str) -> (&str, Option<&str>) {
    argument.split_once('?').map_or((argument, None), |(first, second)| (first, Some(second)))
}

fn header_names(argument: &str) -> Result<(HeaderName, Option<HeaderName>), String> {
    let (first, second) = alternatives(argument);
    Ok((header_name(first)?, second.map(header_name).transpose()?))
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is no name of a header field"))
}

/// A format of `strftime`, with Envoy's `%3f`, `%6f` and `%9f` for fractions; `None` stands for the usual one.
fn time_format(format: &str) -> Result<Option<Box<str>>, String> {
    if format.is_empty() {
        return Ok(None);
    }
    let sample = jiff::Zoned::new(jiff::Timestamp::UNIX_EPOCH, jiff::tz::TimeZone::UTC);
    let fits = BrokenDownTime::from(&sample).to_string(format);
    fits.map(|_| Some(format.into())).map_err(|error| format!("`{format}` is no format of a time: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_operator_is_refused_with_a_hint() {
        for (text, want) in [
            ("RESPONSE_CODES", "did you mean %RESPONSE_CODE%"),
            ("NONSENSE_ALL_THE_WAY", "is no operator"),
            ("REQ(X", "closing"),
            ("REQ(a b)", "no name of a header field"),
            ("REQ", "is no operator"),
            ("DURATION(1)", "takes no argument"),
            ("START_TIME(%~)", "no format of a time"),
        ] {
            let error = Operator::parse(text).expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn an_operator_says_which_fields_it_reads() {
        let names = |text: &str| Operator::parse(text).expect(text).reads().map(|names| names.len());
        assert_eq!(names("REQ(x-a?x-b)"), [2, 0, 0]);
        assert_eq!(names("REQ(:path?host)"), [0, 0, 0]);
        assert_eq!(names("RESP(server)"), [0, 1, 0]);
        assert_eq!(names("TRAILER(grpc-message?x)"), [0, 0, 2]);
        assert_eq!(names("GRPC_STATUS_NUMBER"), [0, 1, 1]);
        assert_eq!(names("DURATION"), [0, 0, 0]);
    }
}
