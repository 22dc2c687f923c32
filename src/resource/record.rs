//! What the API server knows of an object beside what its user wrote: identity, version, status.

use super::ObjectRef;
use foldhash::fast::RandomState;
use serde_json::Value;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What is known of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// In which it was read: `gateway.networking.k8s.io/v1`.
    pub api_version: Box<str>,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub generation: Option<i64>,
    /// As JSON; `None` when there is none.
    pub status: Option<Arc<str>>,
    /// Whether nobody has looked at it since we did, by [`observed_by`].
    pub observed: bool,
}

/// Whether this field manager was the last to note which generation of an object it accepted, by the object's
/// `managedFields`: whoever looks at an object after us takes that field over. Only of the kinds whose status is all
/// of one controller and does not say of which.
pub fn observed_by(kind: &str, managed_fields: &Value, manager: &str) -> bool {
    const OBSERVED: &str = "/fieldsV1/f:status/f:conditions/k:{\"type\":\"Accepted\"}/f:observedGeneration";
    let writes = managed_fields.as_array().filter(|_| matches!(kind, "Gateway" | "ListenerSet"));
    writes
        .into_iter()
        .flatten()
        .filter(|write| write["subresource"] == "status" && write["manager"] == manager)
        .any(|write| write.pointer(OBSERVED).is_some())
}

impl Record {
    /// Whether this is known to be newer than the other one.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let number = |record: &Self| record.resource_version.parse::<u64>().ok();
        // Versions can be compared by their order only where they are numbers, as they are with etcd.
        self.uid == other.uid && matches!((number(self), number(other)), (Some(a), Some(b)) if a > b)
    }
}

/// The records of all objects whose status we write or read, shared by who watches and who writes.
#[derive(Debug, Clone)]
pub struct Records {
    map: Arc<Mutex<HashMap<ObjectRef, Arc<Record>, RandomState>>>,
    changes: watch::Sender<u64>,
}

impl Default for Records {
    fn default() -> Self {
        Self { map: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl Records {
    /// The record of an object.
    pub fn get(&self, object: &ObjectRef) -> Option<Arc<Record>> {
        self.map().get(object).cloned()
    }

    /// The objects that nobody has looked at since we did.
    pub fn observed(&self) -> Vec<ObjectRef> {
        let map = self.map();
        map.iter().filter(|(_, record)| record.observed).map(|(object, _)| object.clone()).collect()
    }

    /// Notes what is known of an object now. Older news than what is known are passed over.
    pub fn put(&self, object: ObjectRef, record: Arc<Record>) {
        let changed = match self.map().entry(object) {
            Entry::Occupied(known) if known.get().is_newer_than(&record) || *known.get() == record => false,
            Entry::Occupied(mut known) => {
                known.insert(record);
                true
            }
            Entry::Vacant(place) => {
                place.insert(record);
                true
            }
        };
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Notes that an object is gone.
    pub fn remove(&self, object: &ObjectRef) {
        if self.map().remove(object).is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Says when a record changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn map(&self) -> MutexGuard<'_, HashMap<ObjectRef, Arc<Record>, RandomState>> {
        // Nothing can fail half-way while the lock is held.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str, version: &str) -> Arc<Record> {
        Arc::new(Record {
            api_version: "v1".into(),
            uid: uid.into(),
            resource_version: version.into(),
            generation: None,
            status: None,
            observed: false,
        })
    }

    #[test]
    fn news_that_come_late_do_not_replace_newer_ones() {
        let records = Records::default();
        let route = ObjectRef { kind: "HTTPRoute".into(), namespace: "a".into(), name: "b".into() };
        records.put(route.clone(), record("1", "10"));
        records.put(route.clone(), record("1", "9"));
        assert_eq!(*records.get(&route).expect("it was put").resource_version, *"10");
        // Another object of the same name.
        records.put(route.clone(), record("2", "8"));
        assert_eq!(*records.get(&route).expect("it was put").resource_version, *"8");
    }
}
