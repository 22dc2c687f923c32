//! Sockets: they come and go while the process runs, and hand every connection to whoever serves it.
//!
//! ```text
//! Workers ── open, close, drain ──▶ worker thread ─▶ one accept loop for each address
//!                                                       │ one task for each connection
//!                                                       ▼
//!                    PROXY header ─▶ TLS by server name ─▶ proxy::serve(wire, connection, …)
//! ```
//!
//! Each worker has sockets of its own (SO_REUSEPORT), so the kernel spreads connections and no worker hands one
//! to another. What was bound keeps its place in the kernel's queue: a socket is bound before `open` returns, and
//! what the kernel has queued is taken before it closes.

mod accept;
mod bind;
mod inbound;
mod places;
mod proxy_protocol;
mod queue;
mod tls_accept;
mod workers;

pub use workers::Workers;

use crate::config::ProxyProtocol;
use crate::proxy::Gateway;
use crate::routing::SocketId;
use crate::telemetry::{HttpStats, ListenerStats};
use std::net::SocketAddr;
use std::sync::Arc;

/// A socket of a gateway, and what is expected on it.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    pub id: SocketId,
    /// Whether connections begin with a TLS handshake (after the PROXY header).
    pub tls: bool,
    /// All addresses it is bound to.
    pub addresses: Vec<SocketAddr>,
    pub gateway: Arc<Gateway>,
    pub proxy_protocol: ProxyProtocol,
    pub http: Arc<HttpStats>,
    pub stats: Arc<ListenerStats>,
}
