//! What a socket counts of its connections before they speak HTTP: Envoy's `listener.<address>.*`.

use super::stream::CarrierStats;
use crate::stats::{Counter, Handshakes, Histogram, Sharded, tally};
use std::net::{Ipv4Addr, SocketAddr};

tally! {
    /// What one worker counts for a socket.
    pub struct ListenerShard => ListenerTotals {
        cx_total: Counter,
        cx_destroy: Counter,
        /// Refused because the process has as many connections as it may.
        cx_overflow: Counter,
        /// From accept to the end.
        cx_length: Histogram,
        /// The PROXY header or the TLS hello took too long.
        pre_cx_timeout: Counter,
        /// The TLS handshake took too long.
        handshake_timeout: Counter,
        /// No listener is for the server name.
        no_filter_chain_match: Counter,
        /// A PROXY header that cannot be read or believed.
        listener_filter_error: Counter,
        /// The client went away within it.
        listener_filter_remote_close: Counter,
        ssl_handshake: Counter,
        ssl_session_reused: Counter,
        ssl_connection_error: Counter,
        /// The client showed no certificate and none was asked for.
        ssl_no_certificate: Counter,
        ssl_fail_verify_no_cert: Counter,
        ssl_fail_verify_error: Counter,
        ssl_agreed: Handshakes,
    }
    gauges {
        cx_active,
        /// Accepted, PROXY header and TLS handshake not done.
        pre_cx_active,
    }
}

/// Counters of one socket's connections. They live as long as the socket.
#[derive(Debug)]
pub struct ListenerStats {
    address: String,
    port: u16,
    shards: Sharded<ListenerShard>,
    carried: CarrierStats,
}

impl ListenerStats {
    /// Counters for a socket that is bound to this address (the first of several).
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address: address_label(address),
            port: address.port(),
            shards: Sharded::default(),
            carried: CarrierStats::default(),
        }
    }

    /// Counters of what is carried and is no HTTP.
    pub fn carried(&self) -> &CarrierStats {
        &self.carried
    }

    /// The bound port, which is part of Envoy's prefixes.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `0.0.0.0_10080`: the metrics' `envoy_listener_address`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The calling worker's counters.
    pub fn mine(&self) -> &ListenerShard {
        self.shards.mine()
    }

    /// The sum of one number over all workers.
    pub fn sum(&self, number: impl Fn(&ListenerShard) -> u64) -> u64 {
        self.shards.sum(number)
    }

    /// All that was counted.
    pub fn total(&self) -> ListenerTotals {
        self.shards.total()
    }

    /// Adds all that was counted, for sockets that share a name.
    pub fn add_to(&self, total: &mut ListenerTotals) {
        self.shards.add_to(total);
    }

    /// Sets all counters back to zero; gauges stay.
    pub fn reset(&self) {
        self.shards.reset();
        self.carried.reset();
    }
}

impl Default for ListenerStats {
    /// Counters for a socket that has no port yet.
    fn default() -> Self {
        Self::new((Ipv4Addr::UNSPECIFIED, 0).into())
    }
}

/// An address as Envoy puts it into stat names, where `:` has a meaning: `0.0.0.0_10080`, `[__]_10080`.
pub fn address_label(address: SocketAddr) -> String {
    address.to_string().replace(':', "_")
}
