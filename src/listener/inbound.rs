//! A client's TCP connection, with bytes that were read ahead of whoever they are for.
//!
//! The PROXY header is read from here, and what follows it in the same segment is given to the next reader, be it
//! TLS or HTTP.
//!
//! In the other direction the session tickets of TLS 1.3 wait for the first answer: they are of no use to the client
//! before, and a system call and a segment of their own cost a twentieth of a connection.

use bytes::{Buf, BytesMut};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The type of TLS records that are encrypted. In a handshake of TLS 1.3 a server begins no write with one but for
/// tickets, and for an alert when it fails.
const ENCRYPTED: u8 = 23;
/// More is not held back; a few tickets are smaller.
const MAX_HELD: usize = 8 * 1024;

/// Reads what was read ahead first, then the socket. Writes go straight to the socket, after what is held back.
#[derive(Debug)]
pub struct Inbound {
    tcp: TcpStream,
    ahead: BytesMut,
    holds_tickets: bool,
    held: BytesMut,
}

impl Inbound {
    /// Nothing is read ahead yet.
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, ahead: BytesMut::new(), holds_tickets: false, held: BytesMut::new() }
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

    /// Holds back the tickets that the handshake writes at its end, or no more. What is held goes with the next write.
    pub fn hold_tickets(&mut self, hold: bool) {
        self.holds_tickets = hold;
    }

    /// Sends what is held back: after a handshake that failed it is the reason.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send_held(&mut self) -> io::Result<()> {
        self.hold_tickets(false);
        poll_fn(|cx| self.poll_send(cx, &[])).await.map(drop)
    }

    /// Keeps a write for later if it is one to hold back.
    fn hold(&mut self, bufs: &[IoSlice<'_>]) -> Option<usize> {
        let first = bufs.iter().find_map(|buf| buf.first())?;
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if *first != ENCRYPTED || self.held.len() + length > MAX_HELD {
            return None;
        }
        bufs.iter().for_each(|buf| self.held.extend_from_slice(buf));
        Some(length)
    }

    /// Writes after what is held back, and in one go with it.
    fn poll_send(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let mut all = vec![IoSlice::new(&self.held)];
            all.extend(bufs.iter().map(|buf| IoSlice::new(buf)));
            let written = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, &all))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_held = written.min(self.held.len());
            self.held.advance(of_held);
            if self.held.is_empty() {
                self.held = BytesMut::new();
            }
            if written > of_held {
                return Poll::Ready(Ok(written - of_held));
            }
        }
        match bufs {
            [] => Poll::Ready(Ok(0)),
            // The kernel does less for one buffer than for a list of one.
            [only] => Pin::new(&mut self.tcp).poll_write(cx, only),
            _ => Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs),
        }
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
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.holds_tickets
            && let Some(held) = self.hold(bufs)
        {
            return Poll::Ready(Ok(held));
        }
        self.poll_send(cx, bufs)
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
