//! For tests: a gateway with one rule, asked over a pipe, in front of upstreams that a test scripts.

use super::{ClientCertificate, Connection, Gateway, Habits, Worker, serve};
use crate::config::Limits;
use crate::filter::{ClusterId, Destination, Filters};
use crate::host::{HostIndex, HostPattern};
use crate::live::{Live, Revision};
use crate::routing::{
    Backend, Backends, GatewayId, Listener, Matches, PathIndex, PathMatch, PathRank, Rank, RoutingTable,
    Rule, RuleName, SocketId, SocketTable, Transport,
};
use crate::telemetry::{HttpStats, Observers};
use crate::upstream::{
    Address, BackendSpec, ClusterSpec, Clusters, EndpointSpec, EndpointsKey, EndpointsSpec, EndpointsSpecs,
    Planned, Protocol, Resolver,
};
use crate::wire::Wire;
use std::cell::{OnceCell, RefCell};
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

/// What the pipe between client and gateway holds.
const PIPE: usize = 64 * 1024;

/// Runs a test as a worker runs: tasks stay on its thread.
pub async fn local(test: impl Future<Output = ()>) {
    let limit = Duration::from_secs(60);
    timeout(limit, LocalSet::new().run_until(test)).await.expect("the test ends in time");
}

/// What an upstream does with a request.
pub enum Act {
    Answer(String),
    /// Closes the connection.
    Close,
    /// Says nothing and keeps the connection.
    Hang,
    /// Reads nothing of the body.
    Ignore,
    /// Answers before it reads the body, and closes.
    Early(String),
}

/// A response with this status and body.
pub fn answer(status: u16, body: &str) -> Act {
    answer_with(status, "", body)
}

