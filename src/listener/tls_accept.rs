//! The TLS handshake: the client's hello says which listener it wants, and that one's certificates answer.

use super::inbound::Inbound;
use crate::challenge::Challenges;
use crate::live::Live;
use crate::routing::SocketId;
use crate::tls::{Carried, Refusal, ServerName, TlsEnd, TlsSocket, reading_hello};
use bytes::BytesMut;
use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

/// The largest hello that is read. Post-quantum key shares make it 2 KiB; sixteen are far from any real client.
const MAX_HELLO: usize = 16 * 1024;

/// Why there is no TLS connection. The client has been told, where it can be told.
#[derive(Debug, Error)]
pub enum HandshakeError {
    #[error("no listener is for the server name that the client asks for")]
    UnknownName,
    #[error("the listener for this server name has no certificate")]
    NoCertificate,
    #[error("a certificate authority asked whether the name is ours, and was answered")]
    Challenge,
    #[error("the handshake failed: {0}")]
    Failed(#[from] io::Error),
}

/// A client that has said which name it wants, and what becomes of it.
pub struct Greeted {
    pub server_name: ServerName,
    pub end: TlsEnd,
    accepted: Accepted,
    hello: Hello,
}

/// Reads the hello and finds out what the current revision does with its server name. The caller bounds the time.
///
/// # Errors
/// The connection is of no use.
pub async fn greet(stream: Inbound, live: &Live, socket: SocketId) -> Result<Greeted, HandshakeError> {
    let tls = live.load().and_then(|revision| revision.tls(socket).cloned());
    let carries_bytes = tls.as_ref().is_some_and(|tls| tls.carries_bytes());
    let hello = Hello { stream, left: MAX_HELLO, kept: carries_bytes.then(BytesMut::new) };
    let start = LazyConfigAcceptor::new(Acceptor::default(), hello).await?;
    let sent = lower_case(start.client_hello().server_name().unwrap_or_default());
    let server_name = tls.as_ref().map_or_else(|| sent.clone(), |tls| tls.asked(sent.clone()));
    let challenges = live.challenges().filter(|_| is_authority(&start));
    let StartHandshake { accepted, io: mut hello, .. } = start;
    if let Some(challenges) = challenges
        && let Some(config) = challenges.handshake(&server_name).await
    {
        let mut stream = StartHandshake::from_parts(accepted, hello.stream).into_stream(config).await?;
        stream.shutdown().await?;
        return Err(HandshakeError::Challenge);
    }
    let chosen =
        tls.as_ref().ok_or(Refusal::UnknownName).and_then(|tls: &Arc<TlsSocket>| tls.choose(&server_name));
    match chosen {
        Ok(end) => Ok(Greeted { server_name, end: end.clone(), accepted, hello }),
        Err(refusal) => {
            if !carries_bytes {
                refuse(&mut hello.stream, refusal).await?;
            }
            Err(match refusal {
                Refusal::UnknownName => HandshakeError::UnknownName,
                Refusal::NoCertificate => HandshakeError::NoCertificate,
            })
        }
    }
}

impl Greeted {
    /// Does the handshake. The caller bounds the time.
    ///
    /// # Errors
    /// The connection is of no use.
    pub async fn handshake(self, config: Arc<ServerConfig>) -> Result<TlsStream<Inbound>, HandshakeError> {
        let carries_http = matches!(self.end, TlsEnd::Here { carried: Carried::Http, .. });
        let Self { accepted, hello: Hello { mut stream, .. }, .. } = self;
        // Who carries bytes may have nothing to write for a long time.
        stream.hold_tickets(carries_http);
        let start = StartHandshake::from_parts(accepted, stream);
        let handshake = reading_hello(|| start.into_stream(config));
        match handshake.into_fallible().await {
            Ok(mut stream) => {
                stream.get_mut().0.hold_tickets(false);
                Ok(stream)
            }
            Err((error, mut stream)) => {
                // What is wrong with the handshake is worth more than what is wrong with telling it.
                let _ = stream.send_held().await;
                Err(error.into())
            }
        }
    }

    /// The connection as if nobody had read from it.
    pub fn untouched(self) -> Inbound {
        let Hello { mut stream, kept, left: _ } = self.hello;
        stream.unread(kept.unwrap_or_default());
        stream
    }
}

/// Whether this is no client, but an authority that wants to see whether the name is ours (RFC 8737).
fn is_authority(start: &StartHandshake<Hello>) -> bool {
    start.client_hello().alpn().is_some_and(Challenges::is_asked)
}

/// Names are compared in lower case and without the dot of the root.
fn lower_case(name: &str) -> ServerName {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
}

/// Sends a fatal alert in the clear, which is all that the client understands before keys are agreed.
async fn refuse(stream: &mut Inbound, refusal: Refusal) -> io::Result<()> {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    stream.write_all(&[ALERT, 3, 3, 0, 2, FATAL, refusal.alert().into()]).await?;
    stream.shutdown().await
}

/// A stream that gives at most so many bytes, and keeps them where a backend may have to read them again.
struct Hello {
    stream: Inbound,
    left: usize,
    kept: Option<BytesMut>,
}

impl AsyncRead for Hello {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            let message = format!("the ClientHello is longer than {MAX_HELLO} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
        }
        let mut part = buf.take(self.left);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let n = part.filled().len();
        let filled = buf.filled().len();
        buf.advance(n);
        self.left -= n;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&buf.filled()[filled..]);
        }
        read
    }
}

impl AsyncWrite for Hello {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
