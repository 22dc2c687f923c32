//! References from one object to another.

use super::word::Lately;
use super::{GATEWAY_GROUP, Word};
use serde::{Deserialize, Deserializer, Serialize};
use std::ops::Deref;
use std::sync::Arc;

/// `parentRefs[]`: what a route attaches to.
///
/// A status repeats it as it was written, so what is absent stays so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Box<str>>,
    pub name: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl ParentRef {
    /// The group, which is the Gateway API's unless another one is named.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GATEWAY_GROUP)
    }

    /// The kind, which is `Gateway` unless another one is named.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Gateway")
    }
}

/// `parentRefs`. Most routes have the same ones, and share them.
#[derive(Debug, Clone)]
pub struct ParentRefs(Arc<[ParentRef]>);

impl Default for ParentRefs {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl Deref for ParentRefs {
    type Target = [ParentRef];

    fn deref(&self) -> &[ParentRef] {
        &self.0
    }
}

impl ParentRefs {
    fn of(list: Vec<ParentRef>) -> Self {
        thread_local! {
            static LATELY: Lately<ParentRefs> = Lately::new(64);
        }
        LATELY.with(|lately| lately.find(&list, |known| *known.0 == *list, || Self(list.as_slice().into())))
    }
}

impl<'de> Deserialize<'de> for ParentRefs {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        Ok(Self::of(Option::deserialize(source)?.unwrap_or_default()))
    }
}

/// A reference to a backend: a Service unless another kind is named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    pub group: Option<Word>,
    pub kind: Option<Word>,
    pub namespace: Option<Word>,
    pub name: Box<str>,
    pub port: Option<u16>,
}

/// A reference to an object of any kind, perhaps in another namespace: a Secret unless another kind is named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    pub group: Option<Box<str>>,
    pub kind: Option<Box<str>>,
    pub namespace: Option<Box<str>>,
    pub name: Box<str>,
}

/// A reference to an object in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    #[serde(default)]
    pub group: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
}

/// `parametersRef` of a class or a Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParametersRef {
    #[serde(default)]
    pub group: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    pub namespace: Option<Box<str>>,
}
