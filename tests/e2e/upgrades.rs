//! WebSocket and other upgrades: a connection becomes a tunnel when the upstream agrees, and only then.

use crate::harness::certificate::Leaf;
use crate::harness::client::{Ask, tls};
use crate::harness::manifest::{route, service, service_speaking};
use crate::harness::raw::Raw;
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::{Upstream, full, response};
use crate::harness::{eventually, soon};
use crate::{HOST, in_front_of};
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// Echoes all messages of a WebSocket; a request without one gets 200.
async fn websocket_echo() -> Upstream {
    Upstream::serve(|mut request: Request<Incoming>| async move {
        let Some(key) = request.headers().get("sec-websocket-key").cloned() else {
            return Response::new(full("no WebSocket"));
        };
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.expect("the gateway upgrades");
            let mut socket =
                WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                // Pings and closes are answered by the library.
                let echoed = message.is_text() || message.is_binary();
                if echoed && socket.send(message).await.is_err() {
                    break;
                }
            }
        });
        Response::builder()
            .status(101)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", derive_accept_key(key.as_bytes()))
            .body(full(""))
            .expect("valid headers")
    })
    .await
}

async fn open<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Result<WebSocketStream<S>, Error> {
    soon("a WebSocket", client_async(format!("ws://{HOST}/socket"), stream)).await.map(|(socket, _)| socket)
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    for message in [
        Message::text("hello"),
        Message::binary(vec![7; 300_000]),
        Message::text(""),
        Message::Ping(b"are you there".to_vec().into()),
    ] {
        socket.send(message.clone()).await.expect("it is open");
        let answer = soon("an echo", socket.next()).await.expect("it is open").expect("a message");
        match message {
            Message::Ping(sent) => assert_eq!(answer, Message::Pong(sent)),
            sent => assert_eq!(answer, sent),
        }
    }
    let bye = CloseFrame { code: CloseCode::Away, reason: "enough".into() };
    socket.send(Message::Close(Some(bye.clone()))).await.expect("it is open");
    let answer = soon("a goodbye", socket.next()).await.expect("an answer").expect("a message");
    assert_eq!(answer, Message::Close(Some(bye)));
}

#[tokio::test]
async fn a_websocket_echoes_in_clear_text() {
    let upstream = websocket_echo().await;
    let trigate = in_front_of(&upstream).await;
    let stream = TcpStream::connect(trigate.external.http).await.expect("somebody listens");
    converse(open(stream).await.expect("a WebSocket")).await;
}

#[tokio::test]
async fn a_websocket_echoes_over_tls() {
    let upstream = websocket_echo().await;
    let trigate = in_front_of(&upstream).await;
    let stream = tls(&trigate, trigate.external, HOST, &["http/1.1"]).await.expect("the name is served");
    converse(open(stream).await.expect("a WebSocket")).await;
}

#[tokio::test]
async fn a_service_that_says_ws_serves_websockets_and_plain_requests() {
    let upstream = websocket_echo().await;
    let mut objects = service_speaking("app", &[upstream.address], Some("kubernetes.io/ws"));
    objects.push(route("app").on("external").host(HOST).to("app").object());
    let trigate = Trigate::serving(objects).await;
    let stream = TcpStream::connect(trigate.external.http).await.expect("somebody listens");
    converse(open(stream).await.expect("a WebSocket")).await;
    assert_eq!(trigate.external.ask(Ask::get(HOST, "/")).await.text(), "no WebSocket");
}

#[tokio::test]
async fn an_upstream_may_refuse_an_upgrade_and_the_connection_goes_on() {
    let upstream = Upstream::recording(|request| match request.header("upgrade") {
        Some(_) => response(403, "no sockets here"),
        None => response(200, "plain"),
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for _ in 0..3 {
        connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{upgrade}\r\n")).await;
        let refused = soon("an answer", connection.response()).await.expect("an answer");
        assert_eq!((refused.status(), refused.text().as_str()), (403, "no sockets here"));
        connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let plain = soon("an answer", connection.response()).await.expect("an answer");
        assert_eq!((plain.status(), plain.text().as_str()), (200, "plain"));
    }
}

#[tokio::test]
async fn another_protocol_is_tunnelled_in_both_directions_until_either_side_ends() {
    let upstream = Upstream::raw(|mut connection| async move {
        let request = connection.request().await.expect("a request");
        assert_eq!(request.header("upgrade"), Some("x-lines"));
        connection
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x-lines\r\n\r\nfirst")
            .await;
        let heard = connection.exactly(6).await;
        connection.send([b"heard ", &heard[..]].concat()).await;
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection
        .send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: x-lines\r\n\r\n"))
        .await;
    let switched = soon("101", connection.response()).await.expect("an answer");
    assert_eq!((switched.status(), switched.header("upgrade")), (101, Some("x-lines")));
    assert_eq!(soon("the first bytes", connection.exactly(5)).await, b"first");
    connection.send("second").await;
    assert_eq!(soon("the rest", connection.rest()).await, b"heard second");
}

#[tokio::test]
async fn a_websocket_outlives_the_timeouts_of_its_rule() {
    let upstream = websocket_echo().await;
    let mut objects = service("app", &[upstream.address]);
    let rule = json!({
        "timeouts": { "request": "400ms", "backendRequest": "300ms" },
        "backendRefs": [{ "name": "app", "port": 80 }],
    });
    objects.push(route("app").on("external").host(HOST).rule(rule).object());
    let trigate = Trigate::serving(objects).await;
    let stream = TcpStream::connect(trigate.external.http).await.expect("somebody listens");
    let socket = open(stream).await.expect("a WebSocket");
    tokio::time::sleep(Duration::from_millis(1000)).await;
    converse(socket).await;
}

#[tokio::test]
async fn a_backend_with_a_certificate_that_nobody_signed_is_reached_by_name_when_nobody_is_to_verify_it() {
    let leaf = Leaf::self_signed(&["unifi.lan"]);
    let acceptor = TlsAcceptor::from(Arc::new(leaf.server(&["http/1.1"])));
    let plain = websocket_echo().await;
    let (inner, listener) = (plain.address, TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that verifies hangs up here.
                let Ok(mut outer) = acceptor.accept(stream).await else { return };
                let mut inner = TcpStream::connect(inner).await.expect("it listens");
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    let backend = |tls: serde_json::Value| {
        json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
            "metadata": { "name": "unifi", "namespace": "apps" },
            "spec": {
                "endpoints": [{ "fqdn": { "hostname": "unifi.localhost", "port": port } }],
                "appProtocols": ["gateway.envoyproxy.io/wss"], "tls": tls,
            },
        })
    };
    let rule =
        json!({ "backendRefs": [{ "group": "gateway.envoyproxy.io", "kind": "Backend", "name": "unifi" }] });
    let route = route("unifi").on("external").host(HOST).rule(rule).object();
    let objects = [backend(json!({ "insecureSkipVerify": true })), route];
    let trigate = Builder::new().set("access_log.enabled", true).with_all(objects).start().await;
    trigate.until_status(trigate.external.http, HOST, "/", 200).await;
    assert_eq!(trigate.external.get(HOST, "/").await.text(), "no WebSocket");
    let stream = TcpStream::connect(trigate.external.http).await.expect("somebody listens");
    converse(open(stream).await.expect("a WebSocket")).await;
    trigate.apply(backend(json!({ "wellKnownCACertificates": "System" })));
    trigate.until_status(trigate.external.http, HOST, "/", 502).await;
    // The log says why: for whom the certificate is no good, and what is wrong with it.
    eventually("the reason", || async { trigate.log().contains("invalid_peer_certificate").then_some(()) })
        .await;
}
