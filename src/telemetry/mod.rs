//! What is observed: counters that the data path feeds, and the page that shows them under Envoy's names.
//!
//! The data path only adds to counters of its own worker; whoever asks for the page adds the workers up.

mod http;
mod listener;

pub use http::{HttpShard, HttpStats, HttpTotals, SpeaksHttp2};
pub use listener::{ListenerShard, ListenerStats, ListenerTotals, address_label};
