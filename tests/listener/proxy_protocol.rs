//! PROXY headers: who is believed, what a connection looks like after one, and what is refused.

use crate::client::{certificate, client, handshake};
use crate::rig::{Rig, Setup, ask, ends, until};
use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use trigate::config::{Limits, ProxyProtocol};

const CLIENT: &str = "203.0.113.7:1234";
const ASKED: &str = "198.51.100.1:443";
const CLIENT6: &str = "[2001:db8::7]:1234";
const ASKED6: &str = "[2001:db8::1]:443";

/// The loopback interface is a balancer in front of us, or it is not.
fn setup(mode: ProxyProtocol, trusted: bool) -> Setup {
    let network = if trusted { "127.0.0.0/8" } else { "192.0.2.0/24" };
    Setup { proxy_protocol: mode, trusted: vec![network.parse().unwrap()], ..Setup::default() }
}

fn addresses(client: &str, asked: &str) -> ProxyHeader<'static> {
    ProxyHeader::with_address(ProxiedAddress::stream(client.parse().unwrap(), asked.parse().unwrap()))
}

fn v1(header: &ProxyHeader<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode_v1(&mut bytes).unwrap();
    bytes
}

fn v2(header: &ProxyHeader<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode_v2(&mut bytes).unwrap();
    bytes
}

fn v2_with_extensions() -> Vec<u8> {
    let mut header = addresses(CLIENT, ASKED);
    header.append_tlv(Tlv::Authority("a.test".into()));
    header.append_tlv(Tlv::Noop(700));
    v2(&header)
}

