//! Which rule serves a request. Knows HTTP and nothing else: no Kubernetes, no sockets, no framework.
//!
//! ```text
//! RoutingTable ─ by SocketId ─▶ SocketTable ─ by Host ─▶ Listener ─ by Host ─▶ PathIndex ─▶ Candidate ─▶ Rule
//! ```
//!
//! All lists are sorted by [`Rank`] when the table is built, so the first match wins at run time, and
//! [`RoutingTable::find`] neither allocates nor locks.

mod dump;
mod dump_filters;
mod limits;
mod matches;
mod path;
mod rank;
mod rule;
mod session;
mod table;

pub use crate::filter::ClusterId;
pub use dump::{Page, dump, socket_name};
pub use limits::{Retry, TimeLimit, Timeouts};
pub use matches::{CookieLists, CookieMatch, HeaderMatch, Matches, PathMatch, QueryMatch, TextMatch};
pub use path::PathIndex;
pub use rank::{PathRank, Rank};
pub use rule::{Backend, Backends, Rule, RuleName, Terms};
pub use session::{Carrier, Session, SessionError, Token};
pub use table::{Found, Listener, Request, RoutingTable, SocketTable, StreamListener};

/// A gateway of this process: the position of its table in `proxy.toml`, stable while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub u16);

/// A bound socket, named by what it serves: a gateway and a port of its listeners (not the bound port).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    pub gateway: GatewayId,
    pub port: u16,
    pub transport: Transport,
}

/// TCP and UDP have ports of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Tcp,
    Udp,
}
