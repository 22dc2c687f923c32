//! A replacement by regular expression: of a path, or of a host made from it (Envoy Gateway's HTTPRouteFilter).

use regex::{Captures, Regex, RegexBuilder};
use std::borrow::Cow;
use thiserror::Error;

/// A compiled expression may take so much memory.
const MOST_MEMORY: usize = 1 << 20;
/// No more is replaced once the text has this length: it is refused as a path, and would only grow.
const MOST_TEXT: usize = u16::MAX as usize;

/// Every match of a pattern becomes the substitution, in time linear to the text.
#[derive(Debug, Clone)]
pub struct RegexEdit {
    pattern: Regex,
    substitution: Box<[Part]>,
    /// The substitution as it was written.
    written: String,
}

/// A piece of a substitution.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `\1`, or `\0` for the whole match.
    Group(usize),
}

/// Why a pattern or a substitution cannot be used.
#[derive(Debug, Error)]
pub enum RegexEditError {
    #[error("the pattern is no regular expression of RE2's syntax: {0}")]
    Pattern(#[from] regex::Error),
    #[error("the substitution ends in a lone backslash; write `\\\\` for one")]
    Unfinished,
    #[error("`\\{0}` means nothing; use `\\0` to `\\9`, or `\\\\` for a backslash")]
    UnknownEscape(char),
    #[error("the substitution names group {group}, and the pattern has {groups}")]
    NoSuchGroup { group: usize, groups: usize },
}

impl RegexEdit {
    /// Replaces by RE2's rules: `\0` is the match, `\1` to `\9` are its groups, `\\` is a backslash.
    ///
    /// # Errors
    /// When the pattern is invalid or too large, or the substitution does not fit it.
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, RegexEditError> {
        let pattern = RegexBuilder::new(pattern).size_limit(MOST_MEMORY).build()?;
        let written = substitution.to_owned();
        let substitution = parts(substitution)?;
        let groups = pattern.captures_len() - 1;
        for part in &substitution {
            if let Part::Group(group) = *part
                && group > groups
            {
                return Err(RegexEditError::NoSuchGroup { group, groups });
            }
        }
        Ok(Self { pattern, substitution: substitution.into(), written })
    }

    /// The text with all matches replaced.
    pub fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut out = String::new();
        let mut copied = 0;
        for captures in self.pattern.captures_iter(text) {
            let whole = captures.get_match();
            out.push_str(&text[copied..whole.start()]);
            copied = whole.end();
            self.substitute(&captures, &mut out);
            if out.len() > MOST_TEXT {
                break;
            }
        }
        if copied == 0 && out.is_empty() {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[copied..]);
        Cow::Owned(out)
    }

    fn substitute(&self, captures: &Captures<'_>, out: &mut String) {
        for part in &self.substitution {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Group(group) => out.push_str(captures.get(*group).map_or("", |group| group.as_str())),
            }
        }
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &str {
        self.pattern.as_str()
    }

    /// The substitution as it was written.
    pub fn substitution(&self) -> &str {
        &self.written
    }
}

impl PartialEq for RegexEdit {
    fn eq(&self, other: &Self) -> bool {
        self.pattern() == other.pattern() && self.written == other.written
    }
}

impl Eq for RegexEdit {}

fn parts(substitution: &str) -> Result<Vec<Part>, RegexEditError> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut characters = substitution.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next().ok_or(RegexEditError::Unfinished)? {
            '\\' => text.push('\\'),
            digit @ '0'..='9' => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Group(usize::from(digit as u8 - b'0')));
            }
            other => return Err(RegexEditError::UnknownEscape(other)),
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_matches_are_replaced_with_their_groups() {
        for (pattern, substitution, text, want) in [
            (r"^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo"),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            ("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
            ("b", r"[\0]", "/abba", "/a[b][b]a"),
            ("a", r"\\", "/a", r"/\"),
            ("none", "x", "/a", "/a"),
            ("^/a", "", "/a/b", "/b"),
            ("(a)|(b)", r"<\1\2>", "/ab", "/<a><b>"),
        ] {
            let edit = RegexEdit::new(pattern, substitution).expect("valid");
            assert_eq!(edit.apply(text), want, "{pattern} {substitution}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_refused() {
        for (pattern, substitution, want) in [
            ("(", "", "pattern"),
            ("a{1000}{1000}", "", "pattern"),
            ("(?=a)", "", "pattern"),
            ("a", r"\1", "group 1"),
            ("(a)", r"\2", "group 2"),
            ("a", r"\n", "means nothing"),
            ("a", r"\", "lone backslash"),
        ] {
            let error = RegexEdit::new(pattern, substitution).expect_err(pattern).to_string();
            assert!(error.contains(want), "{pattern} {substitution}: {error}");
        }
    }

    #[test]
    fn a_text_that_explodes_stops_growing() {
        let edit = RegexEdit::new("a", &"b".repeat(1000)).expect("valid");
        let text = "a".repeat(10_000);
        assert!(edit.apply(&text).len() < 2 * MOST_TEXT);
    }
}
