//! Stand-in until the counters of branch telemetry are on main.
use crate::stats::{Counter, Sharded};

#[derive(Debug, Default)]
pub struct HttpShard {
    pub cx_total: Counter,
    pub cx_active: Counter,
    pub cx_ssl_total: Counter,
    pub cx_ssl_active: Counter,
    pub cx_destroy: Counter,
}

#[derive(Debug, Default)]
pub struct HttpStats(Sharded<HttpShard>);
impl HttpStats {
    pub fn mine(&self) -> &HttpShard {
        self.0.mine()
    }
    pub fn sum(&self, number: impl Fn(&HttpShard) -> u64) -> u64 {
        self.0.sum(number)
    }
}

#[derive(Debug, Default)]
pub struct ListenerShard {
    pub cx_total: Counter,
    pub cx_active: Counter,
    pub cx_destroy: Counter,
    pub cx_overflow: Counter,
    pub pre_cx_timeout: Counter,
    pub no_filter_chain_match: Counter,
    pub ssl_handshake: Counter,
    pub ssl_session_reused: Counter,
    pub ssl_connection_error: Counter,
}

#[derive(Debug, Default)]
pub struct ListenerStats(Sharded<ListenerShard>);
impl ListenerStats {
    pub fn mine(&self) -> &ListenerShard {
        self.0.mine()
    }
    pub fn sum(&self, number: impl Fn(&ListenerShard) -> u64) -> u64 {
        self.0.sum(number)
    }
}
impl HttpStats {
    pub fn request_began(&self) {}
    pub fn request_ended(&self, _: Option<http::StatusCode>, _: std::time::Duration) {}
    pub fn replied(&self, _: crate::reply::Reply) {}
    pub fn traffic(&self, _: u64, _: u64) {}
}
