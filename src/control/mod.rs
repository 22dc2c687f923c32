//! The loop: a snapshot in, a revision out. Only here are `live`, the clusters and the set of sockets changed.
//!
//! ```text
//! Source ─ changed ─▶ Snapshot ─ compile ─▶ clusters, TLS ─▶ Revision ─ install ─▶ sockets close and open
//!                        └─ bindings: which Gateways, and where ──────────────────▶ Publication ─▶ status
//! ```
//!
//! The order is what keeps the promise that no socket accepts before what it serves is live: a revision is
//! installed first, then sockets that it has no more are closed, then new ones are opened. What became of the
//! snapshot is published last, so that nothing is called served before it is.

mod observing;
mod sockets;
mod told;

pub use observing::unheeded;
pub use sockets::Opened;

use crate::bindings::{Bindings, Served};
use crate::compile::{
    Binding, Certificates, Compiled, Diagnostic, GatewayReport, Kept, Parameters, PolicyReport, RouteReport,
    Severity, SocketSpec, compile_after, endpoints,
};
use crate::config::{Config, ConfigError, Drain};
use crate::listener::Workers;
use crate::live::{Live, Revision};
use crate::proxy::{Gateway, Habits};
use crate::routing::{SocketId, Transport};
use crate::source::{Change, Here, ObjectRef, Records, Snapshot, Source};
use crate::status::{Publication, Publisher, reported};
use crate::telemetry::{Carrier, Observer, Registry, Revised, give_back};
use crate::tls::{
    Carried, Certificate, Termination, TicketKeys, TlsListener, TlsMode, TlsOptions, TlsShared, TlsSocket,
};
use crate::upstream::Clusters;
use observing::Watching;
use sockets::{Sockets, Wanted};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::timeout;
use told::Told;
use tracing::{error, info};

/// How often a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long after a revision the memory of the one before is given back: longer than the allocator keeps it.
const SETTLED: Duration = Duration::from_millis(1500);
/// How often the dates of certificates are looked at in any case: clocks are set, and machines sleep.
const LOOK: Duration = Duration::from_secs(3600);

/// What changes the configuration that serves.
pub struct Control {
    config: Arc<Config>,
    bindings: Bindings,
    served: Vec<Served>,
    /// What the API server knows of objects, and where what is live is published for it.
    records: Records,
    publisher: Publisher,
    live: Arc<Live>,
    registry: Arc<Registry>,
    clusters: Clusters,
    tls: TlsShared,
    certificates: Certificates,
    /// What the last compilation left for the next one.
    kept: Kept,
    /// The last one, to compile again when time alone changes what it means.
    snapshot: Snapshot,
    sockets: Sockets,
    told: Told,
    watching: Watching,
    here: Here,
    /// How long an end may take, as the Gateways that are served want it.
    drain: watch::Sender<Drain>,
    /// How many revisions were installed.
    number: u64,
    /// Whether memory was freed that nobody gave back yet.
    cluttered: bool,
}

