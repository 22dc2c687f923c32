//! One object as the API server sends it, and what is kept of it.
//!
//! Managed fields, a copy of the applied manifest and most annotations are larger than the object itself; they
//! are gone before the object is stored.

use super::kinds::Kind;
use super::references::{Wanted, references};
use crate::resource::{
    Diagnostic, Object, ObjectHeader, ObjectRef, Reading, Record, Severity, Standing, observed_by, read,
    standing,
};
use crate::source::document::written;
use foldhash::fast::FixedState;
use kube::api::{ApiResource, ObjectMeta};
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

/// The text of an object, with the names that the watch needs. Nothing in the text can make it unreadable.
#[derive(Debug, Clone)]
pub(super) struct Item {
    metadata: ObjectMeta,
    text: Box<RawValue>,
}

/// What is kept of an object.
#[derive(Debug)]
pub(super) struct Stored {
    /// Its name, and its namespace, which is empty for kinds without one.
    pub key: Key,
    /// `None` when it cannot be read.
    pub object: Option<Object>,
    pub diagnostics: Vec<Diagnostic>,
    pub wanted: Vec<Wanted>,
    /// Of everything that a user can write into it.
    pub hash: u64,
    pub record: Arc<Record>,
}

/// Namespace and name.
pub(super) type Key = (Box<str>, Box<str>);

impl Item {
    /// The namespace and name.
    pub fn key(&self) -> Key {
        key(&self.metadata)
    }

    /// Reads the object; `manager` is who writes statuses for us.
    pub fn read(self, kind: &Kind, version: &str, manager: &str) -> Stored {
        let Self { metadata, text } = self;
        let key = key(&metadata);
        let named =
            ObjectRef { kind: kind.kind.to_owned(), namespace: key.0.to_string(), name: key.1.to_string() };
        // It was read once to find its end, so it is JSON.
        let mut value: Value = serde_json::from_str(text.get()).unwrap_or_default();
        let status = value.as_object_mut().and_then(|object| object.remove("status"));
        let generation = value.pointer("/metadata/generation").and_then(Value::as_i64);
        let observed = observed_by(kind.kind, &value["metadata"]["managedFields"], manager);
        strip(&mut value);
        let hash = FixedState::default().hash_one(value.to_string());
        let header = kind.header(version);
        let is_read = standing(&header) == Standing::Read;
        let wanted = if is_read { references(&value, &key.0) } else { Vec::new() };
        let (object, diagnostics) = understand(&header, value, named);
        let record = Record {
            api_version: kind.api_version(version).into(),
            uid: metadata.uid.unwrap_or_default().into(),
            resource_version: metadata.resource_version.unwrap_or_default().into(),
            generation,
            status: status.filter(|_| kind.carries_status()).map(|status| status.to_string().into()),
            observed,
        };
        Stored { key, object, diagnostics, wanted, hash, record: Arc::new(record) }
    }
}

pub(super) fn key(metadata: &ObjectMeta) -> Key {
    let owned = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    (owned(&metadata.namespace), owned(&metadata.name))
}

/// Takes out what changes without anybody changing the object.
fn strip(value: &mut Value) {
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in ["managedFields", "resourceVersion", "uid", "selfLink"] {
        metadata.remove(field);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotations.remove("endpoints.kubernetes.io/last-change-trigger-time");
    }
}

fn understand(header: &ObjectHeader, value: Value, named: ObjectRef) -> (Option<Object>, Vec<Diagnostic>) {
    match read(header, value) {
        Ok(Some(Reading { object, unknown })) => {
            let found = unknown.into_iter().map(|path| Diagnostic {
                severity: Severity::Warning,
                object: named.clone(),
                place: None,
                field: written(&path),
                reason: "UnsupportedField",
                message: "the field is not supported, everything goes on as if it were not there".to_owned(),
            });
            let diagnostics = found.collect();
            (Some(object), diagnostics)
        }
        Ok(None) => {
            let message = format!(
                "{} objects are not served yet; everything goes on as if it were not there",
                named.kind
            );
            (None, vec![whole(Severity::Warning, named, "UnsupportedKind", message)])
        }
        Err(error) => {
            // The words of a parser may quote what it stumbled over.
            let message = match named.kind.as_str() {
                "Secret" => "the Secret cannot be read".to_owned(),
                _ => format!("cannot be read: {error}; what was read of it before is still served"),
            };
            (None, vec![whole(Severity::Error, named, "Unreadable", message)])
        }
    }
}

/// A diagnostic of an object that is not served.
fn whole(severity: Severity, object: ObjectRef, reason: &'static str, message: String) -> Diagnostic {
    Diagnostic { severity, object, place: None, field: String::new(), reason, message }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            metadata: Names,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Names {
            name: Option<String>,
            namespace: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
        }
        let text = Box::<RawValue>::deserialize(source)?;
        let Head { metadata } = serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
        let Names { name, namespace, uid, resource_version } = metadata;
        let metadata = ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() };
        Ok(Self { metadata, text })
    }
}

impl kube::Resource for Item {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
