//! TLSRoute, TCPRoute, UDPRoute: connections and flows that are carried as they are.

use crate::HOST;
use crate::harness::certificate::Authority;
use crate::harness::manifest::{
    authority, backend_tls, gateway, https_listener, route, secret, service, stream_listener, stream_route,
};
use crate::harness::raw::Raw;
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::Upstream;
use crate::harness::{PATIENCE, eventually, soon};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An upstream that says its name, and then what it is told, until its client has said all.
async fn parrot(name: &'static str) -> Upstream {
    Upstream::raw(move |mut connection| async move {
        let _ = connection.try_send(name).await;
        let all = connection.rest().await;
        let _ = connection.try_send(all).await;
    })
    .await
}

/// The same over TLS.
async fn tls_parrot(name: &'static str, config: ServerConfig) -> Upstream {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Upstream::raw(move |connection| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(connection.stream).await else { return };
            let server_name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
            let mut connection = Raw::new(stream);
            let _ = connection.try_send(format!("{name} {server_name}")).await;
            let all = connection.rest().await;
            let _ = connection.try_send(all).await;
            let _ = connection.stream.shutdown().await;
        }
    })
    .await
}

/// What a connection says after `said`, with its half closed; `None` when it is closed without a byte.
async fn converse(address: SocketAddr, said: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    let _ = stream.write_all(said.as_bytes()).await;
    let _ = stream.shutdown().await;
    let mut all = Vec::new();
    let _ = soon("the end of a connection", stream.read_to_end(&mut all)).await;
    (!all.is_empty()).then(|| String::from_utf8(all).expect("a text"))
}

