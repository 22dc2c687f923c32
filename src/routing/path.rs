//! Candidates by path: exact, then regular expressions, then prefixes from the longest.

use super::{Matches, PathMatch, Rank};
use foldhash::fast::FixedState;
use http::{HeaderMap, Method};
use regex::bytes::Regex;
use std::collections::HashMap;

/// One match of one rule.
#[derive(Debug, Clone)]
struct Candidate {
    rank: Rank,
    matches: Matches,
    /// The rule's place in the table.
    rule: u32,
}

/// All matches of one listener and host name. Built by [`PathIndex::insert`], then [`PathIndex::seal`]ed.
#[derive(Debug, Clone, Default)]
pub struct PathIndex {
    exact: HashMap<Box<str>, Vec<Candidate>, FixedState>,
    regex: Vec<(Regex, Candidate)>,
    prefix: HashMap<Box<str>, Vec<Candidate>, FixedState>,
    /// The most slashes that any prefix has: bounds the look-ups for a path of many segments.
    deepest: usize,
}

impl PathIndex {
    /// Adds one match of a rule.
    pub fn insert(&mut self, rank: Rank, matches: Matches, rule: u32) {
        let candidate = Candidate { rank, matches, rule };
        match candidate.matches.path.clone() {
            PathMatch::Exact(path) => self.exact.entry(path.into()).or_default().push(candidate),
            PathMatch::Prefix(path) => {
                self.deepest = self.deepest.max(path.bytes().filter(|&b| b == b'/').count());
                self.prefix.entry(path.into()).or_default().push(candidate);
            }
            PathMatch::Regex(regex) => self.regex.push((regex, candidate)),
        }
    }

    /// Sorts all lists by rank, the greatest first, and gives back spare memory.
    pub fn seal(&mut self) {
        for list in self.exact.values_mut().chain(self.prefix.values_mut()) {
            list.sort_by(|a, b| b.rank.cmp(&a.rank));
            list.shrink_to_fit();
        }
        self.regex.sort_by(|(_, a), (_, b)| b.rank.cmp(&a.rank));
        self.exact.shrink_to_fit();
        self.prefix.shrink_to_fit();
    }

    /// The first rule by rank that serves the request, and the length of the path prefix that it matched.
    pub fn find(
        &self,
        path: &str,
        query: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<(u32, usize)> {
        let first = |list: &[Candidate]| {
            list.iter()
                .find(|candidate| candidate.matches.holds_beside_path(method, headers, query))
                .map(|candidate| candidate.rule)
        };
        if let Some(rule) = self.exact.get(path).and_then(|list| first(list)) {
            return Some((rule, path.len()));
        }
        for (regex, candidate) in &self.regex {
            if regex.is_match(path.as_bytes()) && candidate.matches.holds_beside_path(method, headers, query)
            {
                return Some((candidate.rule, path.len()));
            }
        }
        self.prefixes(path).find_map(|prefix| {
            self.prefix.get(prefix).and_then(|list| first(list)).map(|rule| (rule, prefix.len()))
        })
    }

    /// The prefixes of `path` that end at a segment border and are no deeper than any in the table, the
    /// longest first: for `/a/b` these are `/a/b`, `/a` and the empty one, which is `/`.
    fn prefixes<'a>(&self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let mut slashes = memchr::memchr_iter(b'/', path.as_bytes());
        let end = slashes.nth(self.deepest).unwrap_or(path.len());
        let longest = &path[..end];
        std::iter::successors(Some(longest), |prefix| prefix.rfind('/').map(|slash| &prefix[..slash]))
    }

    /// All matches with the rules that they lead to, the greatest rank first; for dumps and tests.
    pub fn iter(&self) -> impl Iterator<Item = (&Matches, u32)> {
        let mut all: Vec<&Candidate> = self
            .exact
            .values()
            .chain(self.prefix.values())
            .flatten()
            .chain(self.regex.iter().map(|(_, candidate)| candidate))
            .collect();
        all.sort_by(|a, b| b.rank.cmp(&a.rank));
        all.into_iter().map(|candidate| (&candidate.matches, candidate.rule))
    }
}
