//! The accept loop of one address in one worker, and what happens to a connection before it is served.

use super::SocketOptions;
use super::inbound::Inbound;
use super::places::{Place, Places};
use super::proxy_protocol::{HeaderError, read_header};
use super::tls_accept::{HandshakeError, handshake};
use crate::config::ProxyProtocol;
use crate::live::Live;
use crate::proxy::Connection;
use crate::telemetry::ListenerStats;
use crate::wire::Wire;
use rustls::HandshakeKind;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

/// How long an accept loop rests when the system has no descriptor or memory left for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// All that an accept loop needs; shared with its connections.
pub(super) struct Acceptor<S> {
    pub options: SocketOptions,
    pub live: Arc<Live>,
    pub places: Arc<Places>,
    /// True when the process drains.
    pub shutdown: watch::Receiver<bool>,
    pub serve: Rc<S>,
}

/// Why a connection ended before it was served.
#[derive(Debug, Error)]
enum Unserved {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the client took too long for the PROXY header and the TLS handshake")]
    TimedOut,
    #[error("the connection was gone: {0}")]
    Gone(io::Error),
}

impl<S> Acceptor<S>
where
    S: AsyncFn(Wire, Connection, watch::Receiver<bool>) + 'static,
{
    /// Accepts connections until `stop` says so or is dropped. Connections in flight go on.
    pub async fn run(self: Rc<Self>, listener: TcpListener, mut stop: oneshot::Receiver<()>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut stop => break,
            };
            match accepted {
                Ok((tcp, peer)) => self.admit(tcp, peer),
                Err(error) => {
                    if let Some(pause) = pause_after(&error) {
                        warn!("{:?}: no connection can be accepted: {error}", self.options.addresses);
                        sleep(pause).await;
                    }
                }
            }
        }
        self.accept_queued(listener);
    }

    /// Takes the connections that the kernel has made already: it would reset them with the socket.
    fn accept_queued(self: Rc<Self>, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((tcp, peer)) = listener.accept() {
            if tcp.set_nonblocking(true).is_ok()
                && let Ok(tcp) = TcpStream::from_std(tcp)
            {
                self.admit(tcp, peer);
            }
        }
    }

    fn admit(self: &Rc<Self>, tcp: TcpStream, peer: SocketAddr) {
        match self.places.take(self.options.gateway.limits.connections) {
            Some(place) => {
                let acceptor = self.clone();
                spawn_local(async move { acceptor.connection(tcp, peer, place).await });
            }
            // Closed at once: a client that waits in the kernel's queue would not know why.
            None => self.options.stats.mine().cx_overflow.inc(),
        }
    }

    async fn connection(&self, tcp: TcpStream, peer: SocketAddr, place: Place) {
        let _counted = Counted::new(&self.options, place);
        let prepared = {
            let _waiting = Preparing::new(&self.options.stats);
            self.prepare(tcp, peer).await
        };
        match prepared {
            Ok((wire, connection)) => {
                (self.serve)(wire, connection, self.shutdown.clone()).await;
            }
            Err(unserved) => {
                self.count(&unserved);
                debug!(%peer, "{unserved}");
            }
        }
    }

    /// From a TCP connection to one that speaks HTTP.
    async fn prepare(&self, tcp: TcpStream, peer: SocketAddr) -> Result<(Wire, Connection), Unserved> {
        let SocketOptions { id, tls, addresses: _, gateway, proxy_protocol, http, stats: _ } = &self.options;
        let deadline = Instant::now() + gateway.limits.handshake_timeout;
        let mut connection = Connection {
            socket: *id,
            gateway: gateway.clone(),
            peer,
            local: tcp.local_addr().map_err(Unserved::Gone)?,
            server_name: None,
            http2: false,
            stats: http.clone(),
        };
        let mut inbound = Inbound::new(tcp);
        if *proxy_protocol != ProxyProtocol::Off {
            let header = read_header(&mut inbound, *proxy_protocol, peer, gateway);
            let header = timeout_at(deadline, header).await.map_err(|_| Unserved::TimedOut)??;
            if let Some((client, asked)) = header {
                (connection.peer, connection.local) = (client, asked);
            }
        }
        if !tls {
            return Ok((Wire::new(inbound), connection));
        }
        // On the heap, so that the task of a served connection is not as large as a handshake.
        let handshake = Box::pin(handshake(inbound, &self.live, *id));
        let (stream, server_name) =
            timeout_at(deadline, handshake).await.map_err(|_| Unserved::TimedOut)??;
        let (_, session) = stream.get_ref();
        self.count_handshake(session.handshake_kind());
        connection.server_name = Some(server_name);
        connection.http2 = session.alpn_protocol() == Some(b"h2");
        Ok((Wire::new(stream), connection))
    }

    fn count_handshake(&self, kind: Option<HandshakeKind>) {
        let stats = self.options.stats.mine();
        stats.ssl_handshake.inc();
        // None is asked for.
        stats.ssl_no_certificate.inc();
        if kind == Some(HandshakeKind::Resumed) {
            stats.ssl_session_reused.inc();
        }
    }

    fn count(&self, unserved: &Unserved) {
        let stats = self.options.stats.mine();
        match unserved {
            Unserved::TimedOut => stats.pre_cx_timeout.inc(),
            Unserved::Handshake(HandshakeError::UnknownName) => stats.no_filter_chain_match.inc(),
            Unserved::Handshake(HandshakeError::NoCertificate) => stats.ssl_connection_error.inc(),
            // As Envoy counts: a client that went away, or only looked whether the port is open, made no error.
            Unserved::Handshake(HandshakeError::Failed(error)) if error.kind() != ErrorKind::InvalidData => {}
            Unserved::Handshake(HandshakeError::Failed(_)) => stats.ssl_connection_error.inc(),
            Unserved::Header(_) => stats.listener_filter_error.inc(),
            Unserved::Gone(_) => {}
        }
    }
}

