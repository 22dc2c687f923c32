//! Envoy's names for what is counted: tables that both the Prometheus page and the list of stats are made from.
//!
//! A family stands in the page as `envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",…}` and in the list as
//! `cluster.….upstream_rq_2xx`. Where Envoy has a stat and this process does not have the thing, there is none.

use super::http::HttpTotals;
use super::listener::ListenerTotals;
use super::stream::{FlowTotals, StreamTotals};
use crate::stats::{HistogramTotal, StatusesTotal};
use crate::upstream::ClusterTotals;

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// How the samples of a family are read off a row.
pub enum Column<T> {
    Counter(fn(&T) -> u64),
    Gauge(fn(&T) -> u64),
    /// A counter for each class of status codes.
    Classes(fn(&T) -> [u64; 5]),
    /// A counter for each status code that was seen.
    Codes(fn(&T) -> &StatusesTotal),
    Histogram(fn(&T) -> &HistogramTotal),
    /// A gauge for each of Envoy's priorities; the number is that of the default one.
    Priorities(fn(&T) -> u64),
}

impl<T> Column<T> {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) | Self::Classes(_) | Self::Codes(_) => Kind::Counter,
            Self::Gauge(_) | Self::Priorities(_) => Kind::Gauge,
            Self::Histogram(_) => Kind::Histogram,
        }
    }
}

