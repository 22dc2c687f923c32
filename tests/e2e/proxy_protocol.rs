//! PROXY protocol: believed from a trusted peer on clear-text and TLS sockets, and from nobody else.

use crate::HOST;
use crate::harness::client::{Ask, Client, tls_on};
use crate::harness::manifest::{route, service};
use crate::harness::raw::Raw;
use crate::harness::trigate::{Builder, Sockets, Trigate};
use crate::harness::upstream::Upstream;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n";

fn v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x21, 0x11, 0, 12]);
    header.extend([203, 0, 113, 9, 192, 0, 2, 1]);
    header.extend(5555u16.to_be_bytes());
    header.extend(443u16.to_be_bytes());
    header
}

/// `LOCAL`: a health check of the balancer itself, without addresses.
fn v2_local() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20, 0, 0, 0]);
    header
}

/// `external` requires the header and trusts the test, `internal` takes it or leaves it, `tailscale` takes it
/// from strangers only, so from nobody here.
async fn gateways() -> (Trigate, Upstream) {
    let upstream = Upstream::echo("app").await;
    let mut builder = Builder::new();
    for (gateway, mode, trusted) in [
        ("external", "required", "127.0.0.0/8"),
        ("internal", "optional", "127.0.0.0/8"),
        ("tailscale", "optional", "10.0.0.0/8"),
    ] {
        builder = builder
            .set(&format!("gateways.{gateway}.proxy_protocol"), mode)
            .set(&format!("gateways.{gateway}.trusted_proxies"), vec![trusted.to_owned()]);
    }
    let trigate = builder
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").on("internal").on("tailscale").host(HOST).to("app"))
        .start()
        .await;
    (trigate, upstream)
}

async fn connect(sockets: Sockets, header: &[u8], tls: Option<&Trigate>) -> Client {
    let address = if tls.is_some() { sockets.https } else { sockets.http };
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    stream.write_all(header).await.expect("it is open");
    match tls {
        None => Client::http1_on(stream).await.expect("HTTP/1 is spoken"),
        Some(trigate) => {
            let stream = tls_on(trigate, stream, HOST, &["h2"]).await.expect("the name is served");
            Client::http2_on(stream).await.expect("HTTP/2 is spoken")
        }
    }
}

#[tokio::test]
async fn the_client_is_the_one_that_the_header_names() {
    let (trigate, _upstream) = gateways().await;
    for gateway in [trigate.external, trigate.internal] {
        for header in [V1.to_vec(), v2()] {
            for tls in [None, Some(&trigate)] {
                let seen = connect(gateway, &header, tls).await.send(Ask::get(HOST, "/")).await.seen();
                assert_eq!(
                    seen.all("x-forwarded-for"),
                    ["203.0.113.9"],
                    "tls: {}, {header:?}",
                    tls.is_some()
                );
            }
        }
    }
}

#[tokio::test]
async fn a_health_check_of_the_balancer_is_its_own_client() {
    let (trigate, _upstream) = gateways().await;
    for header in [v2_local(), b"PROXY UNKNOWN\r\n".to_vec()] {
        let seen = connect(trigate.external, &header, None).await.send(Ask::get(HOST, "/")).await.seen();
        assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"], "{header:?}");
    }
}

#[tokio::test]
async fn an_optional_header_may_be_missing() {
    let (trigate, _upstream) = gateways().await;
    for tls in [None, Some(&trigate)] {
        let seen = connect(trigate.internal, b"", tls).await.send(Ask::get(HOST, "/")).await.seen();
        assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    }
}

#[tokio::test]
async fn a_required_header_may_not_be_missing() {
    let (trigate, upstream) = gateways().await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(connection.closed_within(Duration::from_secs(5)).await);
    assert_eq!(upstream.accepted(), 0);
}

#[tokio::test]
async fn a_strangers_header_is_not_believed() {
    let (trigate, upstream) = gateways().await;
    for header in [V1.to_vec(), v2()] {
        let mut connection = Raw::connect(trigate.tailscale.http).await;
        connection
            .send([&header[..], format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()].concat())
            .await;
        let answer = connection.bytes_within(Duration::from_millis(500)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(upstream.accepted(), 0, "a request behind a lie went nowhere");
    let honest = connect(trigate.tailscale, b"", None).await.send(Ask::get(HOST, "/")).await.seen();
    assert_eq!(honest.all("x-forwarded-for"), ["127.0.0.1"]);
}

#[tokio::test]
async fn a_header_that_comes_byte_by_byte_is_put_together() {
    let (trigate, _upstream) = gateways().await;
    let mut stream = TcpStream::connect(trigate.external.http).await.expect("somebody listens");
    stream.set_nodelay(true).expect("a socket of ours");
    for byte in v2() {
        stream.write_all(&[byte]).await.expect("it is open");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut client = Client::http1_on(stream).await.expect("HTTP/1 is spoken");
    assert_eq!(client.send(Ask::get(HOST, "/")).await.seen().all("x-forwarded-for"), ["203.0.113.9"]);
}
