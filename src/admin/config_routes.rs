//! Routes as Envoy's RouteConfiguration has them.

use crate::filter::Redirect;
use crate::live::Revision;
use crate::routing::{Backend, HeaderMatch, Matches, PathMatch, QueryMatch, Rule, SocketTable, TextMatch};
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A virtual host for each host of a socket. The most specific listener for a host alone answers, so a host that
/// several listeners have is shown once.
pub fn virtual_hosts(socket_name: &str, revision: &Revision, socket: &SocketTable) -> Vec<Value> {
    let mut listeners: Vec<_> = socket.hosts().collect();
    listeners.sort_by(|a, b| b.0.cmp(&a.0));
    let mut seen = BTreeSet::new();
    let mut hosts = Vec::new();
    for (_, place) in listeners {
        for (host, paths) in socket.listeners()[place].hosts.iter() {
            let host = host.to_string();
            if !seen.insert(host.clone()) {
                continue;
            }
            let routes: Vec<_> = paths
                .iter()
                .enumerate()
                .map(|(number, (matches, rule))| {
                    let rule = &revision.table.rules()[rule as usize];
                    let label = host.replace(['.', '*'], "_");
                    let mut route = action(rule, revision);
                    route["name"] = format!("{}/match/{number}/{label}", rule.name).into();
                    route["match"] = route_match(&matches);
                    route
                })
                .collect();
            let name = format!("{socket_name}/{}", host.replace('.', "_"));
            hosts.push(json!({ "name": name, "domains": [host], "routes": routes }));
        }
    }
    hosts.sort_by_key(|host| host["name"].to_string());
    hosts
}

fn route_match(matches: &Matches) -> Value {
    let mut shown = match &matches.path {
        PathMatch::Exact(path) => json!({ "path": path }),
        PathMatch::Prefix(prefix) if prefix.is_empty() => json!({ "prefix": "/" }),
        PathMatch::Prefix(prefix) => json!({ "path_separated_prefix": prefix }),
        PathMatch::Regex(regex) => json!({ "safe_regex": { "regex": regex.as_str() } }),
    };
    let method = matches
        .method
        .iter()
        .map(|method| json!({ "name": ":method", "string_match": { "exact": method.as_str() } }));
    let headers = matches.headers.iter().map(
        |HeaderMatch { name, value }| json!({ "name": name.as_str(), "string_match": text_match(value) }),
    );
    let headers: Vec<_> = method.chain(headers).collect();
    if !headers.is_empty() {
        shown["headers"] = headers.into();
    }
    let queries = matches
        .queries
        .iter()
        .map(|QueryMatch { name, value }| json!({ "name": name, "string_match": text_match(value) }));
    let queries: Vec<_> = queries.collect();
    if !queries.is_empty() {
        shown["query_parameters"] = queries.into();
    }
    shown
}

fn text_match(text: &TextMatch) -> Value {
    match text {
        TextMatch::Exact(text) => json!({ "exact": text }),
        TextMatch::Regex(regex) => json!({ "safe_regex": { "regex": regex.as_str() } }),
    }
}

/// What becomes of a request: a redirect, or the rule's cluster, or what the gateway answers itself.
fn action(rule: &Rule, revision: &Revision) -> Value {
    let filters = rule.filters();
    if let Some(found) = filters.and_then(|filters| filters.redirect.as_deref()) {
        return json!({ "redirect": redirect(found) });
    }
    let can_go =
        rule.backends.entries().iter().any(|Backend { weight, index, .. }| *weight > 0 && index.is_some());
    let is_broken = filters.is_some_and(|filters| filters.broken.is_some());
    let direct = filters.and_then(|filters| filters.direct_response.as_deref());
    let cluster = rule.backends.cluster().filter(|_| can_go && !is_broken);
    match cluster.and_then(|id| revision.clusters.get(id.0 as usize)) {
        Some(cluster) if direct.is_none() => {
            let mut route = json!({ "cluster": cluster.name() });
            if let Some(limit) = rule.timeouts().request.said() {
                route["timeout"] = format!("{}s", limit.as_secs_f64()).into();
            }
            json!({ "route": route })
        }
        _ => {
            let direct = direct.map_or(500, |direct| direct.status().as_u16());
            json!({ "direct_response": { "status": direct } })
        }
    }
}

fn redirect(redirect: &Redirect) -> Value {
    let mut shown = json!({
        "response_code": match redirect.status {
            StatusCode::FOUND => "FOUND",
            StatusCode::SEE_OTHER => "SEE_OTHER",
            StatusCode::TEMPORARY_REDIRECT => "TEMPORARY_REDIRECT",
            StatusCode::PERMANENT_REDIRECT => "PERMANENT_REDIRECT",
            _ => "MOVED_PERMANENTLY",
        },
    });
    if let Some(scheme) = redirect.scheme {
        shown["scheme_redirect"] = scheme.name().into();
    }
    if let Some(host) = &redirect.hostname {
        shown["host_redirect"] = host.as_str().into();
    }
    if let Some(port) = redirect.port {
        shown["port_redirect"] = port.into();
    }
    shown
}
