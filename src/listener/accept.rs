//! The accept loop of one address in one worker, and what happens to a connection before it is served.

use super::SocketOptions;
use super::inbound::Inbound;
use super::places::{Place, Places};
use super::proxy_protocol::{HeaderError, read_header};
use super::queue::Queue;
use super::tls_accept::{HandshakeError, greet};
use crate::config::ProxyProtocol;
use crate::l4;
use crate::live::Live;
use crate::proxy::{ClientCertificate, Connection};
use crate::reply::Outcome;
use crate::stats::Agreed;
use crate::telemetry::{Carrier, ListenerStats};
use crate::tls::{Carried, ClientMode, Clients, TlsEnd, forwarded_certificate};
use crate::wire::{Transport, Wire};
use http::HeaderValue;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use rustls_pki_types::CertificateDer;
use std::cell::OnceCell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
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
    #[error("the client took too long for the PROXY header")]
    HeaderTimedOut,
    #[error("the client took too long for the TLS handshake")]
    HandshakeTimedOut,
    #[error("the connection was gone: {0}")]
    Gone(io::Error),
    #[error("the client's certificate has expired since its session began")]
    ClientExpired,
    #[error("no route is for the connection, or it leads nowhere")]
    NoRoute,
}

/// A connection that is ready to be served.
enum Prepared {
    Http(Wire, Box<Connection>),
    Stream { stream: Box<dyn Transport>, target: l4::Target, carrier: Carrier, from: Box<Connection> },
}

