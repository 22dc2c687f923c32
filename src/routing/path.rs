//! Candidates by path: exact, then regular expressions, then prefixes from the longest.
//!
//! An index per listener and host name, of which there may be ten thousand, most with one match: so ranks are
//! kept only until the index is sealed, a match without conditions is a number, few paths are a list, and regular
//! expressions stand apart.

use super::{Matches, PathMatch, Rank};
use foldhash::fast::FixedState;
use http::{HeaderMap, Method};
use regex::bytes::Regex;
use std::collections::HashMap;

/// Up to this many paths are compared one by one, which is as quick as hashing and smaller.
const FEW: usize = 4;

/// All matches of one listener and host name. Built by [`PathIndex::insert`], then [`PathIndex::seal`]ed, and
/// only then searched.
#[derive(Debug, Clone, Default)]
pub struct PathIndex {
    exact: Paths,
    prefix: Paths,
    /// The most slashes that any prefix has: bounds the look-ups for a path of many segments.
    deepest: usize,
    /// What a sealed index hardly ever has.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Clone, Default)]
struct Rest {
    regex: Vec<(Regex, Candidate)>,
    /// What was inserted and is not sealed yet.
    pending: Vec<(Rank, Matches, u32)>,
}

/// One match of one rule.
#[derive(Debug, Clone)]
struct Candidate {
    /// `None` asks for nothing beside the path.
    conditions: Option<Box<Matches>>,
    /// The rule's place in the table.
    rule: u32,
    /// Its own place among the rule's matches.
    place: u32,
}

/// What serves a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The rule's place in the table.
    pub rule: u32,
    /// Which of the rule's matches it was, in the order written.
    pub place: u32,
    /// The length of the path prefix that it matched, without a trailing slash.
    pub matched: usize,
}

/// The candidates of each path, the greatest rank first.
#[derive(Debug, Clone)]
enum Paths {
    Few(Box<[(Box<str>, Candidates)]>),
    /// Boxed, because few indexes have many paths and all would have room for the map.
    #[expect(clippy::box_collection)]
    Many(Box<HashMap<Box<str>, Candidates, FixedState>>),
}

/// The candidates of one path.
#[derive(Debug, Clone)]
enum Candidates {
    /// One that asks for nothing beside the path, as most are.
    One {
        rule: u32,
        place: u32,
    },
    Many(Box<[Candidate]>),
}

impl PathIndex {
    /// Adds one match of a rule.
    pub fn insert(&mut self, rank: Rank, matches: Matches, rule: u32) {
        // Most have one match, and a vector that grows by itself begins with room for four.
        let Rest { regex: _, pending } = &mut **self.rest.get_or_insert_default();
        if pending.capacity() == 0 {
            pending.reserve_exact(1);
        }
        pending.push((rank, matches, rule));
    }

    /// Whether something was inserted and is not sealed yet.
    pub fn is_open(&self) -> bool {
        self.rest.as_deref().is_some_and(|rest| !rest.pending.is_empty())
    }

    /// Sorts what was inserted by rank, the greatest first. An index is sealed once, when it is complete.
    pub fn seal(&mut self) {
        let Some(rest) = self.rest.take() else { return };
        let Rest { mut regex, mut pending } = *rest;
        pending.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        let (mut exact, mut prefix) = (Vec::new(), Vec::new());
        for (rank, matches, rule) in pending {
            let path = matches.path.clone();
            let place = u32::try_from(rank.position.0.1).unwrap_or(u32::MAX);
            let candidate = Candidate::new(matches, rule, place);
            match path {
                PathMatch::Exact(path) => exact.push((path.into_boxed_str(), candidate)),
                PathMatch::Prefix(path) => {
                    self.deepest = self.deepest.max(path.bytes().filter(|&byte| byte == b'/').count());
                    prefix.push((path.into_boxed_str(), candidate));
                }
                PathMatch::Regex(path) => regex.push((path, candidate)),
            }
        }
        self.exact = Paths::new(exact);
        self.prefix = Paths::new(prefix);
        if !regex.is_empty() {
            self.rest = Some(Box::new(Rest { regex, pending: Vec::new() }));
        }
    }

    /// The first match by rank that holds.
    pub fn find(&self, path: &str, query: &str, method: &Method, headers: &HeaderMap) -> Option<Hit> {
        let holds = |candidate: &&Candidate| match &candidate.conditions {
            None => true,
            Some(conditions) => conditions.holds_beside_path(method, headers, query),
        };
        let first = |candidates: &Candidates, matched| match candidates {
            Candidates::One { rule, place } => Some(Hit { rule: *rule, place: *place, matched }),
            Candidates::Many(list) => list.iter().find(holds).map(|candidate| candidate.hit(matched)),
        };
        if let Some(hit) = self.exact.get(path).and_then(|list| first(list, path.len())) {
            return Some(hit);
        }
        for (regex, candidate) in self.regexes() {
            if regex.is_match(path.as_bytes()) && holds(&candidate) {
                return Some(candidate.hit(path.len()));
            }
        }
        self.prefixes(path).find_map(|prefix| first(self.prefix.get(prefix)?, prefix.len()))
    }

