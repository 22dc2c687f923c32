//! What filters cost a request that has them, and one that has none: a rule without filters pays for their absence
//! only, however many rules of the table have them.
//!
//! `cargo bench --bench filters`. `edit` does what `proxy/passage.rs` does between a match and a backend.

#[expect(dead_code, reason = "the benches of look-ups need more of it")]
mod tables;

use divan::{AllocProfiler, Bencher, black_box};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use tables::{SOCKET, many_hosts, request};
use trigate::filter::{Credential, Filters, HeaderEdits, HostEdit, PathEdit, Rewrite};
use trigate::routing::{RoutingTable, Rule, Terms};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const ROUTES: usize = 1_000;

fn main() {
    divan::main();
}

/// Header edits, a credential and a rewrite of host and path.
fn every_filter() -> Filters {
    let field = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let edits = HeaderEdits {
        set: vec![field("x-env", "home"), field("x-team", "media")],
        add: vec![field("x-via", "trigate")],
        remove: vec![HeaderName::from_static("range")],
    };
    let rewrite = Rewrite {
        hostname: Some(HostEdit::Literal(HeaderValue::from_static("inner.test"))),
        path: Some(PathEdit::prefix("/v2")),
    };
    Filters {
        request_headers: Some(Box::new(edits.clone())),
        credential: Some(Box::new(Credential::new(None, HeaderValue::from_static("Bearer x"), true))),
        rewrite: Some(Box::new(rewrite)),
        response_headers: Some(Box::new(edits)),
        ..Filters::default()
    }
}

/// Runs the filters of a rule. Returns how long the path is that they leave.
fn edit(filters: &Filters, headers: &mut HeaderMap, path: &str) -> usize {
    let Filters {
        broken,
        cors,
        external_auth,
        redirect,
        direct_response,
        request_headers,
        credential,
        rewrite,
        hides_host,
        mirrors,
        response_headers,
    } = filters;
    let answered = broken.is_some()
        || cors.is_some()
        || external_auth.is_some()
        || redirect.is_some()
        || direct_response.is_some();
    if answered || *hides_host || !mirrors.is_empty() {
        return 0;
    }
    if let Some(edits) = request_headers {
        edits.apply(headers);
    }
    if let Some(credential) = credential {
        credential.apply(headers);
    }
    let mut length = path.len();
    if let Some(rewrite) = rewrite {
        let host = rewrite.hostname.as_ref().and_then(|edit| edit.apply(headers, path));
        black_box(host);
        length = rewrite.path.as_ref().map_or(length, |edit| edit.apply(path, 2).len());
    }
    if let Some(edits) = response_headers {
        edits.apply(headers);
    }
    length
}

/// A table in which all rules but that of `app-501.example.test` have these filters.
fn table(filters: &Filters) -> RoutingTable {
    let plain = many_hosts(ROUTES);
    let rules = plain.rules().iter().enumerate().map(|(i, rule)| match i {
        501 => Arc::clone(rule),
        _ => {
            let terms = Terms { filters: filters.clone(), ..Terms::default() };
            Arc::new(Rule { terms: terms.kept(), ..Rule::clone(rule) })
        }
    });
    RoutingTable::new(plain.sockets().to_vec(), rules.collect())
}

/// Finds the rule of a host and runs its filters.
fn serve(bencher: Bencher, table: &RoutingTable, host: &str) {
    let mut headers = HeaderMap::with_capacity(32);
    headers.insert("accept", HeaderValue::from_static("*/*"));
    let asked = headers.clone();
    bencher.bench_local(|| {
        let request = request(black_box(host), "/library/sections", &asked);
        let found = table.find(SOCKET, &request).expect("the host is served");
        let filters = black_box(found.rule).filters();
        filters.map_or(request.path.len(), |filters| edit(filters, &mut headers, request.path))
    });
}

#[divan::bench]
fn a_rule_without_filters_among_rules_without(bencher: Bencher) {
    serve(bencher, &table(&Filters::default()), "app-501.example.test");
}

#[divan::bench]
fn a_rule_without_filters_among_rules_with_many(bencher: Bencher) {
    serve(bencher, &table(&every_filter()), "app-501.example.test");
}

#[divan::bench]
fn a_rule_with_many_filters(bencher: Bencher) {
    serve(bencher, &table(&every_filter()), "app-502.example.test");
}