/// A response with more header lines, each with its line end.
pub fn answer_with(status: u16, lines: &str, body: &str) -> Act {
    Act::Answer(format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{lines}\r\n{body}", body.len()))
}

/// A listening upstream over HTTP/1, with the requests that it got, heads and bodies.
pub struct Upstream {
    pub address: SocketAddr,
    requests: Rc<RefCell<Vec<String>>>,
}

impl Upstream {
    /// Does with each request, by its number from 0 and its text, what the test says.
    pub async fn new(act: impl Fn(usize, &str) -> Act + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let requests = Rc::new(RefCell::new(Vec::new()));
        let (seen, act) = (Rc::clone(&requests), Rc::new(act));
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(converse(stream, Rc::clone(&seen), Rc::clone(&act)));
            }
        });
        Self { address, requests }
    }

    /// One that answers everything with its name.
    pub async fn named(name: &'static str) -> Self {
        Self::new(move |_, _| answer(200, name)).await
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    /// The requests once there are so many.
    pub async fn wait_for(&self, count: usize) -> Vec<String> {
        let waiting = async {
            while self.requests.borrow().len() < count {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(10), waiting).await.expect("the requests come");
        self.requests()
    }
}

async fn converse(
    mut stream: TcpStream,
    seen: Rc<RefCell<Vec<String>>>,
    act: Rc<impl Fn(usize, &str) -> Act + 'static>,
) {
    let mut read = Vec::new();
    loop {
        let Some(head) = until(&mut stream, &mut read, |read| find(read, "\r\n\r\n")).await else { return };
        let (number, early) = (seen.borrow().len(), act(seen.borrow().len(), &head));
        if let Act::Ignore | Act::Early(_) = early {
            seen.borrow_mut().push(head);
            let Act::Early(text) = early else { return std::future::pending().await };
            stream.write_all(text.as_bytes()).await.expect("the gateway reads");
            return;
        }
        let lower = head.to_ascii_lowercase();
        let length =
            lower.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
        let body = if lower.contains("transfer-encoding: chunked") {
            until(&mut stream, &mut read, |read| find(read, "0\r\n\r\n")).await
        } else {
            let length: usize = length.unwrap_or(0);
            until(&mut stream, &mut read, |read| (read.len() >= length).then_some(length)).await
        };
        let Some(body) = body else { return };
        let request = head + &body;
        let acts = act(number, &request);
        seen.borrow_mut().push(request);
        let text = match acts {
            Act::Answer(text) => text,
            Act::Close => return,
            Act::Hang | Act::Ignore | Act::Early(_) => std::future::pending().await,
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn find(read: &[u8], end: &str) -> Option<usize> {
    read.windows(end.len()).position(|window| window == end.as_bytes()).map(|at| at + end.len())
}

/// Reads until the end is found, and takes what is before it.
async fn until(
    stream: &mut TcpStream,
    read: &mut Vec<u8>,
    end: impl Fn(&[u8]) -> Option<usize>,
) -> Option<String> {
    loop {
        if let Some(at) = end(read) {
            let rest = read.split_off(at);
            let taken = std::mem::replace(read, rest);
            return String::from_utf8(taken).ok();
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

/// An address that nobody listens on.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("a free port")
}

/// The backend with this place, as filters name it.
pub fn backend(place: u16) -> Destination {
    Destination { cluster: ClusterId(0), backend: place }
}

/// The gateway.
pub struct Rig {
    worker: Rc<Worker>,
    gateway: Arc<Gateway>,
    shutdown: watch::Sender<bool>,
}

impl Rig {
    /// One rule for everything, whose requests go to the first of these backends; filters may name the others.
    pub fn new(backends: &[&[SocketAddr]], change: impl FnOnce(&mut Rule)) -> Self {
        let backends: Vec<_> =
            backends.iter().map(|endpoints| (Protocol::Http1, endpoints.to_vec())).collect();
        Self::speaking(&backends, change)
    }

    /// The same, with what each backend speaks.
    pub fn speaking(backends: &[(Protocol, Vec<SocketAddr>)], change: impl FnOnce(&mut Rule)) -> Self {
        let mut rule = rule();
        change(&mut rule);
        let (spec, endpoints) = cluster(backends);
        let resolver = Resolver::from_system().expect("a resolver");
        let clusters = Clusters::new(resolver).reconcile(vec![Planned::New(spec)], endpoints);
        let live = Arc::new(Live::default());
        let observers = Observers::default();
        live.install(Revision { number: 1, table: table(rule).into(), clusters, tls: Vec::new(), observers });
        let limits = Limits::default();
        let (shutdown, told) = watch::channel(false);
        let gateway = Gateway {
            id: GatewayId(0),
            name: "external".into(),
            trusted_proxies: Vec::new(),
            trusted_hops: 0,
            habits: Habits::default(),
            limits,
        };
        Self { worker: Worker::new(live, &limits, told), gateway: Arc::new(gateway), shutdown }
    }

    /// A connection to it.
    pub fn open(&self) -> DuplexStream {
        let (near, far) = duplex(PIPE);
        let connection = Connection {
            socket: SocketId { gateway: GatewayId(0), port: 80, transport: Transport::Tcp },
            gateway: Arc::clone(&self.gateway),
            peer: ([192, 0, 2, 1], 40_000).into(),
            local: ([192, 0, 2, 2], 80).into(),
            server_name: None,
            http2: false,
            client_certificate: ClientCertificate::NotTold,
            tls: None,
            number: 1,
            stats: Arc::new(HttpStats::default()),
            address: OnceCell::new(),
        };
        let serving = serve(Wire::new(near), connection, Rc::clone(&self.worker), self.shutdown.subscribe());
        spawn_local(serving);
        far
    }

    /// The answer to these bytes, as it came.
    pub async fn ask(&self, request: &str) -> String {
        let mut client = self.open();
        client.write_all(request.as_bytes()).await.expect("the gateway reads");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("the gateway answers");
        String::from_utf8(answer).expect("a text")
    }

    /// The answer to a request with more header lines, each with its line end.
    pub async fn send(&self, method: &str, path: &str, lines: &str, body: &str) -> String {
        let length = match body.len() {
            0 => String::new(),
            length => format!("content-length: {length}\r\n"),
        };
        self.ask(&format!(
            "{method} {path} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n{length}{lines}\r\n{body}"
        ))
        .await
    }

    /// The answer to a plain GET.
    pub async fn get(&self, path: &str) -> String {
        self.send("GET", path, "", "").await
    }
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The values of a header line.
pub fn values<'a>(answer: &'a str, name: &str) -> Vec<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// What follows the head.
pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn rule() -> Rule {
    let first = Backend { weight: 1, index: Some(0), filters: None };
    Rule {
        name: RuleName::new("HTTPRoute", "default", "app", 0),
        backends: Backends::new(Some(ClusterId(0)), vec![first]),
        terms: None,
    }
}

/// Gives a rule these filters.
pub fn filters_of(rule: &mut Rule, filters: Filters) {
    rule.terms.get_or_insert_default().filters = filters;
}

fn table(rule: Rule) -> RoutingTable {
    let rank = Rank {
        path: PathRank::Prefix(0),
        method: false,
        headers: 0,
        queries: 0,
        age: Reverse(0),
        route: Reverse("".into()),
        position: Reverse((0, 0)),
    };
    let everything = Matches::of(PathMatch::prefix("/"));
    let mut paths = PathIndex::default();
    paths.insert(rank, everything, 0);
    let mut hosts = HostIndex::default();
    hosts.entry(&HostPattern::Any, || Arc::new(paths));
    let mut socket = SocketTable::default();
    socket.insert(&HostPattern::Any, Listener { name: String::new(), grpc: false, hosts });
    let id = SocketId { gateway: GatewayId(0), port: 80, transport: Transport::Tcp };
    RoutingTable::new(vec![(id, socket)], vec![Arc::new(rule)])
}

fn cluster(backends: &[(Protocol, Vec<SocketAddr>)]) -> (ClusterSpec, EndpointsSpecs) {
    let key = |place: usize| EndpointsKey(format!("service/default/b{place}/80").into());
    let endpoint = |address: &SocketAddr| EndpointSpec { address: Address::Ip(*address) };
    let endpoints = backends.iter().enumerate().map(|(place, (_, addresses))| {
        (key(place), EndpointsSpec::Addresses(addresses.iter().map(endpoint).collect()))
    });
    let specs = backends.iter().enumerate();
    let specs = specs.map(|(place, (protocol, _))| BackendSpec::new(key(place), *protocol, None));
    let spec = ClusterSpec {
        name: "httproute/default/app/rule/0".into(),
        backends: specs.collect(),
        connect_timeout: Duration::from_secs(5),
    };
    (spec, endpoints.collect())
}