    fn regexes(&self) -> &[(Regex, Candidate)] {
        self.rest.as_deref().map_or(&[], |rest| &rest.regex)
    }

    /// The prefixes of `path` that end at a segment border and are no deeper than any in the table, the
    /// longest first: for `/a/b` these are `/a/b`, `/a` and the empty one, which is `/`.
    fn prefixes<'a>(&self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let mut slashes = memchr::memchr_iter(b'/', path.as_bytes());
        let end = slashes.nth(self.deepest).unwrap_or(path.len());
        let longest = &path[..end];
        std::iter::successors(Some(longest), |prefix| prefix.rfind('/').map(|slash| &prefix[..slash]))
    }

    /// All matches of a sealed index with the rules that they lead to, in the order in which they are asked;
    /// for dumps and tests.
    pub fn iter(&self) -> impl Iterator<Item = (Matches, u32)> {
        let exact =
            self.exact.iter().flat_map(|(path, list)| list.matches(PathMatch::Exact(path.to_owned())));
        let regex = self.regexes().iter();
        let regex = regex.map(|(regex, candidate)| candidate.matches(PathMatch::Regex(regex.clone())));
        let mut prefixes: Vec<_> = self.prefix.iter().collect();
        prefixes.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        let prefix = prefixes.into_iter();
        let prefix = prefix.flat_map(|(path, list)| list.matches(PathMatch::Prefix(path.to_owned())));
        exact.chain(regex).chain(prefix)
    }
}

impl Candidate {
    fn new(matches: Matches, rule: u32, place: u32) -> Self {
        let Matches { path: _, method, headers, queries, cookies } = &matches;
        let any = method.is_none() && headers.is_empty() && queries.is_empty() && cookies.is_empty();
        Self { conditions: if any { None } else { Some(Box::new(matches)) }, rule, place }
    }

    fn hit(&self, matched: usize) -> Hit {
        Hit { rule: self.rule, place: self.place, matched }
    }

    fn matches(&self, path: PathMatch) -> (Matches, u32) {
        match &self.conditions {
            Some(matches) => ((**matches).clone(), self.rule),
            None => (Matches::of(path), self.rule),
        }
    }
}

impl Candidates {
    /// Candidates of one path, the greatest rank first.
    fn new(list: Vec<Candidate>) -> Self {
        match list.as_slice() {
            &[Candidate { conditions: None, rule, place }] => Self::One { rule, place },
            _ => Self::Many(list.into()),
        }
    }

    fn matches(&self, path: PathMatch) -> Vec<(Matches, u32)> {
        match self {
            Self::One { rule, place: _ } => vec![(Matches::of(path), *rule)],
            Self::Many(list) => list.iter().map(|candidate| candidate.matches(path.clone())).collect(),
        }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

impl Paths {
    /// Groups candidates, which come sorted, by their paths.
    fn new(sorted: Vec<(Box<str>, Candidate)>) -> Self {
        let mut by_path: HashMap<Box<str>, Vec<Candidate>, FixedState> = HashMap::default();
        for (path, candidate) in sorted {
            by_path.entry(path).or_default().push(candidate);
        }
        let boxed = by_path.into_iter().map(|(path, list)| (path, Candidates::new(list)));
        if boxed.len() > FEW {
            return Self::Many(Box::new(boxed.collect()));
        }
        Self::Few(boxed.collect())
    }

    fn get(&self, path: &str) -> Option<&Candidates> {
        match self {
            Self::Few(list) => list.iter().find(|(known, _)| **known == *path).map(|(_, found)| found),
            Self::Many(map) => map.get(path),
        }
    }

    /// All paths with their candidates, sorted by path.
    fn iter(&self) -> impl Iterator<Item = (&str, &Candidates)> {
        let (few, many) = match self {
            Self::Few(list) => (Some(list), None),
            Self::Many(map) => (None, Some(map)),
        };
        let few = few.into_iter().flatten().map(|(path, list)| (&**path, list));
        let many = many.into_iter().flat_map(|map| map.iter()).map(|(path, list)| (&**path, list));
        let mut all: Vec<_> = few.chain(many).collect();
        all.sort_by_key(|(path, _)| *path);
        all.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_small_for_there_may_be_one_for_each_route() {
        assert_eq!((size_of::<PathIndex>(), size_of::<(Box<str>, Candidates)>()), (48, 32));
    }
}
