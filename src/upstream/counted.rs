//! A connection to an endpoint that its cluster counts: its opening, its bytes, its end.

use super::{Closed, ClusterStats};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
        Counted { stream, stats: self.stats, opened: Instant::now(), ended_by: Closed::Local }
    }
}

/// An open connection, counted while it lives.
pub struct Counted<S> {
    stream: S,
    stats: Arc<ClusterStats>,
    opened: Instant,
    /// Who ends it, as far as it is known: the upstream, once it was found closed or broken.
    ended_by: Closed,
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.stats.closed(self.ended_by, self.opened.elapsed());
    }
}

impl<S> Counted<S> {
    fn wrote(&mut self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(n)) => self.stats.mine().cx_tx_bytes.add(*n as u64),
            Poll::Ready(Err(_)) => self.ended_by = Closed::Remote,
            Poll::Pending => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        let n = buf.filled().len() - before;
        match &result {
            Poll::Ready(Ok(())) if n > 0 => self.stats.mine().cx_rx_bytes.add(n as u64),
            Poll::Ready(Ok(())) if buf.remaining() == 0 => {}
            Poll::Ready(_) => self.ended_by = Closed::Remote,
            Poll::Pending => {}
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
