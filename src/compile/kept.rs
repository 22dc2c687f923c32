//! What a compilation leaves for the next one, so that a change of one route costs about as much as one route.
//!
//! A route depends on itself and on what is no route: where all of that ([`Around`]) is the very same, what became of
//! a route that is the very same is taken over. Where routes meet, the next compilation looks again: at host names
//! that two kinds of routes claim, and at the paths of every host of a route that came, went or changed. Rules and
//! clusters are known by their places, so routes whose places moved are compiled again.

use super::attach::ListenerId;
use super::backends::Identities;
use super::gateways::{Bound, Listening};
use super::report::{ReportedRoute, RouteReport, RouteVerdicts};
use super::routes::Written;
use super::{Binding, Verdict, name, socket_id};
use crate::host::HostIndex;
use crate::resource::{Diagnostic, Place, Snapshot};
use crate::routing::{GatewayId, PathIndex, RoutingTable};
use crate::upstream::ClientCertificate;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;
use std::vec::IntoIter;

/// What the next compilation is given. It shares all that is large with the revision that serves.
#[derive(Debug, Default)]
pub struct Kept {
    pub(super) around: Option<Around>,
    /// What became of all routes, in their order.
    pub(super) routes: Vec<Done>,
    pub(super) table: Arc<RoutingTable>,
}

/// What became of one route. There may be a hundred thousand.
#[derive(Debug)]
pub(super) struct Done {
    pub route: ReportedRoute,
    pub place: Option<Place>,
    pub fate: Arc<Fate>,
    /// Its rules and its clusters by their places.
    pub rules: Places,
    pub clusters: Places,
}

/// What became of a route beside rules and clusters. Nearly all routes have the same fate, and share it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Fate {
    pub verdicts: Arc<RouteVerdicts>,
    /// All that it attached to, served or not.
    pub listeners: Box<[ListenerId]>,
    /// Whether a route of another kind had one of its host names first.
    pub refused: bool,
    /// Whether listeners count it.
    pub accepted: bool,
    pub findings: Vec<Diagnostic>,
    /// The policies that it uses, and for which Gateways: places among those that there are.
    pub policies: Vec<(usize, usize)>,
}

impl Done {
    /// What to tell of the route.
    pub fn report(&self) -> RouteReport {
        RouteReport { route: self.route.clone(), verdicts: Arc::clone(&self.fate.verdicts) }
    }
}

/// So many, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub first: u32,
    pub count: u32,
}

impl Places {
    /// The places from the first on, before `end`.
    pub fn new(first: usize, end: usize) -> Self {
        let number = |place| u32::try_from(place).expect("memory ends before four thousand million rules");
        Self { first: number(first), count: number(end - first) }
    }

    pub fn range(self) -> Range<usize> {
        self.first as usize..(self.first + self.count) as usize
    }
}

/// All that routes depend on beside themselves and each other.
#[derive(Debug)]
pub(super) struct Around {
    /// Without routes.
    snapshot: Snapshot,
    bindings: Vec<(GatewayId, String, String)>,
    /// Of all listeners; certificates have a say in it, and so has time.
    listeners: Vec<Verdict>,
    of_gateways: Vec<(GatewayId, Option<ClientCertificate>)>,
    of_backends: Vec<((String, String), ClientCertificate)>,
}

impl Around {
    pub fn new(
        snapshot: &Snapshot,
        bindings: &[Binding],
        bound: &[Bound<'_>],
        identities: &Identities<'_>,
    ) -> Self {
        let listeners = bound.iter().flat_map(|bound| &bound.listeners);
        let of_backends = identities.of_backends.iter();
        let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        Self {
            snapshot: snapshot.without_routes(),
            bindings: bindings
                .iter()
                .map(|one| (one.id, one.namespace.clone(), one.object.clone()))
                .collect(),
            listeners: listeners.map(|listener| listener.accepted.clone()).collect(),
            of_gateways: identities.of_gateways.clone(),
            of_backends: of_backends.map(|(name, one)| (owned(name), one.clone())).collect(),
        }
    }

    /// Whether every route means the same with the other one.
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { snapshot, bindings, listeners, of_gateways, of_backends } = self;
        is_same(snapshot, &other.snapshot)
            && *bindings == other.bindings
            && *listeners == other.listeners
            && *of_gateways == other.of_gateways
            && *of_backends == other.of_backends
    }
}

/// Whether all kinds are the same that routes refer to.
fn is_same(one: &Snapshot, other: &Snapshot) -> bool {
    let Snapshot {
        // These decide about Gateways only.
        gateway_classes: _,
        envoy_proxies: _,
        gateways,
        listener_sets,
        http_routes: _,
        grpc_routes: _,
        tls_routes: _,
        tcp_routes: _,
        udp_routes: _,
        backend_tls_policies,
        reference_grants,
        backends,
        http_route_filters,
        services,
        endpoint_slices,
        secrets,
        config_maps,
        namespaces,
        diagnostics: _,
        here: _,
    } = one;
    // Of Services in files it is said when they have no endpoints.
    let has_places = services.iter().any(|entry| entry.place.is_some());
    gateways.is_same(&other.gateways)
        && listener_sets.is_same(&other.listener_sets)
        && backend_tls_policies.is_same(&other.backend_tls_policies)
        && reference_grants.is_same(&other.reference_grants)
        && backends.is_same(&other.backends)
        && http_route_filters.is_same(&other.http_route_filters)
        && services.is_same(&other.services)
        && (!has_places || endpoint_slices.is_same(&other.endpoint_slices))
        && secrets.is_same(&other.secrets)
        && config_maps.is_same(&other.config_maps)
        && namespaces.is_same(&other.namespaces)
}

/// The routes of the compilation before, to be asked for in the order of routes.
pub(super) struct Former {
    rest: Peekable<IntoIter<Done>>,
    gone: Vec<Done>,
}

impl Former {
    pub fn new(routes: Vec<Done>) -> Self {
        Self { rest: routes.into_iter().peekable(), gone: Vec::new() }
    }

    /// What became of this very route, which must be the next one in order.
    pub fn find(&mut self, route: &Written<'_>) -> Option<Done> {
        while let Some(next) = self.rest.peek() {
            let same = route.is_same(&next.route, next.place.as_ref());
            if same {
                return self.rest.next();
            }
            if next.route.order() > route.kept().order() {
                return None;
            }
            self.gone.extend(self.rest.next());
        }
        None
    }

    /// All that was not found.
    pub fn gone(self) -> impl Iterator<Item = Done> {
        self.gone.into_iter().chain(self.rest)
    }
}

/// The paths that a listener has in a table, by host name.
pub(super) fn paths<'t>(
    table: &'t RoutingTable,
    bound: &Bound<'_>,
    listening: &Listening<'_>,
) -> Option<&'t HostIndex<Arc<PathIndex>>> {
    let socket = table.socket(socket_id(bound, listening)?)?;
    let name = name(listening);
    socket.listeners().iter().find(|known| known.name == name).map(|known| &known.hosts)
}

/// The paths of all host names: of those that were made now, and of all others as they were. A host name for which none
/// were made has none any more.
pub(super) fn merged(
    before: Option<&HostIndex<Arc<PathIndex>>>,
    made: HostIndex<Arc<PathIndex>>,
) -> HostIndex<Arc<PathIndex>> {
    let mut hosts = before.cloned().unwrap_or_default();
    for (host, paths) in made.iter() {
        if paths.is_open() {
            *hosts.entry(&host, Arc::default) = Arc::clone(paths);
        } else {
            hosts.remove(&host);
        }
    }
    hosts
}

#[cfg(test)]
mod tests;
