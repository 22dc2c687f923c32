//! Answers that the gateway gives itself: a status, Envoy's response flag, a body.
//!
//! Every failure a client sees is one variant here, so that the log line, the metric and the bytes on the
//! wire cannot disagree. Status, flag and body are those of Envoy 1.40 as Envoy Gateway configures it,
//! except where a variant says why it is stricter.

mod outcome;

pub use outcome::{Flag, Flags, Outcome};

use http::StatusCode;

/// An answer that no upstream gave. The data path returns it as an error, so `?` ends an exchange early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// No rule of the gateway serves this host, path, method and headers.
    NoRoute,
    /// The connection was opened for another listener's name (RFC 9110 15.5.20).
    Misdirected,
    /// The rule has no usable backend for this share of its traffic (Gateway API: 500).
    NoBackend,
    /// The rule has a filter that the gateway cannot apply; serving without it would be wrong.
    BrokenRule,
    /// The backend exists and has no ready endpoint.
    NoEndpoint,
    /// A circuit breaker's limit is reached.
    Overflow,
    /// No connection to the upstream: refused, or unreachable.
    ConnectFailed,
    /// Who answered is not the upstream: its TLS handshake failed, mostly for the name in its certificate. Envoy answers
    /// 503; 502 tells a wrong configuration from an upstream that is away.
    UpstreamUntrusted,
    /// No connection to the upstream in time.
    ConnectTimeout,
    /// The upstream closed or reset before its response head was complete.
    UpstreamReset,
    /// The same of one exchange among others on its connection (HTTP/2).
    StreamReset,
    /// The same before the upstream looked at the request.
    StreamRefused,
    /// The upstream sent something that is no HTTP.
    UpstreamProtocol,
    /// The route's or the try's time limit passed before the response began.
    UpstreamTimeout,
    /// The request is malformed or ambiguous.
    BadRequest,
    /// A field's name has an underscore, which some take for a hyphen.
    Underscore,
    /// The request has a length and is chunked: two parsers may see two bodies (RFC 9112 6.1).
    FramedTwice,
    /// The request does not say whom it asks (RFC 9112 3.2).
    NoHost,
    /// The path has an escape that is none, an escaped NUL, or a fragment.
    BadPath,
    /// The external authorizer refused the request, or could not be asked.
    Denied,
    /// The client did not send its request in time.
    RequestTimeout,
    /// The request head exceeds the limit in bytes (RFC 6585 5).
    HeadTooLarge,
    /// The same in fields.
    TooManyFields,
    /// The request body exceeds the limit.
    BodyTooLarge,
    /// A transfer coding other than chunked (RFC 9112 6.1).
    UnknownTransferCoding,
    /// HTTP/0.9, or a version that is not known.
    UnsupportedVersion,
    /// `CONNECT`, which no route serves.
    MethodNotServed,
    /// The path holds an escaped slash; the client is sent to the unescaped one.
    EscapedSlash,
}

