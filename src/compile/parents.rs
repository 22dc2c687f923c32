//! Which parents of a route are Gateways of ours, and what is to be said about the others.

use super::findings::{Fault, Findings, listed, nearest};
use super::gateways::Bound;
use super::routes::Written;
use crate::resource::{GATEWAY_GROUP, ParentRef, Severity, Snapshot};

/// The bound Gateways that a parent reference means; several when several bindings serve one object.
pub(super) fn bound_gateways<'b, 's>(
    bound: &'b [Bound<'s>],
    namespace: &'b str,
    parent: &'b ParentRef,
) -> impl Iterator<Item = (usize, &'b Bound<'s>)> {
    let key = (parent.namespace.as_deref().unwrap_or(namespace), &*parent.name);
    bound.iter().enumerate().filter(move |(_, gateway)| gateway.entry.object.metadata.key() == key)
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
    let (ours, others): (Vec<_>, Vec<_>) = places.partition(|(_, parent)| {
        is_gateway(parent) && bound_gateways(bound, route.namespace(), parent).next().is_some()
    });
    for (i, parent) in others {
        let namespace = parent.namespace.as_deref().unwrap_or(route.namespace());
        let exists = snapshot.gateways.get(namespace, &parent.name).is_some();
        let (severity, fault) = if !is_gateway(parent) {
            let message = format!("a {} cannot be a parent here yet; there is Gateway", parent.kind());
            (Severity::Warning, Fault::new("UnsupportedValue", message))
        } else if !exists {
            (Severity::Error, missing(bound, &format!("{namespace}/{}", parent.name)))
        } else if ours.is_empty() {
            let message =
                format!("its Gateway {namespace}/{} is not served here; {}", parent.name, served(bound));
            (Severity::Warning, Fault::new("NoMatchingParent", message))
        } else {
            continue;
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

fn is_gateway(parent: &ParentRef) -> bool {
    (parent.group(), parent.kind()) == (GATEWAY_GROUP, "Gateway")
}

fn missing(bound: &[Bound<'_>], wanted: &str) -> Fault {
    let names = names(bound);
    let near = nearest(wanted, names.iter().map(String::as_str));
    let hint = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
    Fault::new("NoMatchingParent", format!("there is no Gateway {wanted}; {hint}{}", served(bound)))
}

fn served(bound: &[Bound<'_>]) -> String {
    match names(bound) {
        names if names.is_empty() => "no Gateway is served".to_owned(),
        names => format!("served are {}", listed(&names)),
    }
}

fn names(bound: &[Bound<'_>]) -> Vec<String> {
    let keys = bound.iter().map(|bound| bound.entry.object.metadata.key());
    keys.map(|(namespace, name)| format!("{namespace}/{name}")).collect()
}
