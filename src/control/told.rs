//! Diagnostics in the log: each when it appears, and again when it is gone, not with every revision.

use crate::compile::{Diagnostic, Severity};
use std::collections::BTreeSet;
use tracing::{error, info, warn};

/// What was told and still holds.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeSet<Finding>);

/// A diagnostic as far as it is the same one when lines move.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    severity: Severity,
    object: String,
    field: String,
    message: String,
}

impl Told {
    /// Logs what is newly wrong, and what is no longer.
    pub fn tell(&mut self, diagnostics: &[Diagnostic]) {
        let (new, gone) = self.update(diagnostics);
        for diagnostic in new {
            // The log has a severity of its own.
            let text = diagnostic.to_string();
            let text = text.trim_start_matches("error").trim_start_matches("warning");
            match diagnostic.severity {
                Severity::Error => error!("{text}"),
                Severity::Warning => warn!("{text}"),
            }
        }
        for Finding { object, field, message, .. } in gone {
            info!("no longer so: {object} {field}{}{message}", if field.is_empty() { "" } else { ": " });
        }
    }

    /// What is new, and what is gone.
    fn update<'d>(&mut self, diagnostics: &'d [Diagnostic]) -> (Vec<&'d Diagnostic>, Vec<Finding>) {
        let mut now = BTreeSet::new();
        let new = diagnostics.iter().filter(|diagnostic| {
            let finding = Finding::of(diagnostic);
            let known = self.0.contains(&finding);
            now.insert(finding) && !known
        });
        let new = new.collect();
        let gone = self.0.difference(&now).cloned().collect();
        self.0 = now;
        (new, gone)
    }
}

impl Finding {
    fn of(diagnostic: &Diagnostic) -> Self {
        let Diagnostic { severity, object, place: _, field, reason: _, message } = diagnostic;
        let (field, message) = (field.clone(), message.clone());
        Self { severity: *severity, object: object.to_string(), field, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{ObjectRef, Place};
    use std::path::PathBuf;
    use std::sync::Arc;

    fn diagnostic(name: &str, line: u32) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            object: ObjectRef { kind: "HTTPRoute".into(), namespace: "apps".into(), name: name.into() },
            place: Some(Place { file: Arc::new(PathBuf::from("routes.yaml")), line, column: 1 }),
            field: "spec.rules[0]".to_owned(),
            reason: "BackendNotFound",
            message: "there is no Service apps/x".to_owned(),
        }
    }

    #[test]
    fn a_diagnostic_is_told_once_while_it_holds_wherever_its_line_moves() {
        let mut told = Told::default();
        assert_eq!(told.update(&[diagnostic("a", 3)]).0.len(), 1);
        let moved = [diagnostic("a", 30), diagnostic("b", 3), diagnostic("b", 4)];
        let (new, gone) = told.update(&moved);
        assert_eq!(new, [&moved[1]]);
        assert_eq!(gone, []);
    }

    #[test]
    fn a_diagnostic_that_is_gone_is_told_and_told_again_when_it_comes_back() {
        let mut told = Told::default();
        told.update(&[diagnostic("a", 3)]);
        let (new, gone) = told.update(&[]);
        assert!(new.is_empty());
        assert_eq!(gone.len(), 1);
        assert_eq!(told.update(&[diagnostic("a", 3)]).0.len(), 1);
    }
}
