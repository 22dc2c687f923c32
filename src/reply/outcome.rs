//! What became of an exchange, in the words that Envoy's users search their logs for.

use super::Reply;
use std::fmt;

/// What happened to an exchange: flags for the kind of fault, a phrase for the particular one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub flags: Flags,
    /// Envoy's `%RESPONSE_CODE_DETAILS%`; empty while nothing is known.
    pub details: &'static str,
}

impl Outcome {
    /// Nothing is known yet.
    pub const UNKNOWN: Self = Self { flags: Flags::NONE, details: "" };
    /// A backend's response went through whole.
    pub const VIA_UPSTREAM: Self = Self { flags: Flags::NONE, details: "via_upstream" };
    /// A rule's own answer: a redirect, or a fixed response.
    pub const DIRECT: Self = Self { flags: Flags::NONE, details: "direct_response" };
    /// The answer to a CORS preflight.
    pub const PREFLIGHT: Self = Self { flags: Flags::NONE, details: "cors_response" };
    /// The client went away before it had its response.
    pub const CLIENT_GONE: Self =
        Self::new(Flag::DownstreamConnectionTermination, "downstream_remote_disconnect");
    /// A connection that no listener is for.
    pub const NO_LISTENER: Self = Self::new(Flag::NoRouteFound, "filter_chain_not_found");
    /// One try took longer than the rule gives it.
    pub const TRY_TIMED_OUT: Self = Self::new(Flag::UpstreamRequestTimeout, "upstream_per_try_timeout");
    /// The whole exchange took longer than the rule gives it.
    pub const TIMED_OUT: Self = Self::new(Flag::UpstreamRequestTimeout, "response_timeout");
    /// Nothing moved for too long.
    pub const IDLE: Self = Self::new(Flag::StreamIdleTimeout, "stream_idle_timeout");
    /// A request over HTTP/2 that is no HTTP.
    pub const MALFORMED_HTTP2: Self =
        Self::new(Flag::DownstreamProtocolError, "http2.violation.of.messaging.rule");
    /// The response began and broke off: it ended before its framing said so, or is no HTTP.
    pub const CUT_SHORT: Self =
        Self::new(Flag::UpstreamProtocolError, "upstream_reset_after_response_started{protocol_error}");
    /// The response began and its connection, which others share, was closed.
    pub const CLOSED_LATE: Self = Self::new(
        Flag::UpstreamConnectionTermination,
        "upstream_reset_after_response_started{connection_termination}",
    );
    /// The response began and the backend reset it.
    pub const RESET_LATE: Self =
        Self::new(Flag::UpstreamRemoteReset, "upstream_reset_after_response_started{remote_reset}");

    /// One flag and its particular.
    pub const fn new(flag: Flag, details: &'static str) -> Self {
        Self { flags: Flags::NONE.with(flag), details }
    }

    const fn unflagged(details: &'static str) -> Self {
        Self { flags: Flags::NONE, details }
    }
}

