//! From the rules of a route as they are written to those that run.

use super::aside::{self, Aside};
use super::backends::Resolver;
use super::durations;
use super::extension::{self, own_name};
use super::filters::{self, Remarks};
use super::findings::{Fault, Findings};
use super::grants::From;
use super::matches::{self, MatchFault, Ranked, Regexes};
use super::routes::{Written, WrittenRule};
use super::sessions;
use crate::filter::{Filters, HostEdit, Rewrite};
use crate::reply::Reply;
use crate::resource::Severity;
use crate::routing::{Backend, Backends, ClusterId, PathMatch, Rule, RuleName, Terms};
use crate::upstream::{ClusterSpec, Planned};
use http::HeaderValue;
use std::time::Duration;

/// The largest weight that the Gateway API allows.
const MAX_WEIGHT: u32 = 1_000_000;
/// As Envoy Gateway has it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Compiles rules, one after the other.
pub(super) struct Rules<'s> {
    pub regexes: Regexes,
    pub backends: Resolver<'s>,
    /// In the order of `routing::ClusterId`.
    pub clusters: Vec<Planned>,
}

/// What came of the rules of one route.
#[derive(Default)]
pub(super) struct Outcome {
    /// With their indexes and matches.
    pub rules: Vec<(usize, Rule, Vec<Ranked>)>,
    /// Why rules are not served at all, or answer 500: their indexes.
    pub dropped: Vec<(usize, Fault)>,
    pub broken: Vec<(usize, Fault)>,
    /// What is wrong with the first faulty reference.
    pub unresolved: Option<Fault>,
}

/// What of a rule its backends depend on.
#[derive(Clone, Copy)]
struct Scope<'a> {
    name: &'a RuleName,
    /// Whether every match is by path prefix.
    prefixes: bool,
    host_of_backend: bool,
}

/// Notes what is wrong with one rule.
struct Notes<'a, 's> {
    route: &'a Written<'s>,
    rule: usize,
    findings: &'a mut Findings,
}

impl Notes<'_, '_> {
    fn add(&mut self, severity: Severity, field: &str, fault: &Fault) {
        let field = format!("spec.rules[{}].{field}", self.rule);
        self.route.note(self.findings, severity, field, fault);
    }
}

impl<'s> Rules<'s> {
    /// All rules of a route.
    pub fn compile(&mut self, route: &Written<'s>, findings: &mut Findings) -> Outcome {
        let mut outcome = Outcome::default();
        for written in route.rules() {
            let mut notes = Notes { route, rule: written.index, findings };
            match self.matches(&written, route.namespace()) {
                Err((field, fault)) => {
                    notes.add(Severity::Error, &field, &fault);
                    outcome.dropped.push((written.index, fault));
                }
                Ok(ranked) => {
                    let rule = self.rule(&written, &ranked, &mut notes, &mut outcome);
                    outcome.rules.push((written.index, rule, ranked));
                }
            }
        }
        outcome
    }

    /// The indexes and matches of all rules of a route that are compiled.
    pub fn ranked(&mut self, route: &Written<'s>) -> Vec<(usize, Vec<Ranked>)> {
        let rules = route.rules().into_iter();
        rules.filter_map(|rule| Some((rule.index, self.matches(&rule, route.namespace()).ok()?))).collect()
    }

    /// The matches of a rule, with what its filters ask of requests besides.
    fn matches(&mut self, written: &WrittenRule<'_>, namespace: &str) -> Result<Vec<Ranked>, MatchFault> {
        let mut ranked = matches::compile(&written.matches, &mut self.regexes)?;
        let asked = extension::asked(self.backends.snapshot(), namespace, written.filters);
        let cookies = asked.into_iter().map(|(i, asked)| {
            let lists = matches::cookies(asked, &mut self.regexes);
            lists.map_err(|(field, fault)| (format!("filters[{i}].extensionRef.{field}"), fault))
        });
        let cookies: Box<[_]> = cookies.collect::<Result<_, _>>()?;
        if !cookies.is_empty() {
            ranked.iter_mut().for_each(|(matches, _)| matches.cookies = cookies.clone());
        }
        Ok(ranked)
    }

    fn rule(
        &mut self,
        written: &WrittenRule<'_>,
        ranked: &[Ranked],
        notes: &mut Notes<'_, 's>,
        outcome: &mut Outcome,
    ) -> Rule {
        let WrittenRule {
            index,
            name,
            matches: _,
            filters: written_filters,
            backend_refs,
            timeouts,
            retry,
            session_persistence,
        } = written;
        let own_name = name.map(str::to_owned);
        let (namespace, route) = notes.route.metadata().key();
        let name = RuleName::new(notes.route.kind(), namespace, route, *index);
        let (timeouts, mut faults) = durations::timeouts(*timeouts);
        let retry = retry.map(|retry| {
            let (retry, more) = aside::retry(retry);
            faults.extend(more);
            retry
        });
        let session = session_persistence.and_then(|written| {
            let session = sessions::compile(written, &name, ranked.iter().map(|(matches, _)| matches));
            session.map_err(|fault| faults.push(fault)).ok()
        });
        for (field, message) in faults {
            notes.add(Severity::Error, field, &Fault::new("UnsupportedValue", message));
        }
        let prefixes = ranked.iter().all(|(matches, _)| matches!(matches.path, PathMatch::Prefix(_)));
        let mut aside = self.aside(&name, notes);
        let (filters, remarks) = filters::compile(written_filters, prefixes, &mut aside);
        let scope = Scope { name: &name, prefixes, host_of_backend: remarks.host_of_backend };
        note_filters(remarks, "filters", notes, outcome);
        let backends = self.backends(written, scope, notes, outcome);
        if filters.redirect.is_some() && !backend_refs.is_empty() {
            let message = "the rule redirects, so no request reaches its backends";
            notes.add(Severity::Warning, "backendRefs", &Fault::new("NoEffect", message));
        }
        let answers =
            filters.redirect.is_some() || filters.broken.is_some() || filters.direct_response.is_some();
        if backend_refs.is_empty() && !answers {
            let message = match notes.route.speaks_http() {
                true => "the rule has no backendRefs and no redirect, so it answers 500",
                false => "the rule has no backendRefs, so what it takes goes nowhere",
            };
            notes.add(Severity::Warning, "backendRefs", &Fault::new("NoBackend", message));
        }
        let terms = Terms { name: own_name, filters, timeouts, retry, session };
        Rule { name, backends, terms: terms.kept() }
    }

