//! Credential injection of Envoy Gateway's HTTPRouteFilter: a secret that the backend asks for and no client knows.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;

/// A secret header value for the upstream.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    header: HeaderName,
    value: HeaderValue,
    overwrite: bool,
}

impl Credential {
    /// Puts `value` into `header` (`Authorization` where none is named). `overwrite` replaces what a client sent,
    /// otherwise that is kept.
    pub fn new(header: Option<HeaderName>, mut value: HeaderValue, overwrite: bool) -> Self {
        // HTTP/2 keeps it out of the table that compresses later headers (RFC 7541 7.1.3).
        value.set_sensitive(true);
        Self { header: header.unwrap_or(AUTHORIZATION), value, overwrite }
    }

    /// The header that holds the secret.
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// Adds the secret to a request. A section that is full stays as it is, and the backend refuses the request.
    pub fn apply(&self, headers: &mut HeaderMap) {
        if self.overwrite || !headers.contains_key(&self.header) {
            let _ = headers.try_insert(self.header.clone(), self.value.clone());
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { header, value: _, overwrite } = self;
        write!(f, "Credential({header}: [redacted], overwrite {overwrite})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_own_value_is_kept_unless_it_is_to_be_overwritten() {
        let secret = HeaderValue::from_static("Bearer s");
        for (sent, overwrite, want) in [
            (None, false, "Bearer s"),
            (Some("Basic c"), false, "Basic c"),
            (Some("Basic c"), true, "Bearer s"),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(sent.map(|sent| (AUTHORIZATION, HeaderValue::from_static(sent))));
            Credential::new(None, secret.clone(), overwrite).apply(&mut headers);
            assert_eq!(headers[AUTHORIZATION], want, "{sent:?} {overwrite}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        let credential = Credential::new(None, HeaderValue::from_static("hunter2"), true);
        let printed = format!("{credential:?}");
        assert!(printed.contains("[redacted]") && !printed.contains("hunter2"), "{printed}");
    }
}
