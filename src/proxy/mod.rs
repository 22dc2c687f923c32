//! The data path: from a connection to its last response.
//!
//! ```text
//! serve ─┬─ http1::serve ────────┐
//!        └─ http2::serve ────────┴─▶ exchange::serve: asked ▸ find ▸ filters ▸ backend ▸ tries ▸ answer
//!                                      filters: cors ▸ authorize ▸ redirect ▸ edits ▸ mirror
//!                                      tries:   reach ▸ relay (pump), again when retries says so
//! ```

mod alarm;
mod answer;
mod asked;
mod attempt;
mod authorize;
mod call;
mod downstream;
mod exchange;
mod ext_authz;
mod forwarded;
mod http1;
mod http2;
mod kept;
mod mirror;
mod notes;
mod outgoing;
mod passage;
mod pump;
mod reach;
mod recording;
mod relay;
mod responding;
mod retries;
#[cfg(test)]
mod rig;
mod target;

use crate::config::Limits;
use crate::live::Live;
use crate::routing::{GatewayId, SocketId};
use crate::telemetry::HttpStats;
use crate::tls::ServerName;
use crate::upstream::Pool;
use crate::wire::Wire;
use alarm::Alarms;
use downstream::Downstream;
use http::HeaderValue;
use ipnet::IpNet;
use std::cell::{Cell, OnceCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::watch;

pub use target::normalise;

/// A gateway, for the life of the process.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub id: GatewayId,
    /// `external`.
    pub name: String,
    /// Peers whose forwarding headers and PROXY header are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How many of the last addresses in `X-Forwarded-For` are believed, whoever sends them.
    pub trusted_hops: u8,
    pub habits: Habits,
    pub limits: Limits,
}

/// How a gateway deals with clients and backends, where Envoy Gateway lets its users choose, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// HTTP/1.0 is served and not told to upgrade.
    pub http10: bool,
    /// Both sides are told in `x-envoy-*` fields what Envoy would tell them.
    pub envoy_headers: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self { http10: true, envoy_headers: false }
    }
}

impl Gateway {
    /// Whether this peer is one of the trusted proxies.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}

/// What is known of a client's connection.
#[derive(Debug, Clone)]
pub struct Connection {
    pub socket: SocketId,
    pub gateway: Arc<Gateway>,
    /// The client, or what a trusted PROXY header says of it.
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// The name of the TLS handshake, empty when the client sent none; `None` on a cleartext connection.
    pub server_name: Option<ServerName>,
    /// Whether ALPN chose HTTP/2.
    pub http2: bool,
    pub client_certificate: ClientCertificate,
    /// Protocol and cipher suite of TLS that ended here, as they are logged.
    pub tls: Option<(&'static str, &'static str)>,
    /// Which of the process's connections it is.
    pub number: u64,
    pub stats: Arc<HttpStats>,
    /// The peer's address as `X-Forwarded-For` has it, from the first request on.
    pub address: OnceCell<HeaderValue>,
}

impl Connection {
    fn address(&self) -> &HeaderValue {
        self.address.get_or_init(|| {
            HeaderValue::try_from(self.peer.ip().to_string()).expect("digits, colons and dots make a value")
        })
    }
}

/// What backends are told of the certificate that a client showed.
#[derive(Debug, Clone, Default)]
pub enum ClientCertificate {
    /// Nothing; what a trusted proxy tells goes on.
    #[default]
    NotTold,
    /// That there is none, or none that is valid.
    Absent,
    /// This, as `x-forwarded-client-cert`.
    Told(HeaderValue),
}

/// What a worker thread has of its own.
#[derive(Debug)]
pub struct Worker {
    live: Arc<Live>,
    pool: Rc<Pool>,
    draining: Rc<Cell<bool>>,
    alarms: Alarms,
    /// Copies of requests that are on their way to mirrors.
    mirroring: Rc<Cell<usize>>,
    /// True while clients are told to go elsewhere.
    announced: watch::Receiver<bool>,
}

impl Worker {
    /// A worker without connections, which announces their end while `announced` is true. Must run in a
    /// `LocalSet`.
    pub fn new(live: Arc<Live>, limits: &Limits, announced: watch::Receiver<bool>) -> Rc<Self> {
        let draining = Rc::new(Cell::new(false));
        let (told, mut news) = (Rc::clone(&draining), announced.clone());
        tokio::task::spawn_local(async move {
            loop {
                told.set(*news.borrow_and_update());
                if news.changed().await.is_err() {
                    // Nobody is left to take it back.
                    return told.set(true);
                }
            }
        });
        let pool = Pool::new(limits.upstream_idle_timeout, limits.head_bytes as usize);
        Rc::new(Self { live, pool, draining, alarms: Alarms::default(), mirroring: Rc::default(), announced })
    }

    /// The revision that serves, once there is one.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Announces the end of a connection that cannot or should not serve another request: the worker drains, or
    /// the rest of a request body would stand before the next request.
    fn close_if_due(&self, down: &mut Downstream) {
        if self.draining.get() || !down.is_body_done() {
            down.close_after();
        }
    }
}

/// Ready when the process is to drain its connections, or is gone.
async fn drained(mut shutdown: watch::Receiver<bool>) {
    // An error means that nobody is left who could say it.
    let _ = shutdown.wait_for(|&shutdown| shutdown).await;
}

/// Serves a connection until it ends. While the worker drains, clients are told to come back on another connection;
/// when `shutdown` turns true, what is going on is finished, and a connection without a request ends.
pub async fn serve(wire: Wire, connection: Connection, worker: Rc<Worker>, shutdown: watch::Receiver<bool>) {
    if connection.http2 {
        http2::serve(wire, connection, worker).await;
    } else {
        http1::serve(wire, connection, worker, shutdown).await;
    }
}