async fn connect(address: SocketAddr, config: ClientConfig, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

async fn converse_over_tls(address: SocketAddr, config: ClientConfig, name: &str) -> io::Result<String> {
    let mut stream = connect(address, config, name).await?;
    stream.write_all(b"!").await?;
    stream.shutdown().await?;
    let mut all = Vec::new();
    soon("the end of a connection", stream.read_to_end(&mut all)).await?;
    Ok(String::from_utf8(all).expect("a text"))
}

/// `external` with this listener on a port of its own, and these objects.
async fn serving(listener: Value, objects: impl IntoIterator<Item = Value>) -> (Trigate, SocketAddr) {
    let port = listener["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
    let (builder, address) = Builder::new().without_gateways().listen("external", port);
    let trigate = builder.with(gateway("external", &[listener])).with_all(objects).start().await;
    (trigate, address)
}

#[tokio::test]
async fn a_tcp_route_carries_both_halves_of_a_connection() {
    let upstream = parrot("one").await;
    let mut objects = service("one", &[upstream.address]);
    objects.push(stream_route("TCPRoute", "route", "tcp", &[("one", 1)]));
    let (trigate, address) = serving(stream_listener("tcp", 9000, "TCP"), objects).await;
    assert_eq!(converse(address, "hello").await.as_deref(), Some("onehello"));
    let large = "x".repeat(3 << 20);
    assert_eq!(converse(address, &large).await.map(|all| all.len()), Some(3 + large.len()));
    let prefix = format!("envoy_tcp_prefix=\"tcp-{}\"", address.port());
    for (name, want) in [
        ("envoy_tcp_downstream_cx_total", 2),
        ("envoy_tcp_downstream_cx_rx_bytes_total", 5 + large.len()),
        ("envoy_tcp_downstream_cx_tx_bytes_total", 11 + large.len()),
    ] {
        assert_eq!(trigate.metric(name, &[&prefix]).await, want as f64, "{name}");
    }
    let page = trigate.stats_page("/stats/prometheus").await.text();
    assert!(!page.contains(&format!("http-{}", address.port())), "no HTTP is spoken on it");
}

#[tokio::test]
async fn weights_hold_for_connections_and_the_oldest_route_has_them_all() {
    let (one, two, never) = (parrot("one").await, parrot("two").await, parrot("never").await);
    let mut objects = service("one", &[one.address]);
    objects.extend(service("two", &[two.address]));
    objects.extend(service("never", &[never.address]));
    // Of routes without an age the first by name is served.
    objects.push(stream_route("TCPRoute", "a", "tcp", &[("one", 7), ("two", 3), ("never", 0)]));
    objects.push(stream_route("TCPRoute", "b", "tcp", &[("never", 1)]));
    let (_trigate, address) = serving(stream_listener("tcp", 9000, "TCP"), objects).await;
    let mut counts = BTreeMap::<String, u32>::new();
    for _ in 0..300 {
        *counts.entry(converse(address, "").await.expect("it is served")).or_default() += 1;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["one", "two"]);
    assert!(counts["one"].abs_diff(210) < 45, "{counts:?}");
}

#[tokio::test]
async fn a_route_that_leads_nowhere_closes_connections_and_a_change_is_followed() {
    let upstream = parrot("one").await;
    let route = |service: &str| stream_route("TCPRoute", "route", "tcp", &[(service, 1)]);
    let mut objects = service("one", &[upstream.address]);
    objects.push(route("missing"));
    let (trigate, address) = serving(stream_listener("tcp", 9000, "TCP"), objects).await;
    assert_eq!(converse(address, "hello").await, None);
    trigate.apply(route("one"));
    eventually("the new backend", || converse(address, "!")).await;
    // The other way: an endpoint that refuses.
    let refusing = crate::harness::upstream::refusing().await;
    trigate.apply_all(service("one", &[refusing]));
    eventually("the refusal", || async { converse(address, "!").await.is_none().then_some(()) }).await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_closed() {
    let upstream = parrot("one").await;
    let (builder, address) = Builder::new().without_gateways().listen("external", 9000);
    let trigate = builder
        .set("limits.stream_idle_timeout", "300ms")
        .with(gateway("external", &[stream_listener("tcp", 9000, "TCP")]))
        .with_all(service("one", &[upstream.address]))
        .with(stream_route("TCPRoute", "route", "tcp", &[("one", 1)]))
        .start()
        .await;
    let mut idle = Raw::connect(address).await;
    assert_eq!(idle.exactly(3).await, b"one");
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        idle.send("still here").await;
    }
    assert!(idle.closed_within(PATIENCE).await);
    assert_eq!(trigate.metric("envoy_tcp_idle_timeout", &[]).await, 1.0);
}

#[tokio::test]
async fn connections_outlive_the_drain_of_their_socket_until_its_timeout() {
    let upstream = parrot("one").await;
    let (builder, address) = Builder::new().without_gateways().listen("external", 9000);
    let mut trigate = builder
        .set("drain.timeout", "2s")
        .with(gateway("external", &[stream_listener("tcp", 9000, "TCP")]))
        .with_all(service("one", &[upstream.address]))
        .with(stream_route("TCPRoute", "route", "tcp", &[("one", 1)]))
        .start()
        .await;
    let mut open = Raw::connect(address).await;
    assert_eq!(open.exactly(3).await, b"one");
    trigate.terminate();
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(TcpStream::connect(address).await.is_err(), "the socket is closed");
    open.send("still here").await;
    assert!(open.closed_within(PATIENCE).await);
    assert!(trigate.ended(PATIENCE).await.success());
}

/// A listener of protocol TLS.
fn tls_listener(name: &str, hostname: &str, terminate: bool) -> Value {
    let mut listener = stream_listener(name, 8443, "TLS");
    listener["hostname"] = hostname.into();
    listener["tls"] = match terminate {
        true => json!({ "mode": "Terminate", "certificateRefs": [{ "name": "own" }] }),
        false => json!({ "mode": "Passthrough" }),
    };
    listener
}

fn tls_route(name: &str, section: &str, hostname: &str, service: &str) -> Value {
    let mut route = stream_route("TLSRoute", name, section, &[(service, 1)]);
    route["spec"]["hostnames"] = json!([hostname]);
    route
}

#[tokio::test]
async fn one_port_passes_through_and_terminates_by_server_name() {
    let backends = Authority::new();
    let sealed = tls_parrot("sealed", backends.leaf(&["*.pass.test"]).server(&[])).await;
    let (plain, app) = (parrot("plain").await, Upstream::echo("app").await);
    let (builder, address) = Builder::new().without_gateways().listen("external", 8443);
    let own = builder.leaf(&["*.end.test", "*.example.test"]);
    let mut https = https_listener("https", 8443, "*.example.test", "own");
    https["name"] = "https".into();
    let listeners =
        [tls_listener("pass", "*.pass.test", false), tls_listener("end", "*.end.test", true), https];
    let trigate = builder
        .with(gateway("external", &listeners))
        .with(secret("own", &own.chain_pem, &own.key_pem))
        .with_all(service("sealed", &[sealed.address]))
        .with_all(service("plain", &[plain.address]))
        .with_all(service("app", &[app.address]))
        .with(tls_route("pass", "pass", "a.pass.test", "sealed"))
        .with(tls_route("lost", "pass", "lost.pass.test", "missing"))
        .with(tls_route("end", "end", "*.end.test", "plain"))
        .with(route("app").on("external").host(HOST).to("app"))
        .start()
        .await;
    let through = converse_over_tls(address, backends.client(&[]), "a.pass.test").await;
    assert_eq!(through.expect("it is passed through"), "sealed a.pass.test!");
    let ended = converse_over_tls(address, trigate.authority.client(&[]), "b.end.test").await;
    assert_eq!(ended.expect("it is ended here"), "plain!");
    let stream = connect(address, trigate.authority.client(&["http/1.1"]), HOST).await.expect("it is served");
    let mut client = crate::harness::client::Client::http1_on(stream).await.expect("HTTP/1 is spoken");
    assert_eq!(client.send(crate::harness::client::Ask::get(HOST, "/")).await.status, 200);
    // Whoever is not served finds the connection closed, without an alert.
    for name in ["b.pass.test", "lost.pass.test", "other.test", "end.test"] {
        let failed = connect(address, trigate.authority.client(&[]), name).await.expect_err(name);
        assert_ne!(failed.kind(), io::ErrorKind::InvalidData, "{name}: {failed}");
    }
    let prefix = format!("envoy_tcp_prefix=\"tls-passthrough-{}\"", address.port());
    assert_eq!(trigate.metric("envoy_tcp_downstream_cx_no_route", &[&prefix]).await, 2.0);
}

#[tokio::test]
async fn a_hello_in_pieces_and_with_bytes_after_it_reaches_the_backend_whole() {
    let backends = Authority::new();
    let sealed = tls_parrot("sealed", backends.leaf(&["a.pass.test"]).server(&[])).await;
    let mut objects = service("sealed", &[sealed.address]);
    objects.push(tls_route("pass", "pass", "a.pass.test", "sealed"));
    let (_trigate, address) = serving(tls_listener("pass", "*.pass.test", false), objects).await;
    // A relay that sends what the client says in pieces.
    let relay = Upstream::raw(move |connection| async move {
        let mut out = TcpStream::connect(address).await.expect("somebody listens");
        out.set_nodelay(true).expect("a socket of ours");
        let (mut from, mut to) = connection.stream.into_split();
        let (mut back, mut forth) = out.split();
        let forward = async {
            let mut byte = [0; 97];
            while let Ok(n @ 1..) = from.read(&mut byte).await {
                forth.write_all(&byte[..n]).await?;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            forth.shutdown().await
        };
        let _ = tokio::join!(forward, tokio::io::copy(&mut back, &mut to));
    })
    .await;
    let said = converse_over_tls(relay.address, backends.client(&[]), "a.pass.test").await;
    assert_eq!(said.expect("it is passed through"), "sealed a.pass.test!");
}

#[tokio::test]
async fn a_terminated_stream_is_sealed_again_where_a_policy_asks_for_it() {
    let backends = Authority::new();
    let sealed = tls_parrot("sealed", backends.leaf(&["inner.test"]).server(&[])).await;
    let (builder, address) = Builder::new().without_gateways().listen("external", 8443);
    let own = builder.leaf(&["*.end.test"]);
    let trigate = builder
        .with(gateway("external", &[tls_listener("end", "*.end.test", true)]))
        .with(secret("own", &own.chain_pem, &own.key_pem))
        .with_all(service("sealed", &[sealed.address]))
        .with(tls_route("end", "end", "a.end.test", "sealed"))
        .with_all([authority("apps", "ca", &backends.pem()), backend_tls("p", "sealed", "ca", "inner.test")])
        .start()
        .await;
    let said = converse_over_tls(address, trigate.authority.client(&[]), "a.end.test").await;
    assert_eq!(said.expect("it is served"), "sealed inner.test!");
}

/// A UDP upstream that answers with its name and what it was told.
async fn udp_parrot(name: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a loopback address can be bound");
    let address = socket.local_addr().expect("it is bound");
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
            let answer = [name.as_bytes(), &buffer[..n]].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    (address, task)
}

/// A Service with a port for UDP, and its endpoint.
fn udp_service(name: &str, endpoint: SocketAddr) -> Vec<Value> {
    let mut objects = service(name, &[endpoint]);
    objects[0]["spec"]["ports"][0]["protocol"] = "UDP".into();
    objects[1]["ports"][0]["protocol"] = "UDP".into();
    objects
}

/// The answer to a datagram from a socket that talks to the gateway alone.
async fn ask(socket: &UdpSocket, question: &[u8]) -> Option<String> {
    socket.send(question).await.ok()?;
    let mut buffer = vec![0; 64 * 1024];
    let answer = tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut buffer)).await.ok()?;
    Some(String::from_utf8_lossy(&buffer[..answer.ok()?]).into_owned())
}

async fn udp_client(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a loopback address can be bound");
    // Answers from another address than the one that was asked would not come through.
    socket.connect(address).await.expect("an address");
    socket
}

#[tokio::test]
async fn udp_flows_keep_their_endpoint_and_weights_hold_between_them() {
    let ((one, _one), (two, _two)) = (udp_parrot("one").await, udp_parrot("two").await);
    let mut objects = udp_service("one", one);
    objects.extend(udp_service("two", two));
    objects.push(stream_route("UDPRoute", "route", "udp", &[("one", 7), ("two", 3)]));
    let (trigate, address) = serving(stream_listener("udp", 5353, "UDP"), objects).await;
    let mut counts = BTreeMap::<String, u32>::new();
    for _ in 0..200 {
        let client = udp_client(address).await;
        let first = ask(&client, b"?").await.expect("an answer");
        assert_eq!(ask(&client, b"?").await.as_ref(), Some(&first), "the flow stays");
        *counts.entry(first).or_default() += 1;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["one?", "two?"]);
    assert!(counts["one?"].abs_diff(140) < 40, "{counts:?}");
    let large = "x".repeat(30_000);
    let client = udp_client(address).await;
    assert_eq!(ask(&client, large.as_bytes()).await.map(|answer| answer.len()), Some(30_003));
    // The system may give a client the port of an earlier one, whose flow is still there.
    let flows = trigate.metric("envoy_udp_downstream_sess_total", &[]).await;
    assert!((150.0..=201.0).contains(&flows), "{flows}");
    assert_eq!(trigate.metric("envoy_udp_downstream_sess_rx_datagrams", &[]).await, 401.0);
}

#[tokio::test]
async fn a_udp_flow_follows_its_route_and_its_socket_goes_and_comes() {
    let ((one, _one), (two, _two)) = (udp_parrot("one").await, udp_parrot("two").await);
    let route = |service: &str| stream_route("UDPRoute", "route", "udp", &[(service, 1)]);
    let mut objects = udp_service("one", one);
    objects.extend(udp_service("two", two));
    objects.push(route("one"));
    let (trigate, address) = serving(stream_listener("udp", 5353, "UDP"), objects).await;
    let client = udp_client(address).await;
    assert_eq!(ask(&client, b"?").await.as_deref(), Some("one?"));
    trigate.apply(route("two"));
    let two = || async { ask(&client, b"?").await.filter(|answer| answer == "two?") };
    eventually("the other backend", two).await;
    trigate.apply(gateway("external", &[stream_listener("tcp", 9000, "TCP")]));
    eventually("the end of the socket", || async { UdpSocket::bind(address).await.ok().map(drop) }).await;
    trigate.apply(gateway("external", &[stream_listener("udp", 5353, "UDP")]));
    eventually("the socket is back", two).await;
}

#[tokio::test]
async fn tcp_and_udp_share_a_port_number() {
    let (upstream, (udp, _task)) = (parrot("tcp").await, udp_parrot("udp").await);
    let (builder, address) = Builder::new().without_gateways().listen("external", 53);
    let listeners = [stream_listener("tcp", 53, "TCP"), stream_listener("udp", 53, "UDP")];
    let _trigate = builder
        .with(gateway("external", &listeners))
        .with_all(service("tcp", &[upstream.address]))
        .with_all(udp_service("udp", udp))
        .with(stream_route("TCPRoute", "tcp", "tcp", &[("tcp", 1)]))
        .with(stream_route("UDPRoute", "udp", "udp", &[("udp", 1)]))
        .start()
        .await;
    assert_eq!(converse(address, "!").await.as_deref(), Some("tcp!"));
    assert_eq!(ask(&udp_client(address).await, b"?").await.as_deref(), Some("udp?"));
}
