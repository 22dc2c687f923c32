//! Routes of all kinds under one view, in the order in which they win over each other.

use super::findings::{Fault, Findings};
use super::report::ReportedRoute;
use crate::resource::{
    Entry, GrpcRoute, GrpcRule, HttpBackendRef, HttpFilter, HttpRoute, HttpRule, Metadata, ParentRef, Place,
    Resource, Retry, SessionPersistence, Severity, Snapshot, StreamRule, TcpRoute, Timeouts, TlsRoute,
    UdpRoute,
};
use std::sync::{Arc, LazyLock};

/// The rule of an HTTPRoute that has none, as the API server would write it.
static DEFAULT_RULE: LazyLock<HttpRule> = LazyLock::new(HttpRule::default);

/// A route as it is written.
#[derive(Clone, Copy)]
pub(super) enum Written<'s> {
    Http(&'s Entry<HttpRoute>),
    Grpc(&'s Entry<GrpcRoute>),
    Tls(&'s Entry<TlsRoute>),
    Tcp(&'s Entry<TcpRoute>),
    Udp(&'s Entry<UdpRoute>),
}

/// Does the same with the entry of every kind.
macro_rules! of_every_kind {
    ($route:expr, $entry:ident => $value:expr) => {
        match $route {
            Written::Http($entry) => $value,
            Written::Grpc($entry) => $value,
            Written::Tls($entry) => $value,
            Written::Tcp($entry) => $value,
            Written::Udp($entry) => $value,
        }
    };
}

/// A rule as it is written, without its matches.
pub(super) struct WrittenRule<'s> {
    pub index: usize,
    pub name: Option<&'s str>,
    pub matches: WrittenMatches<'s>,
    pub filters: &'s [HttpFilter],
    pub backend_refs: &'s [HttpBackendRef],
    pub timeouts: Option<&'s Timeouts>,
    pub retry: Option<&'s Retry>,
    pub session_persistence: Option<&'s SessionPersistence>,
}

/// The matches of either kind.
pub(super) enum WrittenMatches<'s> {
    Http(&'s HttpRule),
    Grpc(&'s GrpcRule),
}

/// All routes: the oldest first, then by namespace and name.
pub(super) fn in_order(snapshot: &Snapshot) -> Vec<Written<'_>> {
    let mut routes: Vec<_> = snapshot.http_routes.iter().map(Written::Http).collect();
    routes.extend(snapshot.grpc_routes.iter().map(Written::Grpc));
    routes.extend(snapshot.tls_routes.iter().map(Written::Tls));
    routes.extend(snapshot.tcp_routes.iter().map(Written::Tcp));
    routes.extend(snapshot.udp_routes.iter().map(Written::Udp));
    // Each kind is sorted by name already, and equal names stay in the order of kinds.
    routes.sort_by(|a, b| a.metadata().key().cmp(&b.metadata().key()));
    routes.sort_by_cached_key(Written::age);
    routes
}

impl<'s> Written<'s> {
    pub fn metadata(&self) -> &'s Metadata {
        of_every_kind!(self, entry => &entry.object.metadata)
    }

    pub fn namespace(&self) -> &'s str {
        &self.metadata().namespace
    }

    /// `creationTimestamp` in seconds; 0 where there is none.
    pub fn age(&self) -> i64 {
        self.metadata().creation_timestamp
    }

    /// Whether this is the very same object at the same place.
    pub fn is_same(&self, route: &ReportedRoute, place: Option<&Place>) -> bool {
        let same = match (self, route) {
            (Self::Http(entry), ReportedRoute::Http(route)) => Arc::ptr_eq(&entry.object, route),
            (Self::Grpc(entry), ReportedRoute::Grpc(route)) => Arc::ptr_eq(&entry.object, route),
            (Self::Tls(entry), ReportedRoute::Tls(route)) => Arc::ptr_eq(&entry.object, route),
            (Self::Tcp(entry), ReportedRoute::Tcp(route)) => Arc::ptr_eq(&entry.object, route),
            (Self::Udp(entry), ReportedRoute::Udp(route)) => Arc::ptr_eq(&entry.object, route),
            _ => false,
        };
        same && of_every_kind!(self, entry => entry.place.as_ref()) == place
    }

    /// Where it stands.
    pub fn place(&self) -> Option<Place> {
        of_every_kind!(self, entry => entry.place.clone())
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => HttpRoute::KIND,
            Self::Grpc(_) => GrpcRoute::KIND,
            Self::Tls(_) => TlsRoute::KIND,
            Self::Tcp(_) => TcpRoute::KIND,
            Self::Udp(_) => UdpRoute::KIND,
        }
    }

    /// The route for as long as its report lives.
    pub fn kept(&self) -> ReportedRoute {
        match self {
            Self::Http(entry) => ReportedRoute::Http(entry.object.clone()),
            Self::Grpc(entry) => ReportedRoute::Grpc(entry.object.clone()),
            Self::Tls(entry) => ReportedRoute::Tls(entry.object.clone()),
            Self::Tcp(entry) => ReportedRoute::Tcp(entry.object.clone()),
            Self::Udp(entry) => ReportedRoute::Udp(entry.object.clone()),
        }
    }

    /// Whether it routes requests, and not connections or flows.
    pub fn speaks_http(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Grpc(_))
    }

    pub fn parent_refs(&self) -> &'s [ParentRef] {
        of_every_kind!(self, entry => &entry.object.spec.parent_refs)
    }

    pub fn hostnames(&self) -> &'s [Box<str>] {
        match self {
            Self::Http(entry) => &entry.object.spec.hostnames,
            Self::Grpc(entry) => &entry.object.spec.hostnames,
            Self::Tls(entry) => &entry.object.spec.hostnames,
            Self::Tcp(_) | Self::Udp(_) => &[],
        }
    }

    pub fn uses_default_gateways(&self) -> bool {
        let scope = of_every_kind!(self, entry => &entry.object.spec.use_default_gateways);
        scope.as_deref() == Some("All")
    }

    pub fn rules(&self) -> Vec<WrittenRule<'s>> {
        match self {
            Self::Http(entry) => match &entry.object.spec.rules {
                Some(rules) => rules.iter().enumerate().map(http_rule).collect(),
                None => vec![http_rule((0, &DEFAULT_RULE))],
            },
            Self::Grpc(entry) => entry.object.spec.rules.iter().enumerate().map(grpc_rule).collect(),
            Self::Tls(entry) => entry.object.spec.rules.iter().enumerate().map(stream_rule).collect(),
            Self::Tcp(entry) => entry.object.spec.rules.iter().enumerate().map(stream_rule).collect(),
            Self::Udp(entry) => entry.object.spec.rules.iter().enumerate().map(stream_rule).collect(),
        }
    }

    pub fn note(&self, findings: &mut Findings, severity: Severity, field: impl Into<String>, fault: &Fault) {
        of_every_kind!(self, entry => match severity {
            Severity::Error => findings.error(entry, field, fault),
            Severity::Warning => findings.warning(entry, field, fault),
        })
    }
}

