//! placeholder until the telemetry branch lands
use std::time::Duration;
#[derive(Debug, Default)]
pub struct ClusterStats;
impl ClusterStats {
    pub fn request_began(&self) {}
    pub fn request_ended(&self, _: Option<u16>, _: Duration) {}
    pub fn connected(&self, _: Duration) {}
    pub fn connect_failed(&self) {}
    pub fn retried(&self) {}
    pub fn timed_out(&self) {}
    pub fn traffic(&self, _: u64, _: u64) {}
}