impl<S> Acceptor<S>
where
    S: AsyncFn(Wire, Connection, watch::Receiver<bool>) + 'static,
{
    /// Accepts connections until `stop` says so or is dropped. Connections in flight go on.
    pub async fn run(self: Rc<Self>, queue: Queue, mut stop: oneshot::Receiver<()>) {
        loop {
            let accepted = tokio::select! {
                accepted = queue.accept() => accepted,
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
        queue.rest().for_each(|(tcp, peer)| self.admit(tcp, peer));
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
        let mut counted = Counted::new(&self.options, place);
        let local = tcp.local_addr();
        let asked = local.as_ref().ok().copied();
        let prepared = {
            let _waiting = Preparing::new(&self.options.stats);
            match local {
                Ok(local) => self.prepare(tcp, peer, local).await,
                Err(error) => Err(Unserved::Gone(error)),
            }
        };
        match prepared {
            Ok(Prepared::Http(wire, connection)) => {
                counted.speaks_http();
                (self.serve)(wire, *connection, self.shutdown.clone()).await;
            }
            Ok(Prepared::Stream { stream, target, carrier, from }) => {
                let SocketOptions { gateway, stats, .. } = &self.options;
                let story = self.story(*from);
                let told = l4::carry(stream, target, &gateway.limits, stats, carrier).await;
                if let Some(story) = story {
                    story.end(told);
                }
            }
            Err(unserved) => {
                self.count(&unserved);
                self.tell(&unserved, peer, asked);
                debug!(%peer, "{unserved}");
            }
        }
    }

    /// From a TCP connection to one that speaks HTTP, or that is carried as it is.
    async fn prepare(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Prepared, Unserved> {
        let SocketOptions { id, tls, addresses: _, gateway, proxy_protocol, http, stats: _ } = &self.options;
        let deadline = Instant::now() + gateway.limits.handshake_timeout;
        let mut connection = Connection {
            socket: *id,
            gateway: gateway.clone(),
            peer,
            local,
            server_name: None,
            http2: false,
            client_certificate: ClientCertificate::NotTold,
            tls: None,
            number: next_number(),
            stats: http.clone(),
            address: OnceCell::new(),
        };
        let mut inbound = Inbound::new(tcp);
        if *proxy_protocol != ProxyProtocol::Off {
            let header = read_header(&mut inbound, *proxy_protocol, peer, gateway);
            let header = timeout_at(deadline, header).await.map_err(|_| Unserved::HeaderTimedOut)??;
            if let Some((client, asked)) = header {
                (connection.peer, connection.local) = (client, asked);
            }
        }
        if *tls {
            // On the heap, so that the task of a served connection is not as large as a handshake.
            let securing = Box::pin(self.secure(inbound, connection));
            return timeout_at(deadline, securing).await.map_err(|_| Unserved::HandshakeTimedOut)?;
        }
        let table = self.live.load();
        if table.is_some_and(|revision| revision.table.socket(*id).is_some_and(|t| t.speaks_no_http())) {
            let target = self.target("", Carrier::Tcp)?;
            let (stream, from) = (Box::new(inbound), Box::new(connection));
            return Ok(Prepared::Stream { stream, target, carrier: Carrier::Tcp, from });
        }
        Ok(Prepared::Http(Wire::new(inbound), Box::new(connection)))
    }

    async fn secure(&self, inbound: Inbound, mut connection: Connection) -> Result<Prepared, Unserved> {
        let greeted = greet(inbound, &self.live, self.options.id).await?;
        let (server_name, end) = (greeted.server_name.clone(), greeted.end.clone());
        let TlsEnd::Here { config, clients, carried } = end else {
            let target = self.target(&server_name, Carrier::Passthrough)?;
            let stream = Box::new(greeted.untouched());
            connection.server_name = Some(server_name);
            let from = Box::new(connection);
            return Ok(Prepared::Stream { stream, target, carrier: Carrier::Passthrough, from });
        };
        if carried == Carried::Bytes {
            // Before the handshake, so that a client whom nobody serves finds a closed connection and no alert.
            let target = self.target(&server_name, Carrier::Terminated)?;
            let stream = greeted.handshake(config).await?;
            self.count_handshake(stream.get_ref().1);
            connection.server_name = Some(server_name);
            connection.tls = negotiated(stream.get_ref().1);
            let (stream, from) = (Box::new(stream), Box::new(connection));
            return Ok(Prepared::Stream { stream, target, carrier: Carrier::Terminated, from });
        }
        let stream = greeted.handshake(config).await?;
        let (_, session) = stream.get_ref();
        self.count_handshake(session);
        if let Some(clients) = &clients
            && session.handshake_kind() == Some(HandshakeKind::Resumed)
            && !clients.still_admits(session.peer_certificates())
        {
            return Err(Unserved::ClientExpired);
        }
        connection.server_name = Some(server_name);
        connection.tls = negotiated(session);
        connection.http2 = session.alpn_protocol() == Some(b"h2");
        connection.client_certificate = client_certificate(clients.as_deref(), session.peer_certificates());
        Ok(Prepared::Http(Wire::new(stream), Box::new(connection)))
    }

    /// The beginning of what is told of a connection that is carried, if somebody wants to know.
    fn story(&self, from: Connection) -> Option<l4::Story> {
        let Connection { socket, gateway, peer, local, server_name, tls, number, .. } = from;
        let mut story = l4::Story::begin(&self.live, socket.gateway.0, peer, Some(local))?;
        story.secured(server_name, tls);
        story.named(&gateway.name, number);
        Some(story)
    }

    /// Tells of a connection that nobody serves, as Envoy Gateway's listeners do.
    fn tell(&self, unserved: &Unserved, peer: SocketAddr, local: Option<SocketAddr>) {
        if !matches!(unserved, Unserved::NoRoute | Unserved::Handshake(HandshakeError::UnknownName)) {
            return;
        }
        let SocketOptions { id, gateway, .. } = &self.options;
        if let Some(mut story) = l4::Story::begin(&self.live, id.gateway.0, peer, local) {
            story.named(&gateway.name, next_number());
            story.end(l4::Told { outcome: Outcome::NO_LISTENER, ..l4::Told::default() });
        }
    }

    /// Where a connection that is carried goes.
    fn target(&self, server_name: &str, carrier: Carrier) -> Result<l4::Target, Unserved> {
        let SocketOptions { id, stats, .. } = &self.options;
        let counted = stats.carried().streams(carrier);
        counted.cx_total.inc();
        l4::Target::find(&self.live, *id, server_name).ok_or_else(|| {
            counted.no_route.inc();
            Unserved::NoRoute
        })
    }

    fn count_handshake(&self, session: &ServerConnection) {
        let stats = self.options.stats.mine();
        stats.ssl_handshake.inc();
        if session.peer_certificates().is_none() {
            stats.ssl_no_certificate.inc();
        }
        if session.handshake_kind() == Some(HandshakeKind::Resumed) {
            stats.ssl_session_reused.inc();
        }
        let version = session.protocol_version().map(u16::from);
        let cipher = session.negotiated_cipher_suite().map(|suite| u16::from(suite.suite()));
        let curve = session.negotiated_key_exchange_group().map(|group| u16::from(group.name()));
        for (agreed, number) in [(Agreed::Version, version), (Agreed::Cipher, cipher), (Agreed::Curve, curve)]
        {
            if let Some(number) = number {
                stats.ssl_agreed.count(agreed, number);
            }
        }
    }

    fn count(&self, unserved: &Unserved) {
        let stats = self.options.stats.mine();
        match unserved {
            Unserved::HeaderTimedOut => stats.pre_cx_timeout.inc(),
            Unserved::HandshakeTimedOut => stats.handshake_timeout.inc(),
            Unserved::Handshake(HandshakeError::UnknownName) => stats.no_filter_chain_match.inc(),
            Unserved::Handshake(HandshakeError::NoCertificate) => stats.ssl_connection_error.inc(),
            // As Envoy counts: a client that went away, or only looked whether the port is open, made no error.
            Unserved::Handshake(HandshakeError::Failed(error)) if error.kind() != ErrorKind::InvalidData => {}
            Unserved::Handshake(HandshakeError::Failed(error)) => match rustls_error(error) {
                Some(rustls::Error::NoCertificatesPresented) => stats.ssl_fail_verify_no_cert.inc(),
                Some(rustls::Error::InvalidCertificate(_)) => stats.ssl_fail_verify_error.inc(),
                _ => stats.ssl_connection_error.inc(),
            },
            Unserved::ClientExpired => stats.ssl_fail_verify_error.inc(),
            Unserved::Header(HeaderError::Ended | HeaderError::Io(_)) => {
                stats.listener_filter_remote_close.inc();
            }
            Unserved::Header(_) => stats.listener_filter_error.inc(),
            Unserved::Gone(_) | Unserved::NoRoute | Unserved::Handshake(HandshakeError::Challenge) => {}
        }
    }
}

/// A number that no other connection of the process has.
fn next_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Protocol and cipher suite, as OpenSSL writes the first and IANA the second.
fn negotiated(session: &ServerConnection) -> Option<(&'static str, &'static str)> {
    let version = match session.protocol_version()? {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "TLSv1.3",
    };
    // TLS 1.3's suites are called TLS13_… in rustls, and TLS_… everywhere else.
    let suite = session.negotiated_cipher_suite()?.suite().as_str()?;
    Some((version, suite))
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What backends are told of a client's certificate. One that was not verified in the handshake is now.
fn client_certificate(
    clients: Option<&Clients>,
    chain: Option<&[CertificateDer<'static>]>,
) -> ClientCertificate {
    let Some((clients, details)) = clients.and_then(|clients| Some((clients, clients.validation.told?)))
    else {
        return ClientCertificate::NotTold;
    };
    let valid =
        chain.filter(|chain| clients.validation.mode == ClientMode::ValidOnly || clients.believe(chain));
    valid
        .and_then(|chain| forwarded_certificate(chain, details))
        .and_then(|text| HeaderValue::try_from(text).ok())
        .map_or(ClientCertificate::Absent, ClientCertificate::Told)
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
    since: Instant,
    http: bool,
    _place: Place,
}

impl<'a> Counted<'a> {
    fn new(options: &'a SocketOptions, place: Place) -> Self {
        let stats = options.stats.mine();
        stats.cx_total.inc();
        stats.cx_active.inc();
        Self { options, since: Instant::now(), http: false, _place: place }
    }

    fn speaks_http(&mut self) {
        let SocketOptions { http, tls, .. } = self.options;
        let http = http.mine();
        http.cx_total.inc();
        http.cx_active.inc();
        if *tls {
            http.cx_ssl_total.inc();
            http.cx_ssl_active.inc();
        }
        self.http = true;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let SocketOptions { http, stats, tls, .. } = self.options;
        let stats = stats.mine();
        let lasted = self.since.elapsed();
        stats.cx_active.dec();
        stats.cx_destroy.inc();
        stats.cx_length.record(lasted);
        if self.http {
            http.connection_ended(lasted);
            if *tls {
                http.mine().cx_ssl_active.dec();
            }
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
