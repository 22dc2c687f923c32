//! All objects that are watched, and what a change of one means.

use super::fetch::References;
use super::follow::News;
use super::item::{Key, Stored};
use super::kinds::{Kind, Part, kinds};
use super::references::Wanted;
use crate::resource::{ObjectRef, Records, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// What has to be done again because of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Impact {
    /// Nothing: only a status changed, or what nobody reads.
    Nothing,
    /// Endpoints of clusters that exist.
    Endpoints,
    /// Everything.
    Everything,
}

/// The objects of all kinds.
pub(super) struct Store {
    objects: BTreeMap<&'static str, BTreeMap<Key, (Part, Stored)>>,
    /// The objects as they were last told, and the kinds that changed since.
    told: Snapshot,
    changed: BTreeSet<&'static str>,
    records: Records,
    /// How many objects refer to something.
    wanted: BTreeMap<Wanted, usize>,
    references: watch::Sender<Arc<References>>,
    /// The parts of kinds that are served and were not listed yet.
    unlisted: Vec<(&'static str, Part)>,
    /// For each kind that is read by reference, the references that are settled.
    settled: BTreeMap<&'static str, Option<u64>>,
}

impl Store {
    pub fn new(records: Records, references: watch::Sender<Arc<References>>) -> Self {
        // What is wanted before any object asks for it is never released.
        let wanted = references.borrow().wanted.iter().map(|wanted| (wanted.clone(), 1)).collect();
        let by_reference = |kind: &&Kind| matches!(kind.part, Part::Referenced(_));
        Self {
            objects: BTreeMap::new(),
            told: Snapshot::default(),
            changed: BTreeSet::new(),
            records,
            wanted,
            references,
            unlisted: kinds()
                .filter(|kind| !by_reference(kind) && kind.is_served())
                .map(|kind| (kind.kind, kind.part))
                .collect(),
            settled: kinds().filter(by_reference).map(|kind| (kind.kind, None)).collect(),
        }
    }

    /// Whether every kind that is served was listed, so that what is there is all there is.
    pub fn is_complete(&self) -> bool {
        self.unlisted.is_empty() && self.settled.values().all(Option::is_some)
    }

    /// Whether everything that is referred to is there, as far as it exists.
    pub fn is_settled(&self) -> bool {
        let now = self.references();
        self.settled.values().all(|version| version.is_some_and(|version| version >= now))
    }

    /// How often what is referred to has changed.
    pub fn references(&self) -> u64 {
        self.references.borrow().version
    }

    /// Takes in news of a kind.
    pub fn take(&mut self, kind: &'static Kind, news: News) -> Impact {
        let impact = match news {
            News::All(all) => self.replace(kind, all),
            News::Applied(stored) => self.put(kind, *stored),
            News::Deleted(key) => self.remove(kind, &key),
            News::Settled(version) => {
                self.settled.insert(kind.kind, Some(version));
                Impact::Nothing
            }
        };
        self.publish_references();
        impact
    }

    /// All objects as they are now.
    pub fn snapshot(&mut self) -> Snapshot {
        let changed = std::mem::take(&mut self.changed);
        let objects = changed.iter().filter_map(|kind| self.objects.get(kind)).flat_map(BTreeMap::values);
        let objects = objects.filter_map(|(_, stored)| Some((stored.object.clone()?, None)));
        let stored = self.objects.values().flat_map(BTreeMap::values);
        let diagnostics = stored.flat_map(|(_, stored)| stored.diagnostics.iter().cloned()).collect();
        self.told = self.told.with(|kind| changed.contains(kind), objects, diagnostics);
        self.told.clone()
    }

    fn replace(&mut self, kind: &'static Kind, all: Vec<Stored>) -> Impact {
        self.unlisted.retain(|(name, part)| (*name, *part) != (kind.kind, kind.part));
        let there: BTreeSet<Key> = all.iter().map(|stored| stored.key.clone()).collect();
        let objects = self.objects.entry(kind.kind).or_default();
        let gone: Vec<Key> = objects
            .iter()
            .filter(|(key, (part, _))| *part == kind.part && !there.contains(*key))
            .map(|(key, _)| key.clone())
            .collect();
        let removed = gone.iter().map(|key| self.remove(kind, key)).max();
        let put = all.into_iter().map(|stored| self.put(kind, stored)).max();
        removed.max(put).unwrap_or(Impact::Nothing)
    }

    fn put(&mut self, kind: &'static Kind, mut stored: Stored) -> Impact {
        if kind.carries_status() {
            self.records.put(named(kind, &stored.key), stored.record.clone());
        }
        let objects = self.objects.entry(kind.kind).or_default();
        let before = objects.remove(&stored.key);
        let changed = before.as_ref().is_none_or(|(_, before)| before.hash != stored.hash);
        if let Some((_, before)) = before {
            release(&mut self.wanted, &before.wanted);
            // What says the same stays the same object, which the revision that serves shares: most updates are
            // echoes of a status. Of an object that became unreadable the last good version stays.
            stored.object = if changed { stored.object.or(before.object) } else { before.object };
        }
        for wanted in &stored.wanted {
            *self.wanted.entry(wanted.clone()).or_default() += 1;
        }
        objects.insert(stored.key.clone(), (kind.part, stored));
        if changed { self.changed(kind) } else { Impact::Nothing }
    }

    fn remove(&mut self, kind: &'static Kind, key: &Key) -> Impact {
        let objects = self.objects.entry(kind.kind).or_default();
        // An object that left one part of its kind may have come to another one.
        if objects.get(key).is_none_or(|(part, _)| *part != kind.part) {
            return Impact::Nothing;
        }
        if let Some((_, stored)) = objects.remove(key) {
            release(&mut self.wanted, &stored.wanted);
        }
        if kind.carries_status() {
            self.records.remove(&named(kind, key));
        }
        self.changed(kind)
    }

    fn changed(&mut self, kind: &'static Kind) -> Impact {
        self.changed.insert(kind.kind);
        if kind.kind == "EndpointSlice" { Impact::Endpoints } else { Impact::Everything }
    }

    fn publish_references(&self) {
        self.references.send_if_modified(|references| {
            if references.wanted.len() == self.wanted.len() && references.wanted.iter().eq(self.wanted.keys())
            {
                return false;
            }
            let wanted = self.wanted.keys().cloned().collect();
            *references = Arc::new(References { version: references.version + 1, wanted });
            true
        });
    }
}

fn named(kind: &Kind, (namespace, name): &Key) -> ObjectRef {
    ObjectRef { kind: kind.kind.to_owned(), namespace: namespace.to_string(), name: name.to_string() }
}

fn release(wanted: &mut BTreeMap<Wanted, usize>, released: &[Wanted]) {
    for one in released {
        if let Some(count) = wanted.get_mut(one) {
            *count -= 1;
            if *count == 0 {
                wanted.remove(one);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_not_served_are_not_waited_for() {
        let mut store = Store::new(Records::default(), watch::Sender::default());
        for kind in kinds().filter(|kind| kind.kind != "SecurityPolicy") {
            if kind.is_served() {
                assert!(!store.is_complete(), "{} is waited for", kind.kind);
            }
            let news = match kind.part {
                Part::Referenced(_) => News::Settled(0),
                _ => News::All(Vec::new()),
            };
            store.take(kind, news);
        }
        assert!(store.is_complete());
    }
}
