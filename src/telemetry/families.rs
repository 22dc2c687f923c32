//! Envoy's names for what is counted: tables that both the Prometheus page and the list of stats are made from.
//!
//! A family stands in the page as `envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",…}` and in the list as
//! `cluster.….upstream_rq_2xx`. Where Envoy has a stat and this process does not have the thing, there is none.

mod cluster;
mod server;
mod socket;

pub use cluster::{CLUSTER, CLUSTER_IN_USE, CLUSTER_TLS};
pub use server::{CDS, CHANGES, CLUSTER_MANAGER, HTTP2, LISTENER_MANAGER, SERVER};
pub use socket::{CERTIFICATE, HTTP, LISTENER, LISTENER_HTTP, LISTENER_TLS, TCP, UDP};

use crate::stats::{HistogramTotal, StatusesTotal};

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
    /// A counter for each name that was seen, of a list of ours, and the label that has the name.
    Named(&'static str, fn(&T) -> Vec<(&'static str, u64)>),
}

impl<T> Column<T> {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) | Self::Classes(_) | Self::Codes(_) | Self::Named(..) => Kind::Counter,
            Self::Gauge(_) | Self::Priorities(_) => Kind::Gauge,
            Self::Histogram(_) => Kind::Histogram,
        }
    }
}

/// A name, without what the rows have in common, and its samples. Where Envoy's stat has a dot, the name has one, too.
pub type Family<T> = (&'static str, Column<T>);

/// A cluster, as far as it has something to show before its first request.
#[derive(Debug, Default)]
pub struct ClusterRow {
    pub endpoints: u64,
    pub healthy: u64,
    pub requests: u64,
    pub classes: [u64; 5],
    pub membership_changes: u64,
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
    /// Connections that the HTTP/2 codec ended for frames without use, on all sockets.
    pub empty_frames_floods: u64,
}
