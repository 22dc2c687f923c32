//! The sockets of all gateways: what a revision wants, what is open, and what both are called in the metrics.

use crate::config::ProxyProtocol;
use crate::listener::{SocketOptions, Workers};
use crate::proxy::Gateway;
use crate::routing::{GatewayId, SocketId, Transport};
use crate::telemetry::{Carrier, HttpStats, ListenerStats, Socket};
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
    /// Whether HTTP is spoken on it, in TLS or in clear text.
    pub speaks_http: bool,
    /// How it carries what is no HTTP.
    pub carriers: Vec<Carrier>,
    pub addresses: Vec<SocketAddr>,
    pub proxy_protocol: ProxyProtocol,
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
    /// The addresses that it was asked for: a port of 0 is not what is bound then.
    asked: Vec<SocketAddr>,
}

/// The counters of a socket, which outlive it: a port that comes back goes on counting.
#[derive(Debug, Clone)]
struct Stats {
    http: Arc<HttpStats>,
    listener: Arc<ListenerStats>,
}

/// All sockets.
pub(super) struct Sockets {
    workers: Arc<Workers>,
    /// They stay the same for as long as the process runs.
    gateways: BTreeMap<GatewayId, Arc<Gateway>>,
    wanted: BTreeMap<SocketId, Wanted>,
    open: BTreeMap<SocketId, Opened>,
    stats: BTreeMap<(SocketId, bool), Stats>,
}

impl Sockets {
    /// None so far.
    pub fn new(workers: Arc<Workers>) -> Self {
        let (wanted, open, stats) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { workers, gateways: BTreeMap::new(), wanted, open, stats }
    }

    /// Makes a gateway known that may have sockets.
    pub fn know(&mut self, id: GatewayId, gateway: impl FnOnce() -> Gateway) {
        self.gateways.entry(id).or_insert_with(|| Arc::new(gateway()));
    }

    /// The name of the gateway that a socket belongs to.
    pub fn gateway(&self, id: SocketId) -> &str {
        self.name(id.gateway)
    }

    /// The name of a gateway.
    pub fn name(&self, id: GatewayId) -> &str {
        self.gateways.get(&id).map_or("", |gateway| &gateway.name)
    }

    /// From now on these are wanted. Closes what is open and not one of them.
    pub fn want(&mut self, wanted: BTreeMap<SocketId, Wanted>) {
        self.wanted = wanted;
        let (workers, wanted) = (&self.workers, &self.wanted);
        self.open.retain(|id, opened| {
            let stays = wanted
                .get(id)
                .is_some_and(|wanted| wanted.tls == opened.tls && wanted.addresses == opened.asked);
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
        let missing: Vec<_> = missing.map(|(id, wanted)| (*id, wanted.clone())).collect();
        let mut failed = Vec::new();
        for (id, wanted) in missing {
            match self.open(id, wanted) {
                Ok(opened) => {
                    self.open.insert(id, opened);
                }
                Err(error) => failed.push((id, error)),
            }
        }
        failed
    }

    /// Where all that is wanted listens, or why it does not, as far as it is known from the last try.
    pub fn outcome(
        &self,
        failed: &[(SocketId, io::Error)],
    ) -> BTreeMap<SocketId, Result<Vec<SocketAddr>, String>> {
        let open = self.open.iter().map(|(id, opened)| (*id, Ok(opened.addresses.clone())));
        open.chain(failed.iter().map(|(id, error)| (*id, Err(error.to_string())))).collect()
    }

    fn open(&mut self, id: SocketId, wanted: Wanted) -> io::Result<Opened> {
        let Wanted { tls, speaks_http: _, carriers: _, addresses, proxy_protocol, certificates: _ } = wanted;
        let Some(gateway) = self.gateways.get(&id.gateway).cloned() else {
            return Err(io::Error::other("it belongs to no gateway"));
        };
        let asked = addresses.clone();
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
        let options = SocketOptions { id, tls, addresses, gateway, proxy_protocol, http, stats: listener };
        let addresses = self.workers.open(options)?;
        Ok(Opened { id, gateway: name, tls, addresses, asked })
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
        let sockets = self.open.values().filter_map(|Opened { id, gateway, tls, addresses, asked: _ }| {
            let Stats { http, listener } = self.stats.get(&(*id, *tls))?.clone();
            let Wanted { speaks_http, carriers, certificates, .. } = self.wanted.get(id).cloned()?;
            carriers.into_iter().for_each(|carrier| listener.carried().expect(carrier));
            let name = match id.transport {
                Transport::Tcp => format!("{gateway}/{}", id.port),
                Transport::Udp => format!("{gateway}/{}/udp", id.port),
            };
            let (gateway, addresses, tls) = (gateway.clone(), addresses.clone(), *tls);
            Some(Socket { name, gateway, addresses, tls, speaks_http, http, listener, certificates })
        });
        sockets.collect()
    }
}
