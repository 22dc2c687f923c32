//! A connection as the HTTP codecs see it: what was read and not yet taken, and writes that are gathered.
//!
//! A leaf that `listener`, `upstream` and `proxy` share. Writing never waits: bytes are taken whole into a buffer
//! that whoever pumps the connection [drains](Wire::poll_drain), and whose size it watches before it writes more. So
//! a response head and the first bytes of its body leave in one system call and one TLS record.
//!
//! ```text
//! codec ── push ──▶ outbox ── poll_drain, or poll_fill with nothing to read ──▶ transport
//! codec ◀─ inbox ◀── poll_fill ──────────────────────────────────────────────── transport
//! ```

mod metered;
mod spare;

pub use metered::{Meter, Metered};
pub use spare::Spare;

use bytes::{Buf, BytesMut};
use std::cell::{RefCell, RefMut};
use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What carries the bytes: a TCP or Unix stream, or TLS over one.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

/// A write of at least this size skips the buffer when nothing waits before it.
const DIRECT: usize = 16 * 1024;
/// A codec that does not watch the buffer (HTTP/2's) waits when so much is in it.
const FULL: usize = 256 * 1024;
/// Reads of up to this size go by the stack, so that a connection that waits holds no buffer.
const SMALL: usize = 16 * 1024;
/// What is read at once at most.
const LARGE: usize = 64 * 1024;
/// An inbox that is empty may keep this size.
const KEPT: usize = 1024;
/// How large an outbox is at first; most heads with a small body fit.
const OUTBOX: usize = 4 * 1024;
/// An outbox that grew beyond this is not used again.
const LARGEST_SPARE: usize = 64 * 1024;
/// So many outboxes of a thread wait for a connection that writes.
const MOST_SPARE: usize = 16;

thread_local! {
    /// A connection has an outbox only while something waits in it, so that one that is idle costs little, and one
    /// that writes needs not allocate.
    static SPARE: Spare<BytesMut, MOST_SPARE> = const { Spare::new() };
}

fn take_spare() -> BytesMut {
    SPARE.with(Spare::take).unwrap_or_else(|| BytesMut::with_capacity(OUTBOX))
}

fn give_back(outbox: BytesMut) {
    if (1..=LARGEST_SPARE).contains(&outbox.capacity()) {
        SPARE.with(|spare| spare.keep(outbox));
    }
}

