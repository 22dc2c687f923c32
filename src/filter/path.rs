//! The path part of a redirect or a rewrite (`HTTPPathModifier`, and Envoy Gateway's `replaceRegexMatch`).

use super::RegexEdit;
use std::borrow::Cow;

/// What becomes of the path. Query and percent-encoding stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathEdit {
    /// `ReplaceFullPath`.
    Full(String),
    /// `ReplacePrefixMatch`: the matched prefix becomes this one, kept without its trailing slash.
    Prefix(String),
    /// `ReplaceRegexMatch`.
    Regex(RegexEdit),
}

impl PathEdit {
    /// `ReplacePrefixMatch` with this value.
    pub fn prefix(value: &str) -> Self {
        Self::Prefix(value.trim_end_matches('/').to_owned())
    }

    /// The new path. `matched` is the length in bytes of the prefix that the rule matched, without a trailing
    /// slash. Begins with a slash, without a doubled one at the seam (the table at `HTTPPathModifier`).
    pub fn apply<'a>(&'a self, path: &'a str, matched: usize) -> Cow<'a, str> {
        match self {
            Self::Full(full) => Cow::Borrowed(if full.is_empty() { "/" } else { full }),
            Self::Prefix(prefix) => {
                let rest = path.get(matched..).unwrap_or_default();
                match (prefix.as_str(), rest) {
                    ("", "") => Cow::Borrowed("/"),
                    ("", rest) => Cow::Borrowed(rest),
                    (prefix, rest) => Cow::Owned(format!("{prefix}{rest}")),
                }
            }
            Self::Regex(edit) => {
                let path = edit.apply(path);
                if path.starts_with('/') { path } else { Cow::Owned(format!("/{path}")) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_without_doubled_or_lost_slashes() {
        for (matched, replacement, path, want) in [
            ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz", "/foo", "/xyz"),
            ("/foo", "/xyz", "/foo/", "/xyz/"),
            ("/foo", "/", "/foo", "/"),
            ("/foo", "/", "/foo/", "/"),
            ("/foo", "/", "/foo/bar", "/bar"),
            ("/foo", "", "/foo/bar", "/bar"),
            ("/foo", "", "/foo", "/"),
            ("", "/xyz", "/", "/xyz/"),
            ("", "/xyz", "/bar", "/xyz/bar"),
        ] {
            assert_eq!(PathEdit::prefix(replacement).apply(path, matched.len()), want, "{path}");
        }
    }

    #[test]
    fn a_path_stays_a_path_whatever_is_replaced() {
        for (pattern, substitution, want) in [("^/a", "", "/b"), ("^/a/", "", "/b"), (".*", "", "/")] {
            let edit = PathEdit::Regex(RegexEdit::new(pattern, substitution).expect("valid"));
            assert_eq!(edit.apply("/a/b", 0), want, "{pattern}");
        }
    }
}
