//! A connection to an endpoint that its cluster counts: its opening, its bytes, its end.

use super::{Closed, ClusterStats};
use crate::wire::{Meter, Metered};
use std::sync::Arc;
use std::time::Instant;

/// A connection that is being opened.
pub struct Opening {
    stats: Arc<ClusterStats>,
    started: Instant,
}

impl Opening {
    /// A connection of this cluster is opened from now on.
    pub fn new(stats: Arc<ClusterStats>) -> Self {
        Self { stats, started: Instant::now() }
    }

    /// The cluster's counters.
    pub fn stats(&self) -> &ClusterStats {
        &self.stats
    }

    /// It is open, TLS handshake included. The bytes that are counted are those within TLS, as with Envoy.
    pub fn opened<S>(self, stream: S) -> Counted<S> {
        self.stats.connected(self.started.elapsed());
        let count = Count { stats: self.stats, opened: Instant::now(), ended_by: Closed::Local };
        Metered::new(stream, count)
    }
}

/// An open connection, counted while it lives.
pub type Counted<S> = Metered<S, Count>;

/// What a cluster counts of a connection.
pub struct Count {
    stats: Arc<ClusterStats>,
    opened: Instant,
    /// Who ends it, as far as it is known: the upstream, once it was found closed or broken.
    ended_by: Closed,
}

impl Meter for Count {
    fn received(&mut self, bytes: usize) {
        self.stats.mine().cx_rx_bytes.add(bytes as u64);
    }

    fn sent(&mut self, bytes: usize) {
        self.stats.mine().cx_tx_bytes.add(bytes as u64);
    }

    fn ended(&mut self) {
        self.ended_by = Closed::Remote;
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.stats.closed(self.ended_by, self.opened.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn a_connection_is_counted_from_its_opening_to_its_end() {
        let stats = Arc::new(ClusterStats::default());
        let (ours, mut theirs) = duplex(64);
        let mut counted = Opening::new(Arc::clone(&stats)).opened(ours);
        counted.write_all(b"ping").await.expect("there is room");
        theirs.write_all(b"pong!").await.expect("there is room");
        drop(theirs);
        let mut read = Vec::new();
        counted.read_to_end(&mut read).await.expect("the end");
        let total = stats.total().expect("it was used");
        assert_eq!((total.cx_total, total.cx_active, total.cx_connect_time.count()), (1, 1, 1));
        assert_eq!((total.cx_tx_bytes, total.cx_rx_bytes), (4, 5));
        drop(counted);
        let total = stats.total().expect("it was used");
        assert_eq!((total.cx_active, total.cx_destroy_remote, total.cx_destroy_local), (0, 1, 0));
    }

    #[tokio::test]
    async fn a_connection_that_we_end_is_closed_by_us() {
        let stats = Arc::new(ClusterStats::default());
        let (ours, _theirs) = duplex(64);
        drop(Opening::new(Arc::clone(&stats)).opened(ours));
        assert_eq!(stats.total().expect("it was used").cx_destroy_local, 1);
    }
}
