//! Puts the compiled rules of routes into the listeners that they attach to.

use super::attach::{Attachment, ListenerId, attach, parents};
use super::findings::{Fault, Findings, listed, nearest};
use super::gateways::Bound;
use super::matches::Ranked;
use super::report::{ParentReport, RouteReport, Verdict};
use super::routes::Written;
use super::rules::{Outcome, Rules};
use crate::host::HostPattern;
use crate::resource::{ParentRef, Severity, Snapshot};
use crate::routing::{PathIndex, Rank, Route, Rule};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Fills listeners with routes, one after the other, in the order in which they win over each other.
pub(super) struct Filling<'a, 's> {
    pub snapshot: &'s Snapshot,
    pub bound: &'a mut Vec<Bound<'s>>,
    pub rules: Rules<'s>,
    /// All rules of the table.
    pub table: Vec<Arc<Rule>>,
    /// Which kind of route has a host name on a listener, and whose it was first.
    owners: HashMap<(ListenerId, HostPattern), (&'static str, Arc<Route>)>,
}

impl<'a, 's> Filling<'a, 's> {
    pub fn new(snapshot: &'s Snapshot, bound: &'a mut Vec<Bound<'s>>, rules: Rules<'s>) -> Self {
        Self { snapshot, bound, rules, table: Vec::new(), owners: HashMap::new() }
    }

    /// Attaches one route, and says what came of it.
    pub fn add(&mut self, route: &Written<'s>, findings: &mut Findings) -> RouteReport {
        let metadata = route.metadata();
        let named = Arc::new(Route {
            kind: route.kind(),
            namespace: metadata.namespace.to_string(),
            name: metadata.name.to_string(),
        });
        let mut report = RouteReport {
            route: named.clone(),
            place: route.place().cloned(),
            generation: metadata.generation,
            parents: Vec::new(),
            resolved_refs: Verdict::yes("ResolvedRefs"),
            partially_invalid: None,
        };
        let ours: Vec<&ParentRef> =
            route.parent_refs().iter().filter(|parent| self.is_ours(route, parent, findings)).collect();
        if ours.is_empty() {
            self.note_without_parent(route, findings);
            return report;
        }
        let (hostnames, impossible) = hostnames(route, findings);
        let clusters = self.rules.clusters.len();
        let outcome = self.rules.compile(route, &named, findings);
        let unserved = not_served(&outcome).or(impossible);
        let mut listeners = BTreeMap::new();
        for parent in ours {
            let Attachment { mut verdict, listeners: mut taken } =
                attach(self.snapshot, self.bound, route, &hostnames, parent);
            if let Some(fault) = self.claim(&mut taken, &named) {
                verdict = Verdict::no(fault.reason, fault.message);
            }
            self.note_refusal(route, &verdict, findings);
            listeners.extend(taken);
            if let (true, Some(fault)) = (verdict.holds, &unserved) {
                verdict = Verdict::no(fault.reason, fault.message.clone());
            }
            report.parents.push(ParentReport { parent: parent.clone(), accepted: verdict });
        }
        if let Some(fault) = &outcome.unresolved {
            report.resolved_refs = Verdict::no(fault.reason, fault.message.clone());
        }
        report.partially_invalid = if unserved.is_none() { partially_invalid(&outcome) } else { None };
        self.note_unserved(route, &listeners, findings);
        self.count(route, &listeners, unserved.is_none());
        listeners.retain(|&(g, l), _| self.bound[g].listeners[l].accepted.holds);
        if listeners.is_empty() {
            // Nobody asks for its clusters.
            self.rules.clusters.truncate(clusters);
        } else {
            self.insert(route, &named, outcome, &listeners);
        }
        report
    }

