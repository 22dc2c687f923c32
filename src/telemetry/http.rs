//! What a socket counts of the HTTP spoken over it: Envoy's `http.<prefix>.*` and `listener.<address>.http.*`.

use super::listener::address_label;
use crate::reply::Reply;
use crate::stats::{Counter, Histogram, Sharded, Statuses, tally};
use http::StatusCode;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

tally! {
    /// What one worker counts for a socket.
    pub struct HttpShard => HttpTotals {
        requests: Counter,
        http2_requests: Counter,
        statuses: Statuses,
        /// From the request's head to the end of the exchange.
        rq_time: Histogram,
        rq_timeout: Counter,
        rq_idle_timeout: Counter,
        /// Heads that took too long.
        rq_header_timeout: Counter,
        /// Exchanges that we broke off.
        rq_tx_reset: Counter,
        rq_too_large: Counter,
        rq_redirected_with_normalized_path: Counter,
        rq_redirect: Counter,
        rq_direct_response: Counter,
        no_route: Counter,
        no_cluster: Counter,
        cx_total: Counter,
        cx_http2_total: Counter,
        cx_ssl_total: Counter,
        cx_upgrades_total: Counter,
        cx_destroy: Counter,
        cx_destroy_local: Counter,
        /// Ended by us while a request was going on.
        cx_destroy_local_with_request: Counter,
        /// Ended by the client while a request was going on.
        cx_destroy_remote_with_request: Counter,
        /// From the first byte to the end.
        cx_length: Histogram,
        cx_idle_timeout: Counter,
        /// Clients that went on sending after their last answer, until the time was up.
        cx_delayed_close_timeout: Counter,
        /// Ended because the process drains.
        cx_drain_close: Counter,
        /// What the HTTP/2 codec ended a connection for.
        http2_empty_frames_flood: Counter,
        http2_premature_resets: Counter,
        /// What external authorizers said.
        authorizing_ok: Counter,
        authorizing_denied: Counter,
        authorizing_error: Counter,
        authorizing_failure_allowed: Counter,
        cx_protocol_error: Counter,
        /// Bytes read from clients.
        rx: Counter,
        /// Bytes written to clients.
        tx: Counter,
    }
    gauges {
        rq_active,
        cx_active,
        cx_http2_active,
        cx_ssl_active,
        cx_upgrades_active,
    }
}

/// Counters of one socket's HTTP. They live as long as the socket.
#[derive(Debug)]
pub struct HttpStats {
    prefix: String,
    address: String,
    shards: Sharded<HttpShard>,
}

impl HttpStats {
    /// Counters for a socket that is bound to this address. They get the name that Envoy Gateway gives them,
    /// `http-10080` or `https-10443`.
    pub fn new(tls: bool, address: SocketAddr) -> Self {
        let scheme = if tls { "https" } else { "http" };
        Self {
            prefix: format!("{scheme}-{}", address.port()),
            address: address_label(address),
            shards: Sharded::default(),
        }
    }

    /// `http-10080`: the metrics' `envoy_http_conn_manager_prefix`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `0.0.0.0_10080`: the metrics' `envoy_listener_address`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The calling worker's counters, for what has no method here.
    pub fn mine(&self) -> &HttpShard {
        self.shards.mine()
    }

    /// The sum of one number over all workers.
    pub fn sum(&self, number: impl Fn(&HttpShard) -> u64) -> u64 {
        self.shards.sum(number)
    }

    /// All that was counted.
    pub fn total(&self) -> HttpTotals {
        self.shards.total()
    }

    /// Adds all that was counted, for sockets that share a name.
    pub fn add_to(&self, total: &mut HttpTotals) {
        self.shards.add_to(total);
    }

    /// Sets all counters back to zero; gauges stay.
    pub fn reset(&self) {
        self.shards.reset();
    }

    /// A request's head was read, or could not be. [`Self::request_ended`] must follow.
    pub fn request_began(&self) {
        let mine = self.mine();
        mine.requests.inc();
        mine.rq_active.inc();
    }

    /// The exchange is over: the client has its answer, or, with `None`, it was broken off.
    pub fn request_ended(&self, status: Option<StatusCode>, took: Duration) {
        let mine = self.mine();
        mine.rq_active.dec();
        mine.statuses.count(status.map(|status| status.as_u16()));
        mine.rq_time.record(took);
    }

    /// The exchange was broken off by us; without it, one without an answer was broken off by the client.
    pub fn broke_off(&self) {
        self.mine().rq_tx_reset.inc();
    }

    /// Why the gateway answers itself.
    pub fn replied(&self, reply: Reply) {
        let mine = self.mine();
        match reply {
            Reply::NoRoute | Reply::Misdirected | Reply::MethodNotServed => mine.no_route.inc(),
            Reply::NoBackend | Reply::BrokenRule => mine.no_cluster.inc(),
            Reply::BadRequest
            | Reply::Underscore
            | Reply::FramedTwice
            | Reply::HeadTooLarge
            | Reply::TooManyFields
            | Reply::UnknownTransferCoding
            | Reply::UnsupportedVersion => mine.cx_protocol_error.inc(),
            Reply::RequestTimeout => mine.rq_timeout.inc(),
            Reply::BodyTooLarge => mine.rq_too_large.inc(),
            Reply::EscapedSlash => mine.rq_redirected_with_normalized_path.inc(),
            // Faults of upstreams, authorizers among them, are counted with their cluster.
            Reply::NoHost
            | Reply::BadPath
            | Reply::Denied
            | Reply::NoEndpoint
            | Reply::Overflow
            | Reply::ConnectFailed
            | Reply::UpstreamUntrusted
            | Reply::ConnectTimeout
            | Reply::UpstreamReset
            | Reply::StreamReset
            | Reply::StreamRefused
            | Reply::UpstreamProtocol
            | Reply::UpstreamTimeout => {}
        }
    }

