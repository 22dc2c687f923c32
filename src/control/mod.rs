//! The loop: a snapshot in, a revision out. Only here are `live`, the clusters and the set of sockets changed.
//!
//! ```text
//! Files ─ changed ─▶ Snapshot ─ compile ─▶ clusters, TLS ─▶ Revision ─ install ─▶ sockets close and open
//! ```
//!
//! The order is what keeps the promise that no socket accepts before what it serves is live: a revision is
//! installed first, then sockets that it has no more are closed, then new ones are opened.

mod sockets;
mod told;

pub use sockets::Opened;

use crate::compile::{Binding, Certificates, Compiled, Severity, SocketSpec, compile_after};
use crate::config::{self, Config, ConfigError};
use crate::listener::Workers;
use crate::live::{Live, Revision};
use crate::proxy::Gateway;
use crate::routing::GatewayId;
use crate::source::{Files, Snapshot};
use crate::telemetry::{Registry, Revised};
use crate::tls::{Certificate, TlsListener, TlsMode, TlsShared, TlsSocket};
use crate::upstream::Clusters;
use sockets::{Sockets, Wanted};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use told::Told;
use tracing::{error, info};

/// How often a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What changes the configuration that serves.
pub struct Control {
    config: Arc<Config>,
    bindings: Vec<Binding>,
    live: Arc<Live>,
    registry: Arc<Registry>,
    clusters: Clusters,
    tls: TlsShared,
    certificates: Certificates,
    sockets: Sockets,
    told: Told,
    /// How many revisions were installed.
    number: u64,
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
        let gateways = config.gateways.iter().zip(0..);
        let gateways = gateways
            .map(|((name, gateway), id)| Arc::new(gateway_of(&config, name, gateway, GatewayId(id))))
            .collect();
        Ok(Self {
            bindings: bindings(&config),
            sockets: Sockets::new(config.clone(), workers, gateways),
            config,
            live,
            registry,
            clusters,
            tls: TlsShared::new()?,
            certificates: Certificates::default(),
            told: Told::default(),
            number: 0,
        })
    }

    /// Serves the first snapshot.
    ///
    /// # Errors
    /// Two gateways need one socket, or a socket cannot be opened: a start that serves less than it was told to
    /// would be found out by its users.
    pub fn start(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let began = Instant::now();
        let compiled = self.compile(snapshot);
        let listeners = compiled.sockets.keys().map(|id| (self.sockets.gateway(*id), id.port));
        let shared = self.config.shared_sockets(&listeners.collect::<Vec<_>>());
        if !shared.is_empty() {
            return Err(ConfigError::Faulty(shared).into());
        }
        self.install(compiled, began);
        let failed = self.sockets.open_missing();
        self.registry.set_sockets(self.sockets.observed());
        match failed.into_iter().next() {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Serves every later snapshot.
    pub async fn run(mut self, mut files: Files) -> Infallible {
        loop {
            let change = match self.sockets.are_open() {
                true => Some(files.changed().await),
                false => timeout(RETRY, files.changed()).await.ok(),
            };
            // Compiling takes its time; the other tasks of this runtime go on meanwhile.
            tokio::task::block_in_place(|| self.follow(change.as_ref()));
        }
    }

    fn follow(&mut self, change: Option<&Snapshot>) {
        if let Some(snapshot) = change {
            let began = Instant::now();
            let compiled = self.compile(snapshot);
            self.install(compiled, began);
            info!("revision {} is live after {:.1?}", self.number, began.elapsed());
        }
        for (id, error) in self.sockets.open_missing() {
            let gateway = self.sockets.gateway(id);
            error!("gateway {gateway} does not serve its port {}, it is tried again: {error}", id.port);
        }
        self.registry.set_sockets(self.sockets.observed());
    }

    /// The sockets that are open.
    pub fn opened(&self) -> Vec<Opened> {
        self.sockets.opened()
    }

    fn compile(&mut self, snapshot: &Snapshot) -> Compiled {
        let mut compiled = compile_after(snapshot, &self.bindings, &self.certificates);
        self.certificates = std::mem::take(&mut compiled.certificates);
        self.told.tell(&compiled.diagnostics);
        compiled
    }

    /// Makes a compiled snapshot the revision that serves, and closes the sockets that it has no more.
    fn install(&mut self, compiled: Compiled, began: Instant) {
        let Compiled {
            table,
            clusters,
            endpoints,
            sockets,
            diagnostics,
            certificates: _,
            gateways: _,
            routes,
        } = compiled;
        let clusters = self.clusters.reconcile(clusters, endpoints);
        let mut tls = Vec::new();
        let mut wanted = BTreeMap::new();
        for (id, spec) in sockets {
            let SocketSpec::Tls(listeners) = &spec else {
                wanted.insert(id, Wanted::default());
                continue;
            };
            tls.push((id, Arc::new(TlsSocket::build(listeners, &self.tls))));
            wanted.insert(id, Wanted { tls: true, certificates: served(listeners) });
        }
        self.number += 1;
        let number = self.number;
        let errors = diagnostics.iter().filter(|one| one.severity == Severity::Error).count();
        self.registry.revised(Revised {
            number,
            installed: Instant::now(),
            compile: began.elapsed(),
            clusters: clusters.clone(),
            routes: routes.len(),
            errors,
            warnings: diagnostics.len() - errors,
        });
        self.live.install(Revision { number, table, clusters, tls });
        self.sockets.want(wanted);
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

/// The certificates of a socket, each once.
fn served(listeners: &[TlsListener]) -> Vec<Arc<Certificate>> {
    let mut served = BTreeMap::new();
    for TlsListener { hostname: _, mode } in listeners {
        let TlsMode::Terminate { certificates } = mode;
        for certificate in certificates {
            served.entry(&certificate.name).or_insert_with(|| Arc::clone(certificate));
        }
    }
    served.into_values().collect()
}
