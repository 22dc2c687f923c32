//! All objects of one moment, in an order that does not depend on where they come from.

use super::{
    Backend, BackendTlsPolicy, ConfigMap, Diagnostic, EndpointSlice, Gateway, GatewayClass, GrpcRoute,
    HttpRoute, HttpRouteFilter, ListenerSet, Namespace, Object, Place, ReferenceGrant, Resource, Secret,
    Service, Severity, TcpRoute, TlsRoute, UdpRoute,
};
use std::sync::Arc;

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
        let mut snapshot = Self { diagnostics, ..Self::default() };
        for (object, place) in objects {
            snapshot.push(object, place);
        }
        snapshot.settle();
        snapshot
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

/// All objects of one kind, sorted by namespace and name.
#[derive(Debug, Clone)]
pub struct Objects<T>(Vec<Entry<T>>);

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Resource> Objects<T> {
    /// The object of this name; the namespace is empty for kinds without one.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Entry<T>> {
        let key = |entry: &Entry<T>| entry.object.metadata().key().cmp(&(namespace, name));
        self.0.binary_search_by(key).ok().map(|found| &self.0[found])
    }

    /// All objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> &[Entry<T>] {
        let before = |entry: &Entry<T>| &*entry.object.metadata().namespace < namespace;
        let within = |entry: &Entry<T>| &*entry.object.metadata().namespace == namespace;
        let start = self.0.partition_point(before);
        let rest = &self.0[start..];
        &rest[..rest.partition_point(within)]
    }

    /// All objects.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry<T>> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, entry: Entry<T>) {
        self.0.push(entry);
    }

    /// Sorts and keeps the first of each name.
    pub(super) fn settle(&mut self, diagnostics: &mut Vec<Diagnostic>) {
        self.0.sort_by(|a, b| a.object.metadata().key().cmp(&b.object.metadata().key()));
        self.0.shrink_to_fit();
        self.0.dedup_by(|second, first| {
            let same = second.object.metadata().key() == first.object.metadata().key();
            if same {
                diagnostics.push(duplicate(first, second));
            }
            same
        });
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
