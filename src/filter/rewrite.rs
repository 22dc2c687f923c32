//! URLRewrite: another host or path towards the upstream.

use super::{PathEdit, RegexEdit};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What changes; what is `None` stays as the request has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The `Host` that the upstream sees.
    pub hostname: Option<HostEdit>,
    pub path: Option<PathEdit>,
}

/// What becomes of the host. Envoy Gateway's fourth way, `Backend`, is a literal at each backend that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEdit {
    Literal(HeaderValue),
    /// The value of a request header; the host stays as it is when there is none, or an empty one.
    Header(HeaderName),
    /// The path with this replaced in it; the host stays as it is when the pattern does not match.
    Path(RegexEdit),
}

impl HostEdit {
    /// The new host, or `None` to keep the one there is. One that a client made up has not been checked.
    pub fn apply(&self, headers: &HeaderMap, path: &str) -> Option<HeaderValue> {
        match self {
            Self::Literal(host) => Some(host.clone()),
            Self::Header(name) => headers.get(name).filter(|value| !value.is_empty()).cloned(),
            Self::Path(edit) => match edit.apply(path) {
                std::borrow::Cow::Borrowed(_) => None,
                std::borrow::Cow::Owned(host) => HeaderValue::try_from(host).ok(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_comes_from_where_the_filter_says() {
        let name = HeaderName::from_static("x-host");
        let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("h.test"))]);
        let tenant = RegexEdit::new("^/tenant/([a-z0-9-]+)/.*", r"\1.example.internal").expect("valid");
        for (edit, path, want) in [
            (HostEdit::Literal(HeaderValue::from_static("l.test")), "/", Some("l.test")),
            (HostEdit::Header(name), "/", Some("h.test")),
            (HostEdit::Header(HeaderName::from_static("x-none")), "/", None),
            (HostEdit::Path(tenant.clone()), "/tenant/t1/api", Some("t1.example.internal")),
            (HostEdit::Path(tenant), "/other", None),
        ] {
            let got = edit.apply(&headers, path);
            assert_eq!(got.as_ref().and_then(|host| host.to_str().ok()), want, "{edit:?}");
        }
    }
}
