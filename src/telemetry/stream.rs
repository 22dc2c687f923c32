//! What a socket counts of connections and flows that are no HTTP: Envoy's `tcp.<prefix>.*` and `udp.<prefix>.*`.
//!
//! A socket that never carries any costs a pointer for each kind.

use crate::stats::{Counter, Sharded, tally};
use std::sync::OnceLock;

/// How a socket carries what is no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// A TCP listener.
    Tcp,
    /// A TLS listener whose connections a backend ends.
    Passthrough,
    /// A TLS listener whose connections the gateway ends.
    Terminated,
    /// A UDP listener.
    Udp,
}

tally! {
    /// What one worker counts for the streams of a socket.
    pub struct StreamShard => StreamTotals {
        cx_total: Counter,
        /// No route, or none of its backends can be used.
        no_route: Counter,
        idle_timeout: Counter,
        /// Bytes read from clients.
        rx_bytes: Counter,
        /// Bytes written to clients.
        tx_bytes: Counter,
    }
    gauges {
        cx_active,
    }
}

tally! {
    /// What one worker counts for the flows of a socket.
    pub struct FlowShard => FlowTotals {
        sessions: Counter,
        no_route: Counter,
        idle_timeout: Counter,
        /// Flows that made room for others.
        overflow: Counter,
        rx_bytes: Counter,
        rx_datagrams: Counter,
        rx_errors: Counter,
        tx_bytes: Counter,
        tx_datagrams: Counter,
        tx_errors: Counter,
    }
    gauges {
        active,
    }
}

/// Counters of all that a socket carries, of each kind from its first use on.
#[derive(Debug, Default)]
pub struct CarrierStats {
    streams: [OnceLock<Box<Sharded<StreamShard>>>; 3],
    flows: OnceLock<Box<Sharded<FlowShard>>>,
}

impl CarrierStats {
    /// The calling worker's counters of streams; flows have their own.
    pub fn streams(&self, carrier: Carrier) -> &StreamShard {
        self.streams[place(carrier)].get_or_init(Box::default).mine()
    }

    /// The calling worker's counters of flows.
    pub fn flows(&self) -> &FlowShard {
        self.flows.get_or_init(Box::default).mine()
    }

    /// Makes the counters of a kind show although nothing has come yet.
    pub fn expect(&self, carrier: Carrier) {
        match carrier {
            Carrier::Udp => drop(self.flows.get_or_init(Box::default)),
            Carrier::Tcp | Carrier::Passthrough | Carrier::Terminated => {
                self.streams[place(carrier)].get_or_init(Box::default);
            }
        }
    }

    /// What the streams of each kind in use come to.
    pub fn stream_totals(&self) -> impl Iterator<Item = (Carrier, StreamTotals)> {
        let carriers = [Carrier::Tcp, Carrier::Passthrough, Carrier::Terminated];
        let streams = carriers.into_iter().zip(&self.streams);
        streams.filter_map(|(carrier, shards)| Some((carrier, shards.get()?.total())))
    }

    /// What the flows come to, once there can be some.
    pub fn flow_totals(&self) -> Option<FlowTotals> {
        self.flows.get().map(|shards| shards.total())
    }

    /// Sets all counters back to zero; gauges stay.
    pub fn reset(&self) {
        self.streams.iter().filter_map(OnceLock::get).for_each(|shards| shards.reset());
        if let Some(shards) = self.flows.get() {
            shards.reset();
        }
    }
}

fn place(carrier: Carrier) -> usize {
    match carrier {
        Carrier::Tcp | Carrier::Udp => 0,
        Carrier::Passthrough => 1,
        Carrier::Terminated => 2,
    }
}

impl Carrier {
    /// What Envoy Gateway's prefixes begin with; the port follows.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Passthrough => "tls-passthrough",
            Self::Terminated => "tls-terminate",
            Self::Udp => "udp",
        }
    }
}
