//! A client's TCP connection, with bytes that were read ahead of whoever they are for.
//!
//! The PROXY header is read from here, and what follows it in the same segment is given to the next reader, be it
//! TLS or HTTP.

use bytes::{Buf, BytesMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Reads what was read ahead first, then the socket. Writes go straight to the socket.
#[derive(Debug)]
pub struct Inbound {
    tcp: TcpStream,
    ahead: BytesMut,
}

impl Inbound {
    /// Nothing is read ahead yet.
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, ahead: BytesMut::new() }
    }

    /// What is read ahead.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Waits for bytes and reads at most `most` of them ahead. Returns how many, 0 when the client sends no more.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn read_ahead(&mut self, most: usize) -> io::Result<usize> {
        self.ahead.reserve(most);
        (&mut self.tcp).take(most as u64).read_buf(&mut self.ahead).await
    }

    /// Takes away the first `n` of the bytes that are read ahead.
    pub fn discard(&mut self, n: usize) {
        self.ahead.advance(n);
        self.forget_empty();
    }

    /// Gives back bytes that were read; they are read again before all others.
    pub fn unread(&mut self, mut bytes: BytesMut) {
        bytes.extend_from_slice(&self.ahead);
        self.ahead = bytes;
    }

    /// An idle connection holds no buffer.
    fn forget_empty(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }
}

impl AsyncRead for Inbound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let n = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..n]);
        self.discard(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
