//! Envoy's command operators: `%REQ(X?Y):Z%` and their kin, read once.

use super::expression::Expression;
use super::names::{BLANK, PLAIN};
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
    /// When it was over.
    EmitTime(Option<Box<str>>),
    /// From one moment to another, in this many nanoseconds.
    Between(Moment, Moment, u64),
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    GrpcStatus(Case),
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    /// The same, of a request that a backend got.
    RequestTxDuration,
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
    /// The same for all lines of an exchange.
    StreamId,
    /// Another one each time.
    UniqueId,
    LogType,
    /// What was asked for, with or without the query.
    Path {
        query: bool,
        from: PathFrom,
    },
    /// The first parameter of this name, decoded.
    QueryParameter(Box<str>),
    Query,
    TraceId,
    SpanId,
    Gateway,
    Hostname,
    Cel(Expression),
    /// A variable of the environment, as it was when this was read.
    Environment {
        name: Box<str>,
        value: Option<Box<str>>,
    },
    /// What is never there.
    Absent,
    /// What Envoy knows and trigate does not note, as it was written.
    Blank(Box<str>),
}

/// How a status of gRPC is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// `InvalidArgument`
    Camel,
    /// `INVALID_ARGUMENT`
    Snake,
    Number,
}

/// A moment of an exchange that is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Began,
    /// The request was read to its end.
    Asked,
    /// The first byte came from the backend.
    Answered,
    Over,
}

/// Which path is meant where a filter changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathFrom {
    /// What the client asked for, if it was changed.
    Original,
    /// What the backend got.
    Sent,
    /// What the client asked for.
    Either,
}

/// Which part of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Whole,
    Host,
    Port,
    /// The network that the host is in, by the length of its prefix.
    Network(u8),
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
            ("START_TIME", format) => Ok(Self::StartTime(time_format(format)?)),
            ("EMIT_TIME", format) => Ok(Self::EmitTime(time_format(format)?)),
            ("COMMON_DURATION", Some(argument)) => between(argument),
            ("GRPC_STATUS", Some("CAMEL_STRING")) => Ok(Self::GrpcStatus(Case::Camel)),
            ("GRPC_STATUS", Some("SNAKE_STRING")) => Ok(Self::GrpcStatus(Case::Snake)),
            ("GRPC_STATUS", Some("NUMBER")) => Ok(Self::GrpcStatus(Case::Number)),
            ("PATH", argument) => path(argument.unwrap_or_default()),
            ("QUERY_PARAM", Some(name)) => Ok(Self::QueryParameter(name.into())),
            ("QUERY_PARAMS", None | Some("" | "ORIG")) => Ok(Self::Query),
            ("ENVIRONMENT", Some(name)) => {
                let value = std::env::var(name).ok().map(Into::into);
                Ok(Self::Environment { name: name.into(), value })
            }
            ("CEL", Some(expression)) => Expression::parse(expression).map(Self::Cel),
            (name, _) if BLANK.contains(&name) => Ok(Self::Blank(text.into())),
            (name, argument) => plain(name, argument.unwrap_or_default()),
        }
    }

    /// How it was written, if it says nothing because trigate does not know what Envoy knows.
    pub fn blank(&self) -> Option<&str> {
        match self {
            Self::Blank(text) => Some(text),
            _ => None,
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
            Self::Cel(expression) => expression.reads(),
            Self::GrpcStatus(_) => [none(), status(), status()],
            _ => [none(), none(), none()],
        }
    }
}

