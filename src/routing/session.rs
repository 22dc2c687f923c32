//! Session persistence (GEP-1619): a token that a client carries names the endpoint that its session is with.
//!
//! The token is a keyed hash, so a client learns no address from it and can only be sent to an endpoint that there
//! is. The key is made of the rule's name: all replicas agree on it without a secret to share, and a token of one
//! rule means nothing to another.

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use http::header::{COOKIE, InvalidHeaderValue, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::{self, Write};
use std::time::Duration;
use thiserror::Error;

/// How a rule keeps a client at one endpoint.
#[derive(Clone)]
pub struct Session {
    carrier: Carrier,
    /// After this a session begins anew (`absoluteTimeout`).
    lifetime: Option<Duration>,
    key: Key,
}

/// What carries the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    Cookie {
        name: String,
        /// Where clients send it back.
        path: String,
        /// Whether it outlives the browser: `lifetimeType: Permanent`.
        permanent: bool,
    },
    Header(HeaderName),
}

/// Why a session cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    #[error("`{0}` is no cookie name; use letters, digits, `-` and `_`")]
    Name(String),
    #[error("`{0}` cannot be the path of a cookie")]
    Path(String),
    #[error("a Permanent cookie needs `absoluteTimeout`, which is how long it is kept")]
    NoLifetime,
}

impl Session {
    /// Keeps sessions of the rule with this name.
    ///
    /// # Errors
    /// When the cookie could not be written.
    pub fn new(rule: &str, carrier: Carrier, lifetime: Option<Duration>) -> Result<Self, SessionError> {
        if let Carrier::Cookie { name, path, permanent } = &carrier {
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(SessionError::Name(name.clone()));
            }
            if !path.starts_with('/')
                || path.bytes().any(|b| b == b';' || b.is_ascii_control() || !b.is_ascii())
            {
                return Err(SessionError::Path(path.clone()));
            }
            if *permanent && lifetime.is_none() {
                return Err(SessionError::NoLifetime);
            }
        }
        let key = Key::new(HMAC_SHA256, format!("trigate session of {rule}").as_bytes());
        Ok(Self { carrier, lifetime, key })
    }

    /// What carries the token.
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// After this a session begins anew.
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// The token that a request carries, if its session is not over. `now` is in seconds since 1970.
    pub fn token<'r>(&self, request: &'r HeaderMap, now: u64) -> Option<Token<'r>> {
        let text = match &self.carrier {
            Carrier::Header(name) => request.get(name)?.to_str().ok()?,
            Carrier::Cookie { name, .. } => {
                cookies(request).find_map(|(n, value)| (n == name).then_some(value))?
            }
        };
        let (hash, end) = text.split_once('.')?;
        let end = end.parse().ok()?;
        let over = self.lifetime.is_some() && end <= now;
        (!over).then_some(Token { hash, end })
    }

    /// Whether the token names this endpoint.
    pub fn names(&self, token: &Token<'_>, endpoint: &dyn fmt::Display) -> bool {
        self.hash(endpoint, token.end) == token.hash
    }

    /// The field that gives a client the token of a session with this endpoint. `secure` says that the client came
    /// over TLS.
    ///
    /// # Errors
    /// None for what [`Session::new`] let pass.
    pub fn field(
        &self,
        endpoint: &dyn fmt::Display,
        now: u64,
        secure: bool,
    ) -> Result<(HeaderName, HeaderValue), InvalidHeaderValue> {
        let end = self.lifetime.map_or(0, |lifetime| now.saturating_add(lifetime.as_secs()));
        let token = format!("{}.{end}", self.hash(endpoint, end));
        match &self.carrier {
            Carrier::Header(name) => Ok((name.clone(), HeaderValue::try_from(token)?)),
            Carrier::Cookie { name, path, permanent } => {
                let mut cookie = format!("{name}={token}; Path={path}; HttpOnly");
                if let (true, Some(lifetime)) = (permanent, self.lifetime) {
                    // Writing to a string cannot fail.
                    let _ = write!(cookie, "; Max-Age={}", lifetime.as_secs());
                }
                if secure {
                    cookie.push_str("; Secure");
                }
                Ok((SET_COOKIE, HeaderValue::try_from(cookie)?))
            }
        }
    }

    /// 128 bits are enough for what a client could win by guessing: another endpoint.
    fn hash(&self, endpoint: &dyn fmt::Display, end: u64) -> String {
        let tag = hmac::sign(&self.key, format!("{endpoint} {end}").as_bytes());
        tag.as_ref()[..16].iter().fold(String::with_capacity(32), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { carrier, lifetime, key: _ } = self;
        write!(f, "Session({carrier:?}, lifetime {lifetime:?}, key [redacted])")
    }
}

