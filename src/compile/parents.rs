//! Which parents of a route are Gateways of ours or attach to one, and what is to be said about the others.

use super::findings::{Fault, Findings, listed, nearest, there_is};
use super::gateways::Bound;
use super::owner::Owner;
use super::routes::Written;
use crate::resource::{GATEWAY_GROUP, ParentRef, Severity, Snapshot};

/// The bound Gateways that a parent reference means, by their names or by those of their ListenerSets; several when several bindings serve one object.
pub(super) fn bound_gateways<'b, 's>(
    bound: &'b [Bound<'s>],
    namespace: &'b str,
    parent: &'b ParentRef,
) -> impl Iterator<Item = (usize, &'b Bound<'s>)> {
    bound.iter().enumerate().filter(move |(_, gateway)| {
        let owners = gateway.sets.iter().map(|set| Owner::Set(set.entry));
        owners.chain([Owner::Gateway(gateway.entry)]).any(|owner| owner.is_meant_by(parent, namespace))
    })
}

/// The parents of a route that are Gateways of ours, with their places. Another one that does not exist is an
/// error; one that exists and is somebody else's is worth a word only when the route has no parent here.
pub(super) fn ours<'s>(
    snapshot: &Snapshot,
    bound: &[Bound<'_>],
    route: &Written<'s>,
    findings: &mut Findings,
) -> Vec<(usize, &'s ParentRef)> {
    let places = route.parent_refs().iter().enumerate();
    let (ours, others): (Vec<_>, Vec<_>) =
        places.partition(|(_, parent)| bound_gateways(bound, route.namespace(), parent).next().is_some());
    for (i, parent) in others {
        let namespace = parent.namespace.as_deref().unwrap_or(route.namespace());
        let wanted = format!("{namespace}/{}", parent.name);
        let not_served = |what: &str| {
            let message = format!("its {what} {wanted} is not served here; {}", served(bound));
            (Severity::Warning, Fault::new("NoMatchingParent", message))
        };
        let (severity, fault) = match (parent.group(), parent.kind()) {
            (GATEWAY_GROUP, "Gateway") if snapshot.gateways.get(namespace, &parent.name).is_none() => {
                (Severity::Error, missing(bound, &wanted))
            }
            (GATEWAY_GROUP, "ListenerSet")
                if snapshot.listener_sets.get(namespace, &parent.name).is_none() =>
            {
                (Severity::Error, missing_set(snapshot, namespace, &parent.name))
            }
            (GATEWAY_GROUP, "Gateway" | "ListenerSet") if !ours.is_empty() => continue,
            (GATEWAY_GROUP, "Gateway") => not_served("Gateway"),
            (GATEWAY_GROUP, "ListenerSet") => not_served("ListenerSet"),
            (_, kind) => {
                let message = format!("a {kind} cannot be a parent; there are Gateway and ListenerSet");
                (Severity::Warning, Fault::new("UnsupportedValue", message))
            }
        };
        route.note(findings, severity, format!("spec.parentRefs[{i}]"), &fault);
    }
    if route.uses_default_gateways() {
        let message = "routes attach only to Gateways that they name";
        let fault = Fault::new("UnsupportedValue", message);
        route.note(findings, Severity::Warning, "spec.useDefaultGateways", &fault);
    }
    if route.parent_refs().is_empty() {
        let message = format!("it names no parent, so nothing serves it; {}", served(bound));
        route.note(findings, Severity::Warning, "spec.parentRefs", &Fault::new("NoMatchingParent", message));
    }
    ours
}

fn missing_set(snapshot: &Snapshot, namespace: &str, name: &str) -> Fault {
    let there = there_is(&snapshot.listener_sets, namespace, name, "ListenerSets");
    Fault::new("NoMatchingParent", format!("there is no ListenerSet {namespace}/{name}; {there}"))
}

pub(super) fn missing(bound: &[Bound<'_>], wanted: &str) -> Fault {
    let names = names(bound);
    let near = nearest(wanted, names.iter().map(String::as_str));
    let hint = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
    Fault::new("NoMatchingParent", format!("there is no Gateway {wanted}; {hint}{}", served(bound)))
}

pub(super) fn served(bound: &[Bound<'_>]) -> String {
    match names(bound) {
        names if names.is_empty() => "no Gateway is served".to_owned(),
        names => format!("served are {}", listed(&names)),
    }
}

fn names(bound: &[Bound<'_>]) -> Vec<String> {
    let keys = bound.iter().map(|bound| bound.entry.object.metadata.key());
    keys.map(|(namespace, name)| format!("{namespace}/{name}")).collect()
}