    /// Whether a parent is a Gateway that is served here; others of the Gateway API are noted.
    fn is_ours(&self, route: &Written<'_>, parent: &ParentRef, findings: &mut Findings) -> bool {
        if (parent.group(), parent.kind()) == (crate::resource::GATEWAY_GROUP, "Gateway") {
            return parents(self.bound, route.namespace(), parent).next().is_some();
        }
        let message = format!("a {} cannot be a parent here yet; there is Gateway", parent.kind());
        route.note(findings, Severity::Warning, "spec.parentRefs", &Fault::new("UnsupportedValue", message));
        false
    }

    fn note_without_parent(&self, route: &Written<'_>, findings: &mut Findings) {
        let wanted: Vec<String> = route
            .parent_refs()
            .iter()
            .map(|parent| {
                format!("{}/{}", parent.namespace.as_deref().unwrap_or(route.namespace()), parent.name)
            })
            .collect();
        let exists = |parent: &ParentRef| {
            let namespace = parent.namespace.as_deref().unwrap_or(route.namespace());
            self.snapshot.gateways.get(namespace, &parent.name).is_some()
        };
        let served: Vec<String> = self
            .bound
            .iter()
            .map(|bound| bound.entry.object.metadata.key())
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect();
        let there = if served.is_empty() {
            "none is served".to_owned()
        } else {
            format!("served are {}", listed(&served))
        };
        let (severity, message) = match wanted.first() {
            None => (Severity::Warning, format!("it names no parent, so nothing serves it; {there}")),
            Some(_) if route.parent_refs().iter().any(exists) => {
                (Severity::Warning, format!("its Gateway {} is not served here; {there}", listed(&wanted)))
            }
            Some(first) => {
                let near = nearest(first, served.iter().map(String::as_str));
                let hint = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
                (Severity::Error, format!("there is no Gateway {}; {hint}{there}", listed(&wanted)))
            }
        };
        route.note(findings, severity, "spec.parentRefs", &Fault::new("NoMatchingParent", message));
    }

    fn note_refusal(&self, route: &Written<'_>, verdict: &Verdict, findings: &mut Findings) {
        if !verdict.holds {
            let fault = Fault::new(verdict.reason, verdict.message.clone());
            route.note(findings, Severity::Error, "spec.parentRefs", &fault);
        }
    }

    /// Says so when a route attached only to listeners that are not served.
    fn note_unserved(
        &self,
        route: &Written<'_>,
        listeners: &BTreeMap<ListenerId, Vec<HostPattern>>,
        findings: &mut Findings,
    ) {
        let faulty: Vec<String> = listeners
            .keys()
            .map(|&(g, l)| &self.bound[g].listeners[l])
            .filter(|listener| !listener.accepted.holds)
            .map(|listener| format!("`{}` ({})", listener.written.name, listener.accepted.reason))
            .collect();
        if !faulty.is_empty() && faulty.len() == listeners.len() {
            let message = format!("it attaches only to listeners that are not served: {}", listed(&faulty));
            let fault = Fault::new("ListenersNotValid", message);
            route.note(findings, Severity::Warning, "spec.parentRefs", &fault);
        }
    }

    /// Leaves a host name on a listener to the kind of route that had it first: HTTPRoutes and GRPCRoutes do not
    /// share one (`GRPCRouteSpec` in the Gateway API).
    fn claim(
        &mut self,
        taken: &mut BTreeMap<ListenerId, Vec<HostPattern>>,
        route: &Arc<Route>,
    ) -> Option<Fault> {
        if self.snapshot.grpc_routes.is_empty() || self.snapshot.http_routes.is_empty() {
            return None;
        }
        let mut refused = None;
        taken.retain(|&listener, hosts| {
            let other = hosts.iter().find_map(|host| {
                let owner = self.owners.get(&(listener, host.clone()))?;
                (owner.0 != route.kind).then(|| (host.clone(), owner.1.clone()))
            });
            match other {
                Some((host, owner)) => {
                    let message = format!(
                        "host name {host} belongs to {} {}/{}, which is older or comes first by name; the two kinds cannot share one",
                        owner.kind, owner.namespace, owner.name
                    );
                    refused = Some(Fault::new("NotAllowedByListeners", message));
                    false
                }
                None => {
                    for host in hosts.iter() {
                        let owner = || (route.kind, route.clone());
                        self.owners.entry((listener, host.clone())).or_insert_with(owner);
                    }
                    true
                }
            }
        });
        refused.filter(|_| taken.is_empty())
    }