impl Default for Outcome {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl From<Reply> for Outcome {
    /// What Envoy says of an exchange that it answers in this way.
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::NoRoute | Reply::Misdirected | Reply::MethodNotServed => {
                Self::new(Flag::NoRouteFound, "route_not_found")
            }
            // Envoy Gateway has Envoy answer these as fixed responses.
            Reply::NoBackend | Reply::BrokenRule => Self::DIRECT,
            Reply::NoEndpoint => Self::new(Flag::NoHealthyUpstream, "no_healthy_upstream"),
            Reply::Overflow => {
                Self::new(Flag::UpstreamOverflow, "upstream_reset_before_response_started{overflow}")
            }
            Reply::ConnectFailed | Reply::UpstreamUntrusted => Self::new(
                Flag::UpstreamConnectionFailure,
                "upstream_reset_before_response_started{remote_connection_failure}",
            ),
            Reply::ConnectTimeout => Self::new(
                Flag::UpstreamConnectionFailure,
                "upstream_reset_before_response_started{connection_timeout}",
            ),
            Reply::UpstreamReset => Self::new(
                Flag::UpstreamConnectionTermination,
                "upstream_reset_before_response_started{connection_termination}",
            ),
            Reply::StreamReset => {
                Self::new(Flag::UpstreamRemoteReset, "upstream_reset_before_response_started{remote_reset}")
            }
            Reply::StreamRefused => Self::new(
                Flag::UpstreamRemoteReset,
                "upstream_reset_before_response_started{remote_refused_stream_reset}",
            ),
            Reply::UpstreamProtocol => Self::new(
                Flag::UpstreamProtocolError,
                "upstream_reset_before_response_started{protocol_error}",
            ),
            Reply::UpstreamTimeout => Self::TIMED_OUT,
            Reply::BadRequest => Self::new(Flag::DownstreamProtocolError, "http1.codec_error"),
            Reply::Underscore => Self::new(Flag::DownstreamProtocolError, "http1.unexpected_underscore"),
            Reply::FramedTwice => {
                Self::new(Flag::DownstreamProtocolError, "http1.content_length_and_chunked_not_allowed")
            }
            Reply::TooManyFields => Self::new(Flag::DownstreamProtocolError, "http1.too_many_headers"),
            Reply::HeadTooLarge => Self::new(Flag::DownstreamProtocolError, "http1.headers_too_large"),
            Reply::UnknownTransferCoding => {
                Self::new(Flag::DownstreamProtocolError, "http1.invalid_transfer_encoding")
            }
            Reply::UnsupportedVersion => Self::new(Flag::DownstreamProtocolError, "low_version"),
            Reply::Denied => Self::new(Flag::UnauthorizedExternalService, "ext_authz_denied"),
            Reply::RequestTimeout => Self::unflagged("request_header_timeout"),
            Reply::BodyTooLarge => Self::unflagged("request_payload_too_large"),
            Reply::NoHost => Self::unflagged("missing_host_header"),
            Reply::BadPath | Reply::EscapedSlash => Self::unflagged("path_normalization_failed"),
        }
    }
}

/// A set of Envoy's response flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u32);

/// One of Envoy's response flags (`CoreResponseFlag`), in the order in which several are printed: Envoy prints them as
/// they were set, and that no try is left is known before what became of the last one.
///
/// Conditions of logs may name all of them, and some are never set. `UO`, `RL`, `DI` and `FI` are those of policies and
/// `OM` that of overload, which are not here; a cluster that a rule names always exists, so there is no `NC`; a stream that
/// we reset has a flag that says why, and none of them is `LR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    UpstreamRetryLimitExceeded,
    NoHealthyUpstream,
    UpstreamRequestTimeout,
    LocalReset,
    UpstreamRemoteReset,
    UpstreamConnectionFailure,
    UpstreamConnectionTermination,
    UpstreamOverflow,
    NoRouteFound,
    DelayInjected,
    FaultInjected,
    RateLimited,
    UnauthorizedExternalService,
    DownstreamConnectionTermination,
    StreamIdleTimeout,
    DownstreamProtocolError,
    UpstreamProtocolError,
    NoClusterFound,
    OverloadManager,
}

/// Every flag with its short and its long name.
const NAMES: [(Flag, &str, &str); 19] = [
    (Flag::UpstreamRetryLimitExceeded, "URX", "UpstreamRetryLimitExceeded"),
    (Flag::NoHealthyUpstream, "UH", "NoHealthyUpstream"),
    (Flag::UpstreamRequestTimeout, "UT", "UpstreamRequestTimeout"),
    (Flag::LocalReset, "LR", "LocalReset"),
    (Flag::UpstreamRemoteReset, "UR", "UpstreamRemoteReset"),
    (Flag::UpstreamConnectionFailure, "UF", "UpstreamConnectionFailure"),
    (Flag::UpstreamConnectionTermination, "UC", "UpstreamConnectionTermination"),
    (Flag::UpstreamOverflow, "UO", "UpstreamOverflow"),
    (Flag::NoRouteFound, "NR", "NoRouteFound"),
    (Flag::DelayInjected, "DI", "DelayInjected"),
    (Flag::FaultInjected, "FI", "FaultInjected"),
    (Flag::RateLimited, "RL", "RateLimited"),
    (Flag::UnauthorizedExternalService, "UAEX", "UnauthorizedExternalService"),
    (Flag::DownstreamConnectionTermination, "DC", "DownstreamConnectionTermination"),
    (Flag::StreamIdleTimeout, "SI", "StreamIdleTimeout"),
    (Flag::DownstreamProtocolError, "DPE", "DownstreamProtocolError"),
    (Flag::UpstreamProtocolError, "UPE", "UpstreamProtocolError"),
    (Flag::NoClusterFound, "NC", "NoClusterFound"),
    (Flag::OverloadManager, "OM", "OverloadManagerTerminated"),
];

