//! From what users wrote to what it means: a pure, total function.
//!
//! No clock, environment, log or network; it never fails, it returns diagnostics.

pub use crate::resource::{Diagnostic, ObjectRef, Place, Severity};

use crate::routing::{GatewayId, RoutingTable, SocketId};
use crate::tls::TlsListener;
use crate::upstream::{ClusterSpec, EndpointsKey, EndpointsSpec};
use std::collections::BTreeMap;

/// A gateway of `proxy.toml`, as far as it decides what is compiled for it.
#[derive(Debug, Clone)]
pub struct Binding {
    pub id: GatewayId,
    /// `external`.
    pub name: String,
    /// The Gateway object that it serves.
    pub namespace: String,
    pub object: String,
}

/// What a snapshot means.
#[derive(Debug, Default)]
pub struct Compiled {
    pub table: RoutingTable,
    /// In the order of `routing::ClusterId`.
    pub clusters: Vec<ClusterSpec>,
    pub endpoints: BTreeMap<EndpointsKey, EndpointsSpec>,
    /// Every port that a gateway must listen on.
    pub sockets: BTreeMap<SocketId, SocketSpec>,
    /// Sorted by object, then by place.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a socket speaks.
#[derive(Debug, Clone)]
pub enum SocketSpec {
    /// HTTP/1.1 and HTTP/2 with prior knowledge.
    Http,
    /// TLS first. The listeners are told apart by SNI.
    Tls(Vec<TlsListener>),
}