    fn count(
        &mut self,
        route: &Written<'_>,
        listeners: &BTreeMap<ListenerId, Vec<HostPattern>>,
        accepted: bool,
    ) {
        for &(g, l) in listeners.keys() {
            let listener = &mut self.bound[g].listeners[l];
            listener.attached += u32::from(accepted);
            listener.grpc |= route.kind() == "GRPCRoute";
        }
    }

    fn insert(
        &mut self,
        route: &Written<'_>,
        named: &Arc<Route>,
        outcome: Outcome,
        listeners: &BTreeMap<ListenerId, Vec<HostPattern>>,
    ) {
        let name = format!("{}/{}", named.namespace, named.name);
        for (rule, ranked) in outcome.rules {
            let place =
                u32::try_from(self.table.len()).expect("memory ends before four thousand million rules");
            let index = rule.name.index;
            self.table.push(Arc::new(rule));
            for (i, (matches, path)) in ranked.into_iter().enumerate() {
                let rank = Rank {
                    path,
                    method: matches.method.is_some(),
                    headers: matches.headers.len(),
                    queries: matches.queries.len(),
                    age: Reverse(route.age()),
                    route: Reverse(name.clone()),
                    position: Reverse((index, i)),
                };
                self.insert_match(&(matches, path), &rank, place, listeners);
            }
        }
    }

    fn insert_match(
        &mut self,
        (matches, _): &Ranked,
        rank: &Rank,
        place: u32,
        listeners: &BTreeMap<ListenerId, Vec<HostPattern>>,
    ) {
        for (&(g, l), hosts) in listeners {
            let listener = &mut self.bound[g].listeners[l];
            for host in hosts {
                listener.hosts.entry(host, PathIndex::default).insert(rank.clone(), matches.clone(), place);
            }
        }
    }
}

/// The host names of a route, and why none of them can be served if so.
fn hostnames(route: &Written<'_>, findings: &mut Findings) -> (Vec<HostPattern>, Option<Fault>) {
    let mut hostnames = Vec::new();
    let mut impossible = None;
    for (i, text) in route.hostnames().iter().enumerate() {
        match HostPattern::parse(text) {
            Some(pattern) => hostnames.push(pattern),
            None => {
                let message = format!("`{text}` is no host name; write `www.example.com` or `*.example.com`");
                let fault = Fault::new("UnsupportedValue", message);
                route.note(findings, Severity::Error, format!("spec.hostnames[{i}]"), &fault);
                impossible = Some(fault);
                // Were it left out, a route without other names would serve every host.
                hostnames.push(HostPattern::Exact(String::new()));
            }
        }
    }
    let usable = hostnames.iter().any(|pattern| *pattern != HostPattern::Exact(String::new()));
    (hostnames, impossible.filter(|_| !usable))
}

/// Why none of a route's rules serves a request as it is written.
fn not_served(outcome: &Outcome) -> Option<Fault> {
    let Outcome { rules, dropped, broken, unresolved: _ } = outcome;
    let whole = rules.iter().any(|(rule, _)| rule.filters.broken.is_none());
    if whole {
        return None;
    }
    dropped.first().or(broken.first()).map(|(_, fault)| fault.clone())
}

/// The condition of a route of which only a part is served as it is written.
fn partially_invalid(outcome: &Outcome) -> Option<Verdict> {
    let Outcome { rules: _, dropped, broken, unresolved: _ } = outcome;
    let (index, fault) = dropped.first().or(broken.first())?;
    let message = format!("Dropped Rule {index}: {}", fault.message);
    Some(Verdict { holds: true, reason: "UnsupportedValue", message })
}