impl Reply {
    /// The status on the wire (for a gRPC request it travels as `grpc-status` instead).
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoRoute | Self::MethodNotServed => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoBackend | Self::BrokenRule => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoEndpoint
            | Self::Overflow
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::UpstreamReset
            | Self::StreamReset
            | Self::StreamRefused => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamUntrusted | Self::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BadRequest | Self::Underscore | Self::FramedTwice | Self::NoHost | Self::BadPath => {
                StatusCode::BAD_REQUEST
            }
            Self::Denied => StatusCode::FORBIDDEN,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownTransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::UnsupportedVersion => StatusCode::UPGRADE_REQUIRED,
            Self::EscapedSlash => StatusCode::TEMPORARY_REDIRECT,
        }
    }

    /// The `text/plain` body; empty for an answer without one.
    pub fn body(self) -> &'static str {
        match self {
            Self::NoRoute
            | Self::Misdirected
            | Self::MethodNotServed
            | Self::NoBackend
            | Self::BrokenRule
            | Self::Denied
            | Self::NoHost
            | Self::BadPath
            | Self::EscapedSlash => "",
            Self::NoEndpoint => "no healthy upstream",
            Self::Overflow => {
                "upstream connect error or disconnect/reset before headers. reset reason: overflow"
            }
            Self::ConnectFailed | Self::UpstreamUntrusted => {
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
            }
            Self::ConnectTimeout => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection timeout"
            }
            Self::UpstreamReset => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
            }
            Self::StreamReset => {
                "upstream connect error or disconnect/reset before headers. reset reason: remote reset"
            }
            Self::StreamRefused => {
                "upstream connect error or disconnect/reset before headers. reset reason: remote refused stream reset"
            }
            Self::UpstreamProtocol => {
                "upstream connect error or disconnect/reset before headers. reset reason: protocol error"
            }
            Self::UpstreamTimeout => "upstream request timeout",
            Self::BadRequest | Self::Underscore | Self::FramedTwice => "Bad Request",
            Self::RequestTimeout => "Request Timeout",
            Self::HeadTooLarge | Self::TooManyFields => "Request Header Fields Too Large",
            Self::BodyTooLarge => "Payload Too Large",
            Self::UnknownTransferCoding => "Not Implemented",
            Self::UnsupportedVersion => "Upgrade Required",
        }
    }

    /// The body after more than one try, where it is another one.
    pub fn body_after_retries(self) -> Option<String> {
        let reason = self
            .body()
            .strip_prefix("upstream connect error or disconnect/reset before headers. reset reason: ")?;
        Some(format!(
            "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: {reason}"
        ))
    }

    /// The `grpc-status` that stands for this reply: that of its HTTP status, or a more telling one where the gateway
    /// knows more than the status says.
    pub fn grpc_status(self) -> u8 {
        match self {
            Self::UpstreamTimeout | Self::RequestTimeout => DEADLINE_EXCEEDED,
            Self::Overflow | Self::HeadTooLarge | Self::TooManyFields | Self::BodyTooLarge => {
                RESOURCE_EXHAUSTED
            }
            reply => grpc_status(reply.status()),
        }
    }

    /// Whether the connection does not go on after it: the request's end is not known, or it asked for a tunnel.
    pub fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::Underscore
                | Self::FramedTwice
                | Self::NoHost
                | Self::BadPath
                | Self::RequestTimeout
                | Self::HeadTooLarge
                | Self::TooManyFields
                | Self::BodyTooLarge
                | Self::UnknownTransferCoding
                | Self::UnsupportedVersion
                | Self::MethodNotServed
        )
    }
}

const UNKNOWN: u8 = 2;
const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

/// The `grpc-status` that a gRPC client makes of an HTTP status (gRPC's `http-grpc-status-mapping.md`), but for 429:
/// a client that is told to slow down should not take the server for unavailable and come back at once.
pub fn grpc_status(status: StatusCode) -> u8 {
    match status {
        StatusCode::BAD_REQUEST => INTERNAL,
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        StatusCode::FORBIDDEN => PERMISSION_DENIED,
        StatusCode::NOT_FOUND => UNIMPLEMENTED,
        StatusCode::TOO_MANY_REQUESTS => RESOURCE_EXHAUSTED,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            UNAVAILABLE
        }
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_client_is_told_what_went_wrong() {
        for (reply, want) in [
            (Reply::NoRoute, UNIMPLEMENTED),
            (Reply::NoEndpoint, UNAVAILABLE),
            (Reply::ConnectFailed, UNAVAILABLE),
            (Reply::UpstreamProtocol, UNAVAILABLE),
            (Reply::UpstreamTimeout, DEADLINE_EXCEEDED),
            (Reply::Overflow, RESOURCE_EXHAUSTED),
            (Reply::BodyTooLarge, RESOURCE_EXHAUSTED),
            (Reply::BadRequest, INTERNAL),
            (Reply::NoBackend, UNKNOWN),
            (Reply::Denied, PERMISSION_DENIED),
        ] {
            assert_eq!(reply.grpc_status(), want, "{reply:?}");
        }
        assert_eq!(grpc_status(StatusCode::TOO_MANY_REQUESTS), RESOURCE_EXHAUSTED);
        assert_eq!(grpc_status(StatusCode::UNAUTHORIZED), UNAUTHENTICATED);
    }
}
