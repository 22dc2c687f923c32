//! Families of the process: what it is, what it serves, and how its configuration came about.

use super::Column::{Counter, Gauge, Histogram};
use super::{Family, ServerRow};
use crate::telemetry::changes::ChangeTotals;

/// The process, `envoy_server_…`.
pub const SERVER: &[Family<ServerRow>] = &[
    ("concurrency", Gauge(|row| row.concurrency)),
    ("days_until_first_cert_expiring", Gauge(|row| row.days_until_certificate_expires)),
    ("hot_restart_epoch", Gauge(|_| 0)),
    ("hot_restart_generation", Gauge(|_| 1)),
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

/// Connections that ended because a client sent frames that only cost, `envoy_http2_…`. The codec answers one ping
/// and one SETTINGS at a time and reads no more meanwhile, reads nothing while it cannot write, and holds no state
/// for priorities: of those floods there can be none.
pub const HTTP2: &[Family<ServerRow>] = &[
    ("inbound_empty_frames_flood", Counter(|row| row.empty_frames_floods)),
    ("inbound_priority_frames_flood", Counter(|_| 0)),
    ("inbound_window_update_frames_flood", Counter(|_| 0)),
    ("outbound_control_flood", Counter(|_| 0)),
    ("outbound_flood", Counter(|_| 0)),
];

/// How clusters came and went, `envoy_cluster_manager_…`. A cluster serves from the moment it is there.
pub const CLUSTER_MANAGER: &[Family<ChangeTotals>] = &[
    ("active_clusters", Gauge(|total| total.clusters)),
    ("cluster_added", Counter(|total| total.clusters_added)),
    ("cluster_modified", Counter(|total| total.clusters_modified)),
    ("cluster_removed", Counter(|total| total.clusters_removed)),
    ("warming_clusters", Gauge(|_| 0)),
];

/// How sockets came and went, `envoy_listener_manager_…`.
pub const LISTENER_MANAGER: &[Family<ChangeTotals>] = &[
    ("listener_added", Counter(|total| total.sockets_opened)),
    ("listener_create_failure", Counter(|total| total.sockets_failed)),
    ("listener_create_success", Counter(|total| total.sockets_opened)),
    ("listener_in_place_updated", Counter(|total| total.sockets_modified)),
    ("listener_modified", Counter(|total| total.sockets_modified)),
    ("listener_removed", Counter(|total| total.sockets_closed)),
    ("listener_stopped", Counter(|total| total.sockets_closed)),
    ("total_listeners_active", Gauge(|total| total.sockets)),
    ("total_listeners_draining", Gauge(|total| total.sockets_draining)),
    ("total_listeners_warming", Gauge(|total| total.sockets_waiting)),
    ("workers_started", Gauge(|total| u64::from(total.sockets > 0))),
];

/// How revisions came about, `envoy_cluster_manager_cds_…` and `envoy_listener_manager_lds_…`: clusters and listeners
/// come together here. Nothing is rejected as a whole, faulty objects are diagnostics.
pub const CHANGES: &[Family<ChangeTotals>] = &[
    ("init_fetch_timeout", Counter(|_| 0)),
    ("update_attempt", Counter(|total| total.revisions)),
    ("update_duration", Histogram(|total| &total.compiling)),
    ("update_failure", Counter(|_| 0)),
    ("update_rejected", Counter(|_| 0)),
    ("update_success", Counter(|total| total.revisions)),
    ("update_time", Gauge(|total| total.revised_at_ms)),
    ("version", Gauge(|total| total.revision)),
];

/// What Envoy has of clusters only.
pub const CDS: &[Family<ChangeTotals>] = &[
    ("config_reload", Counter(|total| total.revisions)),
    ("config_reload_time_ms", Gauge(|total| total.revised_at_ms)),
];
