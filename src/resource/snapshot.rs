//! All objects of one moment, in an order that does not depend on where they come from.

use super::{
    Backend, BackendTlsPolicy, ConfigMap, Diagnostic, EndpointSlice, EnvoyProxy, Gateway, GatewayClass,
    GrpcRoute, HttpRoute, HttpRouteFilter, ListenerSet, Namespace, Object, Place, ReferenceGrant, Resource,
    Secret, Service, Severity, TcpRoute, TlsRoute, UdpRoute,
};
use foldhash::fast::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

/// What users wrote, with what could not be read of it.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub gateway_classes: Objects<GatewayClass>,
    pub gateways: Objects<Gateway>,
    pub listener_sets: Objects<ListenerSet>,
    pub http_routes: Objects<HttpRoute>,
    pub grpc_routes: Objects<GrpcRoute>,
    pub tls_routes: Objects<TlsRoute>,
    pub tcp_routes: Objects<TcpRoute>,
    pub udp_routes: Objects<UdpRoute>,
    pub backend_tls_policies: Objects<BackendTlsPolicy>,
    pub reference_grants: Objects<ReferenceGrant>,
    pub backends: Objects<Backend>,
    pub http_route_filters: Objects<HttpRouteFilter>,
    pub envoy_proxies: Objects<EnvoyProxy>,
    pub services: Objects<Service>,
    pub endpoint_slices: Objects<EndpointSlice>,
    pub secrets: Objects<Secret>,
    pub config_maps: Objects<ConfigMap>,
    pub namespaces: Objects<Namespace>,
    /// What is wrong with objects before anybody asks what they mean.
    pub diagnostics: Vec<Diagnostic>,
    /// Where this process runs, for Services that want to be served from near by.
    pub here: Here,
}

/// A place in a cluster; what is `None` is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Here {
    pub node: Option<Box<str>>,
    pub zone: Option<Box<str>>,
}

impl Snapshot {
    /// A snapshot of these objects. Of two with one name the first wins, and a diagnostic names both.
    pub fn new(
        objects: impl IntoIterator<Item = (Object, Option<Place>)>,
        diagnostics: Vec<Diagnostic>,
    ) -> Self {
        Self::default().with(|_| true, objects, diagnostics)
    }

    /// The same with these objects of the kinds that changed; those of other kinds are shared, whatever `objects` has.
    pub fn with(
        &self,
        changed: impl Fn(&str) -> bool,
        objects: impl IntoIterator<Item = (Object, Option<Place>)>,
        diagnostics: Vec<Diagnostic>,
    ) -> Self {
        let mut snapshot = Self { diagnostics, ..self.clone() };
        snapshot.forget(&changed);
        for (object, place) in objects {
            if changed(object.kind()) {
                snapshot.push(object, place);
            }
        }
        snapshot.settle(&changed);
        snapshot
    }

    /// The same without routes, and without what is wrong with objects.
    pub fn without_routes(&self) -> Self {
        Self {
            http_routes: Objects::default(),
            grpc_routes: Objects::default(),
            tls_routes: Objects::default(),
            tcp_routes: Objects::default(),
            udp_routes: Objects::default(),
            diagnostics: Vec::new(),
            ..self.clone()
        }
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An object with the place where it stands.
#[derive(Debug, Clone)]
pub struct Entry<T> {
    pub object: Arc<T>,
    pub place: Option<Place>,
}

/// All objects of one kind, sorted by namespace and name. Copies share them.
#[derive(Debug)]
pub struct Objects<T>(Arc<List<T>>);

#[derive(Debug, Clone)]
struct List<T> {
    entries: Vec<Entry<T>>,
    /// Objects whose names others have, too.
    duplicates: Vec<Diagnostic>,
    /// Made when somebody first asks for an object by its name.
    index: OnceLock<Index>,
}

impl<T> Clone for Objects<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self(Arc::new(List { entries: Vec::new(), duplicates: Vec::new(), index: OnceLock::new() }))
    }
}

impl<T> Entry<T> {
    /// Whether this is the very same object at the same place.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.object, &other.object) && self.place == other.place
    }
}

