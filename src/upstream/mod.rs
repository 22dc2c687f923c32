//! Clusters: where requests go. Endpoints, balancing, connections and their pools, counters.
//!
//! `spec` is what `compile` says a cluster should be; the other files are what is running.

mod client_tls;
mod cluster;
mod connect;
mod counted;
mod endpoint;
mod http1;
mod http2;
mod resolve;
mod session;
mod spec;
mod stats;

pub use client_tls::ClientTlsError;
pub use cluster::{Backend, Channel, Cluster, Clusters};
pub use connect::{ConnectError, Dialed, Pool, dial, dial_plain};
pub use endpoint::{Active, Endpoint, EndpointSet};
pub use resolve::Resolver;
pub use session::{Event, Upstream, UpstreamError};
pub use spec::{
    Address, BackendSpec, BackendTls, ClientCertificate, ClusterSpec, DnsName, EndpointSpec, EndpointsKey,
    EndpointsSpec, EndpointsSpecs, Planned, Protocol, Roots, SubjectAltName, TlsSpec,
};
pub use stats::{Closed, ClusterShard, ClusterStats, ClusterTlsTotals, ClusterTotals, Pending};
