//! The origins that a CORS filter allows.

use std::fmt;
use thiserror::Error;

/// One element of `allowOrigins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// `*`.
    Any,
    /// `https://*`: every host at every port.
    Scheme(String),
    /// `https://www.example.com:8443` or `https://*.example.com`.
    Host { scheme: String, host: Host, port: u16 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Exact(String),
    /// Behind the wildcard, with the dot: any number of labels may stand before it.
    EndsWith(String),
}

/// What is no origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no origin; write `*`, or `https://` with a host, whose first label may be `*`, and a port")]
pub struct OriginError(String);

impl OriginPattern {
    /// Reads an element of `allowOrigins`.
    ///
    /// # Errors
    /// For what is no `<scheme>://<host>[:<port>]` with a wildcard at the host's start at most.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let refused = || OriginError(text.to_owned());
        if text == "*" {
            return Ok(Self(Kind::Any));
        }
        let lower = text.to_ascii_lowercase();
        let (scheme, host, port) = split(&lower).ok_or_else(refused)?;
        if host == "*" && !lower.ends_with(|last: char| last.is_ascii_digit()) {
            return Ok(Self(Kind::Scheme(scheme.to_owned())));
        }
        let (plain, host) = match host.strip_prefix('*') {
            Some(rest) => (rest, Host::EndsWith(rest.to_owned())),
            None => (host, Host::Exact(host.to_owned())),
        };
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
        if !plain.bytes().all(known) || (plain.is_empty() && host == Host::Exact(String::new())) {
            return Err(refused());
        }
        Ok(Self(Kind::Host { scheme: scheme.to_owned(), host, port }))
    }

    /// Whether this is the origin that a request names.
    pub fn covers(&self, origin: &str) -> bool {
        if self.0 == Kind::Any {
            return true;
        }
        let lower = origin.to_ascii_lowercase();
        let Some((scheme, host, port)) = split(&lower) else { return false };
        match &self.0 {
            Kind::Any => true,
            Kind::Scheme(want) => want == scheme,
            Kind::Host { scheme: want, host: pattern, port: at } => {
                want == scheme
                    && *at == port
                    && match pattern {
                        Host::Exact(want) => want == host,
                        Host::EndsWith(end) => host.len() > end.len() && host.ends_with(end.as_str()),
                    }
            }
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Any => f.write_str("*"),
            Kind::Scheme(scheme) => write!(f, "{scheme}://*"),
            Kind::Host { scheme, host: Host::Exact(host), port } => write!(f, "{scheme}://{host}:{port}"),
            Kind::Host { scheme, host: Host::EndsWith(end), port } => write!(f, "{scheme}://*{end}:{port}"),
        }
    }
}

/// Scheme, host and port of an origin in lower case; the port is the scheme's where none is given.
fn split(origin: &str) -> Option<(&str, &str, u16)> {
    let (scheme, authority) = origin.split_once("://")?;
    let implied = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let after_address = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[after_address..].find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(after_address + colon);
            let digits = &port[1..];
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            (host, plain.then(|| digits.parse().ok()).flatten().filter(|&port| port != 0)?)
        }
        None => (authority, implied),
    };
    (!host.is_empty()).then_some((scheme, host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_labels_and_a_missing_port_for_the_schemes_own() {
        for (pattern, origin, want) in [
            ("*", "https://foobar.com:12345", true),
            ("*", "null", true),
            ("https://www.foo.com", "https://www.foo.com", true),
            ("https://www.foo.com", "https://WWW.Foo.com", true),
            ("https://www.foo.com", "https://www.foo.com:443", true),
            ("https://www.foo.com", "https://www.foo.com:8443", false),
            ("https://www.foo.com", "http://www.foo.com", false),
            ("https://www.foo.com", "https://evil.test/?https://www.foo.com", false),
            ("https://*.bar.com", "https://www.bar.com", true),
            ("https://*.bar.com", "https://xpto.www.bar.com", true),
            ("https://*.bar.com", "https://bar.com", false),
            ("https://*.bar.com", "https://foobar.com", false),
            ("https://*.bar.com", "https://.bar.com", false),
            ("https://*.bar.com", "https://www.bar.com:8443", false),
            ("https://*.bar.com:8443", "https://www.bar.com:8443", true),
            ("https://*", "https://any.test", true),
            ("https://*", "https://any.test:8443", true),
            ("https://*", "http://any.test", false),
            ("http://localhost:3009", "http://localhost:3009", true),
            ("http://localhost:3009", "http://localhost", false),
            ("http://[::1]:80", "http://[::1]", true),
            ("https://www.foo.com", "null", false),
            ("https://www.foo.com", "", false),
        ] {
            let parsed = OriginPattern::parse(pattern).expect(pattern);
            assert_eq!(parsed.covers(origin), want, "{pattern} for {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "www.foo.com",
            "ftp://a",
            "https://",
            "https://a:0",
            "https://a:x",
            "https://a/b",
            "https://a.*.b",
        ] {
            assert!(OriginPattern::parse(text).is_err(), "{text}");
        }
    }
}
