//! Whose objects may attach: `from` and `selector` of `allowedRoutes` and `allowedListeners`.

use crate::resource::{Labels, RouteNamespaces, Selector, SelectorTerm, Snapshot};

/// Whose objects may attach to an object of namespace `of`.
#[derive(Clone, Copy)]
pub(super) struct Admission<'a> {
    pub namespaces: &'a RouteNamespaces,
    /// What counts where `from` is absent.
    pub default: &'static str,
    pub of: &'a str,
}

impl Admission<'_> {
    /// Whether objects of this namespace may attach; else whose may.
    pub fn admits(&self, snapshot: &Snapshot, namespace: &str) -> Result<(), String> {
        let &Self { namespaces, default, of } = self;
        match namespaces.from.as_deref().unwrap_or(default) {
            "All" => Ok(()),
            "None" => Err("of no namespace".to_owned()),
            "Same" if of == namespace => Ok(()),
            "Same" => Err(format!("of namespace {of}")),
            "Selector" => match &namespaces.selector {
                Some(selector) if selects(selector, snapshot, namespace) => Ok(()),
                Some(_) => Err("of namespaces with certain labels".to_owned()),
                None => Err("of namespaces that a selector names, and has none,".to_owned()),
            },
            other => Err(format!("`from: {other}`, which means nothing,")),
        }
    }
}

/// Whether a selector selects a namespace. One without an object has the label that every namespace has.
fn selects(selector: &Selector, snapshot: &Snapshot, namespace: &str) -> bool {
    let none = Labels::default();
    let labels = snapshot.namespaces.get("", namespace).map_or(&none, |entry| &entry.object.metadata.labels);
    let label = |key: &str| match key {
        "kubernetes.io/metadata.name" => Some(namespace),
        _ => labels.get(key),
    };
    let Selector { match_labels, match_expressions } = selector;
    match_labels.iter().all(|(key, value)| label(key) == Some(value))
        && match_expressions.iter().all(|term| holds(term, label(&term.key)))
}

fn holds(term: &SelectorTerm, label: Option<&str>) -> bool {
    let listed = |label: &str| term.values.iter().any(|value| &**value == label);
    match &*term.operator {
        "In" => label.is_some_and(listed),
        "NotIn" => !label.is_some_and(listed),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        // What is not understood selects nothing.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_term_holds_as_kubernetes_defines_it() {
        for (operator, values, label, want) in [
            ("In", &["a", "b"][..], Some("a"), true),
            ("In", &["a"], Some("c"), false),
            ("In", &["a"], None, false),
            ("NotIn", &["a"], Some("a"), false),
            ("NotIn", &["a"], Some("b"), true),
            ("NotIn", &["a"], None, true),
            ("Exists", &[], Some(""), true),
            ("Exists", &[], None, false),
            ("DoesNotExist", &[], None, true),
            ("DoesNotExist", &[], Some("a"), false),
            ("Near", &["a"], Some("a"), false),
        ] {
            let values = values.iter().map(|&value| value.into()).collect();
            let term = SelectorTerm { key: "k".into(), operator: operator.into(), values };
            assert_eq!(holds(&term, label), want, "{operator} {label:?}");
        }
    }
}
