//! Which Secrets and ConfigMaps an object refers to.
//!
//! Found by the form of references and not by the fields of each kind, so that a new policy needs nothing here.
//! A reference found too many costs one read of an object that exists; one found too few would be a bug.

use crate::config::ObjectName;
use serde_json::{Map, Value};

/// A Secret or ConfigMap that somebody refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    /// `Secret` or `ConfigMap`.
    pub kind: &'static str,
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl Wanted {
    /// A Secret that proxy.toml names.
    pub fn secret(name: &ObjectName) -> Self {
        let ObjectName { namespace, name } = name;
        Self { kind: "Secret", namespace: namespace.as_str().into(), name: name.as_str().into() }
    }
}

/// Fields whose references name a Secret when they name no kind.
const OF_SECRETS: [&str; 8] = [
    "certificateRef",
    "certificateRefs",
    "clientCertificateRef",
    "clientIDRef",
    "clientSecret",
    "credentialRefs",
    "hmacSecret",
    "users",
];

/// What an object of this namespace refers to.
pub(super) fn references(object: &Value, namespace: &str) -> Vec<Wanted> {
    let mut found = Vec::new();
    if let Some(spec) = object.get("spec") {
        walk(spec, "spec", namespace, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn walk(value: &Value, field: &str, namespace: &str, found: &mut Vec<Wanted>) {
    match value {
        Value::Object(map) => {
            found.extend(reference(map, field, namespace));
            map.iter().for_each(|(field, value)| walk(value, field, namespace, found));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, field, namespace, found)),
        _ => {}
    }
}

fn reference(map: &Map<String, Value>, field: &str, namespace: &str) -> Option<Wanted> {
    let text = |key: &str| map.get(key).and_then(Value::as_str);
    let name = text("name")?;
    if !text("group").unwrap_or_default().is_empty() {
        return None;
    }
    let kind = match text("kind") {
        Some("Secret") => "Secret",
        Some("ConfigMap") => "ConfigMap",
        None if OF_SECRETS.contains(&field) => "Secret",
        _ => return None,
    };
    Some(Wanted { kind, namespace: text("namespace").unwrap_or(namespace).into(), name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(spec: Value) -> Vec<String> {
        let told = |wanted: &Wanted| format!("{} {}/{}", wanted.kind, wanted.namespace, wanted.name);
        references(&json!({ "spec": spec }), "media").iter().map(told).collect()
    }

    #[test]
    fn certificates_of_listeners_are_secrets_of_the_same_namespace() {
        let spec = json!({ "listeners": [{ "tls": { "certificateRefs": [{ "name": "a" }] } }] });
        assert_eq!(found(spec), ["Secret media/a"]);
    }

    #[test]
    fn a_reference_may_name_kind_and_namespace() {
        let authority = json!({ "kind": "ConfigMap", "group": "", "name": "ca", "namespace": "certs" });
        let spec = json!({ "validation": { "caCertificateRefs": [authority, authority] } });
        assert_eq!(found(spec), ["ConfigMap certs/ca"]);
    }

    #[test]
    fn backends_parents_and_other_groups_are_none() {
        let spec = json!({
            "parentRefs": [{ "name": "a" }],
            "rules": [{ "backendRefs": [{ "name": "b", "port": 80 }] }],
            "certificateRefs": [{ "name": "c", "group": "example.com" }],
        });
        assert!(found(spec).is_empty());
    }
}
