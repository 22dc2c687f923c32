//! Precedence between matches, as a derived order: the greater rank is asked first.
//!
//! The order of the fields is the order of the Gateway API (`HTTPRouteRule.matches`); `Reverse` where less wins.

use std::cmp::Reverse;
use std::sync::Arc;

/// How specific a path match is. Exact beats every regular expression, which beats every prefix (the Gateway
/// API leaves the place of regular expressions open; Envoy Gateway puts them here too).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathRank {
    Prefix(usize),
    Regex(usize),
    Exact(usize),
}

/// The place of one match among all matches of a listener and host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The path, by kind and then by length.
    pub path: PathRank,
    /// Whether a method is asked for. (For gRPC: the characters of service and method are in `path`.)
    pub method: bool,
    /// How many headers, cookies included.
    pub headers: usize,
    /// How many query parameters.
    pub queries: usize,
    /// `creationTimestamp` in seconds: the oldest route wins. 0 where there is none, as in files.
    pub age: Reverse<i64>,
    /// `namespace/name` of the route, in alphabetical order.
    pub route: Reverse<Arc<str>>,
    /// Rule and match within the route, in the order written.
    pub position: Reverse<(usize, usize)>,
}
