//! Wires everything; the only module that knows all others.

mod check;

pub use check::check;
