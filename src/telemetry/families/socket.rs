//! Families of sockets: HTTP towards clients, connections, TLS, and what is no HTTP.

use super::Column::{Classes, Counter, Gauge, Histogram, Named};
use super::Family;
use crate::stats::Agreed;
use crate::telemetry::http::HttpTotals;
use crate::telemetry::listener::ListenerTotals;
use crate::telemetry::stream::{FlowTotals, StreamTotals};

/// HTTP towards clients, by `envoy_http_conn_manager_prefix`.
pub const HTTP: &[Family<HttpTotals>] = &[
    ("downstream_cx_active", Gauge(|total| total.cx_active)),
    ("downstream_cx_destroy", Counter(|total| total.cx_destroy)),
    ("downstream_cx_delayed_close_timeout", Counter(|total| total.cx_delayed_close_timeout)),
    (
        "downstream_cx_destroy_active_rq",
        Counter(|total| total.cx_destroy_local_with_request + total.cx_destroy_remote_with_request),
    ),
    ("downstream_cx_destroy_local", Counter(|total| total.cx_destroy_local)),
    ("downstream_cx_destroy_local_active_rq", Counter(|total| total.cx_destroy_local_with_request)),
    (
        "downstream_cx_destroy_remote",
        Counter(|total| total.cx_destroy.saturating_sub(total.cx_destroy_local)),
    ),
    ("downstream_cx_destroy_remote_active_rq", Counter(|total| total.cx_destroy_remote_with_request)),
    ("downstream_cx_drain_close", Counter(|total| total.cx_drain_close)),
    ("downstream_cx_http1_active", Gauge(|total| total.cx_active.saturating_sub(total.cx_http2_active))),
    ("downstream_cx_http1_total", Counter(|total| total.cx_total.saturating_sub(total.cx_http2_total))),
    ("downstream_cx_http2_active", Gauge(|total| total.cx_http2_active)),
    ("downstream_cx_http2_total", Counter(|total| total.cx_http2_total)),
    ("downstream_cx_idle_timeout", Counter(|total| total.cx_idle_timeout)),
    ("downstream_cx_length_ms", Histogram(|total| &total.cx_length)),
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
    ("downstream_rq_header_timeout", Counter(|total| total.rq_header_timeout)),
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
    ("downstream_rq_too_many_premature_resets", Counter(|total| total.http2_premature_resets)),
    ("downstream_rq_total", Counter(|total| total.requests)),
    ("downstream_rq_tx_reset", Counter(|total| total.rq_tx_reset)),
    ("downstream_rq_xx", Classes(|total| total.statuses.classes())),
    ("ext_authz.denied", Counter(|total| total.authorizing_denied)),
    ("ext_authz.error", Counter(|total| total.authorizing_error)),
    ("ext_authz.failure_mode_allowed", Counter(|total| total.authorizing_failure_allowed)),
    ("ext_authz.ok", Counter(|total| total.authorizing_ok)),
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
    ("downstream_cx_length_ms", Histogram(|total| &total.cx_length)),
    // Envoy has one limit for a listener and one for all; here is one for all, and alerts know the first name.
    ("downstream_cx_overflow", Counter(|total| total.cx_overflow)),
    ("downstream_cx_total", Counter(|total| total.cx_total)),
    ("downstream_cx_transport_socket_connect_timeout", Counter(|total| total.handshake_timeout)),
    ("downstream_global_cx_overflow", Counter(|total| total.cx_overflow)),
    ("downstream_listener_filter_error", Counter(|total| total.listener_filter_error)),
    ("downstream_listener_filter_remote_close", Counter(|total| total.listener_filter_remote_close)),
    ("downstream_pre_cx_active", Gauge(|total| total.pre_cx_active)),
    ("downstream_pre_cx_timeout", Counter(|total| total.pre_cx_timeout)),
    ("no_filter_chain_match", Counter(|total| total.no_filter_chain_match)),
];

/// TLS of sockets that speak it, `envoy_listener_ssl_…`.
pub const LISTENER_TLS: &[Family<ListenerTotals>] = &[
    ("ciphers", Named("envoy_ssl_cipher", |total| total.ssl_agreed.of(Agreed::Cipher).collect())),
    ("connection_error", Counter(|total| total.ssl_connection_error)),
    ("curves", Named("envoy_ssl_curve", |total| total.ssl_agreed.of(Agreed::Curve).collect())),
    ("fail_verify_error", Counter(|total| total.ssl_fail_verify_error)),
    ("fail_verify_no_cert", Counter(|total| total.ssl_fail_verify_no_cert)),
    ("handshake", Counter(|total| total.ssl_handshake)),
    ("no_certificate", Counter(|total| total.ssl_no_certificate)),
    ("session_reused", Counter(|total| total.ssl_session_reused)),
    ("versions", Named("envoy_ssl_version", |total| total.ssl_agreed.of(Agreed::Version).collect())),
];

/// `envoy_listener_ssl_certificate_…`, by certificate and socket; a row is its second of expiry since 1970.
pub const CERTIFICATE: &[Family<u64>] = &[("expiration_unix_time_seconds", Gauge(|&seconds| seconds))];
