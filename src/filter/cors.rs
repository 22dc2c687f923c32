//! CORS: the gateway answers preflights itself, and says on every response who may read it (Fetch, 3.2).

use super::OriginPattern;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::fmt;
use std::sync::Arc;

/// What the Gateway API allows a browser to keep a preflight's answer, in seconds, when nothing is said.
const MAX_AGE: u32 = 5;

/// Who may use the rule's responses, and with which requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    origins: Vec<OriginPattern>,
    methods: Allowed,
    headers: Allowed,
    exposed: Allowed,
    credentials: bool,
    max_age: HeaderValue,
}

/// A list of methods or header names, as it is written into an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Allowed {
    /// Nothing beyond what browsers allow anyway.
    #[default]
    Safelisted,
    /// These, joined by commas.
    These(HeaderValue),
    /// `*`.
    Any,
}

impl Allowed {
    /// The list of a filter; `*` anywhere in it is everything.
    pub fn new<'a>(
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        let names: Vec<&str> = names.into_iter().collect();
        if names.contains(&"*") {
            return Ok(Self::Any);
        }
        if names.is_empty() {
            return Ok(Self::Safelisted);
        }
        HeaderValue::try_from(names.join(", ")).map(Self::These)
    }

    /// What is answered to somebody who asks for `asked`. `*` is never written: it means nothing in a response to
    /// a request with credentials, and naming what was asked for says the same.
    fn answer(&self, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            Self::Safelisted => None,
            Self::These(names) => Some(names.clone()),
            Self::Any => asked.cloned(),
        }
    }
}

impl Cors {
    /// A filter for these origins that allows nothing beyond what browsers allow anyway.
    pub fn new(origins: Vec<OriginPattern>) -> Self {
        Self {
            origins,
            methods: Allowed::Safelisted,
            headers: Allowed::Safelisted,
            exposed: Allowed::Safelisted,
            credentials: false,
            max_age: HeaderValue::from(MAX_AGE),
        }
    }

    /// `allowMethods`.
    #[must_use]
    pub fn methods(self, methods: Allowed) -> Self {
        Self { methods, ..self }
    }

    /// `allowHeaders`.
    #[must_use]
    pub fn headers(self, headers: Allowed) -> Self {
        Self { headers, ..self }
    }

    /// `exposeHeaders`.
    #[must_use]
    pub fn exposed(self, exposed: Allowed) -> Self {
        Self { exposed, ..self }
    }

    /// `allowCredentials`.
    #[must_use]
    pub fn credentials(self, credentials: bool) -> Self {
        Self { credentials, ..self }
    }

    /// `maxAge`, in seconds.
    #[must_use]
    pub fn max_age(self, seconds: u32) -> Self {
        Self { max_age: HeaderValue::from(seconds), ..self }
    }

    /// Whether a request asks what it may ask: such requests are the gateway's to answer.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// What a response to this request says. Taken from the request before it goes on, because its headers do.
    pub fn grant(self: &Arc<Self>, request: &HeaderMap) -> Grant {
        let origin = request.get(ORIGIN).cloned();
        let allowed = origin
            .as_ref()
            .and_then(|origin| origin.to_str().ok())
            .is_some_and(|origin| self.origins.iter().any(|pattern| pattern.covers(origin)));
        Grant { cors: Arc::clone(self), cross_origin: origin.is_some(), origin: origin.filter(|_| allowed) }
    }

