//! What became of Gateways and routes, in the words of their conditions (semantics of the Gateway API's status,
//! without its form: `status` gives it that).

use super::parameters::Parameters;
use crate::resource::{GrpcRoute, HttpRoute, ObjectRef, ParentRef, Resource, TcpRoute, TlsRoute, UdpRoute};
use crate::routing::GatewayId;
use std::sync::Arc;

/// One condition's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Verdict {
    pub holds: bool,
    /// A reason of the Gateway API, `BackendNotFound`.
    pub reason: &'static str,
    /// Empty where the reason says it all.
    pub message: Box<str>,
}

impl Verdict {
    /// The condition is true.
    pub fn yes(reason: &'static str) -> Self {
        Self { holds: true, reason, message: Box::default() }
    }

    /// The condition is false.
    pub fn no(reason: &'static str, message: impl Into<Box<str>>) -> Self {
        Self { holds: false, reason, message: message.into() }
    }
}

/// What became of a Gateway that a binding names.
#[derive(Debug, Clone)]
pub struct GatewayReport {
    pub id: GatewayId,
    /// Of the binding: `external`.
    pub binding: String,
    pub namespace: String,
    pub name: String,
    pub generation: Option<i64>,
    pub accepted: Verdict,
    /// Whether its listeners are served; whether its address is usable is for others to add.
    pub programmed: Verdict,
    pub resolved_refs: Verdict,
    /// Set when clients without a valid certificate are let in where others are asked for one.
    pub insecure_frontend: Option<Verdict>,
    /// As in `spec.listeners`.
    pub listeners: Vec<ListenerReport>,
    /// All that name it as their parent.
    pub listener_sets: Vec<ListenerSetReport>,
    /// What its `parametersRef` comes to; `None` when it leads nowhere.
    pub parameters: Option<Parameters>,
}

/// What became of a ListenerSet at its Gateway.
#[derive(Debug, Clone)]
pub struct ListenerSetReport {
    pub namespace: String,
    pub name: String,
    pub generation: Option<i64>,
    pub accepted: Verdict,
    /// Whether its listeners are served; whether its Gateway's address is usable is for others to add.
    pub programmed: Verdict,
    /// As in `spec.listeners`; empty when the set may not attach.
    pub listeners: Vec<ListenerReport>,
}

/// What became of a listener.
#[derive(Debug, Clone)]
pub struct ListenerReport {
    pub name: String,
    pub port: u16,
    pub protocol: String,
    /// Routes that are accepted, whether or not the listener is served.
    pub attached_routes: u32,
    /// Kinds of the Gateway API.
    pub supported_kinds: Vec<&'static str>,
    pub accepted: Verdict,
    pub programmed: Verdict,
    pub resolved_refs: Verdict,
    /// Holds when it is in conflict with another listener.
    pub conflicted: Verdict,
    /// Set when a client may take its TLS settings for another listener's.
    pub overlapping: Option<Verdict>,
}

/// What became of a route.
#[derive(Debug, Clone)]
pub struct RouteReport {
    pub route: ReportedRoute,
    pub verdicts: Arc<RouteVerdicts>,
}

/// The conditions of a route. Nearly all routes have the same ones, and share them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RouteVerdicts {
    /// One for each of its parents that is a Gateway of ours.
    pub parents: Box<[ParentReport]>,
    pub resolved_refs: Verdict,
    /// Set when some of its rules are not served as written.
    pub partially_invalid: Option<Verdict>,
}

/// The route that a report is about, as it was when it was compiled.
#[derive(Debug, Clone)]
pub enum ReportedRoute {
    Http(Arc<HttpRoute>),
    Grpc(Arc<GrpcRoute>),
    Tls(Arc<TlsRoute>),
    Tcp(Arc<TcpRoute>),
    Udp(Arc<UdpRoute>),
}

/// What the order of routes is by: age, namespace and name, and the number of the kind.
pub(super) type Order<'r> = (i64, (&'r str, &'r str), u8);

/// The same for a route of any kind.
macro_rules! of_every_kind {
    ($route:expr, $of:ident => $value:expr) => {
        match $route {
            ReportedRoute::Http($of) => $value,
            ReportedRoute::Grpc($of) => $value,
            ReportedRoute::Tls($of) => $value,
            ReportedRoute::Tcp($of) => $value,
            ReportedRoute::Udp($of) => $value,
        }
    };
}

impl ReportedRoute {
    /// The route's name.
    pub fn reference(&self) -> ObjectRef {
        of_every_kind!(self, route => route.reference())
    }

    /// Its place in the order of routes.
    pub(super) fn order(&self) -> Order<'_> {
        let number = match self {
            Self::Http(_) => 0,
            Self::Grpc(_) => 1,
            Self::Tls(_) => 2,
            Self::Tcp(_) => 3,
            Self::Udp(_) => 4,
        };
        let metadata = of_every_kind!(self, route => &route.metadata);
        (metadata.creation_timestamp, metadata.key(), number)
    }

    /// `metadata.generation`.
    pub fn generation(&self) -> Option<i64> {
        of_every_kind!(self, route => route.metadata.generation())
    }

    /// `spec.hostnames`.
    pub fn hostnames(&self) -> &[Box<str>] {
        match self {
            Self::Http(route) => &route.spec.hostnames,
            Self::Grpc(route) => &route.spec.hostnames,
            Self::Tls(route) => &route.spec.hostnames,
            Self::Tcp(_) | Self::Udp(_) => &[],
        }
    }

    /// `spec.parentRefs`.
    pub fn parent_refs(&self) -> &[ParentRef] {
        of_every_kind!(self, route => &route.spec.parent_refs)
    }
}

/// What became of a policy, for each Gateway whose routes use what it is for.
#[derive(Debug, Clone)]
pub struct PolicyReport {
    /// `BackendTLSPolicy`.
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub generation: Option<i64>,
    /// Namespaces and names of the Gateways, sorted.
    pub ancestors: Vec<(String, String)>,
    pub accepted: Verdict,
    pub resolved_refs: Verdict,
}

/// What became of a route at one parent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ParentReport {
    /// The parent's place in `spec.parentRefs`.
    pub place: usize,
    pub accepted: Verdict,
}
