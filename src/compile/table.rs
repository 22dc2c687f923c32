//! Puts the compiled rules of routes into the listeners that they attach to.

use super::attach::{Approach, Attachment, ListenerId, attach};
use super::findings::{Fault, Findings, listed};
use super::gateways::Bound;
use super::matches::Ranked;
use super::parents;
use super::report::{ParentReport, RouteReport, Verdict};
use super::routes::Written;
use super::rules::{Outcome, Rules};
use crate::host::HostPattern;
use crate::resource::{Severity, Snapshot};
use crate::routing::{PathIndex, Rank, Rule};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Fills listeners with routes, one after the other, in the order in which they win over each other.
pub(super) struct Filling<'a, 's> {
    pub snapshot: &'s Snapshot,
    pub bound: &'a mut Vec<Bound<'s>>,
    pub rules: Rules<'s>,
    /// All rules of the table.
    pub table: Vec<Arc<Rule>>,
    /// The host names that each kind of route has on a listener, and whose they were first.
    owners: HashMap<(ListenerId, &'static str), BTreeMap<HostPattern, Written<'s>>>,
}

impl<'a, 's> Filling<'a, 's> {
    pub fn new(snapshot: &'s Snapshot, bound: &'a mut Vec<Bound<'s>>, rules: Rules<'s>) -> Self {
        Self { snapshot, bound, rules, table: Vec::new(), owners: HashMap::new() }
    }

    /// Attaches one route, and says what came of it.
    pub fn add(&mut self, route: &Written<'s>, findings: &mut Findings) -> RouteReport {
        let mut report = RouteReport {
            route: route.kept(),
            parents: Box::default(),
            resolved_refs: Verdict::yes("ResolvedRefs"),
            partially_invalid: None,
        };
        let ours = parents::ours(self.snapshot, self.bound, route, findings);
        if ours.is_empty() {
            return report;
        }
        let gateways = ours.iter().flat_map(|(_, parent)| {
            parents::bound_gateways(self.bound, route.namespace(), parent).map(|(place, _)| place)
        });
        self.rules.backends.serve(gateways.collect::<BTreeSet<_>>().into_iter().collect());
        let hostnames = hostnames(route, findings);
        let clusters = self.rules.clusters.len();
        let outcome = self.rules.compile(route, findings);
        let unserved = hostnames.as_ref().err().cloned().or_else(|| not_served(&outcome));
        let mut listeners = BTreeMap::new();
        let mut parents = Vec::with_capacity(ours.len());
        for (i, parent) in ours {
            let mut verdict = Verdict::yes("Accepted");
            if let Ok(hostnames) = &hostnames {
                let approach = Approach { snapshot: self.snapshot, route, hostnames, parent };
                let attachment = attach(self.bound, &approach);
                verdict = self.take(attachment, route, &mut listeners);
                if !verdict.holds {
                    let fault = Fault::new(verdict.reason, verdict.message.clone());
                    route.note(findings, Severity::Error, format!("spec.parentRefs[{i}]"), &fault);
                }
            }
            if let (true, Some(fault)) = (verdict.holds, &unserved) {
                verdict = Verdict::no(fault.reason, fault.message.clone());
            }
            parents.push(ParentReport { place: i, accepted: verdict });
        }
        report.parents = parents.into();
        if let Some(fault) = &outcome.unresolved {
            report.resolved_refs = Verdict::no(fault.reason, fault.message.clone());
        }
        report.partially_invalid =
            if unserved.is_none() { partially_invalid(&outcome).map(Box::new) } else { None };
        self.note_unserved(route, &listeners, findings);
        self.count(route, &listeners, unserved.is_none());
        listeners.retain(|&(g, l), _| self.bound[g].listeners[l].accepted.holds);
        if listeners.is_empty() {
            // Nobody asks for its clusters.
            self.rules.clusters.truncate(clusters);
        } else {
            self.insert(route, outcome, &listeners);
        }
        report
    }

