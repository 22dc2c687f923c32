//! Name, namespace, labels and age of an object.

use super::{RareList, Word};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::num::NonZero;

/// `metadata`, as far as it means something here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub name: Box<str>,
    /// `default` where a namespaced object has none, as `kubectl apply` does it; empty for other kinds.
    #[serde(default, deserialize_with = "or_default")]
    pub namespace: Word,
    #[serde(default)]
    pub labels: Labels,
    #[serde(default, deserialize_with = "meaningful")]
    pub annotations: Labels,
    #[serde(default, deserialize_with = "not_zero")]
    pub(super) generation: Option<NonZero<i64>>,
    /// In seconds since 1970; 0 where there is none, as in files.
    #[serde(default, deserialize_with = "seconds")]
    pub creation_timestamp: i64,
}

impl Metadata {
    /// Gives the namespace its default, and drops labels that nobody asks for.
    pub(super) fn settle(&mut self, kind: &str, namespaced: bool) {
        if kind.ends_with("Route") {
            self.labels = Labels::default();
        }
        if !namespaced {
            self.namespace = Word::default();
        } else if self.namespace.is_empty() {
            self.namespace = "default".into();
        }
    }

    /// Counts what users change; `None` where nobody counts, as in files.
    pub fn generation(&self) -> Option<i64> {
        self.generation.map(NonZero::get)
    }

    /// The place among objects of one kind.
    pub fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

/// Labels or annotations, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(RareList<(Word, Box<str>)>);

impl Labels {
    /// The value of this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(probe, _)| (**probe).cmp(key)).ok()?;
        Some(&self.0[found].1)
    }

    /// All keys with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl FromIterator<(Box<str>, Box<str>)> for Labels {
    fn from_iter<I: IntoIterator<Item = (Box<str>, Box<str>)>>(pairs: I) -> Self {
        let sorted: BTreeMap<_, _> = pairs.into_iter().collect();
        Self(sorted.into_iter().map(|(key, value)| (Word::from(&*key), value)).collect())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let pairs = Option::<BTreeMap<Box<str>, Option<Box<str>>>>::deserialize(source)?.unwrap_or_default();
        Ok(pairs.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
    }
}

/// Keeps the annotations that can mean something: others (an applied manifest, dashboards' hints) are the
/// larger part of an object.
fn meaningful<'de, D: Deserializer<'de>>(source: D) -> Result<Labels, D::Error> {
    const PREFIXES: [&str; 2] = ["trigate.dev/", "service.kubernetes.io/"];
    let Labels(pairs) = Labels::deserialize(source)?;
    const NAMES: [&str; 2] = ["cert-manager.io/issuer", "cert-manager.io/cluster-issuer"];
    let kept = |key: &str| NAMES.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    Ok(Labels(pairs.iter().filter(|(key, _)| kept(key)).cloned().collect()))
}

/// An RFC 3339 time; what is none counts as absent, for it decides ties only.
fn seconds<'de, D: Deserializer<'de>>(source: D) -> Result<i64, D::Error> {
    let text = Option::<Box<str>>::deserialize(source)?;
    let time = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Ok(time.map(jiff::Timestamp::as_second).unwrap_or_default())
}

fn not_zero<'de, D: Deserializer<'de>>(source: D) -> Result<Option<NonZero<i64>>, D::Error> {
    Ok(Option::<i64>::deserialize(source)?.and_then(NonZero::new))
}

/// The type's default where the field is `null`.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    source: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(source)?.unwrap_or_default())
}
