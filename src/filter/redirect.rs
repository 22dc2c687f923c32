//! RequestRedirect: answers with another location instead of going upstream.

use super::PathEdit;
use http::StatusCode;

/// Where a redirect leads; what is `None` stays as the request has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<Scheme>,
    pub hostname: Option<String>,
    pub port: Option<u16>,
    pub path: Option<PathEdit>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// The scheme of a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What of the request a location is made of.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Whether the listener terminates TLS.
    pub tls: bool,
    /// The listener's port, which is not the bound one.
    pub port: u16,
    /// `Host` without its port.
    pub host: &'a str,
    pub path: &'a str,
    /// With its `?`, or empty.
    pub query: &'a str,
    /// The length of the path prefix that the rule matched.
    pub matched: usize,
}

impl Redirect {
    /// The `Location`. The port is the filter's, else the well-known one of the filter's scheme, else the
    /// listener's; one that the scheme implies is left out (`HTTPRequestRedirectFilter.port`).
    pub fn location(&self, origin: &Origin<'_>) -> String {
        let current = if origin.tls { Scheme::Https } else { Scheme::Http };
        let scheme = self.scheme.unwrap_or(current);
        let port = self.port.or(self.scheme.map(Scheme::port)).unwrap_or(origin.port);
        let host = self.hostname.as_deref().unwrap_or(origin.host);
        let path =
            self.path.as_ref().map_or(origin.path.into(), |edit| edit.apply(origin.path, origin.matched));
        let port = if port == scheme.port() { String::new() } else { format!(":{port}") };
        // A path with a query of its own replaces the request's, as in Envoy.
        let query = if path.contains('?') { "" } else { origin.query };
        format!("{}://{host}{port}{path}{query}", scheme.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_follows_the_rules_of_the_gateway_api() {
        use Scheme::{Http, Https};
        for (listener, scheme, port, want) in [
            (80, None, None, "http://a.test/p?q"),
            (80, None, Some(80), "http://a.test/p?q"),
            (80, None, Some(8080), "http://a.test:8080/p?q"),
            (80, Some(Https), None, "https://a.test/p?q"),
            (80, Some(Https), Some(443), "https://a.test/p?q"),
            (80, Some(Https), Some(8443), "https://a.test:8443/p?q"),
            (8080, None, None, "http://a.test:8080/p?q"),
            (8080, None, Some(80), "http://a.test/p?q"),
            (8080, Some(Https), None, "https://a.test/p?q"),
            (443, None, None, "https://a.test/p?q"),
            (443, None, Some(8443), "https://a.test:8443/p?q"),
            (443, Some(Http), None, "http://a.test/p?q"),
            (443, Some(Http), Some(8080), "http://a.test:8080/p?q"),
        ] {
            let redirect = Redirect { scheme, hostname: None, port, path: None, status: StatusCode::FOUND };
            let origin = Origin {
                tls: listener == 443,
                port: listener,
                host: "a.test",
                path: "/p",
                query: "?q",
                matched: 0,
            };
            assert_eq!(redirect.location(&origin), want, "{listener} {scheme:?} {port:?}");
        }
    }
}
