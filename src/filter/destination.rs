//! Where a filter sends requests of its own: to mirrors and authorizers.

use std::fmt;

/// The place of a cluster in its revision. Here and not in `routing`, which depends on the filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u32);

/// One backend of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    pub cluster: ClusterId,
    /// Its place in the cluster.
    pub backend: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster: ClusterId(cluster), backend } = self;
        write!(f, "backend {backend} of cluster {cluster}")
    }
}
