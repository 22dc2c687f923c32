//! What a log tells of a connection or a flow that is carried as it is.

use crate::access_log::{Record, Upstream};
use crate::live::Live;
use crate::reply::Outcome;
use crate::telemetry::Observing;
use crate::upstream::{Address, Cluster};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

/// A connection or a flow while it lasts, for somebody who wants to know.
#[derive(Debug)]
pub struct Story {
    observing: Arc<Observing>,
    record: Box<Record>,
    started: Instant,
}

/// How it was carried.
#[derive(Debug, Default)]
pub struct Told {
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    pub cluster: Option<Arc<Cluster>>,
    pub endpoint: Option<Address>,
    /// The end that is ours of the connection to it.
    pub upstream_local: Option<SocketAddr>,
    pub failure: Option<Box<str>>,
    pub outcome: Outcome,
}

impl Story {
    /// Begins the story of one from this peer, if a log of this gateway wants it.
    pub fn begin(live: &Live, gateway: u16, peer: SocketAddr, local: Option<SocketAddr>) -> Option<Self> {
        let revision = live.load()?;
        let observing = revision.observers.of(gateway)?;
        if observing.logs.is_empty() {
            return None;
        }
        let mut record = Box::new(Record::new(SystemTime::now()));
        (record.peer, record.local) = (Some(peer), local);
        Some(Self { observing: Arc::clone(observing), record, started: Instant::now() })
    }

    /// Its TLS, as far as it is known.
    pub fn secured(&mut self, server_name: Option<Arc<str>>, tls: Option<(&'static str, &'static str)>) {
        self.record.secure = server_name.is_some();
        (self.record.server_name, self.record.tls) = (server_name, tls);
    }

    /// The names under which it was accepted.
    pub fn named(&mut self, gateway: &str, number: u64) {
        self.record.gateway = gateway.into();
        self.record.connection = number;
    }

    /// It is over.
    pub fn end(self, told: Told) {
        let Self { observing, mut record, started } = self;
        let Told { received, sent, cluster, endpoint, upstream_local, failure, outcome } = told;
        record.duration = started.elapsed();
        (record.received, record.sent, record.outcome) = (received, sent, outcome);
        record.upstream =
            Upstream { cluster, endpoint, local: upstream_local, failure, ..Upstream::default() };
        observing.tell(record);
    }
}
