//! Reads one object of any source: a YAML document, an item of a list, an answer of the API server.

use super::{ENVOY_GATEWAY_GROUP, GATEWAY_GROUP, Object, ObjectRef, known_kind, read_kind};
use serde::Deserialize;
use serde_ignored::Path;

/// What says which object it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    #[serde(default)]
    pub api_version: Option<String>,
    #[serde(default)]
    pub kind: Option<String>,
    #[serde(default)]
    pub metadata: Option<HeaderMetadata>,
}

/// Name and namespace of a [`Header`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct HeaderMetadata {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub namespace: Option<String>,
}

impl Header {
    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.as_deref().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group)
    }

    /// The version within the group.
    pub fn version(&self) -> &str {
        let text = self.api_version.as_deref().unwrap_or_default();
        text.split_once('/').map_or(text, |(_, version)| version)
    }

    /// The object's name for diagnostics, as far as it is known.
    pub fn reference(&self) -> ObjectRef {
        let Some(kind) = self.kind.clone() else {
            return ObjectRef { kind: "document".to_owned(), namespace: String::new(), name: String::new() };
        };
        let namespaced = known_kind(self.group(), &kind).unwrap_or(true);
        let metadata = self.metadata.clone().unwrap_or_default();
        let namespace = match metadata.namespace {
            _ if !namespaced => String::new(),
            Some(namespace) if !namespace.is_empty() => namespace,
            _ => "default".to_owned(),
        };
        ObjectRef { kind, namespace, name: metadata.name.unwrap_or_default() }
    }
}

/// What becomes of objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// They are read.
    Read,
    /// They concern a gateway, and this one does not serve them yet.
    NotServed,
    /// They are somebody else's.
    Foreign,
}

/// What becomes of objects of this kind.
pub fn standing(header: &Header) -> Standing {
    const CONCERNED: [&str; 3] = [GATEWAY_GROUP, "gateway.networking.x-k8s.io", ENVOY_GATEWAY_GROUP];
    let group = header.group();
    match header.kind.as_deref() {
        Some(kind) if known_kind(group, kind).is_some() => Standing::Read,
        _ if CONCERNED.contains(&group) => Standing::NotServed,
        _ => Standing::Foreign,
    }
}

/// An object with the fields that nobody knows.
#[derive(Debug, Clone)]
pub struct Reading {
    pub object: Object,
    /// Paths from the object to unknown fields: `["spec", "rules", "0", "backendRef"]`.
    pub unknown: Vec<Vec<String>>,
}

/// Reads the object that `header` announces; `None` when its kind is not read.
///
/// # Errors
/// Those of the source: a field of the wrong type, a missing name.
pub fn read<'de, D: serde::Deserializer<'de>>(
    header: &Header,
    source: D,
) -> Result<Option<Reading>, D::Error> {
    let group = header.group();
    let kind = header.kind.as_deref().unwrap_or_default();
    let mut unknown = Vec::new();
    // Of Kubernetes' own kinds only a part is read, so an unknown field of theirs is no news.
    let ours = group == GATEWAY_GROUP || group == ENVOY_GATEWAY_GROUP;
    let object = read_kind(group, kind, source, &mut |path: Path<'_>| {
        let path = segments(&path);
        let foreign =
            matches!(path.first().map(String::as_str), Some("apiVersion" | "kind" | "metadata" | "status"));
        if ours && !foreign {
            unknown.push(path);
        }
    })?;
    Ok(object.map(|object| Reading { object, unknown }))
}

/// The path's keys and indexes, without the traces of optional types.
fn segments(path: &Path<'_>) -> Vec<String> {
    let (parent, last) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(index.to_string())),
        Path::Map { parent, key } => (parent, Some(key.clone())),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            (parent, None)
        }
    };
    let mut segments = segments(parent);
    segments.extend(last);
    segments
}
