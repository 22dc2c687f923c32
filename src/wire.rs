//! A connection as the HTTP codecs see it: reads go through, writes are gathered.
//!
//! A leaf that `listener`, `upstream` and `proxy` share. Writing hardly ever waits: bytes are taken whole into a
//! buffer that whoever pumps the connection [drains](Wire::poll_drain), and whose size it watches before it writes
//! more.
//! So a response head and the first bytes of its body leave in one system call and one TLS record, and both
//! directions of a connection move although the codec's session is one object.
//!
//! ```text
//! codec ── write ──▶ out ── poll_drain, or poll_read with nothing to read ──▶ transport
//! codec ◀─ read ──────────────────────────────────────────────────────────── transport
//! ```

use bytes::{Buf, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What carries the bytes: a TCP or Unix stream, or TLS over one.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

/// A write of at least this size skips the buffer when nothing waits before it.
const DIRECT: usize = 16 * 1024;
/// A codec that does not watch the buffer (HTTP/2's) waits when so much is in it.
const FULL: usize = 256 * 1024;

/// A connection; its clones are the same connection. One is given to the codec, one kept to drain it.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<State>>);

struct State {
    transport: Box<dyn Transport>,
    /// Read already, and given back.
    prefix: BytesMut,
    out: BytesMut,
    received: u64,
    sent: u64,
    /// Whether the transport holds bytes that a flush must push (TLS does).
    unflushed: bool,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    /// A connection over this transport.
    pub fn new(transport: impl Transport) -> Self {
        Self::boxed(Box::new(transport))
    }

    /// The same over one that is boxed already.
    pub fn boxed(transport: Box<dyn Transport>) -> Self {
        Self(Arc::new(Mutex::new(State {
            transport,
            prefix: BytesMut::new(),
            out: BytesMut::new(),
            received: 0,
            sent: 0,
            unflushed: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes; the bytes are sent by [`Wire::poll_drain`]. A large piece is sent past the buffer as far as the
    /// transport takes it at once.
    pub fn push(&self, bytes: &[u8]) {
        let mut state = self.state();
        let direct = if bytes.len() >= DIRECT {
            // Nobody is to be woken: what is not taken now is drained later. A broken transport tells then, too.
            let mut cx = Context::from_waker(Waker::noop());
            state.write_through(&mut cx, bytes).unwrap_or(0)
        } else {
            0
        };
        state.out.extend_from_slice(&bytes[direct..]);
    }

    /// Gives back bytes that were read; they are read again before all others.
    pub fn unread(&self, bytes: BytesMut) {
        self.state().prefix = bytes;
    }

    /// How many written bytes wait to be sent.
    pub fn pending(&self) -> usize {
        self.state().out.len()
    }

    /// Sends what was written. Ready when nothing waits any more.
    ///
    /// # Errors
    /// Those of the transport; the connection is of no use then.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state().poll_drain(cx)
    }

    /// Bytes received and sent since the last call.
    pub fn take_traffic(&self) -> (u64, u64) {
        let mut state = self.state();
        (std::mem::take(&mut state.received), std::mem::take(&mut state.sent))
    }

    /// Gives back the buffer of a connection that goes idle.
    pub fn shrink(&self) {
        let mut state = self.state();
        if state.out.is_empty() {
            state.out = BytesMut::new();
        }
    }

    /// Whether an idle connection can serve again: it is open, and the peer has sent nothing unasked.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0; 1];
        let mut buf = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut *self.state().transport).poll_read(&mut cx, &mut buf).is_pending()
    }
}

impl State {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(n);
            self.out.advance(n);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, n: usize) {
        self.sent += n as u64;
        self.unflushed = true;
    }

    /// Writes a large piece past the buffer as far as the transport takes it; returns how much of it.
    fn write_through(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> io::Result<usize> {
        let waiting = self.out.len();
        let written = if waiting == 0 {
            Pin::new(&mut self.transport).poll_write(cx, buf)
        } else {
            Pin::new(&mut self.transport)
                .poll_write_vectored(cx, &[IoSlice::new(&self.out), IoSlice::new(buf)])
        };
        match written {
            Poll::Pending => Ok(0),
            Poll::Ready(n) => {
                let n = n?;
                self.wrote(n);
                self.out.advance(n.min(waiting));
                Ok(n.saturating_sub(waiting))
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if !state.prefix.is_empty() {
            let n = state.prefix.len().min(buf.remaining());
            buf.put_slice(&state.prefix.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut state.transport).poll_read(cx, buf);
        state.received += (buf.filled().len() - before) as u64;
        // The peer may be waiting for what is still in the buffer before it says more.
        if read.is_pending() && (!state.out.is_empty() || state.unflushed) {
            let _ = state.poll_drain(cx)?;
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.pending() >= FULL {
            ready!(self.poll_drain(cx))?;
        }
        self.push(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// Ready at once: sending is up to [`Wire::poll_drain`], so that a codec never waits inside a write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        ready!(state.poll_drain(cx))?;
        Pin::new(&mut state.transport).poll_shutdown(cx)
    }
}

#[async_trait::async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        // Whoever pumps the connection closes it, after it has drained it.
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for Wire {}
impl Peek for Wire {}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn writes_leave_together_when_drained() {
        let (near, mut far) = duplex(1024);
        let mut wire = Wire::new(near);
        wire.write_all(b"head ").await.unwrap();
        wire.write_all(b"body").await.unwrap();
        assert_eq!(wire.pending(), 9);
        poll_fn(|cx| wire.poll_drain(cx)).await.unwrap();
        let mut got = [0; 16];
        assert_eq!(far.read(&mut got).await.unwrap(), 9);
        assert_eq!(wire.take_traffic(), (0, 9));
    }

    #[tokio::test]
    async fn reading_sends_what_waits() {
        let (near, mut far) = duplex(1024);
        let mut wire = Wire::new(near);
        wire.write_all(b"question").await.unwrap();
        let answer = tokio::spawn(async move {
            let mut got = [0; 8];
            far.read_exact(&mut got).await.unwrap();
            far.write_all(&got).await.unwrap();
        });
        let mut got = [0; 8];
        wire.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"question");
        answer.await.unwrap();
    }

    #[tokio::test]
    async fn a_large_write_keeps_its_order_behind_a_small_one() {
        let (near, mut far) = duplex(64);
        let mut wire = Wire::new(near);
        let large = vec![b'x'; 3 * DIRECT];
        wire.write_all(b"first").await.unwrap();
        wire.write_all(&large).await.unwrap();
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        poll_fn(|cx| wire.poll_drain(cx)).await.unwrap();
        drop(wire);
        let all = reader.await.unwrap();
        assert!(all.starts_with(b"firstx") && all.len() == 5 + large.len());
    }

    #[tokio::test]
    async fn a_closed_or_talking_peer_is_not_quiet() {
        let (near, mut far) = duplex(64);
        let wire = Wire::new(near);
        assert!(wire.is_quiet());
        far.write_all(b"!").await.unwrap();
        assert!(!wire.is_quiet());
        let (near, far) = duplex(64);
        drop(far);
        assert!(!Wire::new(near).is_quiet());
    }
}
