//! ListenerSets (GEP-1713): which may add their listeners to which Gateway, and what becomes of them.

use super::findings::{Fault, Findings};
use super::gateways::{Bound, Listening};
use super::namespaces::Admission;
use super::owner::Owner;
use super::parents::{missing, served};
use super::report::{ListenerSetReport, Verdict};
use super::report_listener;
use crate::resource::{Entry, GATEWAY_GROUP, Gateway, ListenerSet, ParentRef, RouteNamespaces, Snapshot};

/// A ListenerSet that names a bound Gateway as its parent.
pub(super) struct AttachedSet<'s> {
    pub entry: &'s Entry<ListenerSet>,
    /// Why none of its listeners is one of the Gateway's.
    pub refusal: Option<Refusal>,
}

/// Why a ListenerSet does not attach to its Gateway.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    NotAllowed(String),
    ParentNotAccepted(String),
}

impl AttachedSet<'_> {
    /// Why a route that names the set as its parent gets none of its listeners.
    pub fn refuses(&self, of_route: &str, parent: &ParentRef) -> Option<Fault> {
        let owner = Owner::Set(self.entry);
        let refusal = self.refusal.as_ref().filter(|_| owner.is_meant_by(parent, of_route))?;
        let message = format!("{} has no listeners: {}", owner.called(), refusal.message());
        Some(Fault::new("NoMatchingParent", message))
    }
}

impl Refusal {
    fn message(&self) -> &str {
        match self {
            Self::NotAllowed(message) | Self::ParentNotAccepted(message) => message,
        }
    }

    /// The reasons of conditions Accepted and Programmed.
    fn reasons(&self) -> (&'static str, &'static str) {
        match self {
            Self::NotAllowed(_) => ("NotAllowed", "NotAllowed"),
            Self::ParentNotAccepted(_) => ("ParentNotAccepted", "ParentNotProgrammed"),
        }
    }
}

/// The ListenerSets that name this Gateway as their parent: the oldest first, then by namespace and name.
pub(super) fn of_gateway<'s>(
    snapshot: &'s Snapshot,
    gateway: &Entry<Gateway>,
    is_accepted: bool,
) -> Vec<AttachedSet<'s>> {
    let key = gateway.object.metadata.key();
    let named = snapshot.listener_sets.iter().filter(|entry| parent(entry) == Some(key));
    let mut sets: Vec<AttachedSet<'s>> = named
        .map(|entry| AttachedSet { entry, refusal: refusal(snapshot, gateway, entry, is_accepted) })
        .collect();
    // They are sorted by name already.
    sets.sort_by_key(|set| set.entry.object.metadata.creation_timestamp);
    sets
}

fn refusal(
    snapshot: &Snapshot,
    gateway: &Entry<Gateway>,
    set: &Entry<ListenerSet>,
    is_accepted: bool,
) -> Option<Refusal> {
    let called = Owner::Gateway(gateway).called();
    let absent = RouteNamespaces::default();
    let allowed = gateway.object.spec.allowed_listeners.as_ref();
    let namespaces = allowed.map_or(&absent, |allowed| &allowed.namespaces);
    let of = &gateway.object.metadata.namespace;
    let own = &set.object.metadata.namespace;
    if let Err(who) = (Admission { namespaces, default: "None", of }).admits(snapshot, own) {
        let message = match namespaces.from.as_deref() {
            None | Some("None") => {
                format!("{called} takes no ListenerSets; its spec.allowedListeners may allow it")
            }
            Some(_) => format!("{called} takes ListenerSets {who} only, not of namespace {own}"),
        };
        return Some(Refusal::NotAllowed(message));
    }
    (!is_accepted).then(|| Refusal::ParentNotAccepted(format!("{called} is not accepted itself")))
}

/// Namespace and name of the Gateway that a ListenerSet names.
fn parent(entry: &Entry<ListenerSet>) -> Option<(&str, &str)> {
    let parent = &entry.object.spec.parent_ref;
    let group = parent.group.as_deref().unwrap_or(GATEWAY_GROUP);
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    let namespace = parent.namespace.as_deref().unwrap_or(&entry.object.metadata.namespace);
    ((group, kind) == (GATEWAY_GROUP, "Gateway")).then_some((namespace, &parent.name))
}

/// Notes which ListenerSets do not attach to their Gateway.
pub(super) fn note_refused(sets: &[AttachedSet<'_>], findings: &mut Findings) {
    for AttachedSet { entry, refusal } in sets {
        if let Some(refusal) = refusal {
            let fault = Fault::new(refusal.reasons().0, refusal.message());
            findings.error(entry, "spec.parentRef", &fault);
        }
    }
}

/// Notes which ListenerSets name a parent that is none of the bound Gateways.
pub(super) fn note_unbound(snapshot: &Snapshot, bound: &[Bound<'_>], findings: &mut Findings) {
    for entry in snapshot.listener_sets.iter() {
        let Some((namespace, name)) = parent(entry) else {
            let fault = Fault::new("UnsupportedValue", "the parent of a ListenerSet can only be a Gateway");
            findings.error(entry, "spec.parentRef", &fault);
            continue;
        };
        if bound.iter().any(|gateway| gateway.entry.object.metadata.key() == (namespace, name)) {
            continue;
        }
        if snapshot.gateways.get(namespace, name).is_none() {
            findings.error(entry, "spec.parentRef", &missing(bound, &format!("{namespace}/{name}")));
        } else {
            let message = format!("its Gateway {namespace}/{name} is not served here; {}", served(bound));
            findings.warning(entry, "spec.parentRef", &Fault::new("NotBound", message));
        }
    }
}

/// What became of the ListenerSets of a Gateway.
pub(super) fn reports(bound: &Bound<'_>) -> Vec<ListenerSetReport> {
    let of = |set: &AttachedSet<'_>| {
        let listeners = bound.listeners.iter().filter(|listening| listening.owner.is_set(set.entry));
        report(set, &listeners.collect::<Vec<_>>())
    };
    bound.sets.iter().map(of).collect()
}

fn report(set: &AttachedSet<'_>, listeners: &[&Listening<'_>]) -> ListenerSetReport {
    let metadata = &set.entry.object.metadata;
    let served = listeners.iter().filter(|listening| listening.programmed().holds).count();
    let (accepted, programmed) = match &set.refusal {
        Some(refusal) => {
            let (accepted, programmed) = refusal.reasons();
            (Verdict::no(accepted, refusal.message()), Verdict::no(programmed, refusal.message()))
        }
        None => {
            let message =
                format!("{} of {} listeners are not served", listeners.len() - served, listeners.len());
            match served {
                0 => {
                    let verdict = Verdict::no("ListenersNotValid", message);
                    (verdict.clone(), verdict)
                }
                _ if served == listeners.len() => (Verdict::yes("Accepted"), Verdict::yes("Programmed")),
                _ => {
                    let accepted =
                        Verdict { holds: true, reason: "ListenersNotValid", message: message.into() };
                    (accepted, Verdict::yes("Programmed"))
                }
            }
        }
    };
    ListenerSetReport {
        namespace: metadata.namespace.to_string(),
        name: metadata.name.to_string(),
        generation: metadata.generation(),
        accepted,
        programmed,
        listeners: listeners.iter().map(|listening| report_listener(listening)).collect(),
    }
}
