//! Holds how much memory a route takes, part by part: a hundred thousand of them are to fit into 150 MiB.
//!
//! `cargo test --test memory -- --nocapture` prints the parts. What is counted is what is asked of the allocator, which
//! takes up to an eighth more for its size classes.

use allocation_counter::measure;
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;
use trigate::compile::{Binding, Compiled, compile};
use trigate::routing::GatewayId;
use trigate::source::Files;
use trigate::tls::TlsOptions;
use trigate::upstream::{Clusters, Resolver};

const ROUTES: usize = 2_000;

/// A Gateway, a Service, and routes of one rule each, a few for each host name.
fn manifests() -> String {
    let named = |kind: &str, group: &str, name: &str, rest: (&str, Value)| {
        let (field, value) = rest;
        json!({ "apiVersion": group, "kind": kind, "metadata": { "name": name, "namespace": "apps" }, field: value })
    };
    let gateway_api = "gateway.networking.k8s.io/v1";
    let listeners = json!([{ "name": "http", "port": 80, "protocol": "HTTP" }]);
    let mut objects = vec![
        named(
            "Gateway",
            gateway_api,
            "external",
            ("spec", json!({ "listeners": listeners, "gatewayClassName": "trigate" })),
        ),
        named("Service", "v1", "app", ("spec", json!({ "ports": [{ "port": 80 }] }))),
    ];
    objects.extend((0..ROUTES).map(|n| {
        let rule = json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": format!("/app{n}") } }],
            "backendRefs": [{ "name": "app", "port": 80 }],
        });
        let host = format!("h{}.example.com", n % 250);
        let spec = json!({ "parentRefs": [{ "name": "external" }], "hostnames": [host], "rules": [rule] });
        named("HTTPRoute", gateway_api, &format!("route-{n}"), ("spec", spec))
    }));
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

/// What is made, and how many bytes of it stay for each route.
fn kept<T>(make: impl FnOnce() -> T) -> (T, i64) {
    let mut made = None;
    let counted = measure(|| made = Some(make()));
    (made.expect("it was made"), counted.bytes_current / ROUTES as i64)
}

#[test]
fn a_route_takes_no_more_memory_than_it_may() {
    let folder = TempDir::new().expect("a folder for the manifests");
    fs::write(folder.path().join("all.yaml"), manifests()).expect("the manifests");
    let mut files = Files::new(vec![folder.path().to_owned()]);
    let (snapshot, of_objects) = kept(|| files.read());
    let name = "external".to_owned();
    let (id, namespace, tls) = (GatewayId(0), "apps".to_owned(), TlsOptions::default());
    let bindings = [Binding { id, name: name.clone(), namespace, object: name, tls }];
    let (compiled, of_compiled) = kept(|| compile(&snapshot, &bindings));
    let Compiled { table, clusters: specs, endpoints, routes, diagnostics, kept: next, .. } = compiled;
    assert_eq!(
        (table.rules().len(), routes.len(), diagnostics.len()),
        (ROUTES, ROUTES, 1),
        "{diagnostics:?}"
    );
    let of_next = -kept(|| drop(next)).1;
    let of_reports = -kept(|| drop(routes)).1;
    let resolver = Resolver::from_system().expect("/etc/resolv.conf can be used");
    let mut running = Clusters::new(resolver);
    let (of_specs, before) = kept(|| specs.clone());
    drop(of_specs);
    let (clusters, more) = kept(|| running.reconcile(specs, endpoints));
    assert_eq!(clusters.len(), ROUTES);
    let parts = [
        ("objects as they are written", of_objects, 540),
        ("reports", of_reports, 32),
        ("what the next compilation is given", of_next, 64),
        ("table", of_compiled - of_reports - of_next - before, 260),
        ("specs of clusters, until they run", before, 100),
        ("running clusters", before + more, 220),
    ];
    for (part, bytes, most) in parts {
        println!("{part}: {bytes} bytes a route, at most {most}");
    }
    for (part, bytes, most) in parts {
        assert!(bytes <= most, "{part}: {bytes} bytes a route, and {most} are the most");
    }
}
