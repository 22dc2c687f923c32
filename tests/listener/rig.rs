//! Worker threads with one open socket, and what they were asked to serve.

use ipnet::IpNet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use trigate::config::{Limits, ProxyProtocol, SessionTickets};
use trigate::host::HostPattern;
use trigate::listener::{SocketOptions, Workers};
use trigate::live::{Live, Revision};
use trigate::proxy::{Connection, Gateway, Habits};
use trigate::routing::{GatewayId, SocketId, Transport};
use trigate::telemetry::{HttpStats, ListenerStats, Observers};
use trigate::tls::{Certificate, TlsListener, TlsMode, TlsShared, TlsSocket};
use trigate::wire::Wire;

pub const SOCKET: SocketId = SocketId { gateway: GatewayId(0), port: 443, transport: Transport::Tcp };

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a test changes before the socket opens.
pub struct Setup {
    pub workers: usize,
    pub tls: bool,
    pub proxy_protocol: ProxyProtocol,
    pub trusted: Vec<IpNet>,
    pub limits: Limits,
}

impl Default for Setup {
    fn default() -> Self {
        let (trusted, limits) = (Vec::new(), Limits::default());
        Self { workers: 1, tls: false, proxy_protocol: ProxyProtocol::Off, trusted, limits }
    }
}

pub struct Rig {
    pub workers: Workers,
    pub address: SocketAddr,
    pub options: SocketOptions,
    live: Arc<Live>,
    shared: TlsShared,
    served: mpsc::UnboundedReceiver<Connection>,
}

impl Rig {
    /// A socket that sends back whatever it gets.
    pub fn echo(setup: Setup) -> Self {
        Self::serving(setup, async |mut wire: Wire, _| {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = wire.read(&mut buf).await {
                wire.push(&buf[..n]);
            }
            let _ = wire.shutdown().await;
        })
    }

    /// A socket whose connections `serve` gets, with the sign of the drain.
    pub fn serving<S>(setup: Setup, serve: S) -> Self
    where
        S: AsyncFn(Wire, watch::Receiver<bool>) + Clone + Send + 'static,
    {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (record, served) = mpsc::unbounded_channel();
        let live = Arc::new(Live::default());
        let workers = Workers::serving(setup.workers, live.clone(), move |_| {
            let (record, serve) = (record.clone(), serve.clone());
            async move |wire: Wire, connection: Connection, shutdown| {
                let _ = record.send(connection);
                serve(wire, shutdown).await;
            }
        })
        .unwrap();
        let options = options(setup);
        let address = workers.open(options.clone()).unwrap()[0];
        Self {
            workers,
            address,
            options,
            live,
            shared: TlsShared::new(&SessionTickets::default()).unwrap(),
            served,
        }
    }

    /// Installs a revision with these listeners, each with its certificates.
    pub fn listeners(&self, listeners: &[(&str, &[&Arc<Certificate>])]) {
        let listeners: Vec<_> = listeners
            .iter()
            .map(|(hostname, certificates)| TlsListener {
                hostname: HostPattern::parse(hostname).unwrap_or(HostPattern::Any),
                mode: TlsMode::https(certificates.iter().map(|&c| c.clone()).collect()),
            })
            .collect();
        let socket = TlsSocket::build(&listeners, &self.shared);
        self.live.install(Revision {
            number: 1,
            table: Arc::default(),
            clusters: Arc::default(),
            tls: vec![(SOCKET, Arc::new(socket))],
            observers: Observers::default(),
        });
    }

    pub async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.address)).await.unwrap()
    }

    /// The next connection that was served.
    pub async fn served(&mut self) -> Connection {
        soon(self.served.recv()).await.expect("the workers live")
    }

    /// Whether nothing was served that the test has not seen.
    pub fn served_no_more(&mut self) -> bool {
        self.served.try_recv().is_err()
    }
}

/// A cleartext or TLS socket of gateway `external`, on a free port.
pub fn options(setup: Setup) -> SocketOptions {
    let Setup { workers: _, tls, proxy_protocol, trusted, limits } = setup;
    let name = "external".to_owned();
    let gateway = Gateway {
        id: SOCKET.gateway,
        name,
        trusted_proxies: trusted,
        trusted_hops: 0,
        habits: Habits::default(),
        limits,
    };
    SocketOptions {
        id: SOCKET,
        tls,
        addresses: vec!["127.0.0.1:0".parse().unwrap()],
        gateway: Arc::new(gateway),
        proxy_protocol,
        http: Arc::new(HttpStats::default()),
        stats: Arc::new(ListenerStats::default()),
    }
}

/// Fails instead of waiting for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it happens in time")
}

/// Sends `question` and reads as many bytes back.
pub async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), question: &[u8]) -> Vec<u8> {
    soon(async {
        stream.write_all(question).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = vec![0; question.len()];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    })
    .await
}

/// Whether the other side ends the connection without a byte.
pub async fn ends(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    // A reset is an end too: the bytes that were not read are the reason for it.
    matches!(soon(stream.read(&mut [0; 1])).await, Ok(0) | Err(_))
}

/// Waits until it holds: counters and closed sockets follow what a client sees by a moment.
pub async fn until(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
