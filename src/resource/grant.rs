//! ReferenceGrant: who may refer to objects of this namespace from another one.

use super::{List, Metadata};
use serde::Deserialize;

/// A permission.
#[derive(Debug, Clone, Deserialize)]
pub struct ReferenceGrant {
    pub metadata: Metadata,
    pub spec: ReferenceGrantSpec,
}

/// `spec` of a ReferenceGrant: any of `from` may refer to any of `to`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ReferenceGrantSpec {
    #[serde(default)]
    pub from: List<GrantFrom>,
    #[serde(default)]
    pub to: List<GrantTo>,
}

/// `from[]`.
#[derive(Debug, Clone, Deserialize)]
pub struct GrantFrom {
    #[serde(default, deserialize_with = "super::metadata::or_default")]
    pub group: Box<str>,
    pub kind: Box<str>,
    pub namespace: Box<str>,
}

/// `to[]`; without a name every object of the kind.
#[derive(Debug, Clone, Deserialize)]
pub struct GrantTo {
    #[serde(default, deserialize_with = "super::metadata::or_default")]
    pub group: Box<str>,
    pub kind: Box<str>,
    pub name: Option<Box<str>>,
}
