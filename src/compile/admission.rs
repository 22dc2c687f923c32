//! What an API server would refuse of objects in files, where nobody else checks them.
//!
//! What cannot be obeyed is refused where it is compiled. What is told here is served all the same, but the file could
//! not be applied to a cluster, and often hides a slip: the schemas of the Gateway API v1.6 are the source.

use super::findings::{Fault, Findings};
use super::owner::Owner;
use super::routes::{Written, WrittenMatches, WrittenRule};
use crate::resource::{
    Entry, HeaderModifier, HttpFilter, Listener, Objects, PathModifier, Resource, Severity, Snapshot,
    ValueMatch,
};
use std::collections::BTreeSet;

const MOST_PARENTS: usize = 32;
const MOST_MATCHES: usize = 64;
/// Of all rules of a route.
const MOST_MATCHES_IN_ALL: usize = 128;
/// Of host names, rules, filters, backends, headers of a match, edits of a filter.
const MOST: usize = 16;
const LONGEST_NAME: usize = 253;

/// Notes what an API server would refuse, of objects that come from files.
pub(super) fn check(snapshot: &Snapshot, findings: &mut Findings) {
    let routes = in_files(&snapshot.http_routes).map(Written::Http);
    let routes = routes.chain(in_files(&snapshot.grpc_routes).map(Written::Grpc));
    let routes = routes.chain(in_files(&snapshot.tls_routes).map(Written::Tls));
    let routes = routes.chain(in_files(&snapshot.tcp_routes).map(Written::Tcp));
    for route in routes.chain(in_files(&snapshot.udp_routes).map(Written::Udp)) {
        for (field, message) in of_route(&route) {
            route.note(findings, Severity::Warning, format!("spec.{field}"), &refused(&message));
        }
    }
    let owners = in_files(&snapshot.gateways).map(Owner::Gateway);
    for owner in owners.chain(in_files(&snapshot.listener_sets).map(Owner::Set)) {
        for (i, listener) in owner.listeners().iter().enumerate() {
            for (field, message) in of_listener(listener) {
                let field = format!("spec.listeners[{i}].{field}");
                owner.note(findings, Severity::Warning, &field, &refused(&message));
            }
        }
    }
}

fn in_files<T: Resource>(objects: &Objects<T>) -> impl Iterator<Item = &Entry<T>> {
    objects.iter().filter(|entry| entry.place.is_some())
}

fn refused(message: &str) -> Fault {
    Fault::new("NotAdmitted", format!("{message}; an API server would not take this"))
}

/// Fields with what is wrong with them.
type Faults = Vec<(String, String)>;

fn of_route(route: &Written<'_>) -> Faults {
    let mut faults = Faults::new();
    too_many(&mut faults, "parentRefs", route.parent_refs().len(), MOST_PARENTS);
    too_many(&mut faults, "hostnames", route.hostnames().len(), MOST);
    faults.extend(repeated_parent(route).map(|i| {
        let message = "each of several references to one parent needs a sectionName or port of its own";
        (format!("parentRefs[{i}]"), message.to_owned())
    }));
    let rules = route.rules();
    too_many(&mut faults, "rules", rules.len(), MOST);
    let matches: usize = rules.iter().map(matches).sum();
    if matches > MOST_MATCHES_IN_ALL {
        let message = format!("{matches} matches in all are more than {MOST_MATCHES_IN_ALL}");
        faults.push(("rules".to_owned(), message));
    }
    if let Some(name) = repeated(rules.iter().filter_map(|rule| rule.name)) {
        faults.push(("rules".to_owned(), format!("two rules are called `{name}`")));
    }
    for rule in &rules {
        let of_rule = of_rule(rule).into_iter();
        faults.extend(of_rule.map(|(field, message)| (format!("rules[{}].{field}", rule.index), message)));
    }
    faults
}

/// The place of a parent that is named before in a way that cannot be told apart.
fn repeated_parent(route: &Written<'_>) -> Option<usize> {
    let parents = route.parent_refs();
    let same = |a: usize, b: usize| {
        let key = |i: usize| {
            let parent = &parents[i];
            (parent.group(), parent.kind(), parent.namespace.as_deref(), &parent.name)
        };
        let section = |i: usize| (&parents[i].section_name, parents[i].port);
        let is_whole = |i: usize| section(i) == (&None, None);
        key(a) == key(b) && (section(a) == section(b) || is_whole(a) || is_whole(b))
    };
    (1..parents.len()).find(|&later| (0..later).any(|earlier| same(earlier, later)))
}

fn matches(rule: &WrittenRule<'_>) -> usize {
    match rule.matches {
        WrittenMatches::Http(rule) => rule.matches.len(),
        WrittenMatches::Grpc(rule) => rule.matches.len(),
    }
}

fn of_rule(rule: &WrittenRule<'_>) -> Faults {
    let mut faults = Faults::new();
    if let Some(name) = rule.name.filter(|name| !is_subdomain(name)) {
        faults.push(("name".to_owned(), no_name(name)));
    }
    let count = matches(rule);
    too_many(&mut faults, "matches", count, MOST_MATCHES);
    match rule.matches {
        WrittenMatches::Http(rule) => {
            for (i, one) in rule.matches.iter().enumerate() {
                of_values(&mut faults, &format!("matches[{i}].headers"), &one.headers);
                of_values(&mut faults, &format!("matches[{i}].queryParams"), &one.query_params);
            }
        }
        WrittenMatches::Grpc(rule) => {
            for (i, one) in rule.matches.iter().enumerate() {
                of_values(&mut faults, &format!("matches[{i}].headers"), &one.headers);
            }
        }
    }
    too_many(&mut faults, "backendRefs", rule.backend_refs.len(), MOST);
    of_filters(&mut faults, "filters", rule.filters, count);
    for (i, reference) in rule.backend_refs.iter().enumerate() {
        of_filters(&mut faults, &format!("backendRefs[{i}].filters"), &reference.filters, count);
    }
    faults
}

