//! The loop: a snapshot in, a revision out. Only here are `live`, the clusters and the set of sockets changed.
//!
//! ```text
//! Files ─ changed ─▶ Snapshot ─ compile ─▶ clusters, TLS ─▶ Revision ─ install ─▶ sockets close and open
//! ```
//!
//! The order is what keeps the promise that no socket accepts before what it serves is live: a revision is
//! installed first, then sockets that it has no more are closed, then new ones are opened.

use crate::compile::{Binding, Certificates, Compiled, Diagnostic, Severity, SocketSpec, compile_after};
use crate::config::{self, Config, ConfigError};
use crate::listener::{SocketOptions, Workers};
use crate::live::{Live, Revision};
use crate::proxy::Gateway;
use crate::resource::Snapshot;
use crate::routing::{GatewayId, SocketId};
use crate::source::Files;
use crate::telemetry::{HttpStats, ListenerStats};
use crate::tls::{TlsShared, TlsSocket};
use crate::upstream::Clusters;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::{error, info, warn};

/// How often a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What changes the configuration that serves.
pub struct Control {
    config: Arc<Config>,
    bindings: Vec<Binding>,
    gateways: Vec<Arc<Gateway>>,
    live: Arc<Live>,
    workers: Arc<Workers>,
    clusters: Clusters,
    tls: TlsShared,
    certificates: Certificates,
    /// How many revisions were installed.
    number: u64,
    /// Sockets that the revision needs, and what each speaks.
    wanted: BTreeMap<SocketId, bool>,
    open: BTreeMap<SocketId, Opened>,
    told: BTreeSet<Told>,
}

/// An open socket.
#[derive(Debug, Clone)]
pub struct Opened {
    pub id: SocketId,
    /// The gateway's name.
    pub gateway: String,
    pub tls: bool,
    pub addresses: Vec<SocketAddr>,
}

