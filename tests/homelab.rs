//! The manifests of real home clusters: every HTTPRoute is served, or a diagnostic says why it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;
use trigate::compile::{Binding, Compiled, compile};
use trigate::resource::{Resource, Snapshot};
use trigate::routing::GatewayId;
use trigate::source::Files;
use trigate::tls::TlsOptions;

/// The folder with the clusters, or `None` with a word about it: the project's tests do not need it.
fn homelab() -> Option<PathBuf> {
    let shared = std::env::var_os("TRIGATE_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("homelab");
    if !folder.is_dir() {
        println!("skipped: there is no {}; TRIGATE_SHARED names its parent", folder.display());
        return None;
    }
    Some(folder)
}

fn bindings(snapshot: &Snapshot) -> Vec<Binding> {
    let binding = |(i, entry): (usize, &trigate::resource::Entry<trigate::resource::Gateway>)| Binding {
        id: GatewayId(i as u16),
        name: entry.object.metadata.name.to_string(),
        namespace: entry.object.metadata.namespace.to_string(),
        object: entry.object.metadata.name.to_string(),
        tls: TlsOptions::default(),
    };
    snapshot.gateways.iter().enumerate().map(binding).collect()
}

/// The routes whose rules the table holds under some host name.
fn served(compiled: &Compiled) -> BTreeSet<String> {
    let mut served = BTreeSet::new();
    for (_, socket) in compiled.table.sockets() {
        for listener in socket.listeners() {
            for (_, paths) in listener.hosts.iter() {
                for (_, rule) in paths.iter() {
                    served.insert(compiled.table.rules()[rule as usize].name.route().to_owned());
                }
            }
        }
    }
    served
}

#[test]
fn no_route_of_a_home_cluster_is_lost_in_silence() {
    let Some(folder) = homelab() else { return };
    let (mut routes, mut served_routes) = (0, 0);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut lost = Vec::new();
    let mut clusters = 0;
    for number in 1.. {
        let manifest = folder.join(format!("cluster-{number:02}.yaml"));
        if !manifest.exists() {
            break;
        }
        clusters += 1;
        let stubs = folder.join(format!("cluster-{number:02}.stubs.yaml"));
        let started = Instant::now();
        let snapshot = Files::new(vec![manifest, stubs]).read();
        let read = started.elapsed();
        let compiled = compile(&snapshot, &bindings(&snapshot));
        let served = served(&compiled);
        for entry in snapshot.http_routes.iter() {
            routes += 1;
            let route = entry.object.reference();
            if served.contains(&format!("httproute/{}/{}", route.namespace, route.name)) {
                served_routes += 1;
            } else if !compiled.diagnostics.iter().any(|diagnostic| diagnostic.object == route) {
                lost.push(format!("cluster {number}: {route}"));
            }
        }
        for diagnostic in &compiled.diagnostics {
            *reasons
                .entry(format!("{:?} {} {}", diagnostic.severity, diagnostic.object.kind, diagnostic.reason))
                .or_default() += 1;
        }
        println!(
            "cluster {number:02}: {} objects, {} of {} routes served, read in {read:?}",
            snapshot.len(),
            served.len(),
            snapshot.http_routes.len()
        );
    }
    println!("{clusters} clusters, {routes} HTTPRoutes, {served_routes} served, {} lost", lost.len());
    for (reason, count) in reasons {
        println!("{count:5} {reason}");
    }
    assert!(clusters > 0, "{} holds no cluster", folder.display());
    assert!(lost.is_empty(), "neither served nor explained:\n{}", lost.join("\n"));
}