    /// A connection is over. Whoever ended it has [said so](Self::closed_by_us) already, if it was us.
    pub fn connection_ended(&self, lasted: Duration) {
        let mine = self.mine();
        mine.cx_active.dec();
        mine.cx_destroy.inc();
        mine.cx_length.record(lasted);
    }

    /// A connection is about to be ended by us.
    pub fn closed_by_us(&self) {
        self.mine().cx_destroy_local.inc();
    }

    /// A connection is about to be ended by us, because the process drains.
    pub fn drained(&self) {
        self.closed_by_us();
        self.mine().cx_drain_close.inc();
    }

    /// A connection ended although a request was going on.
    pub fn cut(&self, by_us: bool) {
        let mine = self.mine();
        if by_us { &mine.cx_destroy_local_with_request } else { &mine.cx_destroy_remote_with_request }.inc();
    }

    /// A connection became a tunnel, for as long as the result lives.
    pub fn upgraded(&self) -> Upgraded<'_> {
        let mine = self.mine();
        mine.cx_upgrades_total.inc();
        mine.cx_upgrades_active.inc();
        Upgraded(self)
    }

    /// A connection speaks HTTP/2, for as long as the result lives. All others count as HTTP/1.
    pub fn speaks_http2(&self) -> SpeaksHttp2<'_> {
        let mine = self.mine();
        mine.cx_http2_total.inc();
        mine.cx_http2_active.inc();
        SpeaksHttp2(self)
    }

    /// Bytes read from a client and written to it.
    pub fn traffic(&self, received: u64, sent: u64) {
        let mine = self.mine();
        mine.rx.add(received);
        mine.tx.add(sent);
    }
}

impl Default for HttpStats {
    /// Counters for a socket that has no port yet.
    fn default() -> Self {
        Self::new(false, (Ipv4Addr::UNSPECIFIED, 0).into())
    }
}

/// An HTTP/2 connection, counted while it lasts.
#[derive(Debug)]
pub struct SpeaksHttp2<'a>(&'a HttpStats);

impl Drop for SpeaksHttp2<'_> {
    fn drop(&mut self) {
        self.0.mine().cx_http2_active.dec();
    }
}

/// A tunnel, counted while it lasts.
#[derive(Debug)]
pub struct Upgraded<'a>(&'a HttpStats);

impl Drop for Upgraded<'_> {
    fn drop(&mut self) {
        self.0.mine().cx_upgrades_active.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_as_envoy_gateway_names_it() {
        for (tls, address, prefix, label) in [
            (false, "0.0.0.0:10080", "http-10080", "0.0.0.0_10080"),
            (true, "[::]:10443", "https-10443", "[__]_10443"),
        ] {
            let stats = HttpStats::new(tls, address.parse().expect("an address"));
            assert_eq!((stats.prefix(), stats.address()), (prefix, label));
        }
    }

    #[test]
    fn a_request_is_active_until_it_ends() {
        let stats = HttpStats::default();
        stats.request_began();
        stats.request_began();
        stats.request_ended(Some(StatusCode::NOT_FOUND), Duration::from_micros(700));
        let total = stats.total();
        assert_eq!((total.requests, total.rq_active), (2, 1));
        assert_eq!(total.statuses.classes(), [0, 0, 0, 1, 0]);
        assert_eq!((total.rq_time.buckets[1], total.rq_time.sum_us), (1, 700));
        stats.request_ended(None, Duration::ZERO);
        assert_eq!(stats.total().statuses.unanswered(), 1);
    }

    #[test]
    fn http2_connections_are_counted_while_they_last() {
        let stats = HttpStats::default();
        let speaking = stats.speaks_http2();
        assert_eq!(stats.sum(|shard| shard.cx_http2_active.get()), 1);
        drop(speaking);
        let total = stats.total();
        assert_eq!((total.cx_http2_active, total.cx_http2_total), (0, 1));
    }

    #[test]
    fn a_tunnel_is_counted_while_it_lasts() {
        let stats = HttpStats::default();
        let tunnel = stats.upgraded();
        assert_eq!(stats.total().cx_upgrades_active, 1);
        drop(tunnel);
        assert_eq!((stats.total().cx_upgrades_active, stats.total().cx_upgrades_total), (0, 1));
    }

    #[test]
    fn a_connection_that_ends_with_a_request_is_counted_for_who_ended_it() {
        let stats = HttpStats::default();
        stats.cut(true);
        stats.closed_by_us();
        stats.connection_ended(Duration::from_millis(3));
        stats.cut(false);
        stats.connection_ended(Duration::from_millis(3));
        let total = stats.total();
        assert_eq!((total.cx_destroy, total.cx_destroy_local, total.cx_length.count()), (2, 1, 2));
        assert_eq!((total.cx_destroy_local_with_request, total.cx_destroy_remote_with_request), (1, 1));
    }
}
