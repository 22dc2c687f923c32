//! All that is there to be observed at this moment, and the page and list that show it.
//!
//! `control` tells when a revision is installed and when sockets come or go; what it hands over is what runs
//! already, so telling costs an atomic swap. Reading adds up all shards and holds up nobody.

use super::cluster_list;
use super::families::{self, ClusterRow, ServerRow};
use super::http::{HttpStats, HttpTotals};
use super::listener::{ListenerStats, ListenerTotals};
use super::memory::Memory;
use super::observe::Counters;
use super::orders::{OrderMetrics, Orders};
use super::own::Own;
use super::page::Page;
use super::section::{Names, Section, Selection, Sink};
use super::server::{Server, State};
use super::stat_list::StatList;
use super::stream::{Carrier, FlowTotals, StreamTotals};
use crate::tls::Certificate;
use crate::upstream::{Cluster, ClusterTotals};
use arc_swap::ArcSwap;
use prometheus::TextEncoder;
use prometheus::process_collector::ProcessCollector;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A revision that serves, as far as it is observed.
#[derive(Debug, Clone)]
pub struct Revised {
    /// Counted from 1; 0 is before the first one.
    pub number: u64,
    /// When it began to serve.
    pub installed: Instant,
    /// From the snapshot to the revision.
    pub compile: Duration,
    pub clusters: Vec<Arc<Cluster>>,
    /// How many routes the table is made of.
    pub routes: usize,
    /// How many diagnostics are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
}

/// An open socket.
#[derive(Debug, Clone)]
pub struct Socket {
    /// `external/80`: gateway and port of its listeners.
    pub name: String,
    /// All addresses that it is bound to.
    pub addresses: Vec<SocketAddr>,
    pub tls: bool,
    /// Whether HTTP is spoken on it; it shows no counters of HTTP else.
    pub speaks_http: bool,
    pub http: Arc<HttpStats>,
    pub listener: Arc<ListenerStats>,
    /// The certificates that it serves.
    pub certificates: Vec<Arc<Certificate>>,
}

/// What the registry and the collector of our own metrics both read.
#[derive(Debug)]
pub(super) struct Observed {
    pub revised: ArcSwap<Revised>,
    pub sockets: ArcSwap<Vec<Socket>>,
}

/// The source of every page of metrics.
pub struct Registry {
    server: Arc<Server>,
    workers: usize,
    observed: Arc<Observed>,
    orders: Orders,
    /// Metrics that Envoy does not have: the process, and `trigate_*`.
    own: prometheus::Registry,
    /// How long the last page was, so that the next one is allocated once.
    last_page: AtomicUsize,
}

impl Registry {
    /// Nothing is observed yet but the process, which has this many workers.
    pub fn new(server: Arc<Server>, workers: usize) -> Self {
        let nothing = Revised {
            number: 0,
            installed: Instant::now(),
            compile: Duration::ZERO,
            clusters: Vec::new(),
            routes: 0,
            errors: 0,
            warnings: 0,
        };
        let observed =
            Arc::new(Observed { revised: ArcSwap::from_pointee(nothing), sockets: ArcSwap::default() });
        let own = prometheus::Registry::new();
        own.register(Box::new(Own::new(Arc::clone(&observed)))).expect("its names are valid and differ");
        let orders = Orders::default();
        own.register(Box::new(OrderMetrics::new(orders.clone()))).expect("its names are valid and differ");
        own.register(Box::new(ProcessCollector::for_self())).expect("its names differ from those above");
        Self { server, workers, observed, orders, own, last_page: AtomicUsize::new(0) }
    }

    /// Shows metrics that somebody else counts.
    pub fn show(&self, counters: &Counters) {
        for counter in counters.all() {
            self.own.register(Box::new(counter)).expect("they are shown once, and their names differ");
        }
    }

    /// A revision was installed.
    pub fn revised(&self, revised: Revised) {
        self.observed.revised.store(Arc::new(revised));
    }

    /// Sockets were opened or closed, or have other certificates.
    pub fn set_sockets(&self, sockets: Vec<Socket>) {
        self.observed.sockets.store(Arc::new(sockets));
    }

    /// The revision that serves.
    pub fn revision(&self) -> Arc<Revised> {
        self.observed.revised.load_full()
    }

    /// The open sockets.
    pub fn sockets(&self) -> Arc<Vec<Socket>> {
        self.observed.sockets.load_full()
    }

    /// The certificates that the process orders itself.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// How many workers the process has.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The process's state.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The page for Prometheus, in the text format 0.0.4.
    pub fn page(&self, selection: &Selection) -> String {
        let mut page = Page::new(selection, self.last_page.load(Relaxed));
        self.write(&mut page);
        let mut text = page.text;
        let mut own = self.own.gather();
        own.retain(|family| selection.shows(family.name(), true));
        TextEncoder::new()
            .encode_utf8(&own, &mut text)
            .expect("families from collectors have names and samples");
        if selection.filter.is_none() {
            self.last_page.store(text.len() + text.len() / 16, Relaxed);
        }
        text
    }

    /// Envoy's stats as lines.
    pub fn stat_text(&self, selection: &Selection) -> String {
        let mut list = StatList::new(selection);
        self.write(&mut list);
        list.into_text()
    }

