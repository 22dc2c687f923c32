//! What is observed: counters that the data path feeds, and the pages that show them under Envoy's names.
//!
//! ```text
//! workers ─▶ HttpStats, ListenerStats, ClusterStats ─┐ (added up by whoever asks)
//! control ─▶ Registry: revision, sockets ────────────┼─▶ Section ─ walk ─▶ Page (Prometheus), StatList (/stats)
//! control, app ─▶ Server: live, draining ────────────┘      ▲
//!                                                     families: Envoy's names
//! ```
//!
//! The data path only adds to counters of its own worker. Nothing that a client sends becomes a label: names come
//! from routes, sockets and certificates, status codes from a list. Access logs and traces (`observe`) stand beside this,
//! fed by the end of an exchange.

mod changes;
mod cluster_list;
mod families;
mod http;
mod listener;
mod memory;
mod observe;
mod orders;
mod own;
mod page;
mod registry;
mod rows;
mod section;
mod server;
mod stat_list;
mod stream;

pub use families::Kind;
pub use http::{HttpShard, HttpStats, HttpTotals, SpeaksHttp2, Upgraded};
pub use listener::{ListenerShard, ListenerStats, ListenerTotals, address_label};
pub use memory::{Memory, give_back};
pub use observe::{
    AccessLog, Collector, Counters, Endpoint, Heading, Observation, Observer, Observers, Observing, Protocol,
    Read, SinkSpec, SpanNames, Tag, Tracing, WHOLE, logs_of_envoy, tracing_of_envoy,
};
pub use orders::{OrderState, Ordered, Orders};
pub use page::Format;
pub use registry::{Registry, Revised, Socket};
pub use section::Selection;
pub use server::{Node, Server, State};
pub use stream::{Carrier, CarrierStats, FlowShard, FlowTotals, StreamShard, StreamTotals};