/// How long to wait after a failed accept. `None` is a connection that failed by itself: the next one may be well.
fn pause_after(error: &io::Error) -> Option<Duration> {
    use ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied, TimedOut};
    let of_the_connection =
        [ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied, TimedOut].contains(&error.kind());
    // EMFILE and ENFILE above all: the connection stays in the queue, so the next accept fails at once.
    (!of_the_connection).then_some(EXHAUSTED_PAUSE)
}

/// A connection whose PROXY header and TLS handshake are not done, until it is dropped.
struct Preparing<'a>(&'a ListenerStats);

impl<'a> Preparing<'a> {
    fn new(stats: &'a ListenerStats) -> Self {
        stats.mine().pre_cx_active.inc();
        Self(stats)
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        self.0.mine().pre_cx_active.dec();
    }
}

/// A connection in the counters, until it is dropped.
struct Counted<'a> {
    options: &'a SocketOptions,
    _place: Place,
}

impl<'a> Counted<'a> {
    fn new(options: &'a SocketOptions, place: Place) -> Self {
        let SocketOptions { http, stats, tls, .. } = options;
        let (http, stats) = (http.mine(), stats.mine());
        for counter in [&stats.cx_total, &stats.cx_active, &http.cx_total, &http.cx_active] {
            counter.inc();
        }
        if *tls {
            http.cx_ssl_total.inc();
            http.cx_ssl_active.inc();
        }
        Self { options, _place: place }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let SocketOptions { http, stats, tls, .. } = self.options;
        let (http, stats) = (http.mine(), stats.mine());
        stats.cx_active.dec();
        http.cx_active.dec();
        stats.cx_destroy.inc();
        http.cx_destroy.inc();
        if *tls {
            http.cx_ssl_active.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exhaustion_makes_the_loop_rest() {
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        const ECONNABORTED: i32 = 103;
        const EPERM: i32 = 1;
        for (code, rests) in [(EMFILE, true), (ENFILE, true), (ECONNABORTED, false), (EPERM, false)] {
            assert_eq!(pause_after(&io::Error::from_raw_os_error(code)).is_some(), rests, "{code}");
        }
    }
}
