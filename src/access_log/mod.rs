//! What a line of an access log says: Envoy's operators and formats, which exchanges are told of, and the record of
//! one exchange from which both a line and a span are made.
//!
//! ```text
//! proxy, listener, l4 ─ fill ─▶ Record ─ Filter::takes ─▶ Format::line ─▶ telemetry's sinks
//! ```
//!
//! Everything here is pure but for the name of the machine and its environment: no clock, no network. A worker only
//! fills a [`Record`]; formats and filters run on the thread that writes.

mod expression;
mod filter;
mod format;
mod names;
mod operator;
mod record;
mod render;

pub use expression::Expression;
pub use filter::{Filter, HeaderCondition};
pub use format::Format;
pub use record::{Record, Routed, Trace, Upstream, pick};
pub use render::{Value, protocol};