/// A diagnostic as far as it is the same one when lines move.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    severity: Severity,
    object: String,
    field: String,
    message: String,
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
    ) -> Result<Self, rustls::Error> {
        let gateways = config.gateways.iter().zip(0..);
        let gateways = gateways
            .map(|((name, gateway), id)| Arc::new(gateway_of(&config, name, gateway, GatewayId(id))))
            .collect();
        Ok(Self {
            bindings: bindings(&config),
            gateways,
            config,
            live,
            workers,
            clusters,
            tls: TlsShared::new()?,
            certificates: Certificates::default(),
            number: 0,
            wanted: BTreeMap::new(),
            open: BTreeMap::new(),
            told: BTreeSet::new(),
        })
    }

    /// Serves the first snapshot.
    ///
    /// # Errors
    /// Two gateways need one socket, or a socket cannot be opened: a start that serves less than it was told to
    /// would be found out by its users.
    pub fn start(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let compiled = self.compile(snapshot);
        let listeners: Vec<_> =
            compiled.sockets.keys().map(|id| (self.gateway(*id).name.as_str(), id.port)).collect();
        let shared = self.config.shared_sockets(&listeners);
        if !shared.is_empty() {
            return Err(ConfigError::Faulty(shared).into());
        }
        self.install(compiled);
        match self.open_wanted().into_iter().next() {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Serves every later snapshot.
    pub async fn run(mut self, mut files: Files) -> Infallible {
        loop {
            let complete = self.wanted.keys().all(|id| self.open.contains_key(id));
            let change = match complete {
                true => Ok(files.changed().await),
                false => timeout(RETRY, files.changed()).await,
            };
            // Compiling takes its time; the other tasks of this runtime go on meanwhile.
            tokio::task::block_in_place(|| {
                if let Ok(snapshot) = change {
                    let began = Instant::now();
                    let compiled = self.compile(&snapshot);
                    self.install(compiled);
                    info!("revision {} is live after {:.1?}", self.number, began.elapsed());
                }
                for (id, error) in self.open_wanted() {
                    let gateway = &self.gateway(id).name;
                    error!(
                        "gateway {gateway} does not serve its port {}, it is tried again: {error}",
                        id.port
                    );
                }
            });
        }
    }

    /// The sockets that are open.
    pub fn sockets(&self) -> Vec<Opened> {
        self.open.values().cloned().collect()
    }

    fn compile(&mut self, snapshot: &Snapshot) -> Compiled {
        let mut compiled = compile_after(snapshot, &self.bindings, &self.certificates);
        self.certificates = std::mem::take(&mut compiled.certificates);
        self.tell(&compiled.diagnostics);
        compiled
    }

    /// Makes a compiled snapshot the revision that serves, and closes the sockets that it has no more.
    fn install(&mut self, compiled: Compiled) {
        let Compiled { table, clusters, endpoints, sockets, .. } = compiled;
        let clusters = self.clusters.reconcile(clusters, endpoints);
        let mut tls = Vec::new();
        self.wanted.clear();
        for (id, spec) in sockets {
            if let SocketSpec::Tls(listeners) = &spec {
                tls.push((id, Arc::new(TlsSocket::build(listeners, &self.tls))));
            }
            self.wanted.insert(id, matches!(spec, SocketSpec::Tls(_)));
        }
        self.number += 1;
        self.live.install(Revision { number: self.number, table, clusters, tls });
        let (workers, wanted) = (&self.workers, &self.wanted);
        self.open.retain(|id, opened| {
            let stays = wanted.get(id) == Some(&opened.tls);
            if !stays {
                workers.close(*id);
                info!("gateway {} has closed its port {}", opened.gateway, id.port);
            }
            stays
        });
    }

    /// Opens the sockets that are wanted and not open; returns those that cannot be.
    fn open_wanted(&mut self) -> Vec<(SocketId, io::Error)> {
        let missing: Vec<_> = self
            .wanted
            .iter()
            .filter(|(id, _)| !self.open.contains_key(id))
            .map(|(id, tls)| (*id, *tls))
            .collect();
        let mut failed = Vec::new();
        for (id, tls) in missing {
            match self.open(id, tls) {
                Ok(opened) => {
                    self.open.insert(id, opened);
                }
                Err(error) => failed.push((id, error)),
            }
        }
        failed
    }

    fn open(&self, id: SocketId, tls: bool) -> io::Result<Opened> {
        let gateway = self.gateway(id);
        let config = &self.config.gateways[&gateway.name];
        let options = SocketOptions {
            id,
            tls,
            addresses: config.addresses(id.port),
            gateway: gateway.clone(),
            proxy_protocol: config.proxy_protocol,
            http: Arc::new(HttpStats::default()),
            stats: Arc::new(ListenerStats::default()),
        };
        let addresses = self.workers.open(options)?;
        Ok(Opened { id, gateway: gateway.name.clone(), tls, addresses })
    }

    fn gateway(&self, id: SocketId) -> &Arc<Gateway> {
        &self.gateways[usize::from(id.gateway.0)]
    }

    /// Logs what is newly wrong, and what is no longer.
    fn tell(&mut self, diagnostics: &[Diagnostic]) {
        let mut now = BTreeSet::new();
        for diagnostic in diagnostics {
            let told = Told::of(diagnostic);
            if !self.told.contains(&told) && !now.contains(&told) {
                // The log has a severity of its own.
                let text = diagnostic.to_string();
                let text = text.trim_start_matches("error").trim_start_matches("warning");
                match diagnostic.severity {
                    Severity::Error => error!("{text}"),
                    Severity::Warning => warn!("{text}"),
                }
            }
            now.insert(told);
        }
        for Told { object, field, message, .. } in self.told.difference(&now) {
            info!("no longer so: {object} {field}{}{message}", if field.is_empty() { "" } else { ": " });
        }
        self.told = now;
    }
}

impl Told {
    fn of(diagnostic: &Diagnostic) -> Self {
        let Diagnostic { severity, object, place: _, field, reason: _, message } = diagnostic;
        Self {
            severity: *severity,
            object: object.to_string(),
            field: field.clone(),
            message: message.clone(),
        }
    }
}

/// Which Gateway objects the gateways of a configuration serve.
pub fn bindings(config: &Config) -> Vec<Binding> {
    let bindings = config.gateways.iter().zip(0..).map(|((name, gateway), id)| Binding {
        id: GatewayId(id),
        name: name.clone(),
        namespace: gateway.object.namespace.clone(),
        object: gateway.object.name.clone(),
    });
    bindings.collect()
}

/// A gateway as the data path knows it.
fn gateway_of(config: &Config, name: &str, gateway: &config::Gateway, id: GatewayId) -> Gateway {
    Gateway {
        id,
        name: name.to_owned(),
        trusted_proxies: gateway.trusted_proxies.clone(),
        trusted_hops: gateway.trusted_hops,
        limits: config.limits,
    }
}
