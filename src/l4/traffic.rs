//! A stream that notes when bytes move and how many.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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

/// One side of a connection. `read` and `written` are told the bytes.
pub(super) struct Watched<S, R, W> {
    pub stream: S,
    pub moved: Moved,
    pub read: R,
    pub written: W,
}

impl<S, R: Fn(usize), W: Fn(usize)> Watched<S, R, W> {
    fn note(&self, wrote: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(n)) = wrote {
            self.moved.touch();
            (self.written)(*n);
        }
    }
}

impl<S: AsyncRead + Unpin, R: Fn(usize) + Unpin, W: Unpin> AsyncRead for Watched<S, R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let n = buf.filled().len() - before;
        if n > 0 {
            self.moved.touch();
            (self.read)(n);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin, R: Fn(usize) + Unpin, W: Fn(usize) + Unpin> AsyncWrite for Watched<S, R, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&wrote);
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(&wrote);
        wrote
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
