//! When bytes of a connection or a flow moved last, and how many of a client's did.

use crate::telemetry::{Carrier, ListenerStats};
use crate::wire::Meter;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// When bytes moved last, in either direction of a connection.
#[derive(Debug, Clone)]
pub(super) struct Moved(Rc<Cell<Instant>>);

impl Moved {
    /// Just now.
    pub fn now() -> Self {
        Self(Rc::new(Cell::new(Instant::now())))
    }

    /// Bytes have moved.
    pub fn touch(&self) {
        self.0.set(Instant::now());
    }

    /// When they did.
    pub fn last(&self) -> Instant {
        self.0.get()
    }

    /// Ready when nothing has moved for this time; never without a limit.
    pub async fn idle(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let end = self.0.get() + limit;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// The backend's side of a connection, which counts its bytes itself.
impl Meter for Moved {
    fn received(&mut self, _: usize) {
        self.touch();
    }

    fn sent(&mut self, _: usize) {
        self.touch();
    }
}

/// The client's side of a connection.
pub(super) struct Client<'a> {
    pub stats: &'a ListenerStats,
    pub carrier: Carrier,
    pub moved: Moved,
    /// Bytes from the client, and to it.
    pub received: &'a Cell<u64>,
    pub sent: &'a Cell<u64>,
}

impl Meter for Client<'_> {
    fn received(&mut self, bytes: usize) {
        self.moved.touch();
        self.stats.carried().streams(self.carrier).rx_bytes.add(bytes as u64);
        self.received.set(self.received.get() + bytes as u64);
    }

    fn sent(&mut self, bytes: usize) {
        self.moved.touch();
        self.stats.carried().streams(self.carrier).tx_bytes.add(bytes as u64);
        self.sent.set(self.sent.get() + bytes as u64);
    }
}
