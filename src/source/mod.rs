//! Where objects come from. Every source yields a [`Snapshot`](crate::resource::Snapshot): of all objects, at
//! one moment, with the places where they stand.

mod document;
mod files;
mod locate;
mod pinpoint;
mod split;
mod suggest;
mod watch;

pub use files::{Files, read_text};
pub use pinpoint::pinpoint;
