//! What a cluster counts. Its names in the metrics are in `telemetry`.
//!
//! A cluster that never saw traffic costs a pointer: the shards are made when the first request comes.

use crate::stats::{Counter, Histogram, Sharded, Statuses, tally};
use std::sync::OnceLock;
use std::time::Duration;

tally! {
    /// What one worker counts for a cluster.
    pub struct ClusterShard => ClusterTotals {
        /// Exchanges that chose the cluster.
        requests: Counter,
        /// Their answers, replies of our own included.
        statuses: Statuses,
        /// From the request's head to the end of the upstream's response.
        rq_time: Histogram,
        rq_timeout: Counter,
        rq_per_try_timeout: Counter,
        rq_rx_reset: Counter,
        rq_tx_reset: Counter,
        rq_cancelled: Counter,
        rq_max_duration: Counter,
        /// Tries after the first.
        retries: Counter,
        retry_success: Counter,
        retry_overflow: Counter,
        retry_limit: Counter,
        pending_total: Counter,
        pending_overflow: Counter,
        pending_failure: Counter,
        no_endpoint: Counter,
        cx_total: Counter,
        cx_http2: Counter,
        /// Until the connection can be used, TLS handshake included.
        cx_connect_time: Histogram,
        cx_connect_fail: Counter,
        cx_connect_timeout: Counter,
        cx_overflow: Counter,
        cx_protocol_error: Counter,
        cx_idle_timeout: Counter,
        cx_destroy_local: Counter,
        cx_destroy_remote: Counter,
        cx_destroy_local_with_request: Counter,
        cx_destroy_remote_with_request: Counter,
        cx_rx_bytes: Counter,
        cx_tx_bytes: Counter,
    }
    gauges {
        rq_active,
        pending_active,
        cx_active,
    }
}

/// Why a connection to an upstream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// By us.
    Local,
    /// By the upstream.
    Remote,
}

/// Counters of one cluster. They outlive its changes.
#[derive(Debug, Default)]
pub struct ClusterStats(OnceLock<Box<Sharded<ClusterShard>>>);

impl ClusterStats {
    /// The calling worker's counters, for what has no method here.
    pub fn mine(&self) -> &ClusterShard {
        self.0.get_or_init(Box::default).mine()
    }

    /// All that was counted; `None` before the first request.
    pub fn total(&self) -> Option<ClusterTotals> {
        self.0.get().map(|shards| shards.total())
    }

    /// Sets all counters back to zero; gauges stay.
    pub fn reset(&self) {
        if let Some(shards) = self.0.get() {
            shards.reset();
        }
    }

    /// A request chose the cluster. [`Self::request_ended`] or [`Self::request_replied`] must follow.
    pub fn request_began(&self) {
        let mine = self.mine();
        mine.requests.inc();
        mine.rq_active.inc();
    }

    /// The upstream's response is through, or, with `None`, the exchange was broken off without one.
    pub fn request_ended(&self, status: Option<u16>, took: Duration) {
        let mine = self.mine();
        mine.rq_active.dec();
        mine.statuses.count(status);
        if status.is_some() {
            mine.rq_time.record(took);
        }
    }

    /// The exchange ended with a reply of our own: its status counts, its time says nothing of the upstream.
    pub fn request_replied(&self, status: u16) {
        let mine = self.mine();
        mine.rq_active.dec();
        mine.statuses.count(Some(status));
    }

    /// The request is tried once more.
    pub fn retried(&self) {
        self.mine().retries.inc();
    }

    /// A request that was tried more than once has a good response.
    pub fn retry_succeeded(&self) {
        self.mine().retry_success.inc();
    }

    /// The request's time limit passed.
    pub fn timed_out(&self) {
        self.mine().rq_timeout.inc();
    }

    /// The time limit of one try passed.
    pub fn try_timed_out(&self) {
        self.mine().rq_per_try_timeout.inc();
    }

    /// A connection was opened; this is how long it took. [`Self::closed`] follows at its end.
    pub fn connected(&self, took: Duration) {
        let mine = self.mine();
        mine.cx_total.inc();
        mine.cx_active.inc();
        mine.cx_connect_time.record(took);
    }

    /// A connection could not be opened. It counts as one that was there, as with Envoy.
    pub fn connect_failed(&self) {
        let mine = self.mine();
        mine.cx_total.inc();
        mine.cx_connect_fail.inc();
        mine.cx_destroy_remote.inc();
    }

    /// A connection was not open in time; [`Self::connect_failed`] is called beside it.
    pub fn connect_timed_out(&self) {
        self.mine().cx_connect_timeout.inc();
    }

    /// A connection that was [`Self::connected`] is over, with a request on it or without.
    pub fn closed(&self, by: Closed, with_request: bool) {
        let mine = self.mine();
        mine.cx_active.dec();
        match by {
            Closed::Local => mine.cx_destroy_local.inc(),
            Closed::Remote => mine.cx_destroy_remote.inc(),
        }
        match by {
            Closed::Local if with_request => mine.cx_destroy_local_with_request.inc(),
            Closed::Remote if with_request => mine.cx_destroy_remote_with_request.inc(),
            Closed::Local | Closed::Remote => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_traffic_costs_two_words() {
        let stats = ClusterStats::default();
        stats.reset();
        assert!(stats.total().is_none());
        assert_eq!(size_of_val(&stats), 2 * size_of::<usize>());
    }

    #[test]
    fn an_answer_of_the_upstream_has_a_time_and_a_reply_of_ours_has_none() {
        let stats = ClusterStats::default();
        stats.request_began();
        stats.request_began();
        stats.request_began();
        stats.request_ended(Some(200), Duration::from_millis(3));
        stats.request_replied(503);
        let total = stats.total().expect("it saw traffic");
        assert_eq!((total.requests, total.rq_active, total.rq_time.count()), (3, 1, 1));
        assert_eq!(total.statuses.classes(), [0, 1, 0, 0, 1]);
        stats.request_ended(None, Duration::ZERO);
        stats.reset();
        let total = stats.total().expect("the shards stay");
        assert_eq!((total.requests, total.rq_active, total.statuses.unanswered()), (0, 0, 0));
    }

    #[test]
    fn gauges_survive_a_reset() {
        let stats = ClusterStats::default();
        stats.connected(Duration::from_micros(300));
        stats.reset();
        let total = stats.total().expect("the shards stay");
        assert_eq!((total.cx_total, total.cx_active), (0, 1));
        stats.closed(Closed::Remote, true);
        let total = stats.total().expect("the shards stay");
        assert_eq!((total.cx_active, total.cx_destroy_remote_with_request), (0, 1));
    }
}