/// A name, without what the rows have in common, and its samples.
pub type Family<T> = (&'static str, Column<T>);

/// A cluster, as far as it has something to show before its first request.
#[derive(Debug, Default)]
pub struct ClusterRow {
    pub endpoints: u64,
    pub healthy: u64,
    pub requests: u64,
    pub classes: [u64; 5],
}

/// The process and what it serves.
#[derive(Debug, Default)]
pub struct ServerRow {
    pub live: u64,
    pub state: u64,
    pub uptime_seconds: u64,
    pub concurrency: u64,
    pub connections: u64,
    pub memory_allocated: u64,
    pub memory_heap: u64,
    pub memory_physical: u64,
    pub days_until_certificate_expires: u64,
    pub version: u64,
    pub clusters: u64,
    pub sockets: u64,
}

use Column::{Classes, Codes, Counter, Gauge, Histogram, Priorities};

/// Every cluster has these, also before its first request: `rate()` needs the zero that a series starts from.
pub const CLUSTER: &[Family<ClusterRow>] = &[
    ("membership_degraded", Gauge(|_| 0)),
    ("membership_excluded", Gauge(|_| 0)),
    ("membership_healthy", Gauge(|row| row.healthy)),
    ("membership_total", Gauge(|row| row.endpoints)),
    ("upstream_rq_total", Counter(|row| row.requests)),
    ("upstream_rq_xx", Classes(|row| row.classes)),
];

/// Clusters have these from their first request on (Envoy's deferred stats).
pub const CLUSTER_IN_USE: &[Family<ClusterTotals>] = &[
    // Envoy Gateway makes the priority a label; public dashboards ask for the name without it. No breaker is ever
    // open here.
    ("circuit_breakers_cx_open", Priorities(|_| 0)),
    ("circuit_breakers_cx_pool_open", Priorities(|_| 0)),
    ("circuit_breakers_rq_open", Priorities(|_| 0)),
    ("circuit_breakers_rq_pending_open", Priorities(|_| 0)),
    ("circuit_breakers_rq_retry_open", Priorities(|_| 0)),
    ("circuit_breakers_default_cx_open", Gauge(|_| 0)),
    ("circuit_breakers_default_cx_pool_open", Gauge(|_| 0)),
    ("circuit_breakers_default_rq_open", Gauge(|_| 0)),
    ("outlier_detection_ejections_active", Gauge(|_| 0)),
    ("upstream_cx_active", Gauge(|total| total.cx_active)),
    ("upstream_cx_connect_fail", Counter(|total| total.cx_connect_fail)),
    ("upstream_cx_connect_ms", Histogram(|total| &total.cx_connect_time)),
    ("upstream_cx_connect_timeout", Counter(|total| total.cx_connect_timeout)),
    ("upstream_cx_destroy", Counter(|total| total.cx_destroy_local + total.cx_destroy_remote)),
    ("upstream_cx_destroy_local", Counter(|total| total.cx_destroy_local)),
    ("upstream_cx_destroy_local_with_active_rq", Counter(|total| total.cx_destroy_local_with_request)),
    ("upstream_cx_destroy_remote", Counter(|total| total.cx_destroy_remote)),
    ("upstream_cx_destroy_remote_with_active_rq", Counter(|total| total.cx_destroy_remote_with_request)),
    (
        "upstream_cx_destroy_with_active_rq",
        Counter(|total| total.cx_destroy_local_with_request + total.cx_destroy_remote_with_request),
    ),
    ("upstream_cx_http1_total", Counter(|total| total.cx_total.saturating_sub(total.cx_http2))),
    ("upstream_cx_http2_total", Counter(|total| total.cx_http2)),
    ("upstream_cx_idle_timeout", Counter(|total| total.cx_idle_timeout)),
    ("upstream_cx_none_healthy", Counter(|total| total.no_endpoint)),
    ("upstream_cx_overflow", Counter(|total| total.cx_overflow)),
    ("upstream_cx_protocol_error", Counter(|total| total.cx_protocol_error)),
    ("upstream_cx_rx_bytes_total", Counter(|total| total.cx_rx_bytes)),
    ("upstream_cx_total", Counter(|total| total.cx_total)),
    ("upstream_cx_tx_bytes_total", Counter(|total| total.cx_tx_bytes)),
    ("upstream_rq", Codes(|total| &total.statuses)),
    ("upstream_rq_active", Gauge(|total| total.rq_active)),
    ("upstream_rq_cancelled", Counter(|total| total.rq_cancelled)),
    ("upstream_rq_completed", Counter(|total| total.statuses.answered())),
    ("upstream_rq_pending_active", Gauge(|total| total.pending_active)),
    ("upstream_rq_pending_failure_eject", Counter(|total| total.pending_failure)),
    ("upstream_rq_pending_overflow", Counter(|total| total.pending_overflow)),
    ("upstream_rq_pending_total", Counter(|total| total.pending_total)),
    ("upstream_rq_per_try_timeout", Counter(|total| total.rq_per_try_timeout)),
    ("upstream_rq_retry", Counter(|total| total.retries)),
    ("upstream_rq_retry_limit_exceeded", Counter(|total| total.retry_limit)),
    ("upstream_rq_retry_overflow", Counter(|total| total.retry_overflow)),
    ("upstream_rq_retry_success", Counter(|total| total.retry_success)),
    ("upstream_rq_rx_reset", Counter(|total| total.rq_rx_reset)),
    ("upstream_rq_time", Histogram(|total| &total.rq_time)),
    ("upstream_rq_timeout", Counter(|total| total.rq_timeout)),
    ("upstream_rq_tx_reset", Counter(|total| total.rq_tx_reset)),
];

/// HTTP towards clients, by `envoy_http_conn_manager_prefix`.
pub const HTTP: &[Family<HttpTotals>] = &[
    ("downstream_cx_active", Gauge(|total| total.cx_active)),
    ("downstream_cx_destroy", Counter(|total| total.cx_destroy)),
    ("downstream_cx_destroy_active_rq", Counter(|total| total.cx_destroy_with_request)),
    ("downstream_cx_destroy_local", Counter(|total| total.cx_destroy_local)),
    (
        "downstream_cx_destroy_remote",
        Counter(|total| total.cx_destroy.saturating_sub(total.cx_destroy_local)),
    ),
    ("downstream_cx_drain_close", Counter(|total| total.cx_drain_close)),
    ("downstream_cx_http1_active", Gauge(|total| total.cx_active.saturating_sub(total.cx_http2_active))),
    ("downstream_cx_http1_total", Counter(|total| total.cx_total.saturating_sub(total.cx_http2_total))),
    ("downstream_cx_http2_active", Gauge(|total| total.cx_http2_active)),
    ("downstream_cx_http2_total", Counter(|total| total.cx_http2_total)),
    ("downstream_cx_idle_timeout", Counter(|total| total.cx_idle_timeout)),
    ("downstream_cx_protocol_error", Counter(|total| total.cx_protocol_error)),
    ("downstream_cx_rx_bytes_total", Counter(|total| total.rx)),
    ("downstream_cx_ssl_active", Gauge(|total| total.cx_ssl_active)),
    ("downstream_cx_ssl_total", Counter(|total| total.cx_ssl_total)),
    ("downstream_cx_total", Counter(|total| total.cx_total)),
    ("downstream_cx_tx_bytes_total", Counter(|total| total.tx)),
    ("downstream_cx_upgrades_active", Gauge(|total| total.cx_upgrades_active)),
    ("downstream_cx_upgrades_total", Counter(|total| total.cx_upgrades_total)),
    ("downstream_rq_active", Gauge(|total| total.rq_active)),
    ("downstream_rq_completed", Counter(|total| total.statuses.answered())),
    ("downstream_rq_http1_total", Counter(|total| total.requests.saturating_sub(total.http2_requests))),
    ("downstream_rq_http2_total", Counter(|total| total.http2_requests)),
    ("downstream_rq_idle_timeout", Counter(|total| total.rq_idle_timeout)),
    (
        "downstream_rq_redirected_with_normalized_path",
        Counter(|total| total.rq_redirected_with_normalized_path),
    ),
    (
        "downstream_rq_rx_reset",
        Counter(|total| total.statuses.unanswered().saturating_sub(total.rq_tx_reset)),
    ),
    ("downstream_rq_time", Histogram(|total| &total.rq_time)),
    ("downstream_rq_timeout", Counter(|total| total.rq_timeout)),
    ("downstream_rq_too_large", Counter(|total| total.rq_too_large)),
    ("downstream_rq_total", Counter(|total| total.requests)),
    ("downstream_rq_tx_reset", Counter(|total| total.rq_tx_reset)),
    ("downstream_rq_xx", Classes(|total| total.statuses.classes())),
    ("no_cluster", Counter(|total| total.no_cluster)),
    ("no_route", Counter(|total| total.no_route)),
    ("rq_direct_response", Counter(|total| total.rq_direct_response)),
    ("rq_redirect", Counter(|total| total.rq_redirect)),
    ("rq_total", Counter(|total| total.requests)),
];

/// The same by socket, `envoy_listener_http_…`.
pub const LISTENER_HTTP: &[Family<HttpTotals>] = &[
    ("downstream_rq_completed", Counter(|total| total.statuses.answered())),
    ("downstream_rq_xx", Classes(|total| total.statuses.classes())),
];

/// Connections that are no HTTP, by `envoy_tcp_prefix`.
pub const TCP: &[Family<StreamTotals>] = &[
    ("downstream_cx_no_route", Counter(|total| total.no_route)),
    ("downstream_cx_rx_bytes_total", Counter(|total| total.rx_bytes)),
    ("downstream_cx_total", Counter(|total| total.cx_total)),
    ("downstream_cx_tx_bytes_total", Counter(|total| total.tx_bytes)),
    ("idle_timeout", Counter(|total| total.idle_timeout)),
];

/// Flows of datagrams, by `envoy_udp_prefix`.
pub const UDP: &[Family<FlowTotals>] = &[
    ("downstream_sess_active", Gauge(|total| total.active)),
    ("downstream_sess_no_route", Counter(|total| total.no_route)),
    ("downstream_sess_rx_bytes", Counter(|total| total.rx_bytes)),
    ("downstream_sess_rx_datagrams", Counter(|total| total.rx_datagrams)),
    ("downstream_sess_rx_errors", Counter(|total| total.rx_errors)),
    ("downstream_sess_total", Counter(|total| total.sessions)),
    ("downstream_sess_tx_bytes", Counter(|total| total.tx_bytes)),
    ("downstream_sess_tx_datagrams", Counter(|total| total.tx_datagrams)),
    ("downstream_sess_tx_errors", Counter(|total| total.tx_errors)),
    ("idle_timeout", Counter(|total| total.idle_timeout)),
    ("session_overflow", Counter(|total| total.overflow)),
];

/// Connections of clients, by `envoy_listener_address`.
pub const LISTENER: &[Family<ListenerTotals>] = &[
    ("downstream_cx_active", Gauge(|total| total.cx_active)),
    ("downstream_cx_destroy", Counter(|total| total.cx_destroy)),
    ("downstream_cx_overflow", Counter(|total| total.cx_overflow)),
    ("downstream_cx_total", Counter(|total| total.cx_total)),
    ("downstream_listener_filter_error", Counter(|total| total.listener_filter_error)),
    ("downstream_pre_cx_active", Gauge(|total| total.pre_cx_active)),
    ("downstream_pre_cx_timeout", Counter(|total| total.pre_cx_timeout)),
    ("no_filter_chain_match", Counter(|total| total.no_filter_chain_match)),
];

/// TLS of sockets that speak it, `envoy_listener_ssl_…`.
pub const LISTENER_TLS: &[Family<ListenerTotals>] = &[
    ("connection_error", Counter(|total| total.ssl_connection_error)),
    ("fail_verify_error", Counter(|total| total.ssl_fail_verify_error)),
    ("fail_verify_no_cert", Counter(|total| total.ssl_fail_verify_no_cert)),
    ("handshake", Counter(|total| total.ssl_handshake)),
    ("no_certificate", Counter(|total| total.ssl_no_certificate)),
    ("session_reused", Counter(|total| total.ssl_session_reused)),
];

/// `envoy_listener_ssl_certificate_…`, by certificate and socket; a row is its second of expiry since 1970.
pub const CERTIFICATE: &[Family<u64>] = &[("expiration_unix_time_seconds", Gauge(|&seconds| seconds))];

/// The process, `envoy_server_…`.
pub const SERVER: &[Family<ServerRow>] = &[
    ("concurrency", Gauge(|row| row.concurrency)),
    ("days_until_first_cert_expiring", Gauge(|row| row.days_until_certificate_expires)),
    ("hot_restart_epoch", Gauge(|_| 0)),
    ("live", Gauge(|row| row.live)),
    ("memory_allocated", Gauge(|row| row.memory_allocated)),
    ("memory_heap_size", Gauge(|row| row.memory_heap)),
    ("memory_physical_size", Gauge(|row| row.memory_physical)),
    ("parent_connections", Gauge(|_| 0)),
    ("state", Gauge(|row| row.state)),
    ("total_connections", Gauge(|row| row.connections)),
    ("uptime", Gauge(|row| row.uptime_seconds)),
    ("version", Gauge(|row| row.version)),
];

/// How many clusters there are, `envoy_cluster_manager_…`.
pub const CLUSTER_MANAGER: &[Family<ServerRow>] = &[("active_clusters", Gauge(|row| row.clusters))];

/// How many sockets there are, `envoy_listener_manager_…`.
pub const LISTENER_MANAGER: &[Family<ServerRow>] = &[
    ("total_listeners_active", Gauge(|row| row.sockets)),
    ("workers_started", Gauge(|row| u64::from(row.concurrency > 0))),
];
