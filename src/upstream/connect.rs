//! Opening connections to endpoints, and keeping those that can serve again.
//!
//! One pool per worker, so that nothing is shared between cores. An HTTP/1 connection waits in the pool between
//! requests, the one used last goes first; an HTTP/2 connection is shared by all requests of its worker.

use super::cluster::{Backend, ChannelTls};
use super::counted::Opening;
use super::endpoint::Endpoint;
use super::http1::Http1;
use super::http2::{Connection, Http2};
use super::session::Upstream;
use super::{Address, Cluster, ClusterStats, Protocol};
use crate::moment;
use crate::stats::Agreed;
use crate::wire::{Transport, Wire};
use foldhash::fast::FixedState;
use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::ext::set_tcp_keepalive;
use pingora::time::tokio_timeout;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

/// How often waiting connections are looked through for dead ones.
const SWEEP: Duration = Duration::from_secs(5);
/// When a silent upstream is asked whether it is there, and when it is taken for gone.
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::ZERO,
};
/// So long before the upstream closes a connection, as it told, it gets no more requests.
const ABOUT_TO_CLOSE: Duration = Duration::from_millis(500);
/// How many connections to one endpoint may wait in one worker's pool.
const MOST_IDLE: usize = 256;
/// So many endpoints without a waiting connection are remembered with who opened one.
const MOST_OPENERS: usize = 1024;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("the connection was not open within {0:?}; is something dropping packets to it?")]
    Timeout(Duration),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
}

type Key = (u64, u64);
type ByPeer<T> = RefCell<HashMap<Key, Vec<T>, FixedState>>;

/// The connections of one worker.
#[derive(Debug)]
pub struct Pool {
    /// How long an HTTP/1 connection may wait.
    idle: Duration,
    /// A response's head may be so large, in bytes.
    head_bytes: usize,
    http1: ByPeer<Waiting>,
    http2: ByPeer<Rc<Connection>>,
    /// The counters of the cluster that opened a connection last, for those that end of age.
    openers: RefCell<HashMap<Key, Arc<ClusterStats>, FixedState>>,
}

#[derive(Debug)]
struct Waiting {
    http1: Box<Http1>,
    since: Instant,
}

impl Waiting {
    /// Whether it can serve again: nobody has closed it, and the upstream is not about to.
    fn can_serve(&mut self) -> bool {
        self.http1.kept_for.is_none_or(|limit| self.since.elapsed() + ABOUT_TO_CLOSE < limit)
            && self.http1.is_quiet()
    }
}

impl Pool {
    /// A pool that keeps connections for `idle` and takes response heads of up to `head_bytes`. Dead connections
    /// are swept out as long as it lives. Must run in a `LocalSet`.
    pub fn new(idle: Duration, head_bytes: usize) -> Rc<Self> {
        let pool = Rc::new(Self {
            idle,
            head_bytes,
            http1: RefCell::default(),
            http2: RefCell::default(),
            openers: RefCell::default(),
        });
        let weak = Rc::downgrade(&pool);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                match weak.upgrade() {
                    Some(pool) => pool.sweep(),
                    None => return,
                }
            }
        });
        pool
    }

    /// A connection to this endpoint: one that waits, or, with `fresh` or when none does, a new one.
    ///
    /// # Errors
    /// When the endpoint cannot be reached in the cluster's time.
    pub async fn get(
        self: &Rc<Self>,
        cluster: &Cluster,
        backend: &Backend,
        endpoint: &Endpoint,
        fresh: bool,
    ) -> Result<Upstream, ConnectError> {
        let key = (endpoint.id, backend.channel.id);
        if !fresh && let Some(waiting) = self.reuse(key, backend.channel.protocol) {
            return Ok(waiting);
        }
        let limit = cluster.connect_timeout();
        // On the heap, for most requests find a connection that waits.
        let opening = Box::pin(async {
            let pending = cluster.stats().pending();
            let opened = tokio_timeout(limit, self.open(cluster, backend, endpoint)).await;
            let opened = opened.unwrap_or(Err(ConnectError::Timeout(limit)));
            pending.over(opened.is_ok());
            opened
        });
        opening.await
    }

    fn reuse(&self, key: Key, protocol: Protocol) -> Option<Upstream> {
        match protocol {
            Protocol::Http1 => {
                let mut pool = self.http1.borrow_mut();
                let waiting = pool.get_mut(&key)?;
                while let Some(mut one) = waiting.pop() {
                    if one.can_serve() {
                        one.http1.begin_again();
                        return Some(Upstream::Http1(one.http1));
                    }
                }
                None
            }
            Protocol::Http2 => {
                let pool = self.http2.borrow();
                let connection = pool.get(&key)?.iter().find(|connection| connection.has_room())?;
                Some(Upstream::Http2(Http2::new(Rc::clone(connection), true)))
            }
            Protocol::Opaque => None,
        }
    }

    async fn open(
        self: &Rc<Self>,
        cluster: &Cluster,
        backend: &Backend,
        endpoint: &Endpoint,
    ) -> Result<Upstream, ConnectError> {
        let key = (endpoint.id, backend.channel.id);
        let Dialed { transport, local } = dial(cluster, backend, endpoint).await?;
        let wire = Wire::boxed(transport);
        self.openers.borrow_mut().insert(key, cluster.shared_stats());
        match backend.channel.protocol {
            // Who asks for HTTP of what is none gets it as it was spoken first.
            Protocol::Http1 | Protocol::Opaque => {
                Ok(Upstream::Http1(Box::new(Http1::new(wire, local, key, self.head_bytes))))
            }
            Protocol::Http2 => {
                cluster.stats().mine().cx_http2.inc();
                let connection = Rc::new(Connection::open(wire, local).await?);
                self.http2.borrow_mut().entry(key).or_default().push(Rc::clone(&connection));
                Ok(Upstream::Http2(Http2::new(connection, false)))
            }
        }
    }

    /// Takes back an HTTP/1 connection whose last response was read to its end.
    pub(super) fn put(&self, mut http1: Box<Http1>) {
        http1.shrink();
        let mut pool = self.http1.borrow_mut();
        let waiting = pool.entry(http1.key).or_default();
        if waiting.len() < MOST_IDLE {
            waiting.push(Waiting { http1, since: moment::now() });
        }
    }

    fn sweep(&self) {
        let mut openers = self.openers.borrow_mut();
        let mut http1 = self.http1.borrow_mut();
        http1.retain(|key, waiting| {
            waiting.retain_mut(|one| {
                let young = one.since.elapsed() < self.idle;
                if !young && let Some(opener) = openers.get(key) {
                    opener.mine().cx_idle_timeout.inc();
                }
                young && one.can_serve()
            });
            !waiting.is_empty()
        });
        self.http2.borrow_mut().retain(|_, connections| {
            connections.retain(|connection| connection.is_open());
            !connections.is_empty()
        });
        // Endpoints come and go; a connection that is in use is not in the pool, so some slack is left.
        if openers.len() > http1.len() + MOST_OPENERS {
            openers.retain(|key, _| http1.contains_key(key));
        }
    }
}

