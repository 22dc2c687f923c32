//! Families of clusters, by `envoy_cluster_name`.

use super::Column::{Classes, Codes, Counter, Gauge, Histogram, Named, Priorities};
use super::{ClusterRow, Family};
use crate::stats::Agreed;
use crate::upstream::{ClusterTlsTotals, ClusterTotals};

/// Every cluster has these, also before its first request: `rate()` needs the zero that a series starts from.
pub const CLUSTER: &[Family<ClusterRow>] = &[
    ("membership_change", Counter(|row| row.membership_changes)),
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
    ("ext_authz.denied", Counter(|total| total.authorizing_denied)),
    ("ext_authz.ok", Counter(|total| total.authorizing_ok)),
    ("outlier_detection_ejections_active", Gauge(|_| 0)),
    ("retry_or_shadow_abandoned", Counter(|total| total.retry_abandoned)),
    ("retry.upstream_rq", Codes(|total| &total.retry_statuses)),
    ("retry.upstream_rq_completed", Counter(|total| total.retry_statuses.answered())),
    ("retry.upstream_rq_xx", Classes(|total| total.retry_statuses.classes())),
    ("upstream_cx_active", Gauge(|total| total.cx_active)),
    ("upstream_cx_close_notify", Counter(|total| total.cx_close_notify)),
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
    ("upstream_cx_length_ms", Histogram(|total| &total.cx_length)),
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
    ("upstream_rq_retry_backoff_exponential", Counter(|total| total.retry_backoff)),
    ("upstream_rq_retry_limit_exceeded", Counter(|total| total.retry_limit)),
    ("upstream_rq_retry_overflow", Counter(|total| total.retry_overflow)),
    ("upstream_rq_retry_success", Counter(|total| total.retry_success)),
    ("upstream_rq_rx_reset", Counter(|total| total.rq_rx_reset)),
    ("upstream_rq_time", Histogram(|total| &total.rq_time)),
    ("upstream_rq_timeout", Counter(|total| total.rq_timeout)),
    ("upstream_rq_tx_reset", Counter(|total| total.rq_tx_reset)),
];

/// TLS to endpoints of clusters that speak it, `envoy_cluster_ssl_…`.
pub const CLUSTER_TLS: &[Family<ClusterTlsTotals>] = &[
    ("ciphers", Named("cipher_suite", |total| total.agreed.of(Agreed::Cipher).collect())),
    ("connection_error", Counter(|total| total.connection_error)),
    ("curves", Named("envoy_ssl_curve", |total| total.agreed.of(Agreed::Curve).collect())),
    ("fail_verify_error", Counter(|total| total.fail_verify_error)),
    ("fail_verify_san", Counter(|total| total.fail_verify_san)),
    ("handshake", Counter(|total| total.handshake)),
    ("session_reused", Counter(|total| total.session_reused)),
    ("versions", Named("envoy_ssl_version", |total| total.agreed.of(Agreed::Version).collect())),
];