#[tokio::test]
async fn a_trusted_peer_names_the_client() {
    for mode in [ProxyProtocol::Optional, ProxyProtocol::Required] {
        let mut rig = Rig::echo(setup(mode, true));
        for (header, client, asked) in [
            (v1(&addresses(CLIENT, ASKED)), CLIENT, ASKED),
            (v1(&addresses(CLIENT6, ASKED6)), CLIENT6, ASKED6),
            (v2(&addresses(CLIENT, ASKED)), CLIENT, ASKED),
            (v2(&addresses(CLIENT6, ASKED6)), CLIENT6, ASKED6),
            (v2_with_extensions(), CLIENT, ASKED),
            (v1(&addresses("[::ffff:203.0.113.7]:1234", "[::ffff:198.51.100.1]:443")), CLIENT, ASKED),
        ] {
            let mut stream = rig.connect().await;
            stream.write_all(&header).await.unwrap();
            assert_eq!(ask(&mut stream, b"GET /").await, b"GET /");
            let connection = rig.served().await;
            assert_eq!(connection.peer, client.parse().unwrap(), "{header:?}");
            assert_eq!(connection.local, asked.parse::<SocketAddr>().unwrap(), "{header:?}");
        }
    }
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte_or_with_what_follows_it() {
    let mut rig = Rig::echo(setup(ProxyProtocol::Required, true));
    for header in [v1(&addresses(CLIENT, ASKED)), v2_with_extensions()] {
        let mut slow = rig.connect().await;
        slow.set_nodelay(true).unwrap();
        for byte in header.chunks(1).take(60).chain(header.chunks(200).skip(60)) {
            slow.write_all(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
        let rest: &[u8] = if header.len() > 60 { &header[60..] } else { b"" };
        slow.write_all(rest).await.unwrap();
        assert_eq!(ask(&mut slow, b"GET /").await, b"GET /");
        assert_eq!(rig.served().await.peer, CLIENT.parse().unwrap());

        let mut fast = rig.connect().await;
        fast.write_all(&[&header[..], b"GET"].concat()).await.unwrap();
        let mut answer = [0; 3];
        tokio::io::AsyncReadExt::read_exact(&mut fast, &mut answer).await.unwrap();
        assert_eq!(&answer, b"GET");
        assert_eq!(rig.served().await.peer, CLIENT.parse().unwrap());
    }
}

#[tokio::test]
async fn a_balancer_that_speaks_for_itself_keeps_its_own_address() {
    let mut rig = Rig::echo(setup(ProxyProtocol::Required, true));
    for header in [v1(&ProxyHeader::with_local()), v2(&ProxyHeader::with_local())] {
        let mut stream = rig.connect().await;
        stream.write_all(&header).await.unwrap();
        assert_eq!(ask(&mut stream, b"HEAD /").await, b"HEAD /");
        let connection = rig.served().await;
        assert_eq!(connection.peer, stream.local_addr().unwrap());
        assert_eq!(connection.local, rig.address);
    }
}

#[tokio::test]
async fn what_an_untrusted_peer_sends_is_not_looked_at() {
    let mut rig = Rig::echo(setup(ProxyProtocol::Optional, false));
    let header = v1(&addresses(CLIENT, ASKED));
    let mut stream = rig.connect().await;
    assert_eq!(ask(&mut stream, &header).await, header);
    assert_eq!(rig.served().await.peer, stream.local_addr().unwrap());
}

#[tokio::test]
async fn where_headers_are_required_an_untrusted_peer_is_refused() {
    let mut rig = Rig::echo(setup(ProxyProtocol::Required, false));
    let mut stream = rig.connect().await;
    stream.write_all(&v1(&addresses(CLIENT, ASKED))).await.unwrap();
    assert!(ends(&mut stream).await);
    assert!(rig.served_no_more());
}

#[tokio::test]
async fn where_headers_are_optional_a_trusted_peer_may_do_without() {
    let mut rig = Rig::echo(setup(ProxyProtocol::Optional, true));
    for (first, rest) in [("P", "OST / HTTP/1.1"), ("PRI", " * HTTP/2.0"), ("\r\n", "GET /"), ("G", "ET /")] {
        let mut stream = rig.connect().await;
        stream.set_nodelay(true).unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        stream.write_all(rest.as_bytes()).await.unwrap();
        let mut answer = vec![0; first.len() + rest.len()];
        crate::rig::soon(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer)).await.unwrap();
        assert_eq!(answer, [first.as_bytes(), rest.as_bytes()].concat());
        assert_eq!(rig.served().await.peer, stream.local_addr().unwrap());
    }
}

#[tokio::test]
async fn what_is_no_header_or_a_broken_or_endless_one_is_refused() {
    let mut rig = Rig::echo(setup(ProxyProtocol::Required, true));
    let signature = &v2(&ProxyHeader::with_local())[..12];
    let endless_v1 = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    let huge_v2 = [signature, &[0x21, 0x11, 0xff, 0xff], &[0; 4000]].concat();
    let datagram = [signature, &[0x21, 0x12, 0, 12], &[1; 12]].concat();
    for refused in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        b"PROXY TCP9 1.1.1.1 2.2.2.2 3 4\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 3 99999\r\n",
        &endless_v1,
        &huge_v2,
        &datagram,
    ] {
        let mut stream = rig.connect().await;
        let _ = stream.write_all(refused).await;
        assert!(ends(&mut stream).await, "{refused:?}");
    }
    assert!(rig.served_no_more());
    let stats = rig.options.stats.clone();
    until(|| stats.sum(|shard| shard.listener_filter_error.get()) == 6).await;
    until(|| stats.sum(|shard| shard.pre_cx_active.get()) == 0).await;
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for_long() {
    let limits = Limits { handshake_timeout: Duration::from_millis(50), ..Limits::default() };
    let mut rig = Rig::echo(Setup { limits, ..setup(ProxyProtocol::Required, true) });
    let mut stream = rig.connect().await;
    stream.write_all(b"PROXY TCP4").await.unwrap();
    assert!(ends(&mut stream).await);
    assert!(rig.served_no_more());
}

#[tokio::test]
async fn tls_begins_after_the_header() {
    let mut rig = Rig::echo(Setup { tls: true, ..setup(ProxyProtocol::Optional, true) });
    let certificate = certificate(&["a.test"]);
    rig.listeners(&[("a.test", &[&certificate])]);
    let config = std::sync::Arc::new(client(&[&certificate]));
    for header in [v1(&addresses(CLIENT, ASKED)), v2_with_extensions(), Vec::new()] {
        let mut stream = rig.connect().await;
        stream.write_all(&header).await.unwrap();
        let peer = if header.is_empty() { stream.local_addr().unwrap() } else { CLIENT.parse().unwrap() };
        let mut stream = handshake(&config, "a.test", stream).await.unwrap();
        assert_eq!(ask(&mut stream, b"GET /").await, b"GET /");
        assert_eq!(rig.served().await.peer, peer);
    }
}