impl Flag {
    /// The flag with this short name: `NR`.
    pub fn named(short: &str) -> Option<Self> {
        NAMES.iter().find(|(_, name, _)| *name == short).map(|(flag, ..)| *flag)
    }
}

impl Flags {
    /// Nothing went wrong.
    pub const NONE: Self = Self(0);

    /// These, and this one.
    #[must_use]
    pub const fn with(self, flag: Flag) -> Self {
        Self(self.0 | 1 << flag as u32)
    }

    /// The flags of both.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether this one is among them.
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & 1 << flag as u32 != 0
    }

    /// Whether both have one in common.
    pub const fn meets(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// With their long names: `UpstreamConnectionFailure`.
    pub fn long(self) -> String {
        self.list(|(_, _, long)| long)
    }

    fn list(self, name: impl Fn(&(Flag, &'static str, &'static str)) -> &'static str) -> String {
        if self.is_empty() {
            return "-".to_owned();
        }
        let set = NAMES.iter().filter(|(flag, ..)| self.has(*flag));
        set.map(name).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for Flags {
    /// As `%RESPONSE_FLAGS%` prints them: `URX,UF`, or `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.list(|(_, short, _)| short))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_printed_as_envoy_prints_them() {
        let none = Flags::NONE;
        let both = none.with(Flag::UpstreamConnectionFailure).with(Flag::UpstreamRetryLimitExceeded);
        assert_eq!((none.to_string(), none.long()), ("-".into(), "-".into()));
        assert_eq!(both.to_string(), "URX,UF");
        assert_eq!(both.long(), "UpstreamRetryLimitExceeded,UpstreamConnectionFailure");
        assert!(both.has(Flag::UpstreamConnectionFailure) && !both.has(Flag::NoRouteFound));
    }

    #[test]
    fn every_flag_is_listed_at_its_place_and_found_by_its_name() {
        for (place, (flag, short, _)) in NAMES.iter().enumerate() {
            assert_eq!(*flag as usize, place, "{short}");
            assert_eq!(Flag::named(short), Some(*flag));
        }
        assert_eq!(Flag::named("nr"), None);
    }

    #[test]
    fn a_reply_of_our_own_has_the_flag_and_the_details_that_envoy_gives_it() {
        for (reply, flags, details) in [
            (Reply::NoRoute, "NR", "route_not_found"),
            (Reply::NoBackend, "-", "direct_response"),
            (Reply::NoEndpoint, "UH", "no_healthy_upstream"),
            (Reply::Overflow, "UO", "upstream_reset_before_response_started{overflow}"),
            (Reply::UpstreamReset, "UC", "upstream_reset_before_response_started{connection_termination}"),
            (Reply::UpstreamProtocol, "UPE", "upstream_reset_before_response_started{protocol_error}"),
            (Reply::UpstreamTimeout, "UT", "response_timeout"),
            (Reply::BadRequest, "DPE", "http1.codec_error"),
            (Reply::UnsupportedVersion, "DPE", "low_version"),
            (Reply::Denied, "UAEX", "ext_authz_denied"),
            (Reply::EscapedSlash, "-", "path_normalization_failed"),
        ] {
            let outcome = Outcome::from(reply);
            assert_eq!((outcome.flags.to_string().as_str(), outcome.details), (flags, details), "{reply:?}");
        }
    }
}
