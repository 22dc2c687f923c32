//! Clusters, sockets and a certificate that saw some traffic, without a data path.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trigate::host::HostPattern;
use trigate::reply::Reply;
use trigate::routing::{
    Backends, GatewayId, Listener, RoutingTable, Rule, RuleName, SocketId, SocketTable, Terms, Transport,
};
use trigate::stats::Agreed;
use trigate::telemetry::{Carrier, HttpStats, ListenerStats, Registry, Revised, Server, Socket};
use trigate::tls::Certificate;
use trigate::upstream::{
    Address, BackendSpec, Closed, Cluster, ClusterSpec, Clusters, EndpointSpec, EndpointsKey, EndpointsSpec,
    Planned, Protocol, Resolver, Roots, TlsSpec,
};

/// This many clusters with two endpoints each, none of which saw traffic.
pub fn clusters(count: usize) -> Arc<[Arc<Cluster>]> {
    clusters_over(count, None)
}

fn clusters_over(count: usize, tls: Option<TlsSpec>) -> Arc<[Arc<Cluster>]> {
    let tls = tls.map(Arc::new);
    let key = |i: usize| EndpointsKey(format!("service/default/app-{i}/80").into());
    let spec = |i| ClusterSpec {
        name: format!("httproute/default/app-{i}/rule/0").into(),
        backends: [BackendSpec::new(key(i), Protocol::Http1, tls.clone())].into(),
        connect_timeout: Duration::from_secs(1),
    };
    let endpoint = |port| EndpointSpec { address: Address::Ip((Ipv4Addr::LOCALHOST, port).into()) };
    let endpoints =
        (0..count).map(|i| (key(i), EndpointsSpec::Addresses(vec![endpoint(1), endpoint(2)]))).collect();
    let resolver = Resolver::from_system().expect("/etc/resolv.conf can be used");
    Clusters::new(resolver).reconcile((0..count).map(spec).map(Planned::New).collect(), endpoints)
}

/// A socket that is bound to this address, as `control` tells it.
pub fn socket(address: &str, certificates: Vec<Arc<Certificate>>) -> Socket {
    let address: SocketAddr = address.parse().expect("an address");
    let tls = !certificates.is_empty();
    Socket {
        name: format!("external/{}", address.port()),
        gateway: "external".to_owned(),
        addresses: vec![address],
        tls,
        speaks_http: true,
        http: Arc::new(HttpStats::new(tls, address)),
        listener: Arc::new(ListenerStats::new(address)),
        certificates,
    }
}

/// A certificate for this name.
pub fn certificate(name: &str) -> Arc<Certificate> {
    let made = rcgen::generate_simple_self_signed(vec!["*.home.test".to_owned()]).expect("it is made");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    Arc::new(Certificate::from_pem(name, chain.as_bytes(), key.as_bytes()).expect("it is read"))
}

/// What the data path counts for one request, from connection to end.
pub fn request(socket: &Socket, cluster: &Cluster) {
    let took = Duration::from_micros(1_700);
    socket.http.request_began();
    cluster.stats().request_began();
    cluster.stats().connected(took);
    cluster.stats().mine().cx_rx_bytes.add(1_000);
    cluster.stats().mine().cx_tx_bytes.add(100);
    cluster.stats().closed(Closed::Remote, took);
    cluster.stats().request_ended(Some(200), took);
    socket.http.request_ended(Some(http::StatusCode::OK), took);
    socket.http.traffic(100, 1_000);
}

/// What comes seldom: TLS, a response that was replaced by another try, streams.
fn more(sockets: &[Socket], cluster: &Cluster) {
    let counted = cluster.stats().mine();
    counted.retry_statuses.get().count(Some(503));
    let (upstream, downstream) = (&counted.tls.get().agreed, &sockets[1].listener.mine().ssl_agreed);
    for handshakes in [upstream, downstream] {
        handshakes.count(Agreed::Version, 0x0304);
        handshakes.count(Agreed::Cipher, 0x1301);
        handshakes.count(Agreed::Curve, 0x001d);
    }
    sockets[0].listener.carried().expect(Carrier::Tcp);
}

/// One host with a rule that has a name.
fn table() -> RoutingTable {
    let mut listener = Listener::default();
    let host = HostPattern::parse("app.home.test").expect("a valid host");
    listener.hosts.entry(&host, Arc::default);
    let mut socket = SocketTable::default();
    socket.insert(&HostPattern::Any, listener);
    let id = SocketId { gateway: GatewayId(0), port: 80, transport: Transport::Tcp };
    let terms = Terms { name: Some("checkout".to_owned()), ..Terms::default() };
    let name = RuleName::new("HTTPRoute", "default", "app-0", 0);
    let rule = Rule { name, backends: Backends::default(), terms: terms.kept() };
    RoutingTable::new(vec![(id, socket)], vec![Arc::new(rule)])
}

/// A registry with everything in it.
pub fn registry() -> Registry {
    let server = Arc::new(Server::new());
    let registry = Registry::new(Arc::clone(&server), 2);
    let tls = TlsSpec {
        server_name: "app.home.test".to_owned(),
        roots: Roots::Unverified,
        subject_alt_names: Vec::new(),
        client: None,
    };
    let clusters = clusters_over(3, Some(tls));
    let sockets =
        vec![socket("0.0.0.0:10080", vec![]), socket("0.0.0.0:10443", vec![certificate("network/home-tls")])];
    for cluster in &clusters[..2] {
        request(&sockets[0], cluster);
        request(&sockets[1], cluster);
    }
    more(&sockets, &clusters[0]);
    sockets[0].http.request_began();
    sockets[0].http.replied(Reply::NoRoute);
    sockets[0].http.request_ended(Some(Reply::NoRoute.status()), Duration::ZERO);
    registry.revised(Revised {
        number: 7,
        installed: Instant::now(),
        compile: Duration::from_millis(3),
        clusters,
        routes: 3,
        errors: 1,
        warnings: 2,
        table: table().into(),
        gateways: BTreeMap::from([(0, "external".to_owned())]),
    });
    registry.set_sockets(sockets);
    server.initialized();
    registry
}
