//! placeholder until the telemetry branch lands
use crate::reply::Reply;
use std::time::Duration;
#[derive(Debug, Default)]
pub struct HttpStats;
impl HttpStats {
    pub fn request_began(&self) {}
    pub fn request_ended(&self, _: Option<http::StatusCode>, _: Duration) {}
    pub fn replied(&self, _: Reply) {}
    pub fn traffic(&self, _: u64, _: u64) {}
}