/// A connection that was opened.
pub struct Dialed {
    pub transport: Box<dyn Transport>,
    /// Its end that is ours; a Unix socket has none.
    pub local: Option<SocketAddr>,
}

/// A new connection to this endpoint, with TLS where the channel asks for it, for the cluster's counters a connected
/// one. The caller bounds the time.
///
/// # Errors
/// When there is no connection, or the endpoint is not who it should be.
pub async fn dial(cluster: &Cluster, backend: &Backend, endpoint: &Endpoint) -> Result<Dialed, ConnectError> {
    open(cluster, &backend.channel.tls, endpoint).await
}

/// The same without TLS of ours, whatever the channel asks for.
///
/// # Errors
/// When there is no connection.
pub async fn dial_plain(cluster: &Cluster, endpoint: &Endpoint) -> Result<Dialed, ConnectError> {
    open(cluster, &None, endpoint).await
}

async fn open(cluster: &Cluster, tls: &ChannelTls, endpoint: &Endpoint) -> Result<Dialed, ConnectError> {
    let opening = Opening::new(cluster.shared_stats());
    let (transport, local) = match &endpoint.address {
        Address::Ip(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            // A peer that vanished without a word is found out while the connection waits.
            set_tcp_keepalive(&stream, &KEEPALIVE).map_err(|error| io::Error::other(error.to_string()))?;
            let local = stream.local_addr().ok();
            (secure(stream, tls, opening).await?, local)
        }
        Address::Unix(path) => (secure(UnixStream::connect(path).await?, tls, opening).await?, None),
    };
    Ok(Dialed { transport, local })
}

async fn secure(
    stream: impl Transport,
    tls: &ChannelTls,
    opening: Opening,
) -> Result<Box<dyn Transport>, ConnectError> {
    let tls = match tls {
        None => return Ok(Box::new(opening.opened(stream))),
        Some(Ok(tls)) => tls,
        Some(Err(error)) => return Err(ConnectError::Tls(error.to_string())),
    };
    let connector = tokio_rustls::TlsConnector::from(tls.config.clone());
    let stream = connector.connect(tls.server_name.clone(), stream).await.map_err(|error| {
        count_failure(opening.stats(), &error);
        ConnectError::Tls(error.to_string())
    })?;
    count_handshake(opening.stats(), stream.get_ref().1);
    Ok(Box::new(opening.opened(stream)))
}

fn count_handshake(stats: &ClusterStats, session: &rustls::ClientConnection) {
    let tls = stats.mine().tls.get();
    tls.handshake.inc();
    if session.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        tls.session_reused.inc();
    }
    let version = session.protocol_version().map(u16::from);
    let cipher = session.negotiated_cipher_suite().map(|suite| u16::from(suite.suite()));
    let curve = session.negotiated_key_exchange_group().map(|group| u16::from(group.name()));
    for (agreed, number) in [(Agreed::Version, version), (Agreed::Cipher, cipher), (Agreed::Curve, curve)] {
        if let Some(number) = number {
            tls.agreed.count(agreed, number);
        }
    }
}

fn count_failure(stats: &ClusterStats, error: &io::Error) {
    use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
    let tls = stats.mine().tls.get();
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
            tls.fail_verify_san.inc();
        }
        Some(rustls::Error::InvalidCertificate(_)) => tls.fail_verify_error.inc(),
        _ => tls.connection_error.inc(),
    }
}
