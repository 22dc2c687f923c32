//! The listener over real sockets on the loopback interface, with an echo in place of the proxy.

mod client;
mod lifecycle;
mod proxy_protocol;
mod rig;
mod tls;
mod wire;