    /// Envoy's stats as JSON.
    pub fn stat_json(&self, selection: &Selection) -> String {
        let mut list = StatList::new(selection);
        self.write(&mut list);
        list.into_json()
    }

    /// The clusters and their endpoints, as Envoy's `/clusters` lists them.
    pub fn cluster_text(&self) -> String {
        let mut text = String::new();
        self.revision().clusters.iter().for_each(|cluster| cluster_list::list(cluster, &mut text));
        text
    }

    /// Sets all counters back to zero; gauges stay.
    pub fn reset_counters(&self) {
        self.revision().clusters.iter().for_each(|cluster| cluster.stats().reset());
        for socket in self.sockets().iter() {
            socket.http.reset();
            socket.listener.reset();
        }
    }

    fn write(&self, sink: &mut impl Sink) {
        let revised = self.revision();
        let sockets = self.sockets();
        let (clusters, in_use) = cluster_rows(&revised.clusters);
        Section { prefix: "envoy_cluster_", families: families::CLUSTER, rows: clusters }.write(sink);
        Section { prefix: "envoy_cluster_", families: families::CLUSTER_IN_USE, rows: in_use }.write(sink);
        Section { prefix: "envoy_http_", families: families::HTTP, rows: http_rows(&sockets) }.write(sink);
        Section { prefix: "envoy_tcp_", families: families::TCP, rows: tcp_rows(&sockets) }.write(sink);
        Section { prefix: "envoy_udp_", families: families::UDP, rows: udp_rows(&sockets) }.write(sink);
        let rows = listener_http_rows(&sockets);
        Section { prefix: "envoy_listener_http_", families: families::LISTENER_HTTP, rows }.write(sink);
        let rows = listener_rows(sockets.iter(), "");
        Section { prefix: "envoy_listener_", families: families::LISTENER, rows }.write(sink);
        let rows = listener_rows(sockets.iter().filter(|socket| socket.tls), "ssl.");
        Section { prefix: "envoy_listener_ssl_", families: families::LISTENER_TLS, rows }.write(sink);
        let rows = certificate_rows(&sockets);
        Section { prefix: "envoy_listener_ssl_certificate_", families: families::CERTIFICATE, rows }
            .write(sink);
        let process = |stat: &str| vec![(Names::process(stat), self.server_row(&revised, &sockets))];
        let rows = process("cluster_manager.");
        Section { prefix: "envoy_cluster_manager_", families: families::CLUSTER_MANAGER, rows }.write(sink);
        let rows = process("listener_manager.");
        Section { prefix: "envoy_listener_manager_", families: families::LISTENER_MANAGER, rows }.write(sink);
        let rows = process("server.");
        Section { prefix: "envoy_server_", families: families::SERVER, rows }.write(sink);
    }

    fn server_row(&self, revised: &Revised, sockets: &[Socket]) -> ServerRow {
        let state = self.server.state();
        let memory = Memory::now();
        let first = sockets.iter().flat_map(|socket| &socket.certificates).map(|one| one.validity.1).min();
        let connections = |socket: &Socket| socket.listener.sum(|shard| shard.cx_active.get());
        ServerRow {
            live: u64::from(state == State::Live),
            state: state.number(),
            uptime_seconds: self.server.uptime().as_secs(),
            concurrency: self.workers as u64,
            connections: sockets.iter().map(connections).fold(0, u64::wrapping_add),
            memory_allocated: memory.anonymous,
            memory_heap: memory.anonymous,
            memory_physical: memory.resident,
            // Envoy's number where there is no certificate.
            days_until_certificate_expires: first.map_or(i64::from(i32::MAX), days_until).cast_unsigned(),
            version: version(),
            clusters: revised.clusters.len() as u64,
            sockets: sockets.len() as u64,
        }
    }
}

/// Days from now to a second since 1970; 0 when it has passed.
fn days_until(second: i64) -> i64 {
    const DAY: i64 = 24 * 60 * 60;
    (second.saturating_sub(unix_seconds()) / DAY).max(0)
}

/// Seconds since 1970.
pub(super) fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The version as a number that grows with it.
fn version() -> u64 {
    let parts =
        [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")];
    parts.iter().fold(0, |number, part| number * 256 + part.parse::<u64>().unwrap_or(0))
}

type Rows<T> = Vec<(Names, T)>;

fn cluster_rows(clusters: &[Arc<Cluster>]) -> (Rows<ClusterRow>, Rows<ClusterTotals>) {
    let mut rows = Vec::with_capacity(clusters.len());
    let mut in_use = Vec::new();
    for cluster in clusters {
        let names =
            Names::new(&[("envoy_cluster_name", cluster.name())], format!("cluster.{}.", cluster.name()));
        let (endpoints, healthy) = cluster.endpoint_counts();
        let mut row =
            ClusterRow { endpoints: endpoints as u64, healthy: healthy as u64, ..ClusterRow::default() };
        if let Some(total) = cluster.stats().total() {
            // A try of its own is a request to the upstream.
            row.requests = total.requests + total.retries;
            row.classes = total.statuses.classes();
            in_use.push((names.clone(), total));
        }
        rows.push((names, row));
    }
    (rows, in_use)
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