    /// The header of the answer to a preflight; `None` when its origin is not allowed.
    pub fn preflight(self: &Arc<Self>, request: &HeaderMap) -> Option<HeaderMap> {
        let grant = self.grant(request);
        grant.origin.as_ref()?;
        let mut answer = HeaderMap::new();
        grant.apply(&mut answer);
        let mut say = |name: HeaderName, value: Option<HeaderValue>| {
            if let Some(value) = value {
                answer.insert(name, value);
            }
        };
        let (method, headers) =
            (request.get(ACCESS_CONTROL_REQUEST_METHOD), request.get(ACCESS_CONTROL_REQUEST_HEADERS));
        say(ACCESS_CONTROL_ALLOW_METHODS, self.methods.answer(method));
        say(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.answer(headers));
        say(ACCESS_CONTROL_MAX_AGE, Some(self.max_age.clone()));
        Some(answer)
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Safelisted => f.write_str("safelisted"),
            Self::These(names) => f.write_str(&String::from_utf8_lossy(names.as_bytes())),
            Self::Any => f.write_str("*"),
        }
    }
}

impl fmt::Display for Cors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origins, methods, headers, exposed, credentials, max_age } = self;
        for (position, origin) in origins.iter().enumerate() {
            write!(f, "{}{origin}", if position == 0 { "" } else { " or " })?;
        }
        write!(f, "; methods {methods}; headers {headers}; exposed {exposed}; ")?;
        write!(
            f,
            "{}for {} s",
            if *credentials { "with credentials, " } else { "" },
            max_age.to_str().unwrap_or("")
        )
    }
}

/// What the responses to one request say.
#[derive(Debug, Clone)]
pub struct Grant {
    cors: Arc<Cors>,
    /// Whether the request names an origin at all.
    cross_origin: bool,
    /// The origin, if it is allowed.
    origin: Option<HeaderValue>,
}