    fn backends(
        &mut self,
        written: &WrittenRule<'_>,
        scope: Scope<'_>,
        notes: &mut Notes<'_, 's>,
        outcome: &mut Outcome,
    ) -> Backends {
        let Scope { name, prefixes, host_of_backend } = scope;
        let mut specs = Vec::new();
        let mut entries = Vec::new();
        for (i, reference) in written.backend_refs.iter().enumerate() {
            let from = From { kind: notes.route.kind(), namespace: notes.route.namespace() };
            let index = match self.backends.resolve(from, reference, notes.findings) {
                Ok(spec) => {
                    specs.push(spec);
                    // More backends than an index can name have no traffic, as if their references were broken.
                    u16::try_from(specs.len() - 1).ok()
                }
                Err(fault) => {
                    notes.add(Severity::Error, &format!("backendRefs[{i}]"), &fault);
                    outcome.unresolved.get_or_insert(fault);
                    None
                }
            };
            let mut aside = self.aside(name, notes);
            let (mut filters, mut remarks) = filters::compile(&reference.filters, prefixes, &mut aside);
            let snapshot = self.backends.snapshot();
            if let [(place, _), ..] = *extension::asked(snapshot, from.namespace, &reference.filters) {
                // The backend is chosen already, and nobody else is there to serve what it is not meant for.
                let message = "matches of an HTTPRouteFilter are asked at a rule; move the filter there";
                remarks.broken.push((place, Fault::new("UnsupportedValue", message)));
                filters = Filters { broken: Some(Reply::BrokenRule), ..Filters::default() };
            }
            if host_of_backend || remarks.host_of_backend {
                let named = own_name(self.backends.snapshot(), from, reference);
                rewrite_host(&mut filters, named);
            }
            note_filters(remarks, &format!("backendRefs[{i}].filters"), notes, outcome);
            let mut weight = reference.weight.unwrap_or(1);
            if weight > MAX_WEIGHT {
                let message = format!(
                    "weight {weight} is more than {MAX_WEIGHT}, which is the most; its share answers 500"
                );
                let fault = Fault::new("UnsupportedValue", message);
                notes.add(Severity::Error, &format!("backendRefs[{i}].weight"), &fault);
                filters = Filters { broken: Some(Reply::BrokenRule), ..Filters::default() };
                weight = MAX_WEIGHT;
                outcome.broken.push((written.index, fault));
            }
            let filters = (!filters.is_empty()).then(|| Box::new(filters));
            entries.push(Backend { weight, index, filters });
        }
        let cluster = (!specs.is_empty()).then(|| self.cluster(name, specs));
        Backends::new(cluster, entries)
    }

    fn cluster(&mut self, name: &RuleName, backends: Vec<crate::upstream::BackendSpec>) -> ClusterId {
        let id = cluster_id(self.clusters.len());
        self.clusters.push(Planned::New(ClusterSpec {
            name: name.text().clone(),
            backends: backends.into(),
            connect_timeout: CONNECT_TIMEOUT,
        }));
        id
    }

    fn aside<'a>(&'a mut self, rule: &'a RuleName, notes: &'a mut Notes<'_, 's>) -> Aside<'a, 's> {
        Aside {
            backends: &mut self.backends,
            clusters: &mut self.clusters,
            from: From { kind: notes.route.kind(), namespace: notes.route.namespace() },
            findings: notes.findings,
            rule,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

/// The id of the cluster at this place.
pub(super) fn cluster_id(place: usize) -> ClusterId {
    ClusterId(u32::try_from(place).expect("memory ends before four thousand million clusters"))
}

/// Gives requests for a backend its own name; without one the host stays as it is, as with Envoy.
fn rewrite_host(filters: &mut Filters, name: Option<&str>) {
    let Some(host) = name.and_then(|name| HeaderValue::from_str(name).ok()) else { return };
    let rewrite = filters.rewrite.get_or_insert_with(|| Box::new(Rewrite { hostname: None, path: None }));
    rewrite.hostname.get_or_insert(HostEdit::Literal(host));
}

/// Notes what is remarkable about filters.
fn note_filters(remarks: Remarks, field: &str, notes: &mut Notes<'_, '_>, outcome: &mut Outcome) {
    let Remarks { broken, odd, unresolved, host_of_backend: _ } = remarks;
    for (i, fault) in &odd {
        notes.add(Severity::Warning, &format!("{field}[{i}]"), fault);
    }
    for (i, fault) in broken.iter().chain(&unresolved) {
        notes.add(Severity::Error, &format!("{field}[{i}]"), fault);
    }
    outcome.broken.extend(broken.into_iter().next().map(|(_, fault)| (notes.rule, fault)));
    if let Some((_, fault)) = unresolved.into_iter().next() {
        outcome.unresolved.get_or_insert(fault);
    }
}
