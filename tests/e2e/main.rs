//! The gateway from outside: the real binary, real sockets, real clients and upstreams.

#[path = "../harness/mod.rs"]
mod harness;

mod gateways;
