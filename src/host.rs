//! Host names as the Gateway API compares them: lower case, without port, exact or with one leading `*.`.
//!
//! A leaf that `routing`, `tls` and `compile` share, so that SNI, `Host` and `hostnames` cannot disagree about
//! which name is the more specific one. `*.example.com` covers `a.b.example.com` and not `example.com`.

use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::fmt;

/// A host name in a listener or a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// No `hostname`: every host, and requests without one.
    Any,
    /// `*.example.com`, kept as `example.com`.
    Suffix(String),
    /// `www.example.com`.
    Exact(String),
}

impl HostPattern {
    /// Reads a `hostname` field; `None` when it is no DNS name (with at most one leading wildcard label).
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        match lower.strip_prefix("*.") {
            Some(rest) => is_dns_name(rest).then(|| Self::Suffix(rest.to_owned())),
            None => is_dns_name(&lower).then_some(Self::Exact(lower)),
        }
    }

    /// The names that both cover, or `None` when they are disjoint.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, x) | (x, Self::Any) => Some(x.clone()),
            (Self::Exact(a), Self::Exact(b)) => (a == b).then(|| self.clone()),
            (Self::Exact(e), Self::Suffix(s)) | (Self::Suffix(s), Self::Exact(e)) => {
                is_below(e, s).then(|| Self::Exact(e.clone()))
            }
            (Self::Suffix(a), Self::Suffix(b)) => {
                let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
                (long == short || is_below(long, short)).then(|| Self::Suffix(long.clone()))
            }
        }
    }

    /// Whether `host` (lower case, without port) is one of the names.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Suffix(suffix) => is_below(host, suffix),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Suffix(suffix) => write!(f, "*.{suffix}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

/// Whether `host` has at least one label more than `suffix` and ends with it.
fn is_below(host: &str, suffix: &str) -> bool {
    host.len() > suffix.len() + 1
        && host.ends_with(suffix)
        && host.as_bytes()[host.len() - suffix.len() - 1] == b'.'
}

/// RFC 1123 labels, at most 253 bytes, as the Gateway API's `Hostname` pattern has it.
fn is_dns_name(name: &str) -> bool {
    name.len() <= 253
        && !name.is_empty()
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// Values by host pattern, looked up by host: exact first, then the longest suffix, then any.
#[derive(Debug, Clone)]
pub struct HostIndex<T> {
    exact: HashMap<Box<str>, T, FixedState>,
    suffix: HashMap<Box<str>, T, FixedState>,
    any: Option<T>,
}

impl<T> Default for HostIndex<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), suffix: HashMap::default(), any: None }
    }
}

impl<T> HostIndex<T> {
    /// The value of exactly this pattern, made with `default` when there is none yet.
    pub fn entry(&mut self, pattern: &HostPattern, default: impl FnOnce() -> T) -> &mut T {
        match pattern {
            HostPattern::Any => self.any.get_or_insert_with(default),
            HostPattern::Suffix(suffix) => self.suffix.entry(suffix.as_str().into()).or_insert_with(default),
            HostPattern::Exact(name) => self.exact.entry(name.as_str().into()).or_insert_with(default),
        }
    }

    /// The value of exactly this pattern.
    pub fn get(&self, pattern: &HostPattern) -> Option<&T> {
        match pattern {
            HostPattern::Any => self.any.as_ref(),
            HostPattern::Suffix(suffix) => self.suffix.get(suffix.as_str()),
            HostPattern::Exact(name) => self.exact.get(name.as_str()),
        }
    }

    /// The value of exactly this pattern, to change it in place.
    pub fn get_mut(&mut self, pattern: &HostPattern) -> Option<&mut T> {
        match pattern {
            HostPattern::Any => self.any.as_mut(),
            HostPattern::Suffix(suffix) => self.suffix.get_mut(suffix.as_str()),
            HostPattern::Exact(name) => self.exact.get_mut(name.as_str()),
        }
    }

    /// Takes out the value of exactly this pattern.
    pub fn remove(&mut self, pattern: &HostPattern) -> Option<T> {
        match pattern {
            HostPattern::Any => self.any.take(),
            HostPattern::Suffix(suffix) => self.suffix.remove(suffix.as_str()),
            HostPattern::Exact(name) => self.exact.remove(name.as_str()),
        }
    }

    /// The value of the most specific pattern that covers `host` (lower case, without port).
    pub fn best(&self, host: &str) -> Option<&T> {
        self.covering(host).next().map(|(_, value)| value)
    }

    /// The values of all patterns that cover `host`, the most specific first, each with how many of the host's last
    /// bytes the pattern names.
    pub fn covering<'a, 'h>(
        &'a self,
        host: &'h str,
    ) -> impl Iterator<Item = (usize, &'a T)> + use<'a, 'h, T> {
        let below = if self.suffix.is_empty() { "" } else { host };
        // A wildcard stands for one label at least: a dot that begins the host has none before it.
        let dots = below.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        let suffixes = dots.filter_map(move |(dot, _)| {
            let suffix = &host[dot + 1..];
            Some((suffix.len(), self.suffix.get(suffix)?))
        });
        let exact = self.exact.get(host).map(|value| (host.len(), value));
        exact.into_iter().chain(suffixes).chain(self.any.as_ref().map(|value| (0, value)))
    }

    /// All patterns with their values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (HostPattern, &T)> {
        let any = self.any.iter().map(|value| (HostPattern::Any, value));
        let suffix = self.suffix.iter().map(|(name, value)| (HostPattern::Suffix(name.to_string()), value));
        let exact = self.exact.iter().map(|(name, value)| (HostPattern::Exact(name.to_string()), value));
        exact.chain(suffix).chain(any)
    }

    /// All values, to change them in place.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.suffix.values_mut()).chain(self.any.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        if text == "*" { HostPattern::Any } else { HostPattern::parse(text).expect("a valid pattern") }
    }

    #[test]
    fn intersection_follows_the_more_specific_side() {
        for (a, b, want) in [
            ("*", "a.test", Some("a.test")),
            ("*.test", "a.test", Some("a.test")),
            ("*.a.test", "*.test", Some("*.a.test")),
            ("*.test", "*.test", Some("*.test")),
            ("*.test", "test", None),
            ("*.test", "atest", None),
            ("a.test", "b.test", None),
            ("*.a.test", "*.b.test", None),
        ] {
            let got = pattern(a).intersect(&pattern(b));
            assert_eq!(got, want.map(pattern), "{a} with {b}");
            assert_eq!(got, pattern(b).intersect(&pattern(a)), "{b} with {a}");
        }
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let mut index = HostIndex::default();
        for name in ["*", "*.test", "*.a.test", "b.a.test"] {
            index.entry(&pattern(name), || name);
        }
        for (host, want) in [
            ("b.a.test", "b.a.test"),
            ("c.b.a.test", "*.a.test"),
            ("a.test", "*.test"),
            ("test", "*"),
            (".test", "*"),
            (".a.test", "*.test"),
            ("", "*"),
        ] {
            assert_eq!(index.best(host), Some(&want), "{host}");
        }
        assert_eq!(
            index.covering("b.a.test").map(|(named, pattern)| (named, *pattern)).collect::<Vec<_>>(),
            [(8, "b.a.test"), (6, "*.a.test"), (4, "*.test"), (0, "*")]
        );
    }

    #[test]
    fn what_is_no_dns_name_is_refused() {
        for text in ["", "*", "a..b", "-a.test", "a b", "*.*.test", "a.*.test", "a/b", &"a".repeat(64)] {
            assert_eq!(HostPattern::parse(text), None, "{text}");
        }
    }
}
