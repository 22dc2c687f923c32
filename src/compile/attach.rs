//! Which routes attach to which listeners, and under which host names.

use super::findings::{Fault, listed, nearest};
use super::gateways::{Bound, Listening};
use super::namespaces::Admission;
use super::owner::Owner;
use super::parents::bound_gateways;
use super::report::Verdict;
use super::routes::Written;
use crate::host::HostPattern;
use crate::resource::{ParentRef, Snapshot};
use std::collections::BTreeMap;

/// A listener: the place of its Gateway among the bound ones, and its own there.
pub(super) type ListenerId = (u32, u32);

/// What came of one parent.
pub(super) struct Attachment {
    pub verdict: Verdict,
    /// Listeners that take the route, with those of its host names that have something in common with theirs: the
    /// names as the route has them, for it is by them that one route goes before another.
    pub listeners: BTreeMap<ListenerId, Vec<HostPattern>>,
}

/// A route that wants to attach by one of its parent references.
pub(super) struct Approach<'a, 's> {
    pub snapshot: &'a Snapshot,
    pub route: &'a Written<'s>,
    pub hostnames: &'a [HostPattern],
    pub parent: &'a ParentRef,
}

/// Attaches a route to what its parent reference means.
pub(super) fn attach(bound: &[Bound<'_>], approach: &Approach<'_, '_>) -> Attachment {
    let mut listeners = BTreeMap::new();
    let mut refusal: Option<(Step, Fault)> = None;
    let &Approach { snapshot: _, route, hostnames: _, parent } = approach;
    for (g, gateway) in bound_gateways(bound, route.namespace(), parent) {
        if let Some(refused) = gateway.sets.iter().find_map(|set| set.refuses(route.namespace(), parent)) {
            refusal.get_or_insert((Step::Section, refused));
        }
        let meant = |listener: &&Listening<'_>| listener.owner.is_meant_by(parent, route.namespace());
        for (l, listener) in gateway.listeners.iter().enumerate().filter(|(_, listener)| meant(listener)) {
            match admit(listener, approach) {
                Ok(hosts) => {
                    listeners.insert((number(g), number(l)), hosts);
                }
                // The refusal of the listener that came nearest says most.
                Err(refused) if refusal.as_ref().is_none_or(|(step, _)| *step < refused.0) => {
                    refusal = Some(refused)
                }
                Err(_) => {}
            }
        }
    }
    let verdict = match refusal {
        _ if !listeners.is_empty() => Verdict::yes("Accepted"),
        Some((_, Fault { reason, message })) => Verdict::no(reason, message),
        None => Verdict::no("NoMatchingParent", "it has no listener"),
    };
    Attachment { verdict, listeners }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("memory ends before four thousand million listeners")
}

/// How far a route came with a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Section,
    Allowed,
    Hostname,
}

fn admit(listener: &Listening<'_>, approach: &Approach<'_, '_>) -> Result<Vec<HostPattern>, (Step, Fault)> {
    let &Approach { snapshot, route, hostnames, parent } = approach;
    let owner = listener.owner;
    let called = || format!("listener `{}` of {}", listener.written.name, owner.called());
    let named = parent.section_name.as_deref().is_none_or(|name| name == &*listener.written.name);
    if !named || parent.port.is_some_and(|port| port != listener.written.port) {
        return Err((Step::Section, no_such_listener(owner, parent)));
    }
    let refuse = |message: String| Err((Step::Allowed, Fault::new("NotAllowedByListeners", message)));
    if !listener.kinds.contains(&route.kind()) {
        return refuse(format!("{} does not take {} objects", called(), route.kind()));
    }
    let namespaces = &listener.written.allowed_routes.namespaces;
    let admission = Admission { namespaces, default: "Same", of: owner.namespace() };
    if let Err(who) = admission.admits(snapshot, route.namespace()) {
        return refuse(format!(
            "{} takes routes {who} only, not of namespace {}",
            called(),
            route.namespace()
        ));
    }
    let common = common(hostnames.iter().cloned(), listener);
    if common.is_empty() {
        let names: Vec<String> = hostnames.iter().map(ToString::to_string).collect();
        let message =
            format!("{} serves {}, which none of {} is", called(), listener.hostname, listed(&names));
        return Err((Step::Hostname, Fault::new("NoMatchingListenerHostname", message)));
    }
    Ok(common)
}

/// The host names of a route that have something in common with those of a listener.
pub(super) fn common(
    hostnames: impl ExactSizeIterator<Item = HostPattern>,
    listener: &Listening<'_>,
) -> Vec<HostPattern> {
    if hostnames.len() == 0 {
        return vec![HostPattern::Any];
    }
    let shared = hostnames.filter(|name| name.intersect(&listener.hostname).is_some());
    let mut common: Vec<_> = shared.collect();
    common.sort();
    common.dedup();
    common
}

fn no_such_listener(owner: Owner<'_>, parent: &ParentRef) -> Fault {
    let written = || owner.listeners().iter();
    let there: Vec<String> = written()
        .map(|listener| format!("{} ({} {})", listener.name, listener.protocol, listener.port))
        .collect();
    let near = parent.section_name.as_deref().and_then(|name| {
        nearest(name, written().map(|listener| &*listener.name)).filter(|near| *near != name)
    });
    let hint = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    let wanted = match (&parent.section_name, parent.port) {
        (Some(name), Some(port)) => format!("`{name}` on port {port}"),
        (Some(name), None) => format!("`{name}`"),
        (None, port) => format!("on port {}", port.unwrap_or_default()),
    };
    let message = format!("{} has no listener {wanted}; {hint}it has {}", owner.called(), listed(&there));
    Fault::new("NoMatchingParent", message)
}
