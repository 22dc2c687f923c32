//! Where objects come from. Every source yields a [`Snapshot`]: of all objects, at
//! one moment, with the places where they stand.

mod certificates;
mod document;
mod files;
pub mod kubernetes;
mod locate;
mod pinpoint;
mod split;
mod suggest;
mod watch;

pub use crate::resource::Snapshot;
pub use certificates::Certificates;
pub use files::{Files, read_text};
pub use pinpoint::pinpoint;

use std::io;

/// An operating system's error, without its number.
fn said(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
