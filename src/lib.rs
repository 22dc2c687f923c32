//! Trigate: an L7 reverse-proxy gateway data plane.

pub mod compile;
pub mod filter;
pub mod host;
pub mod reply;
pub mod resource;
pub mod routing;
pub mod source;
pub mod stats;
pub mod status;
pub mod tls;
pub mod upstream;