/// A connection.
pub struct Wire {
    transport: Box<dyn Transport>,
    inbox: BytesMut,
    outbox: BytesMut,
    /// Whether the beginning of the outbox is gone: then it is smaller than the memory that it holds.
    cut: bool,
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
        Self {
            transport,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            cut: false,
            received: 0,
            sent: 0,
            unflushed: false,
        }
    }

    /// What was read and not yet taken.
    pub fn inbox(&mut self) -> &mut BytesMut {
        &mut self.inbox
    }

    /// Reads more into the inbox: about `expected` bytes, as far as they are there. Returns how many came, 0 at the
    /// end. When there is nothing to read, what was written is sent: the peer may be waiting for it.
    ///
    /// # Errors
    /// Those of the transport; the connection is of no use then.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, expected: usize) -> Poll<io::Result<usize>> {
        let read = if expected > SMALL {
            self.inbox.reserve(expected.min(LARGE));
            pin!(self.transport.read_buf(&mut self.inbox)).poll(cx)
        } else {
            let mut space = [MaybeUninit::uninit(); SMALL];
            let mut space = ReadBuf::uninit(&mut space);
            let read = Pin::new(&mut self.transport).poll_read(cx, &mut space);
            self.inbox.extend_from_slice(space.filled());
            read.map_ok(|()| space.filled().len())
        };
        match &read {
            Poll::Ready(Ok(n)) => self.received += *n as u64,
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.send_waiting(cx)?,
        }
        read
    }

    fn send_waiting(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if (!self.outbox.is_empty() || self.unflushed)
            && let Poll::Ready(sent) = self.poll_drain(cx)
        {
            return sent;
        }
        Ok(())
    }

    /// Where small writes go; they are sent by [`Wire::poll_drain`].
    pub fn outbox(&mut self) -> &mut BytesMut {
        if self.outbox.capacity() == 0 {
            self.outbox = take_spare();
        }
        &mut self.outbox
    }

    /// Writes; the bytes are sent by [`Wire::poll_drain`]. A large piece is sent past the buffer as far as the
    /// transport takes it at once.
    pub fn push(&mut self, bytes: &[u8]) {
        let direct = if bytes.len() >= DIRECT {
            // Nobody is to be woken: what is not taken now is drained later. A broken transport tells then, too.
            let mut cx = Context::from_waker(Waker::noop());
            self.write_through(&mut cx, bytes).unwrap_or(0)
        } else {
            0
        };
        if direct < bytes.len() {
            self.outbox().extend_from_slice(&bytes[direct..]);
        }
    }

    /// How many written bytes wait to be sent.
    pub fn pending(&self) -> usize {
        self.outbox.len()
    }

    /// Whether nothing waits, to be taken or to be sent.
    pub fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.outbox.is_empty()
    }

    /// Sends what was written. Ready when nothing waits any more.
    ///
    /// # Errors
    /// Those of the transport; the connection is of no use then.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let n = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.outbox))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(n);
            self.forget(n);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes received and sent since the last call.
    pub fn take_traffic(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.received), std::mem::take(&mut self.sent))
    }

    /// Gives back the buffer of a connection that goes idle.
    pub fn shrink(&mut self) {
        if self.inbox.is_empty() && self.inbox.capacity() > KEPT {
            self.inbox = BytesMut::new();
        }
    }

    /// Whether an idle connection can serve again: it is open, and the peer has sent nothing unasked.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut buf = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        self.inbox.is_empty() && Pin::new(&mut self.transport).poll_read(&mut cx, &mut buf).is_pending()
    }

    /// Takes what was sent out of the outbox.
    fn forget(&mut self, n: usize) {
        let mut outbox = std::mem::take(&mut self.outbox);
        if n < outbox.len() {
            outbox.advance(n);
            self.outbox = outbox;
            self.cut = true;
        } else if !std::mem::take(&mut self.cut) {
            outbox.clear();
            give_back(outbox);
        }
    }

    fn wrote(&mut self, n: usize) {
        self.sent += n as u64;
        self.unflushed = true;
    }

    /// Writes a large piece past the buffer as far as the transport takes it; returns how much of it.
    fn write_through(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> io::Result<usize> {
        let waiting = self.outbox.len();
        let written = if waiting == 0 {
            Pin::new(&mut self.transport).poll_write(cx, buf)
        } else {
            Pin::new(&mut self.transport)
                .poll_write_vectored(cx, &[IoSlice::new(&self.outbox), IoSlice::new(buf)])
        };
        match written {
            Poll::Pending => Ok(0),
            Poll::Ready(n) => {
                let n = n?;
                self.wrote(n);
                self.forget(n.min(waiting));
                Ok(n.saturating_sub(waiting))
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.inbox.is_empty() {
            let n = self.inbox.len().min(buf.remaining());
            buf.put_slice(&self.inbox[..n]);
            self.inbox.advance(n);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.transport).poll_read(cx, buf);
        self.received += (buf.filled().len() - before) as u64;
        if read.is_pending() {
            self.send_waiting(cx)?;
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
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

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// A connection whose clones are the same connection: one is given to a codec that wants to own it (HTTP/2's), one
/// is kept to drain it.
#[derive(Debug, Clone)]
pub struct Shared(Rc<RefCell<Wire>>);

impl From<Wire> for Shared {
    fn from(wire: Wire) -> Self {
        Self(Rc::new(RefCell::new(wire)))
    }
}

impl Shared {
    /// The connection. It must not be kept while the codec runs.
    pub fn wire(&self) -> RefMut<'_, Wire> {
        self.0.borrow_mut()
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.wire()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire()).poll_shutdown(cx)
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
        for expected in [1, LARGE] {
            let (near, mut far) = duplex(1024);
            let mut wire = Wire::new(near);
            wire.push(b"question");
            let answer = tokio::spawn(async move {
                let mut got = [0; 8];
                far.read_exact(&mut got).await.unwrap();
                far.write_all(&got).await.unwrap();
                far
            });
            assert_eq!(poll_fn(|cx| wire.poll_fill(cx, expected)).await.unwrap(), 8);
            assert_eq!(&wire.inbox()[..], b"question");
            let far = answer.await.unwrap();
            drop(far);
            assert_eq!(poll_fn(|cx| wire.poll_fill(cx, expected)).await.unwrap(), 0);
        }
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
        let mut wire = Wire::new(near);
        assert!(wire.is_quiet());
        far.write_all(b"!").await.unwrap();
        assert!(!wire.is_quiet());
        let (near, far) = duplex(64);
        drop(far);
        assert!(!Wire::new(near).is_quiet());
    }
}