fn plain(name: &str, argument: &str) -> Result<Operator, String> {
    let known = PLAIN.iter().find(|(known, _)| *known == name);
    match known.map(|(_, operator)| operator.clone()).ok_or_else(|| unknown(name))? {
        operator if argument.is_empty() => Ok(operator),
        Operator::Client(Part::Host) => network(argument).map(Operator::Client),
        Operator::Peer(Part::Host) => network(argument).map(Operator::Peer),
        Operator::Local(Part::Host) => network(argument).map(Operator::Local),
        Operator::UpstreamHost(Part::Host) => network(argument).map(Operator::UpstreamHost),
        Operator::UpstreamLocal(Part::Host) => network(argument).map(Operator::UpstreamLocal),
        Operator::ServerName if argument == "SNI_ONLY" => Ok(Operator::ServerName),
        Operator::ServerName => Ok(Operator::Blank(format!("{name}({argument})").into())),
        _ => Err(format!("%{name}% takes no argument in parentheses")),
    }
}

fn network(length: &str) -> Result<Part, String> {
    let length = length.parse().ok().filter(|length| *length <= 128);
    length.map(Part::Network).ok_or_else(|| "the length of a prefix is a number up to 128".to_owned())
}

/// Reads `DS_RX_BEG:US_RX_BEG:ms`.
fn between(argument: &str) -> Result<Operator, String> {
    let wrong = || format!("`{argument}` is not like DS_RX_BEG:DS_TX_END:ms");
    let [from, to, unit] = argument.split(':').collect::<Vec<_>>()[..] else { return Err(wrong()) };
    let unit = match unit {
        "ms" => 1_000_000,
        "us" => 1_000,
        "ns" => 1,
        _ => return Err(wrong()),
    };
    let moment = |name| match name {
        "DS_RX_BEG" => Some(Moment::Began),
        "DS_RX_END" => Some(Moment::Asked),
        "US_RX_BEG" => Some(Moment::Answered),
        "DS_TX_END" => Some(Moment::Over),
        _ => None,
    };
    // Others are Envoy's, or names of a filter's own.
    Ok(match (moment(from), moment(to)) {
        (Some(from), Some(to)) => Operator::Between(from, to, unit),
        _ => Operator::Blank(format!("COMMON_DURATION({argument})").into()),
    })
}

/// Reads `NQ:ORIG`: with query or not, and which path.
fn path(argument: &str) -> Result<Operator, String> {
    let (query, from) = argument.split_once(':').unwrap_or((argument, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        _ => return Err(format!("`{query}` in %PATH% is not WQ or NQ")),
    };
    let from = match from {
        "ORIG" => PathFrom::Original,
        "PATH" => PathFrom::Sent,
        "" | "ORIG_OR_PATH" => PathFrom::Either,
        _ => return Err(format!("`{from}` in %PATH% is not ORIG, PATH or ORIG_OR_PATH")),
    };
    Ok(Operator::Path { query, from })
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
fn time_format(format: Option<&str>) -> Result<Option<Box<str>>, String> {
    let Some(format) = format.filter(|format| !format.is_empty()) else { return Ok(None) };
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
            ("COMMON_DURATION(DS_RX_BEG:DS_TX_END)", "is not like DS_RX_BEG:DS_TX_END:ms"),
            ("COMMON_DURATION(DS_RX_BEG:DS_TX_END:s)", "is not like"),
            ("PATH(Q)", "not WQ or NQ"),
            ("PATH(NQ:NEW)", "not ORIG, PATH"),
            ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(129)", "up to 128"),
            ("REQ()", "no name of a header field"),
            ("REQ(a?b?c)", "no name of a header field"),
        ] {
            let error = Operator::parse(text).expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn what_only_envoy_knows_is_known_to_be_blank() {
        for text in [
            "DYNAMIC_METADATA(a:b)",
            "UPSTREAM_TLS_VERSION",
            "REQUESTED_SERVER_NAME(HOST_FIRST)",
            "COMMON_DURATION(US_CX_BEG:US_CX_END:ms)",
        ] {
            assert_eq!(Operator::parse(text).expect(text).blank(), Some(text));
        }
        for text in ["DURATION()", "CONNECTION_TERMINATION_DETAILS", "REQUESTED_SERVER_NAME(SNI_ONLY)"] {
            assert_eq!(Operator::parse(text).expect(text).blank(), None);
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
