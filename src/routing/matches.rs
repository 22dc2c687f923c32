//! What a rule asks of a request: path, method, headers and query parameters.

use http::{HeaderMap, HeaderName, Method};
use regex::bytes::Regex;

/// One element of `rules[].matches`; all of its parts must hold.
#[derive(Debug, Clone)]
pub struct Matches {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Box<[HeaderMatch]>,
    pub queries: Box<[QueryMatch]>,
}

/// A path, compared after normalisation and without the query.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// The whole path, case-sensitive.
    Exact(String),
    /// Whole segments from the start; without a trailing slash, and `""` for `/`.
    Prefix(String),
    /// Matches the whole path.
    Regex(Regex),
}

impl PathMatch {
    /// A prefix as the Gateway API compares it: `/a/` is `/a`.
    pub fn prefix(path: &str) -> Self {
        Self::Prefix(path.trim_end_matches('/').to_owned())
    }
}

/// A text that a header or a query parameter must have.
#[derive(Debug, Clone)]
pub enum TextMatch {
    Exact(String),
    /// Matches the whole text.
    Regex(Regex),
}

impl TextMatch {
    /// Whether `text` is the one asked for.
    pub fn holds(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(want) => want.as_bytes() == text,
            Self::Regex(want) => want.is_match(text),
        }
    }
}

/// One header; a repeated one is compared joined with commas (RFC 9110 5.3).
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: TextMatch,
}

impl HeaderMatch {
    /// Whether the request's headers satisfy it.
    pub fn holds(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        match (values.next(), values.next()) {
            (None, _) => false,
            (Some(only), None) => self.value.holds(only.as_bytes()),
            (Some(first), Some(second)) => {
                let mut joined = first.as_bytes().to_vec();
                for value in std::iter::once(second).chain(values) {
                    joined.push(b',');
                    joined.extend_from_slice(value.as_bytes());
                }
                self.value.holds(&joined)
            }
        }
    }
}

/// One query parameter; the first of that name counts, case-sensitive, percent-decoded.
#[derive(Debug, Clone)]
pub struct QueryMatch {
    pub name: String,
    pub value: TextMatch,
}

impl QueryMatch {
    /// Whether the request's query (without `?`) satisfies it.
    pub fn holds(&self, query: &str) -> bool {
        query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(name, _)| decoded(name).as_ref() == self.name.as_bytes())
            .is_some_and(|(_, value)| self.value.holds(&decoded(value)))
    }
}

/// A form-decoded text; borrowed when nothing is encoded in it.
fn decoded(text: &str) -> std::borrow::Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if memchr::memchr2(b'%', b'+', bytes).is_none() {
        return bytes.into();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(*first),
        }
    }
    out.into()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

impl Matches {
    /// Whether everything but the path holds.
    pub fn holds_beside_path(&self, method: &Method, headers: &HeaderMap, query: &str) -> bool {
        self.method.as_ref().is_none_or(|want| want == method)
            && self.headers.iter().all(|header| header.holds(headers))
            && self.queries.iter().all(|parameter| parameter.holds(query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_query_parameter_of_a_name_counts() {
        let want =
            |name: &str, value: &str| QueryMatch { name: name.into(), value: TextMatch::Exact(value.into()) };
        for (query, name, value, holds) in [
            ("a=1&a=2", "a", "1", true),
            ("a=1&a=2", "a", "2", false),
            ("A=1", "a", "1", false),
            ("a=x%20y", "a", "x y", true),
            ("a=x+y", "a", "x y", true),
            ("a", "a", "", true),
            ("a=%zz", "a", "%zz", true),
            ("", "a", "1", false),
            ("b=1&%61=1", "a", "1", true),
        ] {
            assert_eq!(want(name, value).holds(query), holds, "{query} for {name}={value}");
        }
    }

    #[test]
    fn a_repeated_header_is_compared_joined() {
        let mut headers = HeaderMap::new();
        headers.append("x", "a".parse().unwrap());
        let want = HeaderMatch { name: HeaderName::from_static("x"), value: TextMatch::Exact("a,b".into()) };
        assert!(!want.holds(&headers));
        headers.append("x", "b".parse().unwrap());
        assert!(want.holds(&headers));
    }
}
