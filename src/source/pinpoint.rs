//! From an object's place to that of the field that a diagnostic is about.
//!
//! Snapshots keep the places of objects only: those of all fields would cost more memory than the objects.

use super::locate::locate;
use super::split::yaml_documents;
use crate::resource::{Diagnostic, Place};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// How many diagnostics get a better place; a user reads the first ones.
const MOST: usize = 500;

/// Moves the places of diagnostics from the start of their object to the field, where the file still says so.
pub fn pinpoint(diagnostics: &mut [Diagnostic]) {
    let mut texts: HashMap<Arc<PathBuf>, Option<String>> = HashMap::new();
    let with_field = diagnostics.iter_mut().filter(|diagnostic| !diagnostic.field.is_empty());
    for Diagnostic { place, field, .. } in with_field.take(MOST) {
        let Some(place) = place else { continue };
        let text = texts.entry(place.file.clone()).or_insert_with(|| fs::read_to_string(&*place.file).ok());
        if let Some(better) = text.as_deref().and_then(|text| of_field(text, place, field)) {
            *place = better;
        }
    }
}

fn of_field(text: &str, object: &Place, field: &str) -> Option<Place> {
    let documents = yaml_documents(text);
    let document = documents.iter().rfind(|document| document.line < object.line as usize)?;
    let path = segments(field);
    // A missing field is looked for where it would stand.
    let at = (1..=path.len()).rev().find_map(|depth| locate(document.text, &path[..depth]))?;
    let from_one = |number: u64| u32::try_from(number).ok();
    let line = u32::try_from(document.line).ok()?.checked_add(from_one(at.line())?)?;
    // The items of a list share a document, and their paths start at the item.
    (line >= object.line && object.column == 1).then_some(Place {
        file: object.file.clone(),
        line,
        column: from_one(at.column())?,
    })
}

/// `spec.rules[0].backendRefs` as the keys that lead there.
fn segments(field: &str) -> Vec<String> {
    field.split(['.', '[', ']']).filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_in_its_document_or_the_nearest_that_is_there() {
        let text =
            "kind: A\n---\nkind: B\nspec:\n  rules:\n  - matches: 1\n  - backendRefs:\n    - name: x\n";
        let object = Place { file: Arc::new(PathBuf::from("f")), line: 3, column: 1 };
        for (field, want) in [
            ("spec.rules[1].backendRefs[0]", Some((8, 7))),
            ("spec.rules[1].backendRefs[0].port", Some((8, 7))),
            ("spec.rules[0].matches", Some((6, 5))),
            ("spec.rules[0].filters", Some((6, 5))),
            ("nothing", None),
        ] {
            let got = of_field(text, &object, field).map(|place| (place.line, place.column));
            assert_eq!(got, want, "{field}");
        }
    }
}
