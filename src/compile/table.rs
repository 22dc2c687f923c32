//! Puts the compiled rules of routes into the listeners that they attach to.

use super::attach::{Approach, Attachment, ListenerId, attach, common};
use super::findings::{Fault, Findings, listed};
use super::gateways::{Bound, Listening};
use super::kept::{self, Done, Fate, Places};
use super::matches::Ranked;
use super::parents;
use super::report::{ParentReport, RouteVerdicts, Verdict};
use super::routes::Written;
use super::rules::{Outcome, Rules};
use crate::host::HostPattern;
use crate::resource::{ParentRef, Severity, Snapshot};
use crate::routing::{Rank, RoutingTable, Rule};
use crate::upstream::Planned;
use foldhash::fast::RandomState;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Listeners with the host names that a route has on them.
type Listeners = BTreeMap<ListenerId, Vec<HostPattern>>;

/// Fills listeners with routes, one after the other, in the order in which they win over each other.
pub(super) struct Filling<'a, 's> {
    pub snapshot: &'s Snapshot,
    pub bound: &'a mut Vec<Bound<'s>>,
    pub rules: Rules<'s>,
    /// All rules of the table.
    pub table: Vec<Arc<Rule>>,
    /// What became of all routes so far.
    pub done: Vec<Done>,
    /// All that became of any of them, told once and kept once.
    fates: HashSet<Arc<Fate>, RandomState>,
    /// The routes themselves, and the matches of those that were compiled just now.
    routes: Vec<(Written<'s>, Option<Matching>)>,
    /// The host names that each kind of route has on a listener, and whose they were first.
    owners: HashMap<(ListenerId, &'static str), BTreeMap<HostPattern, Written<'s>>>,
}

/// The indexes of rules with their matches.
type Matching = Vec<(usize, Vec<Ranked>)>;

impl<'a, 's> Filling<'a, 's> {
    pub fn new(snapshot: &'s Snapshot, bound: &'a mut Vec<Bound<'s>>, rules: Rules<'s>) -> Self {
        let (table, done, routes) = (Vec::new(), Vec::new(), Vec::new());
        let (fates, owners) = (HashSet::default(), HashMap::new());
        Self { snapshot, bound, rules, table, done, fates, routes, owners }
    }

    /// Adds a route: as it was compiled before, or compiled now. `former` is the table of before.
    pub fn add(
        &mut self,
        route: Written<'s>,
        before: Option<Done>,
        former: &RoutingTable,
        findings: &mut Findings,
    ) {
        let stays = before.as_ref().is_some_and(|done| self.may_stay(&route, done));
        let (mut done, matching) = match before {
            Some(done) if stays => {
                self.table.extend_from_slice(&former.rules()[done.rules.range()]);
                self.rules.clusters.extend(done.clusters.range().map(|_| Planned::Same));
                (done, None)
            }
            other => {
                let (done, matching) = self.compile(&route);
                // It is the same route, so it has other host names only where it has other listeners.
                let other = other.filter(|other| other.fate.listeners != done.fate.listeners);
                other.iter().chain([&done]).for_each(|done| self.touch(done));
                (done, Some(matching))
            }
        };
        done.fate = self.tell(done.fate, findings);
        self.count(&route, &done);
        self.done.push(done);
        self.routes.push((route, matching));
    }

    /// Tells what became of a route, unless another one has the same fate; they share it from now on.
    fn tell(&mut self, fate: Arc<Fate>, findings: &mut Findings) -> Arc<Fate> {
        if let Some(known) = self.fates.get(&fate) {
            return Arc::clone(known);
        }
        findings.take_over(&fate.findings);
        self.rules.backends.policies.credit(&fate.policies);
        self.fates.insert(Arc::clone(&fate));
        fate
    }

    /// Whether a route is still what it was, when all that it depends on is.
    fn may_stay(&mut self, route: &Written<'s>, done: &Done) -> bool {
        let places = (done.rules.range().start, done.clusters.range().start);
        if places != (self.table.len(), self.rules.clusters.len()) || done.fate.refused {
            return false;
        }
        if !self.has_rivals() {
            return true;
        }
        let mut listeners = self.listeners(done);
        let count = listeners.len();
        self.claim(&mut listeners, route);
        listeners.len() == count
    }

    /// The listeners that a route attached to, with the host names that it has on them.
    fn listeners(&self, done: &Done) -> Listeners {
        let names = done.route.hostnames().iter().filter_map(|text| HostPattern::parse(text));
        let names: Vec<_> = names.collect();
        let of = |&id: &ListenerId| (id, common(names.iter().cloned(), self.listener(id)));
        done.fate.listeners.iter().map(of).collect()
    }

    /// Attaches a route, and says what came of it.
    fn compile(&mut self, route: &Written<'s>) -> (Done, Matching) {
        let mut findings = Findings::default();
        let (first_rule, first_cluster) = (self.table.len(), self.rules.clusters.len());
        let mut verdicts = RouteVerdicts {
            parents: Box::default(),
            resolved_refs: Verdict::yes("ResolvedRefs"),
            partially_invalid: None,
        };
        let mut taken = Taken::default();
        let mut outcome = Outcome::default();
        let mut accepted = true;
        let ours = parents::ours(self.snapshot, self.bound, route, &mut findings);
        if !ours.is_empty() {
            self.serve(route, &ours);
            let hostnames = hostnames(route, &mut findings);
            outcome = self.rules.compile(route, &mut findings);
            let unserved = hostnames.as_ref().err().cloned().or_else(|| not_served(&outcome));
            accepted = unserved.is_none();
            verdicts.parents = self.attach(route, &ours, (hostnames, unserved), &mut taken, &mut findings);
            if let Some(fault) = &outcome.unresolved {
                verdicts.resolved_refs = Verdict::no(fault.reason, fault.message.clone());
            }
            verdicts.partially_invalid = if accepted { partially_invalid(&outcome) } else { None };
            self.note_unserved(route, &taken.listeners, &mut findings);
        }
        if !taken.listeners.keys().any(|listener| self.listener(*listener).accepted.holds) {
            // Nobody asks for its rules and clusters.
            self.rules.clusters.truncate(first_cluster);
            outcome.rules.clear();
        }
        let mut matching = Vec::new();
        for (index, rule, ranked) in outcome.rules {
            self.table.push(Arc::new(rule));
            matching.push((index, ranked));
        }
        let fate = Fate {
            verdicts: Arc::new(verdicts),
            listeners: taken.listeners.into_keys().collect(),
            refused: taken.refused,
            accepted,
            findings: findings.into_list(),
            policies: self.rules.backends.policies.used(),
        };
        let done = Done {
            route: route.kept(),
            place: route.place(),
            fate: Arc::new(fate),
            rules: Places::new(first_rule, self.table.len()),
            clusters: Places::new(first_cluster, self.rules.clusters.len()),
        };
        (done, matching)
    }

    /// What follows is compiled for the Gateways of this route.
    fn serve(&mut self, route: &Written<'s>, ours: &[(usize, &ParentRef)]) {
        let gateways = ours.iter().flat_map(|(_, parent)| {
            parents::bound_gateways(self.bound, route.namespace(), parent).map(|(place, _)| place)
        });
        self.rules.backends.serve(gateways.collect::<BTreeSet<_>>().into_iter().collect());
    }

    /// Attaches a route to its parents; `hostnames` are with what is wrong with the route as a whole.
    fn attach(
        &mut self,
        route: &Written<'s>,
        ours: &[(usize, &ParentRef)],
        (hostnames, unserved): (Result<Vec<HostPattern>, Fault>, Option<Fault>),
        taken: &mut Taken,
        findings: &mut Findings,
    ) -> Box<[ParentReport]> {
        let mut parents = Vec::with_capacity(ours.len());
        for &(i, parent) in ours {
            let mut verdict = Verdict::yes("Accepted");
            if let Ok(hostnames) = &hostnames {
                let approach = Approach { snapshot: self.snapshot, route, hostnames, parent };
                let attachment = attach(self.bound, &approach);
                verdict = self.take(attachment, route, taken);
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
        parents.into()
    }

    /// Takes the listeners that a route attached to, but for those whose host names are another kind's.
    fn take(&mut self, attachment: Attachment, route: &Written<'s>, taken: &mut Taken) -> Verdict {
        let Attachment { verdict, mut listeners } = attachment;
        let (count, refused) = (listeners.len(), self.claim(&mut listeners, route));
        taken.refused |= listeners.len() < count;
        taken.listeners.extend(listeners);
        refused.map_or(verdict, |fault| Verdict::no(fault.reason, fault.message))
    }

    /// Says so when a route attached only to listeners that are not served.
    fn note_unserved(&self, route: &Written<'_>, listeners: &Listeners, findings: &mut Findings) {
        let faulty: Vec<String> = listeners
            .keys()
            .map(|&listener| self.listener(listener))
            .filter(|listener| !listener.accepted.holds)
            .map(|listener| format!("`{}` ({})", listener.written.name, listener.accepted.reason))
            .collect();
        if !faulty.is_empty() && faulty.len() == listeners.len() {
            let message = format!("it attaches only to listeners that are not served: {}", listed(&faulty));
            let fault = Fault::new("ListenersNotValid", message);
            route.note(findings, Severity::Warning, "spec.parentRefs", &fault);
        }
    }

    /// Whether there are routes of two kinds that do not share host names.
    fn has_rivals(&self) -> bool {
        !self.snapshot.grpc_routes.is_empty() && !self.snapshot.http_routes.is_empty()
    }

    /// Leaves a host name on a listener to the kind of route that had it first: HTTPRoutes and GRPCRoutes do not
    /// share one (`GRPCRouteSpec` in the Gateway API).
    fn claim(&mut self, taken: &mut Listeners, route: &Written<'s>) -> Option<Fault> {
        if !self.has_rivals() {
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
        let of_listener = &self.listener(listener).hostname;
        let other = if kind == "HTTPRoute" { "GRPCRoute" } else { "HTTPRoute" };
        let theirs = self.owners.get(&(listener, other))?;
        theirs.iter().find_map(|(name, owner)| {
            let shared = hosts.iter().find_map(|host| both(host, name, of_listener))?;
            Some((shared, *owner))
        })
    }

    /// Counts a route at its listeners, and gives its first rule the connections or flows of its host names. Routes
    /// come in the order in which they win, so a name that has a rule already keeps it.
    fn count(&mut self, route: &Written<'_>, done: &Done) {
        for &id in &done.fate.listeners {
            let listener = self.listener_mut(id);
            listener.attached += u32::from(done.fate.accepted);
            listener.grpc |= route.kind() == "GRPCRoute";
        }
        if route.speaks_http() || done.rules.count == 0 {
            return;
        }
        for (id, hosts) in self.listeners(done) {
            let listener = self.listener_mut(id);
            for host in hosts.iter().filter(|_| listener.accepted.holds) {
                listener.streams.entry(host, || done.rules.first);
            }
        }
    }

    fn listener(&self, (g, l): ListenerId) -> &Listening<'s> {
        &self.bound[g as usize].listeners[l as usize]
    }

    fn listener_mut(&mut self, (g, l): ListenerId) -> &mut Listening<'s> {
        &mut self.bound[g as usize].listeners[l as usize]
    }

    /// Has the paths of all host names of a route made anew.
    pub fn touch(&mut self, done: &Done) {
        for (id, hosts) in self.listeners(done) {
            let listener = self.listener_mut(id);
            for host in hosts.iter().filter(|_| listener.accepted.holds) {
                listener.hosts.entry(host, Arc::default);
            }
        }
    }

    /// Makes the paths of all host names that were touched, from the rules of all routes that have one of them.
    pub fn index(&mut self, former: &RoutingTable) {
        let sharing = self.sharing(former);
        for (i, (route, matching)) in std::mem::take(&mut self.routes).into_iter().enumerate() {
            let matching = match matching {
                None if sharing.contains(&i) => self.rules.ranked(&route),
                None => continue,
                Some(matching) => matching,
            };
            if route.speaks_http() {
                self.insert(&route, i, matching);
            }
        }
    }

    /// The routes that had paths of a host name that was touched, by their places.
    fn sharing(&self, former: &RoutingTable) -> HashSet<usize> {
        let mut sharing = HashSet::new();
        for bound in self.bound.iter() {
            for listener in &bound.listeners {
                let Some(known) = kept::paths(former, bound, listener) else { continue };
                let rules = listener.hosts.iter().filter_map(|(host, _)| known.get(&host));
                for (_, rule) in rules.flat_map(|paths| paths.iter()) {
                    let after = self.done.partition_point(|done| done.rules.first <= rule);
                    sharing.extend(after.checked_sub(1));
                }
            }
        }
        sharing
    }

    fn insert(&mut self, route: &Written<'_>, place: usize, matching: Matching) {
        let done = &self.done[place];
        let (first, listeners) = (done.rules.first, self.listeners(done));
        let (namespace, name) = route.metadata().key();
        let name: Arc<str> = format!("{namespace}/{name}").into();
        for (rule, (index, ranked)) in (first..).zip(matching) {
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
                for (&id, hosts) in &listeners {
                    let known = &mut self.listener_mut(id).hosts;
                    for host in hosts {
                        if let Some(paths) = known.get_mut(host) {
                            Arc::make_mut(paths).insert(rank.clone(), matches.clone(), rule);
                        }
                    }
                }
            }
        }
    }
}

/// What a route got hold of.
#[derive(Default)]
struct Taken {
    listeners: Listeners,
    /// Whether a route of another kind had something of it first.
    refused: bool,
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
