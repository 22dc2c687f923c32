//! What a rule asks of a request: path, method, headers and query parameters.

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, Method};
use regex::bytes::Regex;
use std::cell::Cell;

/// One element of `rules[].matches`; all of its parts must hold.
#[derive(Debug, Clone)]
pub struct Matches {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Box<[HeaderMatch]>,
    pub queries: Box<[QueryMatch]>,
    /// What filters of the rule ask for besides, each of them.
    pub cookies: Box<[CookieLists]>,
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

    /// The same for a text that lies in pieces. Only a regular expression needs it whole: each thread keeps the
    /// room for that, so that a look-up allocates nothing once there was a text as long.
    fn holds_for<T: Iterator<Item = u8>>(&self, text: impl FnOnce() -> T) -> bool {
        match self {
            Self::Exact(want) => text().eq(want.bytes()),
            Self::Regex(want) => WHOLE.with(|room| {
                let mut whole = room.take();
                whole.clear();
                whole.extend(text());
                let holds = want.is_match(&whole);
                room.set(whole);
                holds
            }),
        }
    }
}

thread_local! {
    static WHOLE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
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
            (Some(_), Some(_)) => self.value.holds_for(|| joined(headers, &self.name)),
        }
    }
}

/// The values of a repeated header as one text.
fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = u8> + use<'a> {
    headers.get_all(name).iter().enumerate().flat_map(|(place, value)| {
        let comma = (place > 0).then_some(b',');
        comma.into_iter().chain(value.as_bytes().iter().copied())
    })
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
            .find(|(name, _)| Decoded(name.as_bytes()).eq(self.name.bytes()))
            .is_some_and(|(_, value)| match memchr::memchr2(b'%', b'+', value.as_bytes()) {
                None => self.value.holds(value.as_bytes()),
                Some(_) => self.value.holds_for(|| Decoded(value.as_bytes())),
            })
    }
}

/// The bytes of a form-encoded text, decoded one by one.
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, tail) = self.0.split_first()?;
        self.0 = tail;
        match (first, tail) {
            (b'+', _) => Some(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    self.0 = after;
                    Some(high << 4 | low)
                }
                _ => Some(b'%'),
            },
            _ => Some(first),
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// One cookie (Envoy Gateway's `HTTPRouteFilter.matches[].cookies`); the first of that name counts.
#[derive(Debug, Clone)]
pub struct CookieMatch {
    pub name: String,
    pub value: TextMatch,
}

impl CookieMatch {
    /// Whether the request's cookies satisfy it.
    pub fn holds(&self, headers: &HeaderMap) -> bool {
        let fields = headers.get_all(COOKIE).iter();
        fields
            .flat_map(|field| field.as_bytes().split(|&byte| byte == b';'))
            .filter_map(|pair| {
                let equals = memchr::memchr(b'=', pair)?;
                Some((pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii()))
            })
            .find(|(name, _)| *name == self.name.as_bytes())
            .is_some_and(|(_, value)| self.value.holds(unquoted(value)))
    }
}

/// A cookie's value without the quotes that RFC 6265 lets it have.
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// Lists of cookies: of one of them all must be there.
pub type CookieLists = Box<[Box<[CookieMatch]>]>;

impl Matches {
    /// A match that asks for a path alone.
    pub fn of(path: PathMatch) -> Self {
        Self { path, method: None, headers: Box::default(), queries: Box::default(), cookies: Box::default() }
    }

    /// How many headers it asks for; cookies are in one, and count each.
    pub fn headers_asked(&self) -> usize {
        let fewest = |lists: &CookieLists| lists.iter().map(|list| list.len()).min().unwrap_or_default();
        self.headers.len() + self.cookies.iter().map(fewest).sum::<usize>()
    }

    /// Whether everything but the path holds.
    pub fn holds_beside_path(&self, method: &Method, headers: &HeaderMap, query: &str) -> bool {
        self.method.as_ref().is_none_or(|want| want == method)
            && self.headers.iter().all(|header| header.holds(headers))
            && self.queries.iter().all(|parameter| parameter.holds(query))
            && self
                .cookies
                .iter()
                .all(|lists| lists.iter().any(|list| list.iter().all(|cookie| cookie.holds(headers))))
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
    fn the_first_cookie_of_a_name_counts() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; b=\"2\"; empty=; a=3".parse().unwrap());
        headers.append(COOKIE, "c=4;d = 5 ; nothing".parse().unwrap());
        for (name, value, holds) in [
            ("a", "1", true),
            ("a", "3", false),
            ("b", "2", true),
            ("c", "4", true),
            ("d", "5", true),
            ("empty", "", true),
            ("nothing", "", false),
            ("A", "1", false),
        ] {
            let want = CookieMatch { name: name.into(), value: TextMatch::Exact(value.into()) };
            assert_eq!(want.holds(&headers), holds, "{name}={value}");
        }
    }

    #[test]
    fn texts_in_pieces_are_matched_whole_by_regular_expressions() {
        let mut headers = HeaderMap::new();
        for value in ["a", "b", "c"] {
            headers.append("x", value.parse().unwrap());
        }
        for (pattern, holds) in [("^a,b,c$", true), ("^a,b$", false), ("^[a-c,]+$", true)] {
            let value = TextMatch::Regex(Regex::new(pattern).unwrap());
            let header = HeaderMatch { name: HeaderName::from_static("x"), value: value.clone() };
            assert_eq!(header.holds(&headers), holds, "{pattern}");
            let query = QueryMatch { name: "q".into(), value };
            assert_eq!(query.holds("q=a%2Cb%2Cc"), holds, "{pattern}");
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
