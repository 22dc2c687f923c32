//! What is wrong with an object that a user wrote, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// One finding. Its text is lower case, without a full stop, and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    pub severity: Severity,
    pub object: ObjectRef,
    /// Where the object stands, in a source that has places.
    pub place: Option<Place>,
    /// The field within the object, `spec.rules[0].backendRefs[1]`; empty for the object itself.
    pub field: String,
    /// The reason of the Gateway API condition that tells the same (`BackendNotFound`), or one of our own.
    pub reason: &'static str,
    pub message: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something asked for is not served.
    Error,
    /// Everything is served, but probably not as it was meant.
    Warning,
}

/// An object of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// `HTTPRoute`.
    pub kind: String,
    /// Empty for kinds without one.
    pub namespace: String,
    pub name: String,
}

/// A place in a file, both numbers counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub file: Arc<PathBuf>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column } = self;
        write!(f, "{}:{line}:{column}", file.display())
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if name.is_empty() {
            return f.write_str(kind);
        }
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, object, place, field, reason, message } = self;
        let severity = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{reason}]: {object}")?;
        if !field.is_empty() {
            write!(f, " {field}")?;
        }
        if let Some(place) = place {
            write!(f, " ({place})")?;
        }
        write!(f, ": {message}")
    }
}
