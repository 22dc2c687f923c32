//! The sockets of all gateways: what a revision wants, what is open, and what both are called in the metrics.

use crate::config::Config;
use crate::listener::{SocketOptions, Workers};
use crate::proxy::Gateway;
use crate::routing::SocketId;
use crate::telemetry::{HttpStats, ListenerStats, Socket};
use crate::tls::Certificate;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tracing::info;

/// A socket as a revision wants it.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub tls: bool,
    /// What it serves over TLS.
    pub certificates: Vec<Arc<Certificate>>,
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

/// The counters of a socket, which outlive it: a port that comes back goes on counting.
#[derive(Debug, Clone)]
struct Stats {
    http: Arc<HttpStats>,
    listener: Arc<ListenerStats>,
}

/// All sockets.
pub(super) struct Sockets {
    config: Arc<Config>,
    workers: Arc<Workers>,
    /// By `GatewayId`.
    gateways: Vec<Arc<Gateway>>,
    wanted: BTreeMap<SocketId, Wanted>,
    open: BTreeMap<SocketId, Opened>,
    stats: BTreeMap<(SocketId, bool), Stats>,
}

impl Sockets {
    /// None so far.
    pub fn new(config: Arc<Config>, workers: Arc<Workers>, gateways: Vec<Arc<Gateway>>) -> Self {
        let (wanted, open, stats) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { config, workers, gateways, wanted, open, stats }
    }

    /// The name of the gateway that a socket belongs to.
    pub fn gateway(&self, id: SocketId) -> &str {
        &self.gateways[usize::from(id.gateway.0)].name
    }

    /// From now on these are wanted. Closes what is open and not one of them.
    pub fn want(&mut self, wanted: BTreeMap<SocketId, Wanted>) {
        self.wanted = wanted;
        let (workers, wanted) = (&self.workers, &self.wanted);
        self.open.retain(|id, opened| {
            let stays = wanted.get(id).is_some_and(|wanted| wanted.tls == opened.tls);
            if !stays {
                workers.close(*id);
                info!("gateway {} has closed its port {}", opened.gateway, id.port);
            }
            stays
        });
    }

    /// Opens what is wanted and not open; returns what cannot be.
    pub fn open_missing(&mut self) -> Vec<(SocketId, io::Error)> {
        let missing = self.wanted.iter().filter(|(id, _)| !self.open.contains_key(id));
        let missing: Vec<_> = missing.map(|(id, wanted)| (*id, wanted.tls)).collect();
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

    fn open(&mut self, id: SocketId, tls: bool) -> io::Result<Opened> {
        let gateway = self.gateways[usize::from(id.gateway.0)].clone();
        let config = &self.config.gateways[&gateway.name];
        let addresses = config.addresses(id.port);
        let named = addresses.first().copied().unwrap_or_else(|| ([0, 0, 0, 0], id.port).into());
        let Stats { http, listener } = self
            .stats
            .entry((id, tls))
            .or_insert_with(|| Stats {
                http: Arc::new(HttpStats::new(tls, named)),
                listener: Arc::new(ListenerStats::new(named)),
            })
            .clone();
        let name = gateway.name.clone();
        let proxy_protocol = config.proxy_protocol;
        let options = SocketOptions { id, tls, addresses, gateway, proxy_protocol, http, stats: listener };
        let addresses = self.workers.open(options)?;
        Ok(Opened { id, gateway: name, tls, addresses })
    }

    /// Whether all that is wanted is open.
    pub fn are_open(&self) -> bool {
        self.wanted.keys().all(|id| self.open.contains_key(id))
    }

    /// What is open.
    pub fn opened(&self) -> Vec<Opened> {
        self.open.values().cloned().collect()
    }

    /// What is open, for observers.
    pub fn observed(&self) -> Vec<Socket> {
        let sockets = self.open.values().filter_map(|Opened { id, gateway, tls, addresses }| {
            let Stats { http, listener } = self.stats.get(&(*id, *tls))?.clone();
            let certificates =
                self.wanted.get(id).map(|wanted| wanted.certificates.clone()).unwrap_or_default();
            let name = format!("{gateway}/{}", id.port);
            Some(Socket { name, addresses: addresses.clone(), tls: *tls, http, listener, certificates })
        });
        sockets.collect()
    }
}