impl Grant {
    /// Writes into a response who may read it. What a backend says of that is replaced: two voices make browsers
    /// refuse the response, and the filter is the one that was asked.
    pub fn apply(&self, response: &mut HeaderMap) {
        vary_by_origin(response);
        if !self.cross_origin {
            return;
        }
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_HEADERS,
            ACCESS_CONTROL_MAX_AGE,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            response.remove(name);
        }
        let Some(origin) = &self.origin else { return };
        if let Some(exposed) = self.exposed(response) {
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.cors.credentials {
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    fn exposed(&self, response: &HeaderMap) -> Option<HeaderValue> {
        match &self.cors.exposed {
            Allowed::Safelisted => None,
            Allowed::These(names) => Some(names.clone()),
            // With credentials a `*` means a header of that name (Fetch 4.10), so all are named.
            Allowed::Any if self.cors.credentials => {
                let names: Vec<&str> = response.keys().map(HeaderName::as_str).collect();
                HeaderValue::try_from(names.join(", ")).ok()
            }
            Allowed::Any => Some(HeaderValue::from_static("*")),
        }
    }
}

/// Tells caches that another origin gets another response (RFC 9110 12.5.5).
fn vary_by_origin(response: &mut HeaderMap) {
    let said = response.get_all(VARY).iter().any(|line| {
        line.to_str().is_ok_and(|line| {
            line.split(',').map(str::trim).any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
        })
    });
    if !said {
        // A section that is full stays as it is.
        let _ = response.try_append(VARY, HeaderValue::from_static("Origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn allowed(names: &[&str]) -> Allowed {
        Allowed::new(names.iter().copied()).expect("valid")
    }

    fn cors(origins: &[&str]) -> Cors {
        Cors::new(origins.iter().map(|origin| OriginPattern::parse(origin).expect("valid")).collect())
    }

    fn asking(origin: &'static str, method: &'static str) -> HeaderMap {
        headers(&[
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", "x-1, x-2"),
        ])
    }

    #[test]
    fn a_preflight_from_an_allowed_origin_is_told_what_is_allowed() {
        let full = cors(&["https://www.foo.com", "https://*.bar.com"])
            .methods(allowed(&["GET", "OPTIONS"]))
            .headers(allowed(&["x-1", "x-2"]))
            .exposed(allowed(&["x-3", "x-4"]))
            .credentials(true)
            .max_age(3600);
        let want = |origin| {
            headers(&[
                ("vary", "Origin"),
                ("access-control-allow-origin", origin),
                ("access-control-allow-methods", "GET, OPTIONS"),
                ("access-control-allow-headers", "x-1, x-2"),
                ("access-control-expose-headers", "x-3, x-4"),
                ("access-control-max-age", "3600"),
                ("access-control-allow-credentials", "true"),
            ])
        };
        let full = Arc::new(full);
        for origin in ["https://www.foo.com", "https://www.bar.com", "https://xpto.www.bar.com"] {
            assert_eq!(full.preflight(&asking(origin, "GET")), Some(want(origin)), "{origin}");
        }
        assert_eq!(full.preflight(&asking("https://foobar.com", "GET")), None);
    }

    #[test]
    fn a_wildcard_is_answered_with_what_was_asked_for() {
        for credentials in [false, true] {
            let any = cors(&["*"]).methods(Allowed::Any).headers(Allowed::Any).credentials(credentials);
            let any = Arc::new(any);
            let answer = any.preflight(&asking("https://a.test:12345", "PUT")).expect("allowed");
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.test:12345");
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "PUT");
            assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], "x-1, x-2");
            assert_eq!(answer[ACCESS_CONTROL_MAX_AGE], "5");
            assert_eq!(answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS), credentials);
            let mut plain = asking("https://a.test", "PUT");
            plain.remove(ACCESS_CONTROL_REQUEST_HEADERS);
            let answer = any.preflight(&plain).expect("allowed");
            assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_HEADERS), "none was asked for");
        }
    }

    #[test]
    fn only_an_options_request_with_origin_and_method_is_a_preflight() {
        let asking = asking("https://a.test", "PUT");
        for (method, headers, want) in [
            (Method::OPTIONS, asking.clone(), true),
            (Method::GET, asking, false),
            (Method::OPTIONS, headers(&[("origin", "https://a.test")]), false),
            (Method::OPTIONS, headers(&[("access-control-request-method", "PUT")]), false),
        ] {
            assert_eq!(Cors::is_preflight(&method, &headers), want, "{method} {headers:?}");
        }
    }

    #[test]
    fn a_response_has_one_voice_about_who_may_read_it() {
        let backend = [("access-control-allow-origin", "*"), ("vary", "accept"), ("x-a", "1")];
        let filter = Arc::new(cors(&["https://a.test"]).exposed(Allowed::Any).credentials(true));
        for (origin, want) in [
            (
                Some("https://a.test"),
                headers(&[
                    ("vary", "accept"),
                    ("vary", "Origin"),
                    ("x-a", "1"),
                    ("access-control-expose-headers", "vary, x-a"),
                    ("access-control-allow-origin", "https://a.test"),
                    ("access-control-allow-credentials", "true"),
                ]),
            ),
            (Some("https://b.test"), headers(&[("vary", "accept"), ("vary", "Origin"), ("x-a", "1")])),
            (
                None,
                headers(&[
                    ("access-control-allow-origin", "*"),
                    ("vary", "accept"),
                    ("vary", "Origin"),
                    ("x-a", "1"),
                ]),
            ),
        ] {
            let request = origin.map(|origin| headers(&[("origin", origin)])).unwrap_or_default();
            let mut response = headers(&backend);
            filter.grant(&request).apply(&mut response);
            let mut exposed = response.get(ACCESS_CONTROL_EXPOSE_HEADERS).cloned();
            if let Some(names) = &mut exposed {
                let mut sorted: Vec<_> = names.to_str().expect("names").split(", ").collect();
                sorted.sort_unstable();
                response.insert(
                    ACCESS_CONTROL_EXPOSE_HEADERS,
                    HeaderValue::try_from(sorted.join(", ")).expect("names"),
                );
            }
            assert_eq!(response, want, "{origin:?}");
        }
    }

    #[test]
    fn vary_is_not_said_twice() {
        for said in ["Origin", "accept, ORIGIN", "*"] {
            let mut response = headers(&[("vary", said)]);
            vary_by_origin(&mut response);
            assert_eq!(response, headers(&[("vary", said)]));
        }
    }
}
