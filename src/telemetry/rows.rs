//! Rows: one for each cluster, socket and certificate, with its labels and its numbers.

use super::families::{self, ClusterRow};
use super::http::HttpTotals;
use super::listener::ListenerTotals;
use super::registry::Socket;
use super::section::{Names, Section, Sink};
use super::stream::{Carrier, FlowTotals, StreamTotals};
use crate::tls::Certificate;
use crate::upstream::{Cluster, ClusterTlsTotals, ClusterTotals};
use std::collections::BTreeMap;
use std::sync::Arc;

type Rows<T> = Vec<(Names, T)>;

/// Hands over all that is counted for clusters.
pub fn write_clusters(clusters: &[Arc<Cluster>], sink: &mut impl Sink) {
    let ClusterRows { all, in_use, tls } = cluster_rows(clusters);
    Section { prefix: "envoy_cluster_", families: families::CLUSTER, rows: all }.write(sink);
    Section { prefix: "envoy_cluster_", families: families::CLUSTER_IN_USE, rows: in_use }.write(sink);
    Section { prefix: "envoy_cluster_ssl_", families: families::CLUSTER_TLS, rows: tls }.write(sink);
}

/// Hands over all that is counted for sockets.
pub fn write_sockets(sockets: &[Socket], sink: &mut impl Sink) {
    Section { prefix: "envoy_http_", families: families::HTTP, rows: http_rows(sockets) }.write(sink);
    Section { prefix: "envoy_tcp_", families: families::TCP, rows: tcp_rows(sockets) }.write(sink);
    Section { prefix: "envoy_udp_", families: families::UDP, rows: udp_rows(sockets) }.write(sink);
    let rows = listener_http_rows(sockets);
    Section { prefix: "envoy_listener_http_", families: families::LISTENER_HTTP, rows }.write(sink);
    let rows = listener_rows(sockets.iter(), "");
    Section { prefix: "envoy_listener_", families: families::LISTENER, rows }.write(sink);
    let rows = listener_rows(sockets.iter().filter(|socket| socket.tls), "ssl.");
    Section { prefix: "envoy_listener_ssl_", families: families::LISTENER_TLS, rows }.write(sink);
    let rows = certificate_rows(sockets);
    Section { prefix: "envoy_listener_ssl_certificate_", families: families::CERTIFICATE, rows }.write(sink);
}

#[derive(Default)]
struct ClusterRows {
    all: Rows<ClusterRow>,
    in_use: Rows<ClusterTotals>,
    tls: Rows<ClusterTlsTotals>,
}

fn cluster_rows(clusters: &[Arc<Cluster>]) -> ClusterRows {
    let mut rows = ClusterRows { all: Vec::with_capacity(clusters.len()), ..ClusterRows::default() };
    for cluster in clusters {
        let names =
            Names::new(&[("envoy_cluster_name", cluster.name())], format!("cluster.{}.", cluster.name()));
        let (endpoints, healthy) = cluster.endpoint_counts();
        let mut row = ClusterRow {
            endpoints: endpoints as u64,
            healthy: healthy as u64,
            membership_changes: cluster.membership_changes(),
            ..ClusterRow::default()
        };
        if let Some(total) = cluster.stats().total() {
            // A try of its own is a request to the upstream.
            row.requests = total.requests + total.retries;
            row.classes = total.statuses.classes();
            if cluster.speaks_tls() {
                let stat = format!("{}ssl.", names.stat);
                rows.tls.push((Names { labels: names.labels.clone(), stat }, total.tls.clone()));
            }
            rows.in_use.push((names.clone(), total));
        }
        rows.all.push((names, row));
    }
    rows
}

/// By prefix: gateways that listen on one port of different addresses share it.
fn http_rows(sockets: &[Socket]) -> Rows<HttpTotals> {
    let mut rows = BTreeMap::<Names, HttpTotals>::new();
    for Socket { http, .. } in sockets.iter().filter(|socket| socket.speaks_http) {
        let prefix = http.prefix();
        let names = Names::new(&[("envoy_http_conn_manager_prefix", prefix)], format!("http.{prefix}."));
        http.add_to(rows.entry(names).or_default());
    }
    rows.into_iter().collect()
}

fn tcp_rows(sockets: &[Socket]) -> Rows<StreamTotals> {
    let mut rows = Vec::new();
    for Socket { listener, .. } in sockets {
        for (carrier, total) in listener.carried().stream_totals() {
            let prefix = format!("{}-{}", carrier.prefix(), listener.port());
            let names = Names::new(&[("envoy_tcp_prefix", &prefix)], format!("tcp.{prefix}."));
            rows.push((names, total));
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

fn udp_rows(sockets: &[Socket]) -> Rows<FlowTotals> {
    let rows = sockets.iter().filter_map(|Socket { listener, .. }| {
        let total = listener.carried().flow_totals()?;
        let prefix = format!("{}-{}", Carrier::Udp.prefix(), listener.port());
        Some((Names::new(&[("envoy_udp_prefix", &prefix)], format!("udp.{prefix}.")), total))
    });
    rows.collect()
}

fn listener_http_rows(sockets: &[Socket]) -> Rows<HttpTotals> {
    let mut rows = BTreeMap::<Names, HttpTotals>::new();
    for Socket { http, .. } in sockets.iter().filter(|socket| socket.speaks_http) {
        let (prefix, address) = (http.prefix(), http.address());
        let names = Names::new(
            &[("envoy_http_conn_manager_prefix", prefix), ("envoy_listener_address", address)],
            format!("listener.{address}.http.{prefix}."),
        );
        http.add_to(rows.entry(names).or_default());
    }
    rows.into_iter().collect()
}

fn listener_rows<'a>(sockets: impl Iterator<Item = &'a Socket>, part: &str) -> Rows<ListenerTotals> {
    let mut rows = BTreeMap::<Names, ListenerTotals>::new();
    for Socket { listener, .. } in sockets {
        let address = listener.address();
        let names = Names::new(&[("envoy_listener_address", address)], format!("listener.{address}.{part}"));
        listener.add_to(rows.entry(names).or_default());
    }
    rows.into_iter().collect()
}

fn certificate_rows(sockets: &[Socket]) -> Rows<u64> {
    let mut rows = BTreeMap::new();
    for Socket { listener, certificates, .. } in sockets {
        let address = listener.address();
        for Certificate { name, validity: (_, not_after), .. } in certificates.iter().map(AsRef::as_ref) {
            let names = Names::new(
                &[("envoy_tls_certificate", name), ("envoy_listener_address", address)],
                format!("listener.{address}.ssl.certificate.{name}."),
            );
            rows.insert(names, u64::try_from(*not_after).unwrap_or(0));
        }
    }
    rows.into_iter().collect()
}