    /// Takes the listeners that a route attached to, but for those whose host names are another kind's.
    fn take(
        &mut self,
        attachment: Attachment,
        route: &Written<'s>,
        listeners: &mut BTreeMap<ListenerId, Vec<HostPattern>>,
    ) -> Verdict {
        let Attachment { verdict, listeners: mut taken } = attachment;
        let refused = self.claim(&mut taken, route);
        listeners.extend(taken);
        refused.map_or(verdict, |fault| Verdict::no(fault.reason, fault.message))
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
        route: &Written<'s>,
    ) -> Option<Fault> {
        if self.snapshot.grpc_routes.is_empty() || self.snapshot.http_routes.is_empty() {
            return None;
        }
        let mut refused = None;
        taken.retain(|&listener, hosts| match self.rival(listener, route.kind(), hosts) {
            Some((host, owner)) => {
                let (namespace, name) = owner.metadata().key();
                let message = format!(
                    "host name {host} belongs to {} {namespace}/{name}, which is older or comes first by name; the two kinds cannot share one",
                    owner.kind()
                );
                refused = Some(Fault::new("NotAllowedByListeners", message));
                false
            }
            None => {
                let owners = self.owners.entry((listener, route.kind())).or_default();
                for host in hosts.iter() {
                    owners.entry(host.clone()).or_insert(*route);
                }
                true
            }
        });
        refused.filter(|_| taken.is_empty())
    }

    /// A host that routes of the other kind have too, and the first of them.
    fn rival(
        &self,
        listener: ListenerId,
        kind: &str,
        hosts: &[HostPattern],
    ) -> Option<(HostPattern, Written<'s>)> {
        let (g, l) = listener;
        let of_listener = &self.bound[g].listeners[l].hostname;
        let other = if kind == "HTTPRoute" { "GRPCRoute" } else { "HTTPRoute" };
        let theirs = self.owners.get(&(listener, other))?;
        theirs.iter().find_map(|(name, owner)| {
            let shared = hosts.iter().find_map(|host| both(host, name, of_listener))?;
            Some((shared, *owner))
        })
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
        outcome: Outcome,
        listeners: &BTreeMap<ListenerId, Vec<HostPattern>>,
    ) {
        let (namespace, name) = route.metadata().key();
        let name: Arc<str> = format!("{namespace}/{name}").into();
        for (index, rule, ranked) in outcome.rules {
            let place =
                u32::try_from(self.table.len()).expect("memory ends before four thousand million rules");
            self.table.push(Arc::new(rule));
            if !route.speaks_http() {
                self.insert_stream(place, listeners);
                continue;
            }
            for (i, (matches, path)) in ranked.into_iter().enumerate() {
                let rank = Rank {
                    path,
                    method: matches.method.is_some(),
                    headers: matches.headers_asked(),
                    queries: matches.queries.len(),
                    age: Reverse(route.age()),
                    route: Reverse(name.clone()),
                    position: Reverse((index, i)),
                };
                self.insert_match(&(matches, path), &rank, place, listeners);
            }
        }
    }

    /// Gives a rule the connections or flows of its host names. Routes come in the order in which they win, so
    /// a name that has a rule already keeps it.
    fn insert_stream(&mut self, place: u32, listeners: &BTreeMap<ListenerId, Vec<HostPattern>>) {
        for (&(g, l), hosts) in listeners {
            for host in hosts {
                self.bound[g].listeners[l].streams.entry(host, || place);
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

/// The hosts of a listener that two routes of different kinds both name. A route without host names names none, and
/// is in nobody's way unless the other one names all that the listener has.
fn both(one: &HostPattern, other: &HostPattern, of_listener: &HostPattern) -> Option<HostPattern> {
    let [a, b] = [one, other].map(|name| name.intersect(of_listener));
    let (a, b) = (a?, b?);
    let nameless = (*one == HostPattern::Any) != (*other == HostPattern::Any);
    if nameless && a != b { None } else { a.intersect(&b) }
}

/// The host names of a route; or, when it has some and none of them is one, what is wrong. Were it served
/// without them, it would serve every host.
fn hostnames(route: &Written<'_>, findings: &mut Findings) -> Result<Vec<HostPattern>, Fault> {
    let mut hostnames = Vec::new();
    let mut wrong = None;
    for (i, text) in route.hostnames().iter().enumerate() {
        match HostPattern::parse(text) {
            Some(pattern) => hostnames.push(pattern),
            None => {
                let message = format!("`{text}` is no host name; write `www.example.com` or `*.example.com`");
                let fault = Fault::new("UnsupportedValue", message);
                route.note(findings, Severity::Error, format!("spec.hostnames[{i}]"), &fault);
                wrong.get_or_insert(fault);
            }
        }
    }
    match wrong {
        Some(fault) if hostnames.is_empty() => Err(fault),
        _ => Ok(hostnames),
    }
}

/// Why none of a route's rules serves a request as it is written.
fn not_served(outcome: &Outcome) -> Option<Fault> {
    let Outcome { rules, dropped, broken, unresolved: _ } = outcome;
    let whole =
        rules.iter().any(|(_, rule, _)| rule.filters().is_none_or(|filters| filters.broken.is_none()));
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
    Some(Verdict { holds: true, reason: "UnsupportedValue", message: message.into() })
}
