//! Secret, whose content no log and no dump can show.

use super::Metadata;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;

/// Bytes that print as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Sensitive(Box<[u8]>);

impl Sensitive {
    /// The bytes themselves; whoever asks for them answers for them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A Secret, decoded.
#[derive(Debug, Clone)]
pub struct Secret {
    pub metadata: Metadata,
    /// `kubernetes.io/tls`; `Opaque` when absent.
    pub r#type: Option<Box<str>>,
    values: Box<[(Box<str>, Sensitive)]>,
}

impl Secret {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Sensitive> {
        self.values.iter().find(|(name, _)| &**name == key).map(|(_, value)| value)
    }

    /// Whether both say the same, whatever their metadata.
    pub fn same_content(&self, other: &Self) -> bool {
        self.r#type == other.r#type && self.values == other.values
    }
}

/// The Secret as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    metadata: Metadata,
    r#type: Option<Box<str>>,
    data: Option<BTreeMap<Box<str>, Option<Box<str>>>>,
    string_data: Option<BTreeMap<Box<str>, Option<Box<str>>>>,
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let Written { metadata, r#type, data, string_data } = Written::deserialize(source)?;
        let mut values = BTreeMap::new();
        for (key, text) in data.unwrap_or_default() {
            // Block scalars bring line breaks along, which kubectl's base64 reader skips as well.
            let text: String = text.unwrap_or_default().split_ascii_whitespace().collect();
            let bytes = STANDARD
                .decode(text)
                // The decoder's own words would name bytes of the secret.
                .map_err(|_| {
                    D::Error::custom(format!("data.{key} is no base64, maybe it belongs under stringData"))
                })?;
            values.insert(key, Sensitive(bytes.into()));
        }
        // `stringData` overrides `data`, as the API server merges them.
        for (key, text) in string_data.unwrap_or_default() {
            values.insert(key, Sensitive(text.unwrap_or_default().as_bytes().into()));
        }
        Ok(Self { metadata, r#type, values: values.into_iter().collect() })
    }
}
