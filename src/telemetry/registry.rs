//! All that is there to be observed at this moment, and the page and list that show it.
//!
//! `control` tells when a revision is installed and when sockets come or go; what it hands over is what runs
//! already, so telling costs an atomic swap. Reading adds up all shards and holds up nobody.

use super::changes::Changes;
use super::cluster_list;
use super::families::{self, ServerRow};
use super::http::HttpStats;
use super::listener::ListenerStats;
use super::memory::Memory;
use super::observe::Counters;
use super::orders::{OrderMetrics, Orders};
use super::own::{self, Own};
use super::page::{Format, Page};
use super::rows::{write_clusters, write_sockets};
use super::section::{Names, Section, Selection, Sink};
use super::server::{Server, State};
use super::stat_list::StatList;
use crate::routing::{RoutingTable, Rule};
use crate::tls::Certificate;
use crate::upstream::Cluster;
use arc_swap::ArcSwap;
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
    pub clusters: Arc<[Arc<Cluster>]>,
    /// How many routes the table is made of.
    pub routes: usize,
    /// How many diagnostics are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    pub table: Arc<RoutingTable>,
    /// The names of gateways, by their numbers.
    pub gateways: BTreeMap<u16, String>,
}

impl Revised {
    /// What there is before the first revision.
    pub fn nothing() -> Self {
        Self {
            number: 0,
            installed: Instant::now(),
            compile: Duration::ZERO,
            clusters: Arc::default(),
            routes: 0,
            errors: 0,
            warnings: 0,
            table: Arc::default(),
            gateways: BTreeMap::new(),
        }
    }

    /// Gateways by name, each with a host that it serves.
    pub fn exposed(&self) -> Vec<(&str, String)> {
        let hosts = self.table.exposed().into_iter();
        let named = hosts.filter_map(|(gateway, host)| Some((self.gateways.get(&gateway.0)?.as_str(), host)));
        named.map(|(gateway, host)| (gateway, host.to_string())).collect()
    }

    /// Rules that have a name: that of their cluster, and their own.
    pub fn named_rules(&self) -> impl Iterator<Item = (&Rule, &str)> {
        self.table.rules().iter().filter_map(|rule| Some((&**rule, rule.own_name()?)))
    }
}

/// An open socket.
#[derive(Debug, Clone)]
pub struct Socket {
    /// `external/80`: gateway and port of its listeners.
    pub name: String,
    /// The gateway's name.
    pub gateway: String,
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
    changes: Changes,
    /// Metrics that Envoy does not have: the process, and `trigate_*`.
    own: prometheus::Registry,
    /// How long the last page was, so that the next one is allocated once.
    last_page: AtomicUsize,
}

impl Registry {
    /// Nothing is observed yet but the process, which has this many workers.
    pub fn new(server: Arc<Server>, workers: usize) -> Self {
        let revised = ArcSwap::from_pointee(Revised::nothing());
        let observed = Arc::new(Observed { revised, sockets: ArcSwap::default() });
        let own = prometheus::Registry::new();
        own.register(Box::new(Own::new(Arc::clone(&observed)))).expect("its names are valid and differ");
        let orders = Orders::default();
        own.register(Box::new(OrderMetrics::new(orders.clone()))).expect("its names are valid and differ");
        own.register(Box::new(ProcessCollector::for_self())).expect("its names differ from those above");
        let (changes, last_page) = (Changes::default(), AtomicUsize::new(0));
        Self { server, workers, observed, orders, changes, own, last_page }
    }

    /// Shows metrics that somebody else counts.
    pub fn show(&self, counters: &Counters) {
        for counter in counters.all() {
            self.own.register(Box::new(counter)).expect("they are shown once, and their names differ");
        }
    }

    /// A revision was installed.
    pub fn revised(&self, revised: Revised) {
        self.changes.revised(&self.observed.revised.load(), &revised);
        self.observed.revised.store(Arc::new(revised));
    }

    /// Sockets were opened or closed, or have other certificates.
    pub fn set_sockets(&self, sockets: Vec<Socket>) {
        self.changes.sockets(&self.observed.sockets.load(), &sockets);
        self.observed.sockets.store(Arc::new(sockets));
    }

    /// So many sockets could not be opened; they are tried again.
    pub fn sockets_failed(&self, count: usize) {
        self.changes.sockets_failed(count);
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

    /// The name of a gateway of the revision that serves.
    pub fn gateway_name(&self, number: u16) -> String {
        self.observed.revised.load().gateways.get(&number).cloned().unwrap_or_else(|| number.to_string())
    }

    /// How many workers the process has.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The process's state.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The page for Prometheus.
    pub fn page(&self, selection: &Selection, format: Format) -> String {
        let mut page = Page::new(selection, format, self.last_page.load(Relaxed));
        self.write(&mut page);
        let mut text = page.text;
        let mut own = self.own.gather();
        own.retain(|family| selection.kind.is_none() && selection.shows(family.name(), true));
        own::write(&own, format, &mut text);
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

    /// The clusters whose names fit and their endpoints, as Envoy's `/clusters` lists them.
    pub fn cluster_text(&self, selection: &Selection) -> String {
        let mut text = String::new();
        let revision = self.revision();
        let clusters = revision.clusters.iter().filter(|cluster| selection.shows(cluster.name(), true));
        clusters.for_each(|cluster| cluster_list::list(cluster, &mut text));
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
        let (revised, sockets) = (self.revision(), self.sockets());
        write_clusters(&revised.clusters, sink);
        write_sockets(&sockets, sink);
        let changes = |prefix, families, stat: &str| {
            let rows = vec![(Names::process(stat), self.changes.total(&revised, &sockets))];
            Section { prefix, families, rows }
        };
        changes("envoy_cluster_manager_", families::CLUSTER_MANAGER, "cluster_manager.").write(sink);
        changes("envoy_cluster_manager_cds_", families::CDS, "cluster_manager.cds.").write(sink);
        changes("envoy_cluster_manager_cds_", families::CHANGES, "cluster_manager.cds.").write(sink);
        changes("envoy_listener_manager_", families::LISTENER_MANAGER, "listener_manager.").write(sink);
        changes("envoy_listener_manager_lds_", families::CHANGES, "listener_manager.lds.").write(sink);
        let process = |prefix, families, stat: &str| {
            let rows = vec![(Names::process(stat), self.server_row(&sockets))];
            Section { prefix, families, rows }
        };
        process("envoy_http2_", families::HTTP2, "http2.").write(sink);
        process("envoy_server_", families::SERVER, "server.").write(sink);
    }

    fn server_row(&self, sockets: &[Socket]) -> ServerRow {
        let state = self.server.state();
        let memory = Memory::now();
        let first = sockets.iter().flat_map(|socket| &socket.certificates).map(|one| one.validity.1).min();
        let floods = |socket: &Socket| socket.http.sum(|shard| shard.http2_empty_frames_flood.get());
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
            empty_frames_floods: sockets.iter().map(floods).sum(),
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