impl Control {
    /// Nothing is served yet. Must be called within the runtime that is to resolve names.
    ///
    /// # Errors
    /// The system gives no random numbers for session tickets.
    pub fn new(
        config: Arc<Config>,
        live: Arc<Live>,
        workers: Arc<Workers>,
        clusters: Clusters,
        registry: Arc<Registry>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            bindings: Bindings::new(config.clone()),
            served: Vec::new(),
            records: Records::default(),
            publisher: Publisher::default(),
            sockets: Sockets::new(workers),
            tls: TlsShared::new(&config.session_tickets)?,
            here: here(&config),
            drain: watch::Sender::new(config.drain),
            config,
            live,
            registry,
            clusters,
            certificates: Certificates::default(),
            kept: Kept::default(),
            snapshot: Snapshot::default(),
            told: Told::default(),
            watching: Watching::default(),
            number: 0,
            cluttered: false,
        })
    }

    /// The same, for a source that has records, publishing what becomes of its objects.
    pub fn publishing(mut self, records: Records, publisher: Publisher) -> Self {
        self.records = records;
        self.publisher = publisher;
        self
    }

    /// The keys of all session tickets, for whoever shares them with other replicas.
    pub fn ticket_keys(&self) -> &Arc<TicketKeys> {
        self.tls.ticket_keys()
    }

    /// The same, telling this observer of exchanges.
    pub fn observed_by(mut self, observer: &Observer) -> Self {
        self.watching = Watching::new(&self.config, observer);
        self
    }

    /// Serves the first snapshot.
    ///
    /// # Errors
    /// Two gateways need one socket, or a socket cannot be opened: a start that serves less than it was told to
    /// would be found out by its users. Where objects come from Kubernetes, a Gateway's status tells instead.
    pub fn start(&mut self, mut snapshot: Snapshot) -> anyhow::Result<()> {
        let began = Instant::now();
        snapshot.here = self.here.clone();
        let compiled = self.compile(&snapshot);
        let listeners = |transport| {
            let ids = compiled.sockets.keys().filter(move |id| id.transport == transport);
            ids.map(|id| (self.sockets.gateway(*id), id.port)).collect::<Vec<_>>()
        };
        let mut shared = self.config.shared_sockets(&listeners(Transport::Tcp));
        shared.extend(self.config.shared_sockets(&listeners(Transport::Udp)));
        if !shared.is_empty() {
            return Err(ConfigError::Faulty(shared).into());
        }
        let reports = self.install(compiled, began);
        let failed = self.open_missing();
        self.publish(snapshot, reports, &failed);
        match failed.into_iter().next() {
            Some((_, error)) if self.config.source.kubernetes.is_none() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Serves every later snapshot.
    pub async fn run(mut self, mut source: Source) -> Infallible {
        loop {
            let mut change = timeout(self.patience(), source.changed()).await.ok();
            if let Some(Change { snapshot, .. }) = &mut change {
                snapshot.here = self.here.clone();
            }
            // Compiling takes its time; the other tasks of this runtime go on meanwhile.
            tokio::task::block_in_place(|| match change {
                Some(Change { snapshot, endpoints_only: true }) => self.follow_endpoints(snapshot),
                Some(Change { snapshot, endpoints_only: false }) => self.follow(snapshot),
                None => self.look_again(),
            });
        }
    }

    /// How long to wait for a change before something has to be looked at again.
    fn patience(&self) -> Duration {
        let patience = if self.sockets.are_open() { LOOK } else { RETRY };
        let patience = if self.cluttered { patience.min(SETTLED) } else { patience };
        let until_dates = self.certificates.next_change().map(|date| date.saturating_sub(unix_time()));
        let until_dates = until_dates.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        patience.min(until_dates.unwrap_or(LOOK))
    }

    /// Time alone changed something: a certificate became valid or expired, or a port may be free now.
    fn look_again(&mut self) {
        if std::mem::take(&mut self.cluttered) {
            self.clusters.sweep();
            give_back();
        }
        if self.certificates.next_change().is_some_and(|date| date <= unix_time()) {
            self.follow(self.snapshot.clone());
        } else if !self.sockets.are_open() {
            self.retry();
        }
    }

    fn follow(&mut self, snapshot: Snapshot) {
        let began = Instant::now();
        let compiled = self.compile(&snapshot);
        let some_stay = compiled.clusters.iter().any(|planned| planned.spec().is_none());
        let reports = self.install(compiled, began);
        info!("revision {} is live after {:.1?}", self.number, began.elapsed());
        // Clusters that are new have theirs already.
        if some_stay && !snapshot.endpoint_slices.is_same(&self.snapshot.endpoint_slices) {
            self.update_endpoints(&snapshot);
        }
        let failed = self.open_missing();
        self.publish(snapshot, reports, &failed);
    }

    /// Endpoints come and go far more often than routes do, and need no new revision.
    fn follow_endpoints(&mut self, snapshot: Snapshot) {
        self.update_endpoints(&snapshot);
        self.snapshot = snapshot;
    }

    fn update_endpoints(&mut self, snapshot: &Snapshot) {
        let endpoints = endpoints(snapshot, self.clusters.endpoints());
        self.clusters.update_endpoints(endpoints);
    }

    /// Tries again to open what could not be opened.
    fn retry(&mut self) {
        let failed = self.open_missing();
        let sockets = self.sockets.outcome(&failed);
        self.publisher.amend(|publication| publication.sockets = sockets);
    }

    fn open_missing(&mut self) -> Vec<(SocketId, io::Error)> {
        let failed = self.sockets.open_missing();
        for (id, error) in &failed {
            let gateway = self.sockets.gateway(*id);
            error!("gateway {gateway} does not serve its port {}, it is tried again: {error}", id.port);
        }
        self.registry.sockets_failed(failed.len());
        self.registry.set_sockets(self.sockets.observed());
        failed
    }

    fn publish(&mut self, snapshot: Snapshot, reports: Reports, failed: &[(SocketId, io::Error)]) {
        let (served, sockets) = (self.served.clone(), self.sockets.outcome(failed));
        let Reports { gateways, routes, policies } = reports;
        self.snapshot = snapshot.clone();
        self.publisher.publish(Publication { snapshot, served, gateways, routes, policies, sockets });
    }

    /// How long the end of the process is to take, now and later.
    pub fn drain(&self) -> watch::Receiver<Drain> {
        self.drain.subscribe()
    }

    /// The sockets that are open.
    pub fn opened(&self) -> Vec<Opened> {
        self.sockets.opened()
    }

    fn compile(&mut self, snapshot: &Snapshot) -> Compiled {
        let records = self.records.clone();
        self.served = self.bindings.update(snapshot, |gateway| {
            let (namespace, name) = (gateway.namespace.clone(), gateway.name.clone());
            let record = records.get(&ObjectRef { kind: "Gateway".to_owned(), namespace, name });
            record.and_then(|record| record.status.clone()).map_or_else(Vec::new, |status| reported(&status))
        });
        for served in &self.served {
            self.sockets.know(served.binding.id, || gateway_of(&self.config, &served.binding));
        }
        let bindings: Vec<Binding> = self.served.iter().map(|served| served.binding.clone()).collect();
        let before = std::mem::take(&mut self.certificates).at(unix_time());
        let kept = std::mem::take(&mut self.kept);
        let mut compiled = compile_after(snapshot, &bindings, &before, kept);
        self.kept = std::mem::take(&mut compiled.kept);
        compiled.diagnostics.extend(self.share_ticket_keys(snapshot));
        if self.config.source.kubernetes.is_some() {
            // In a cluster, a Gateway that is not ours is somebody else's.
            compiled.diagnostics.retain(|diagnostic| diagnostic.reason != "NotBound");
        }
        self.certificates = std::mem::take(&mut compiled.certificates);
        self.told.tell(&compiled.diagnostics);
        compiled
    }

    /// Makes a compiled snapshot the revision that serves, and closes the sockets that it has no more. Returns
    /// what became of Gateways, routes and policies.
    fn install(&mut self, compiled: Compiled, began: Instant) -> Reports {
        let Compiled {
            table,
            clusters,
            endpoints,
            sockets,
            diagnostics,
            certificates: _,
            kept: _,
            gateways,
            routes,
            policies,
        } = compiled;
        let clusters = self.clusters.reconcile(clusters, endpoints);
        let mut tls = Vec::new();
        let mut wanted = BTreeMap::new();
        for (id, spec) in sockets {
            let Some(socket) = self.wanted(id) else { continue };
            if let SocketSpec::Tls(listeners) = &spec {
                let socket = TlsSocket::build(listeners, &self.tls);
                tls.push((id, Arc::new(socket.with_options(&self.tls_options(id)))));
            }
            wanted.insert(id, speaking(socket, &spec));
        }
        self.number += 1;
        let number = self.number;
        let errors = diagnostics.iter().filter(|one| one.severity == Severity::Error).count();
        self.registry.revised(Revised {
            number,
            installed: Instant::now(),
            compile: began.elapsed(),
            clusters: Arc::clone(&clusters),
            routes: routes.len(),
            errors,
            warnings: diagnostics.len() - errors,
            table: Arc::clone(&table),
            gateways: self.served.iter().map(|one| (one.binding.id.0, one.binding.name.clone())).collect(),
        });
        let observers = self.watching.observers(&gateways);
        self.live.install(Revision { number, table, clusters, tls, observers });
        self.clusters.sweep();
        self.cluttered = true;
        let drain = drain(self.config.drain, &gateways);
        self.drain.send_if_modified(|before| std::mem::replace(before, drain) != drain);
        self.sockets.want(wanted);
        Reports { gateways, routes, policies }
    }

    /// Shares the keys of session tickets with the other replicas, by the Secret that the configuration names.
    fn share_ticket_keys(&self, snapshot: &Snapshot) -> Option<Diagnostic> {
        let name = self.config.session_tickets.secret.as_ref()?;
        let entry = snapshot.secrets.get(&name.namespace, &name.name);
        let keys = entry.and_then(|entry| entry.object.get("keys"));
        let fault = match keys.map(|keys| self.tls.ticket_keys().share(keys.reveal())) {
            Some(Ok(_)) => return None,
            Some(Err(error)) => format!("its `keys`: {error}"),
            None if entry.is_some() => "it has no `keys`".to_owned(),
            None => "it does not exist".to_owned(),
        };
        let message = format!("{fault}; session tickets are not shared with other replicas by it");
        Some(Diagnostic {
            severity: Severity::Error,
            object: ObjectRef {
                kind: "Secret".to_owned(),
                namespace: name.namespace.clone(),
                name: name.name.clone(),
            },
            place: entry.and_then(|entry| entry.place.clone()),
            field: String::new(),
            reason: "NoTicketKeys",
            message,
        })
    }

    /// What is agreed on in the handshakes of the gateway that a socket is of.
    fn tls_options(&self, id: SocketId) -> TlsOptions {
        let served = self.served.iter().find(|served| served.binding.id == id.gateway);
        served.map(|served| served.binding.tls.clone()).unwrap_or_default()
    }

    /// A socket of which nothing is known but where it is; `None` for a Gateway that has no place to listen.
    fn wanted(&mut self, id: SocketId) -> Option<Wanted> {
        let served = self.served.iter().find(|served| served.binding.id == id.gateway)?;
        let addresses = self.bindings.sockets(served, id.port);
        let configured = self.config.gateways.get(&served.binding.name);
        let proxy_protocol = configured.map(|gateway| gateway.proxy_protocol).unwrap_or_default();
        let wanted = Wanted { addresses, proxy_protocol, ..Wanted::default() };
        (!wanted.addresses.is_empty()).then_some(wanted)
    }
}

/// Seconds since 1970.
fn unix_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Where this process runs: proxy.toml says it, or the environment.
fn here(config: &Config) -> Here {
    let known = |written: &str, variable: &str| {
        let found = Some(written.to_owned()).filter(|text| !text.is_empty());
        let found = found.or_else(|| std::env::var(variable).ok().filter(|text| !text.is_empty()));
        found.map(String::into_boxed_str)
    };
    Here { node: known(&config.node.name, "NODE_NAME"), zone: known(&config.node.zone, "NODE_ZONE") }
}

/// How long an end takes: as long as the most patient Gateway asks for, where one that asks for nothing is content
/// with what proxy.toml says.
fn drain(config: Drain, gateways: &[GatewayReport]) -> Drain {
    let parameters = || gateways.iter().map(|report| report.parameters.as_ref());
    let longest = |said: fn(&Parameters) -> Option<Duration>, otherwise: Duration| {
        parameters().map(|one| one.and_then(said).unwrap_or(otherwise)).max().unwrap_or(otherwise)
    };
    let grace = longest(|one| one.drain_grace, config.grace);
    // Whatever is still in flight when sockets close needs a moment, too.
    Drain { grace, timeout: longest(|one| one.drain_timeout, config.timeout).max(grace) }
}

/// What became of the objects of a snapshot.
struct Reports {
    gateways: Vec<GatewayReport>,
    routes: Vec<RouteReport>,
    policies: Vec<PolicyReport>,
}

/// A socket with what is spoken on it.
fn speaking(socket: Wanted, spec: &SocketSpec) -> Wanted {
    match spec {
        SocketSpec::Http => Wanted { speaks_http: true, ..socket },
        SocketSpec::Tcp => Wanted { carriers: vec![Carrier::Tcp], ..socket },
        SocketSpec::Udp => Wanted { carriers: vec![Carrier::Udp], ..socket },
        SocketSpec::Tls(listeners) => {
            let carriers = listeners.iter().filter_map(|listener| match &listener.mode {
                TlsMode::Terminate(Termination { carried: Carried::Http, .. }) => None,
                TlsMode::Terminate(Termination { carried: Carried::Bytes, .. }) => Some(Carrier::Terminated),
                TlsMode::Passthrough => Some(Carrier::Passthrough),
            });
            let carriers: Vec<_> = carriers.collect();
            let speaks_http = carriers.len() < listeners.len();
            Wanted { tls: true, speaks_http, carriers, certificates: certificates_of(listeners), ..socket }
        }
    }
}

/// A gateway as the data path knows it.
fn gateway_of(config: &Config, binding: &Binding) -> Gateway {
    let configured = config.gateways.get(&binding.name);
    Gateway {
        id: binding.id,
        name: binding.name.clone(),
        trusted_proxies: configured.map(|gateway| gateway.trusted_proxies.clone()).unwrap_or_default(),
        trusted_hops: configured.map(|gateway| gateway.trusted_hops).unwrap_or_default(),
        habits: configured.map_or_else(Habits::default, |gateway| Habits {
            http10: gateway.accept_http10,
            envoy_headers: gateway.enable_envoy_headers,
        }),
        limits: config.limits,
    }
}

/// The certificates of a socket, each once.
fn certificates_of(listeners: &[TlsListener]) -> Vec<Arc<Certificate>> {
    let mut served = BTreeMap::new();
    for TlsListener { hostname: _, mode } in listeners {
        let TlsMode::Terminate(Termination { certificates, .. }) = mode else { continue };
        for certificate in certificates {
            served.entry(&certificate.name).or_insert_with(|| Arc::clone(certificate));
        }
    }
    served.into_values().collect()
}
