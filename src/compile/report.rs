//! What became of Gateways and routes, in the words of their conditions (semantics of the Gateway API's status,
//! without its form: `status` gives it that).

use crate::resource::{ParentRef, Place};
use crate::routing::{GatewayId, Route};
use std::sync::Arc;

/// One condition's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub holds: bool,
    /// A reason of the Gateway API, `BackendNotFound`.
    pub reason: &'static str,
    /// Empty where the reason says it all.
    pub message: String,
}

impl Verdict {
    /// The condition is true.
    pub fn yes(reason: &'static str) -> Self {
        Self { holds: true, reason, message: String::new() }
    }

    /// The condition is false.
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
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
}

/// What became of a route, for each of its parents that is a Gateway of ours.
#[derive(Debug, Clone)]
pub struct RouteReport {
    pub route: Arc<Route>,
    pub place: Option<Place>,
    pub generation: Option<i64>,
    /// Empty when none of its parents is ours.
    pub parents: Vec<ParentReport>,
    pub resolved_refs: Verdict,
    /// Set when some of its rules are not served as written.
    pub partially_invalid: Option<Verdict>,
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
#[derive(Debug, Clone)]
pub struct ParentReport {
    pub parent: ParentRef,
    pub accepted: Verdict,
}
