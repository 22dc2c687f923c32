//! Collects diagnostics, and finds the words for what there is instead of what was asked for.

use crate::resource::{Diagnostic, Entry, ObjectRef, Objects, Resource, Severity};

/// The diagnostics of a compilation so far.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Diagnostic>);

impl Findings {
    /// Something asked for is not served.
    pub fn error<T: Resource>(&mut self, on: &Entry<T>, field: impl Into<String>, fault: &Fault) {
        self.note(Severity::Error, on, field, fault);
    }

    /// Everything is served, but probably not as it was meant.
    pub fn warning<T: Resource>(&mut self, on: &Entry<T>, field: impl Into<String>, fault: &Fault) {
        self.note(Severity::Warning, on, field, fault);
    }

    fn note<T: Resource>(
        &mut self,
        severity: Severity,
        on: &Entry<T>,
        field: impl Into<String>,
        fault: &Fault,
    ) {
        let Fault { reason, message } = fault.clone();
        let (object, place, field) = (on.object.reference(), on.place.clone(), field.into());
        self.0.push(Diagnostic { severity, object, place, field, reason, message });
    }

    /// Findings that were made before.
    pub fn take_over(&mut self, findings: &[Diagnostic]) {
        self.0.extend_from_slice(findings);
    }

    /// All findings, in the order in which they were made.
    pub fn into_list(self) -> Vec<Diagnostic> {
        self.0
    }

    /// A finding about something that is no object of the snapshot.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// All findings, sorted by object, then by place and field.
    pub fn sorted(mut self, earlier: &[Diagnostic]) -> Vec<Diagnostic> {
        self.0.extend_from_slice(earlier);
        self.0.sort_by(|a, b| {
            let key =
                |d: &Diagnostic| (d.object.clone(), d.place.clone(), d.field.clone(), d.message.clone());
            key(a).cmp(&key(b))
        });
        self.0.dedup();
        self.0
    }
}

/// Why something is not as it was asked for: a condition's reason, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub reason: &'static str,
    pub message: String,
}

impl Fault {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What there is in a namespace instead of what was asked for: "namespace media has the services a, b".
pub(super) fn there_is<T: Resource>(
    objects: &Objects<T>,
    namespace: &str,
    wanted: &str,
    plural: &str,
) -> String {
    let names: Vec<&str> =
        objects.in_namespace(namespace).iter().map(|entry| &*entry.object.metadata().name).collect();
    if names.is_empty() {
        return match elsewhere(objects, wanted) {
            Some(other) => format!("namespace {namespace} has no {plural}, but there is one in {other}"),
            None => format!("namespace {namespace} has no {plural}"),
        };
    }
    match nearest(wanted, names.iter().copied()) {
        Some(near) => {
            format!("did you mean {near}? namespace {namespace} has the {plural} {}", listed(&names))
        }
        None => format!("namespace {namespace} has the {plural} {}", listed(&names)),
    }
}

/// The namespace of an object of this name.
fn elsewhere<T: Resource>(objects: &Objects<T>, name: &str) -> Option<String> {
    let found = objects.iter().find(|entry| &*entry.object.metadata().name == name)?;
    Some(found.object.metadata().namespace.to_string())
}

/// The name spelt most like `wanted`, if it is near enough to be meant.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().min(wanted.len()) / 4)
        .min()
        .map(|(_, name)| name)
}

/// Names in a sentence, the first few of many.
pub(super) fn listed(names: &[impl AsRef<str>]) -> String {
    const MOST: usize = 8;
    let shown: Vec<&str> = names.iter().take(MOST).map(AsRef::as_ref).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// The name of an object, for sentences.
pub(super) fn called(kind: &str, namespace: &str, name: &str) -> String {
    ObjectRef { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }.to_string()
}
