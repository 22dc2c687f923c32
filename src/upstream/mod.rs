//! Clusters: where requests go. Endpoints, balancing, connections and their pools, counters.
//!
//! `spec` is what `compile` says a cluster should be; the other files are what is running.

mod spec;

pub use spec::{
    Address, BackendSpec, ClusterSpec, EndpointSpec, EndpointsKey, EndpointsSpec, Protocol, Roots,
    SubjectAltName, TlsSpec,
};
