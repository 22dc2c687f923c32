//! Trigate: an L7 reverse-proxy gateway data plane.

pub mod compile;
pub mod config;
pub mod echo;
pub mod filter;
pub mod host;
pub mod listener;
pub mod live;
pub mod proxy;
pub mod reply;
pub mod resource;
pub mod routing;
pub mod source;
pub mod stats;
pub mod status;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod wire;
