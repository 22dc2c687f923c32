//! What a line of an access log says: Envoy's operators and formats, which exchanges are told of, and the record of
//! one exchange from which both a line and a span are made.
//!
//! ```text
//! proxy, listener, l4 ─ fill ─▶ Record ─ Filter::takes ─▶ Format::line ─▶ telemetry's sinks
//! ```
//!
//! Everything here is pure but for the name of the machine: no clock, no network. A worker only fills a [`Record`]; formats and filters run
//! on the thread that writes.

mod filter;
mod format;
mod operator;
mod record;
mod render;

pub use filter::{Filter, HeaderCondition};
pub use format::Format;
pub use record::{Record, Trace, Upstream, pick};
pub use render::{Value, protocol};