fn http_rule((index, rule): (usize, &HttpRule)) -> WrittenRule<'_> {
    let HttpRule { name, matches: _, filters, backend_refs, timeouts, retry, session_persistence } = rule;
    WrittenRule {
        index,
        name: name.as_deref(),
        matches: WrittenMatches::Http(rule),
        filters,
        backend_refs,
        timeouts: timeouts.as_deref(),
        retry: retry.as_deref(),
        session_persistence: session_persistence.as_deref(),
    }
}

fn grpc_rule((index, rule): (usize, &GrpcRule)) -> WrittenRule<'_> {
    let GrpcRule { name, matches: _, filters, backend_refs, session_persistence } = rule;
    WrittenRule {
        index,
        name: name.as_deref(),
        matches: WrittenMatches::Grpc(rule),
        filters,
        backend_refs,
        timeouts: None,
        retry: None,
        session_persistence: session_persistence.as_deref(),
    }
}

/// A rule without matches takes all that its listener and its host names give it.
fn stream_rule((index, rule): (usize, &StreamRule)) -> WrittenRule<'_> {
    let StreamRule { name, backend_refs } = rule;
    WrittenRule {
        index,
        name: name.as_deref(),
        matches: WrittenMatches::Http(&DEFAULT_RULE),
        filters: &[],
        backend_refs,
        timeouts: None,
        retry: None,
        session_persistence: None,
    }
}
