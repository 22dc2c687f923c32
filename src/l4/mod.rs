//! The second data path: connections and flows that go to a backend as they are, beside `proxy` and with the same
//! `live`.
//!
//! ```text
//! TCP ─────────────────────────┐
//! TLS, by server name ─ ended ─┼▶ Target ─▶ stream::carry ─▶ backend (TLS again, where a policy asks for it)
//!                    └ passed ─┘
//! UDP, by client address ───────▶ Target ─▶ flows::serve ───▶ backend
//! ```
//!
//! There is no `Reply` here: whoever is not served finds the connection closed, or hears nothing.

mod datagrams;
mod flows;
mod pick;
mod story;
mod stream;
mod traffic;

pub use datagrams::Datagrams;
pub use flows::Flows;
pub use pick::Target;
pub use story::{Story, Told};
pub use stream::carry;
