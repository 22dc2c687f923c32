//! What is wrong with proxy.toml: the line it stands on, why, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use thiserror::Error;
use toml::de::{DeTable, DeValue};

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {}: {error}{}", file.display(), if_missing(error))]
    Unreadable { file: PathBuf, error: std::io::Error },
    #[error("{}", join(.0))]
    Faulty(Vec<Fault>),
}

/// One mistake in the file. Prints as `file:line:column`, the line itself, and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub file: PathBuf,
    /// Line and column, counted from 1; columns count characters.
    pub line: usize,
    pub column: usize,
    /// The text of that line, and how many of its characters are meant.
    pub snippet: String,
    pub width: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, snippet, width, message, hint } = self;
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{}:{line}:{column}: {message}", file.display())?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {snippet}")?;
        write!(f, "{gutter} | {}{}", " ".repeat(column - 1), "^".repeat(*width))?;
        if let Some(hint) = hint {
            write!(f, "\n{gutter} = hint: {hint}")?;
        }
        Ok(())
    }
}

/// The text of a file, to say where something stands in it.
pub struct Text<'a> {
    pub file: &'a Path,
    pub text: &'a str,
}

impl Text<'_> {
    /// A fault at a place in the text.
    pub fn fault(&self, span: Range<usize>, message: String, hint: Option<String>) -> Fault {
        let start = floor(self.text, span.start);
        let begin = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let snippet = self.text[begin..end].trim_end_matches('\r').replace('\t', " ");
        let meant = floor(self.text, span.end.clamp(start, end));
        Fault {
            file: self.file.to_owned(),
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[begin..start].chars().count() + 1,
            snippet,
            width: self.text[start..meant].chars().count().max(1),
            message,
            hint,
        }
    }

    /// The fault that the TOML reader found.
    pub fn unreadable(&self, error: &toml::de::Error) -> Fault {
        let message = error.message();
        let hint = hint_for(message);
        let message = match quoted(message).first() {
            Some(key) if message.starts_with("unknown field") => format!("unknown key `{key}`"),
            Some(key) if message.starts_with("missing field") => format!("the key `{key}` is missing"),
            _ => message.lines().next().unwrap_or("not TOML").to_owned(),
        };
        self.fault(error.span().unwrap_or(0..0), message, hint)
    }

    /// A fault at the value of a key, given by its path. A key that is not written is shown by the nearest
    /// table around it that is.
    pub fn fault_at(&self, path: &[&str], message: String, hint: Option<String>) -> Fault {
        let span = self.spans(path).pop().unwrap_or(0..0);
        self.fault(span, message, hint)
    }

    /// Whether the table that holds a key, given by its path, is in the text.
    pub fn has_table_of(&self, path: &[&str]) -> bool {
        self.spans(path).len() + 1 >= path.len()
    }

    /// Where each step of the path stands, as far as it is written.
    fn spans(&self, path: &[&str]) -> Vec<Range<usize>> {
        let root = DeTable::parse(self.text).ok();
        let mut table = root.as_ref().map(toml::Spanned::get_ref);
        let mut spans = Vec::new();
        for name in path {
            let Some((key, value)) = table.and_then(|table| table.get_key_value(*name)) else { break };
            // A table that is opened by a header spans its whole text; its name says enough.
            spans.push(if matches!(value.get_ref(), DeValue::Table(_)) { key.span() } else { value.span() });
            table = value.get_ref().as_table();
        }
        spans
    }
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// The words between backticks.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// serde says which names it would have taken; the nearest one is probably meant.
fn hint_for(message: &str) -> Option<String> {
    if message.contains("expected an integer") || message.contains("expected u") {
        return message.contains("string").then(|| "write the number without quotes".to_owned());
    }
    if message.starts_with("duplicate key") {
        return Some("write it once".to_owned());
    }
    let (wrong, known) = match quoted(message).split_first() {
        Some((wrong, known)) if message.starts_with("unknown") => (*wrong, known.to_vec()),
        _ => return None,
    };
    let nearest = known
        .iter()
        .copied()
        .max_by(|a, b| strsim::jaro_winkler(wrong, a).total_cmp(&strsim::jaro_winkler(wrong, b)))?;
    if strsim::jaro_winkler(wrong, nearest) > 0.75 {
        return Some(format!("did you mean `{nearest}`?"));
    }
    Some(format!("known here: {}", known.join(", ")))
}

fn if_missing(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "; name the file with --config FILE",
        _ => "",
    }
}

fn join(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n\n")
}
