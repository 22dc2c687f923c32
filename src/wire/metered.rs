//! A stream that tells of its bytes, to whoever counts them or waits for them to move.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Who is told.
pub trait Meter: Unpin {
    /// So many bytes came, at least one.
    fn received(&mut self, bytes: usize);
    /// So many bytes were taken.
    fn sent(&mut self, bytes: usize);
    /// The peer sends no more, or the stream broke.
    fn ended(&mut self) {}
}

/// A stream with its meter, which lives as long.
pub struct Metered<S, M> {
    stream: S,
    meter: M,
}

impl<S, M: Meter> Metered<S, M> {
    /// Tells this meter of this stream.
    pub fn new(stream: S, meter: M) -> Self {
        Self { stream, meter }
    }

    fn wrote(&mut self, wrote: &Poll<io::Result<usize>>) {
        match wrote {
            Poll::Ready(Ok(n)) => self.meter.sent(*n),
            Poll::Ready(Err(_)) => self.meter.ended(),
            Poll::Pending => {}
        }
    }
}

impl<S: AsyncRead + Unpin, M: Meter> AsyncRead for Metered<S, M> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let n = buf.filled().len() - before;
        match &read {
            Poll::Ready(Ok(())) if n > 0 => self.meter.received(n),
            // Nobody asked for bytes.
            Poll::Ready(Ok(())) if buf.remaining() == 0 => {}
            Poll::Ready(_) => self.meter.ended(),
            Poll::Pending => {}
        }
        read
    }
}

impl<S: AsyncWrite + Unpin, M: Meter> AsyncWrite for Metered<S, M> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&wrote);
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&wrote);
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
