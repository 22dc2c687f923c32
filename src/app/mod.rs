//! Wires everything; the only module that knows all others.

mod announce;
mod bootstrap;
mod certs;
mod check;
mod end;
mod envoy;
mod observers;
mod orders;
mod run;
mod tickets;

pub use certs::{certs_dev, certs_list};
pub use check::check;
pub use envoy::EnvoyArguments;
pub use run::run;

/// `1 rule`, `2 rules`.
fn counted(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}