impl<T: Resource> Objects<T> {
    /// The object of this name; the namespace is empty for kinds without one.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Entry<T>> {
        let key = |entry: &Entry<T>| entry.object.metadata().key() == (namespace, name);
        let List { entries, index, .. } = &*self.0;
        index.get_or_init(|| Index::of(entries)).find(&(namespace, name), entries, key)
    }

    /// Whether these are the very same objects at the same places.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |(one, other): (&Entry<T>, &Entry<T>)| one.is_same(other);
        Arc::ptr_eq(&self.0, &other.0)
            || (self.len() == other.len() && self.iter().zip(other.iter()).all(same))
    }

    /// All objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> &[Entry<T>] {
        let before = |entry: &Entry<T>| &*entry.object.metadata().namespace < namespace;
        let within = |entry: &Entry<T>| &*entry.object.metadata().namespace == namespace;
        let entries = &self.0.entries;
        let rest = &entries[entries.partition_point(before)..];
        &rest[..rest.partition_point(within)]
    }

    /// All objects.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry<T>> {
        self.0.entries.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    pub(super) fn push(&mut self, entry: Entry<T>)
    where
        T: Clone,
    {
        Arc::make_mut(&mut self.0).entries.push(entry);
    }

    /// Sorts and keeps the first of each name.
    pub(super) fn settle(&mut self)
    where
        T: Clone,
    {
        let List { entries, duplicates, index: _ } = Arc::make_mut(&mut self.0);
        entries.sort_by(|a, b| a.object.metadata().key().cmp(&b.object.metadata().key()));
        entries.dedup_by(|second, first| {
            let same = second.object.metadata().key() == first.object.metadata().key();
            if same {
                duplicates.push(duplicate(first, second));
            }
            same
        });
        entries.shrink_to_fit();
    }

    /// What is wrong with objects that have the name of another one.
    pub(super) fn duplicates(&self) -> &[Diagnostic] {
        &self.0.duplicates
    }
}

/// Where entries are, by the hash of their names. A search by halves would compare a dozen names, each of them
/// somewhere else in memory; ten thousand routes ask for as many Services.
#[derive(Debug, Clone)]
struct Index {
    hasher: RandomState,
    /// A place plus one, or 0 for nothing; more than half of the slots hold nothing.
    slots: Box<[u32]>,
}

impl Index {
    fn of<T: Resource>(entries: &[Entry<T>]) -> Self {
        let slots = vec![0; (entries.len() * 2 + 1).next_power_of_two()];
        let mut index = Self { hasher: RandomState::default(), slots: slots.into() };
        for (place, entry) in (1..).zip(entries) {
            let free = index.probe(&entry.object.metadata().key()).find(|slot| index.slots[*slot] == 0);
            if let Some(slot) = free {
                index.slots[slot] = place;
            }
        }
        index
    }

    fn find<'e, T>(
        &self,
        key: &(&str, &str),
        entries: &'e [Entry<T>],
        is_it: impl Fn(&Entry<T>) -> bool,
    ) -> Option<&'e Entry<T>> {
        let places = self.probe(key).map(|slot| self.slots[slot]).take_while(|place| *place > 0);
        places.filter_map(|place| entries.get(place as usize - 1)).find(|entry| is_it(entry))
    }

    /// The slots in which a name may be, in order.
    fn probe(&self, key: &(&str, &str)) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        let start = self.hasher.hash_one(key) as usize;
        (0..=mask).map(move |step| start.wrapping_add(step) & mask)
    }
}

fn duplicate<T: Resource>(first: &Entry<T>, second: &Entry<T>) -> Diagnostic {
    let place = |entry: &Entry<T>| {
        entry.place.as_ref().map_or_else(|| "elsewhere".to_owned(), |place| format!("at {place}"))
    };
    Diagnostic {
        severity: Severity::Error,
        object: second.object.reference(),
        place: second.place.clone(),
        field: String::new(),
        reason: "Duplicate",
        message: format!(
            "the same object stands {} too, which is the one that counts; remove one of them",
            place(first)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Metadata;

    #[test]
    fn every_object_is_found_by_its_name_and_no_other_one() {
        let named = |namespace: &str, name: String| {
            let metadata = Metadata { namespace: namespace.into(), name: name.into(), ..Metadata::default() };
            (Object::Namespace(Arc::new(Namespace { metadata })), None)
        };
        for count in [0, 1, 2, 7, 1000] {
            let objects = (0..count).map(|number| named(["a", "b"][number % 2], format!("n-{number}")));
            let snapshot = Snapshot::new(objects, Vec::new());
            for number in 0..count {
                let name = format!("n-{number}");
                let found = snapshot.namespaces.get(["a", "b"][number % 2], &name).expect("it is there");
                assert_eq!(*found.object.metadata.name, *name);
                assert!(snapshot.namespaces.get(["b", "a"][number % 2], &name).is_none());
            }
            assert!(snapshot.namespaces.get("a", "other").is_none());
        }
    }
}
