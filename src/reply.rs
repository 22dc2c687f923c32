//! Answers that the gateway gives itself: a status, Envoy's response flag, a body.
//!
//! Every failure a client sees is one variant here, so that the log line, the metric and the bytes on the
//! wire cannot disagree. Status, flag and body are those of Envoy 1.40 as Envoy Gateway configures it,
//! except where a variant says why it is stricter.

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
    /// No connection to the upstream: refused, unreachable, or its TLS handshake failed.
    ConnectFailed,
    /// No connection to the upstream in time.
    ConnectTimeout,
    /// The upstream closed or reset before its response head was complete.
    UpstreamReset,
    /// The upstream sent something that is no HTTP.
    UpstreamProtocol,
    /// The route's or the try's time limit passed before the response began.
    UpstreamTimeout,
    /// The request is malformed or ambiguous.
    BadRequest,
    /// The client did not send its request in time.
    RequestTimeout,
    /// The request head exceeds the limit in bytes or in fields (RFC 6585 5).
    HeadTooLarge,
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
            | Self::UpstreamReset => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownTransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::UnsupportedVersion => StatusCode::UPGRADE_REQUIRED,
            Self::EscapedSlash => StatusCode::TEMPORARY_REDIRECT,
        }
    }

    /// Envoy's `%RESPONSE_FLAGS%`; empty where Envoy sets none.
    pub fn flag(self) -> &'static str {
        match self {
            Self::NoRoute | Self::Misdirected | Self::MethodNotServed => "NR",
            Self::NoBackend | Self::BrokenRule | Self::EscapedSlash => "",
            Self::NoEndpoint => "UH",
            Self::Overflow => "UO",
            Self::ConnectFailed | Self::ConnectTimeout => "UF",
            Self::UpstreamReset => "UC",
            Self::UpstreamProtocol => "UPE",
            Self::UpstreamTimeout => "UT",
            Self::BadRequest
            | Self::HeadTooLarge
            | Self::UnknownTransferCoding
            | Self::UnsupportedVersion => "DPE",
            Self::RequestTimeout => "SI",
            Self::BodyTooLarge => "",
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
            | Self::EscapedSlash => "",
            Self::NoEndpoint => "no healthy upstream",
            Self::Overflow => {
                "upstream connect error or disconnect/reset before headers. reset reason: overflow"
            }
            Self::ConnectFailed => {
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
            }
            Self::ConnectTimeout => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection timeout"
            }
            Self::UpstreamReset => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
            }
            Self::UpstreamProtocol => {
                "upstream connect error or disconnect/reset before headers. reset reason: protocol error"
            }
            Self::UpstreamTimeout => "upstream request timeout",
            Self::BadRequest => "Bad Request",
            Self::RequestTimeout => "Request Timeout",
            Self::HeadTooLarge => "Request Header Fields Too Large",
            Self::BodyTooLarge => "Payload Too Large",
            Self::UnknownTransferCoding => "Not Implemented",
            Self::UnsupportedVersion => "Upgrade Required",
        }
    }

    /// The `grpc-status` that stands for this reply (the mapping of gRPC's `http-grpc-status-mapping.md`).
    pub fn grpc_status(self) -> u8 {
        const INVALID_ARGUMENT_AS_INTERNAL: u8 = 13;
        const UNIMPLEMENTED: u8 = 12;
        const DEADLINE_EXCEEDED: u8 = 4;
        const RESOURCE_EXHAUSTED: u8 = 8;
        const UNAVAILABLE: u8 = 14;
        const UNKNOWN: u8 = 2;
        match self {
            Self::NoRoute | Self::MethodNotServed => UNIMPLEMENTED,
            Self::UpstreamTimeout | Self::RequestTimeout => DEADLINE_EXCEEDED,
            Self::HeadTooLarge | Self::BodyTooLarge => RESOURCE_EXHAUSTED,
            Self::BadRequest => INVALID_ARGUMENT_AS_INTERNAL,
            Self::NoEndpoint
            | Self::Overflow
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::UpstreamReset
            | Self::UpstreamProtocol => UNAVAILABLE,
            Self::Misdirected
            | Self::NoBackend
            | Self::BrokenRule
            | Self::UnknownTransferCoding
            | Self::UnsupportedVersion
            | Self::EscapedSlash => UNKNOWN,
        }
    }

    /// Whether the connection cannot go on after it: the request's end is not known.
    pub fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::RequestTimeout
                | Self::HeadTooLarge
                | Self::BodyTooLarge
                | Self::UnknownTransferCoding
                | Self::UnsupportedVersion
        )
    }
}
