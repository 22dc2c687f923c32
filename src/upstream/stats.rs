//! What a cluster counts. Its names in the metrics are in `telemetry`.
//!
//! A cluster that never saw traffic costs a pointer: the shards are made when the first request comes.

use crate::stats::{Counter, Handshakes, Histogram, OnUse, Sharded, Statuses, tally};
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
        /// Tries after the first.
        retries: Counter,
        retry_success: Counter,
        retry_overflow: Counter,
        retry_limit: Counter,
        /// Retries that waited before.
        retry_backoff: Counter,
        /// Requests that could not be kept for another try, because they are too large.
        retry_abandoned: Counter,
        /// Responses that no client got, because the request was tried again.
        retry_statuses: OnUse<Statuses>,
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
        /// The upstream said that it closes the connection.
        cx_close_notify: Counter,
        cx_destroy_local: Counter,
        cx_destroy_remote: Counter,
        cx_destroy_local_with_request: Counter,
        cx_destroy_remote_with_request: Counter,
        cx_rx_bytes: Counter,
        cx_tx_bytes: Counter,
        /// From the opening to the end.
        cx_length: Histogram,
        tls: OnUse<ClusterTlsShard>,
        /// What authorizers that this cluster asks said.
        authorizing_ok: Counter,
        authorizing_denied: Counter,
    }
    gauges {
        rq_active,
        pending_active,
        cx_active,
    }
}

tally! {
    /// What one worker counts of TLS to a cluster's endpoints.
    pub struct ClusterTlsShard => ClusterTlsTotals {
        handshake: Counter,
        session_reused: Counter,
        /// Not counting certificates that were not believed.
        connection_error: Counter,
        fail_verify_error: Counter,
        /// The certificate has another name than the one asked for.
        fail_verify_san: Counter,
        agreed: Handshakes,
    }
    gauges {}
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

    /// An exchange broke off before its response was through. Over HTTP/1 that ends its connection, too.
    pub fn broke_off(&self, by: Closed, http2: bool) {
        let mine = self.mine();
        let (reset, with_connection) = match by {
            Closed::Local => (&mine.rq_tx_reset, &mine.cx_destroy_local_with_request),
            Closed::Remote => (&mine.rq_rx_reset, &mine.cx_destroy_remote_with_request),
        };
        reset.inc();
        if !http2 {
            with_connection.inc();
        }
    }

    /// A request waits for a connection to be opened, until [`Pending::over`] says how that went.
    pub fn pending(&self) -> Pending<'_> {
        let mine = self.mine();
        mine.pending_total.inc();
        mine.pending_active.inc();
        Pending { stats: self, over: false }
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

    /// A connection that was [`Self::connected`] is over, after this time.
    pub fn closed(&self, by: Closed, lasted: Duration) {
        let mine = self.mine();
        mine.cx_active.dec();
        mine.cx_length.record(lasted);
        match by {
            Closed::Local => mine.cx_destroy_local.inc(),
            Closed::Remote => mine.cx_destroy_remote.inc(),
        }
    }
}

/// A request that waits for a connection. Dropped without a word, its client went away.
#[derive(Debug)]
pub struct Pending<'a> {
    stats: &'a ClusterStats,
    over: bool,
}

impl Pending<'_> {
    /// The connection is there, or cannot be had.
    pub fn over(mut self, opened: bool) {
        self.over = true;
        if !opened {
            self.stats.mine().pending_failure.inc();
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mine = self.stats.mine();
        mine.pending_active.dec();
        if !self.over {
            mine.rq_cancelled.inc();
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
        stats.closed(Closed::Remote, Duration::from_secs(2));
        let total = stats.total().expect("the shards stay");
        assert_eq!((total.cx_active, total.cx_destroy_remote, total.cx_length.sum_us), (0, 1, 2_000_000));
    }

    #[test]
    fn an_exchange_that_breaks_off_takes_an_http1_connection_with_it() {
        let stats = ClusterStats::default();
        stats.broke_off(Closed::Remote, false);
        stats.broke_off(Closed::Remote, true);
        stats.broke_off(Closed::Local, true);
        let total = stats.total().expect("it was used");
        assert_eq!((total.rq_rx_reset, total.rq_tx_reset), (2, 1));
        assert_eq!((total.cx_destroy_remote_with_request, total.cx_destroy_local_with_request), (1, 0));
    }

    #[test]
    fn a_request_waits_until_it_has_a_connection_or_nobody_waits_for_it() {
        let stats = ClusterStats::default();
        let waiting = [stats.pending(), stats.pending(), stats.pending()];
        assert_eq!(stats.total().expect("it was used").pending_active, 3);
        let [opened, failed, dropped] = waiting;
        opened.over(true);
        failed.over(false);
        drop(dropped);
        let total = stats.total().expect("it was used");
        assert_eq!((total.pending_active, total.pending_total), (0, 3));
        assert_eq!((total.pending_failure, total.rq_cancelled), (1, 1));
    }
}
