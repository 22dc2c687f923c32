//! References from one object to another.

use super::GATEWAY_GROUP;
use serde::{Deserialize, Serialize};

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

/// A reference to a backend: a Service unless another kind is named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    pub group: Option<Box<str>>,
    pub kind: Option<Box<str>>,
    pub namespace: Option<Box<str>>,
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
