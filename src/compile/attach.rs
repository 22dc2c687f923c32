//! Which routes attach to which listeners, and under which host names.

use super::findings::{Fault, listed, nearest};
use super::gateways::{Bound, Listening};
use super::parents::bound_gateways;
use super::report::Verdict;
use super::routes::Written;
use crate::host::HostPattern;
use crate::resource::{Labels, ParentRef, Selector, SelectorTerm, Snapshot};
use std::collections::BTreeMap;

/// A listener: the place of its Gateway among the bound ones, and its own there.
pub(super) type ListenerId = (usize, usize);

/// What came of one parent.
pub(super) struct Attachment {
    pub verdict: Verdict,
    /// Listeners that take the route, with the host names they have in common.
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
    for (g, gateway) in bound_gateways(bound, approach.route.namespace(), approach.parent) {
        for (l, listener) in gateway.listeners.iter().enumerate() {
            match admit(gateway, listener, approach) {
                Ok(hosts) => {
                    listeners.insert((g, l), hosts);
                }
                // The refusal of the listener that came nearest says most.
                Err(refused) if refusal.as_ref().is_none_or(|(step, _)| *step < refused.0) => {
                    refusal = Some(refused)
                }
                Err(_) => {}
            }
        }
        if gateway.listeners.is_empty() {
            refusal
                .get_or_insert_with(|| (Step::Section, Fault::new("NoMatchingParent", "it has no listener")));
        }
    }
    let verdict = match refusal {
        _ if !listeners.is_empty() => Verdict::yes("Accepted"),
        Some((_, Fault { reason, message })) => Verdict::no(reason, message),
        None => Verdict::no("NoMatchingParent", "it has no listener"),
    };
    Attachment { verdict, listeners }
}

/// How far a route came with a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Section,
    Allowed,
    Hostname,
}

fn admit(
    gateway: &Bound<'_>,
    listener: &Listening<'_>,
    approach: &Approach<'_, '_>,
) -> Result<Vec<HostPattern>, (Step, Fault)> {
    let Approach { snapshot, route, hostnames, parent } = approach;
    let called = || {
        let metadata = &gateway.entry.object.metadata;
        format!("listener `{}` of Gateway {}/{}", listener.written.name, metadata.namespace, metadata.name)
    };
    let named = parent.section_name.as_deref().is_none_or(|name| name == &*listener.written.name);
    if !named || parent.port.is_some_and(|port| port != listener.written.port) {
        return Err((Step::Section, no_such_listener(gateway, parent)));
    }
    let refuse = |message: String| Err((Step::Allowed, Fault::new("NotAllowedByListeners", message)));
    if !listener.kinds.contains(&route.kind()) {
        return refuse(format!("{} does not take {} objects", called(), route.kind()));
    }
    let of_gateway = &gateway.entry.object.metadata.namespace;
    if let Err(who) = allowed_namespace(snapshot, listener, of_gateway, route.namespace()) {
        return refuse(format!(
            "{} takes routes {who} only, not of namespace {}",
            called(),
            route.namespace()
        ));
    }
    if hostnames.is_empty() {
        return Ok(vec![listener.hostname.clone()]);
    }
    let mut common: Vec<_> = hostnames.iter().filter_map(|name| name.intersect(&listener.hostname)).collect();
    common.sort();
    common.dedup();
    if common.is_empty() {
        let names: Vec<String> = hostnames.iter().map(ToString::to_string).collect();
        let message =
            format!("{} serves {}, which none of {} is", called(), listener.hostname, listed(&names));
        return Err((Step::Hostname, Fault::new("NoMatchingListenerHostname", message)));
    }
    Ok(common)
}

fn no_such_listener(gateway: &Bound<'_>, parent: &ParentRef) -> Fault {
    let metadata = &gateway.entry.object.metadata;
    let written = || gateway.listeners.iter().map(|listener| listener.written);
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
    let message = format!(
        "Gateway {}/{} has no listener {wanted}; {hint}it has {}",
        metadata.namespace,
        metadata.name,
        listed(&there)
    );
    Fault::new("NoMatchingParent", message)
}

/// Whether routes of this namespace may attach; else whose routes may.
fn allowed_namespace(
    snapshot: &Snapshot,
    listener: &Listening<'_>,
    of_gateway: &str,
    of_route: &str,
) -> Result<(), String> {
    let namespaces = &listener.written.allowed_routes.namespaces;
    match namespaces.from.as_deref().unwrap_or("Same") {
        "All" => Ok(()),
        "Same" if of_gateway == of_route => Ok(()),
        "Same" => Err(format!("of namespace {of_gateway}")),
        "Selector" => match &namespaces.selector {
            Some(selector) if selects(selector, snapshot, of_route) => Ok(()),
            Some(_) => Err("of namespaces with certain labels".to_owned()),
            None => Err("of namespaces that a selector names, and has none,".to_owned()),
        },
        other => Err(format!("`from: {other}`, which means nothing,")),
    }
}

/// Whether a selector selects a namespace. One without an object has the label that every namespace has.
fn selects(selector: &Selector, snapshot: &Snapshot, namespace: &str) -> bool {
    let none = Labels::default();
    let labels = snapshot.namespaces.get("", namespace).map_or(&none, |entry| &entry.object.metadata.labels);
    let label = |key: &str| match key {
        "kubernetes.io/metadata.name" => Some(namespace),
        _ => labels.get(key),
    };
    let Selector { match_labels, match_expressions } = selector;
    match_labels.iter().all(|(key, value)| label(key) == Some(value))
        && match_expressions.iter().all(|term| holds(term, label(&term.key)))
}

fn holds(term: &SelectorTerm, label: Option<&str>) -> bool {
    let listed = |label: &str| term.values.iter().any(|value| &**value == label);
    match &*term.operator {
        "In" => label.is_some_and(listed),
        "NotIn" => !label.is_some_and(listed),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        // What is not understood selects nothing.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_term_holds_as_kubernetes_defines_it() {
        for (operator, values, label, want) in [
            ("In", &["a", "b"][..], Some("a"), true),
            ("In", &["a"], Some("c"), false),
            ("In", &["a"], None, false),
            ("NotIn", &["a"], Some("a"), false),
            ("NotIn", &["a"], Some("b"), true),
            ("NotIn", &["a"], None, true),
            ("Exists", &[], Some(""), true),
            ("Exists", &[], None, false),
            ("DoesNotExist", &[], None, true),
            ("DoesNotExist", &[], Some("a"), false),
            ("Near", &["a"], Some("a"), false),
        ] {
            let values = values.iter().map(|&value| value.into()).collect();
            let term = SelectorTerm { key: "k".into(), operator: operator.into(), values };
            assert_eq!(holds(&term, label), want, "{operator} {label:?}");
        }
    }
}