fn of_values(faults: &mut Faults, field: &str, values: &[ValueMatch]) {
    too_many(faults, field, values.len(), MOST);
    if let Some(name) = repeated(values.iter().map(|value| &*value.name)) {
        faults.push((field.to_owned(), format!("`{name}` stands there twice, and only the first counts")));
    }
}

/// `matches` is how many the rule has.
fn of_filters(faults: &mut Faults, field: &str, filters: &[HttpFilter], matches: usize) {
    too_many(faults, field, filters.len(), MOST);
    for (i, filter) in filters.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let modifiers = [
            ("requestHeaderModifier", &filter.request_header_modifier),
            ("responseHeaderModifier", &filter.response_header_modifier),
        ];
        for (name, modifier) in modifiers.into_iter().filter_map(|(name, of)| Some((name, of.as_deref()?))) {
            of_modifier(faults, &format!("{field}.{name}"), modifier);
        }
        faults.extend(strays(filter).map(|stray| {
            let message = format!("it has no effect in a filter of type {}", filter.r#type);
            (format!("{field}.{stray}"), message)
        }));
        let redirect = filter.request_redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
        let rewrite = filter.url_rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
        let of_prefix = |path: &PathModifier| path.replace_prefix_match.is_some();
        if matches > 1 && redirect.or(rewrite).is_some_and(of_prefix) {
            let message = "with replacePrefixMatch the rule has exactly one match, by PathPrefix";
            faults.push((field, message.to_owned()));
        }
    }
}

/// The fields of a filter that belong to other types.
fn strays(filter: &HttpFilter) -> impl Iterator<Item = &'static str> {
    let HttpFilter {
        r#type,
        request_header_modifier,
        response_header_modifier,
        request_redirect,
        url_rewrite,
        request_mirror,
        cors,
        external_auth,
        extension_ref,
    } = filter;
    let fields = [
        ("RequestHeaderModifier", "requestHeaderModifier", request_header_modifier.is_some()),
        ("ResponseHeaderModifier", "responseHeaderModifier", response_header_modifier.is_some()),
        ("RequestRedirect", "requestRedirect", request_redirect.is_some()),
        ("URLRewrite", "urlRewrite", url_rewrite.is_some()),
        ("RequestMirror", "requestMirror", request_mirror.is_some()),
        ("CORS", "cors", cors.is_some()),
        ("ExternalAuth", "externalAuth", external_auth.is_some()),
        ("ExtensionRef", "extensionRef", extension_ref.is_some()),
    ];
    fields
        .into_iter()
        .filter(|(kind, _, is_there)| *is_there && **kind != **r#type)
        .map(|(_, field, _)| field)
}

fn of_modifier(faults: &mut Faults, field: &str, modifier: &HeaderModifier) {
    let HeaderModifier { set, add, remove } = modifier;
    let names =
        |list: &[crate::resource::Header]| list.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    for (list, names) in [("set", names(set)), ("add", names(add)), ("remove", remove.to_vec())] {
        let field = format!("{field}.{list}");
        too_many(faults, &field, names.len(), MOST);
        if let Some(name) = repeated(names.iter().map(|name| &**name)) {
            faults.push((field, format!("`{name}` stands there twice")));
        }
    }
}

fn of_listener(listener: &Listener) -> Faults {
    let Listener { name, port: _, protocol, hostname, tls, allowed_routes: _ } = listener;
    let mut faults = Faults::new();
    if !is_subdomain(name) {
        faults.push(("name".to_owned(), no_name(name)));
    }
    let protocol = &**protocol;
    if tls.is_some() && ["HTTP", "TCP", "UDP"].contains(&protocol) {
        faults.push(("tls".to_owned(), format!("it has no effect with protocol {protocol}")));
    }
    if hostname.as_deref().is_some_and(|name| !name.is_empty()) && ["TCP", "UDP"].contains(&protocol) {
        faults.push(("hostname".to_owned(), format!("it has no effect with protocol {protocol}")));
    }
    if protocol == "TLS" && tls.as_ref().is_none_or(|tls| tls.mode.is_none()) {
        faults.push(("tls.mode".to_owned(), "protocol TLS needs Terminate or Passthrough".to_owned()));
    }
    faults
}

fn too_many(faults: &mut Faults, field: &str, count: usize, most: usize) {
    if count > most {
        faults.push((field.to_owned(), format!("{count} are more than {most}")));
    }
}

/// The first name that stands in a list twice.
fn repeated<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let mut seen = BTreeSet::new();
    names.find(|name| !seen.insert(*name))
}

fn no_name(name: &str) -> String {
    format!(
        "`{name}` is no name: those have lower-case letters, digits, `-` and `.`, and at most {LONGEST_NAME}"
    )
}

/// Whether it is a DNS subdomain as Kubernetes has it for names.
fn is_subdomain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.iter().all(|&byte| plain(byte) || byte == b'-')
            && bytes.first().copied().is_some_and(plain)
            && bytes.last().copied().is_some_and(plain)
    };
    name.len() <= LONGEST_NAME && name.split('.').all(is_label)
}