/// What a client carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'r> {
    hash: &'r str,
    /// When the session is over, in seconds since 1970; 0 is never.
    end: u64,
}

fn cookies(request: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    request
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.to_str().unwrap_or_default().split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn cookie(permanent: bool, lifetime: Option<u64>) -> Session {
        let carrier = Carrier::Cookie { name: "sticky".into(), path: "/app".into(), permanent };
        Session::new("httproute/a/b/rule/0", carrier, lifetime.map(Duration::from_secs)).expect("valid")
    }

    fn given(session: &Session, endpoint: &str, secure: bool) -> String {
        let (_, value) = session.field(&endpoint, NOW, secure).expect("valid");
        value.to_str().expect("ASCII").to_owned()
    }

    fn sent(given: &str) -> HeaderMap {
        let pair = given.split(';').next().expect("a pair");
        let value = HeaderValue::try_from(format!("other=1; {pair}")).expect("valid");
        HeaderMap::from_iter([(COOKIE, value)])
    }

    #[test]
    fn a_token_names_its_endpoint_and_no_other() {
        let session = cookie(false, None);
        let request = sent(&given(&session, "10.0.0.1:80", false));
        let token = session.token(&request, NOW + 1_000_000).expect("a token");
        assert!(session.names(&token, &"10.0.0.1:80"));
        assert!(!session.names(&token, &"10.0.0.2:80"));
        let carrier = session.carrier().clone();
        let other = Session::new("httproute/a/c/rule/0", carrier, None).expect("valid");
        assert!(!other.names(&token, &"10.0.0.1:80"));
    }

    #[test]
    fn a_session_ends_when_its_time_is_over_and_not_later() {
        let session = cookie(true, Some(60));
        let given = given(&session, "10.0.0.1:80", false);
        for (later, want) in [(0, true), (59, true), (60, false), (1000, false)] {
            let request = sent(&given);
            let token = session.token(&request, NOW + later);
            assert_eq!(token.is_some_and(|token| session.names(&token, &"10.0.0.1:80")), want, "{later}");
        }
        let moved = given.replace(&(NOW + 60).to_string(), &(NOW + 90).to_string());
        let request = sent(&moved);
        let token = session.token(&request, NOW + 70).expect("not over by what it says");
        assert!(!session.names(&token, &"10.0.0.1:80"), "a client cannot make it longer");
    }

    #[test]
    fn a_cookie_says_what_its_rule_asks_for() {
        for (session, secure, want) in [
            (cookie(false, None), false, "; Path=/app; HttpOnly"),
            (cookie(false, Some(60)), false, "; Path=/app; HttpOnly"),
            (cookie(true, Some(60)), true, "; Path=/app; HttpOnly; Max-Age=60; Secure"),
        ] {
            let given = given(&session, "10.0.0.1:80", secure);
            assert!(given.starts_with("sticky=") && given.ends_with(want), "{given}");
            assert!(!given.contains("10.0.0.1"), "{given}");
        }
    }

    #[test]
    fn a_header_carries_the_token_both_ways() {
        let name = HeaderName::from_static("x-session");
        let session = Session::new("r", Carrier::Header(name), None).expect("valid");
        let request = HeaderMap::from_iter([session.field(&"10.0.0.1:80", NOW, true).expect("valid")]);
        let token = session.token(&request, NOW).expect("a token");
        assert!(session.names(&token, &"10.0.0.1:80"));
    }

    #[test]
    fn what_is_no_token_is_none() {
        let session = cookie(false, None);
        for value in ["", "sticky", "sticky=", "sticky=x", "sticky=x.y", "other=x.1"] {
            let request = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(value))]);
            assert_eq!(session.token(&request, NOW), None, "{value}");
        }
    }

    #[test]
    fn a_cookie_that_cannot_be_written_is_refused() {
        for (name, path, permanent, want) in [
            ("a b", "/", false, SessionError::Name("a b".into())),
            ("", "/", false, SessionError::Name(String::new())),
            ("a", "/;x", false, SessionError::Path("/;x".into())),
            ("a", "x", false, SessionError::Path("x".into())),
            ("a", "/", true, SessionError::NoLifetime),
        ] {
            let carrier = Carrier::Cookie { name: name.into(), path: path.into(), permanent };
            assert_eq!(Session::new("r", carrier, None).err(), Some(want));
        }
    }
}
