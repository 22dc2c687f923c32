//! TLS: certificates by server name, connections that carry only what their listener may, live replacement.

use crate::harness::certificate::Leaf;
use crate::harness::client::{Ask, Client, tls, tls_on};
use crate::harness::eventually;
use crate::harness::manifest::{gateway, http_listener, https_listener, route, secret, service};
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::Upstream;
use crate::{HOST, in_front_of};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::HandshakeKind;
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

async fn certificate_for(trigate: &Trigate, server_name: &str) -> CertificateDer<'static> {
    let stream = tls(trigate, trigate.external, server_name, &[]).await.expect("the name is served");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

/// `external` with these HTTPS listeners, each with a certificate for its own name, and one route for all hosts.
async fn listeners(hostnames: &[&str], any: &[&str]) -> (Trigate, Upstream, Vec<Leaf>) {
    let upstream = Upstream::echo("app").await;
    let mut builder = Builder::new().without_gateways();
    let (mut specs, mut leaves) = (vec![http_listener("http", 80)], Vec::new());
    for (index, hostname) in hostnames.iter().enumerate() {
        let names = if hostname.is_empty() { any } else { &[*hostname] };
        let leaf = builder.leaf(names);
        let name = format!("tls-{index}");
        specs.push(https_listener(&name, 443, hostname, &name));
        builder = builder.with(secret(&name, &leaf.chain_pem, &leaf.key_pem));
        leaves.push(leaf);
    }
    let trigate = builder
        .with(gateway("external", &specs))
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").to("app"))
        .start()
        .await;
    (trigate, upstream, leaves)
}

#[tokio::test]
async fn the_certificate_is_that_of_the_most_specific_listener() {
    let (trigate, _upstream, leaves) =
        listeners(&["*.example.test", "*.sub.example.test", "app.example.test"], &[]).await;
    for (name, leaf) in
        [("b.example.test", 0), ("a.sub.example.test", 1), ("app.example.test", 2), ("APP.example.test", 2)]
    {
        assert_eq!(certificate_for(&trigate, name).await, leaves[leaf].der, "{name}");
    }
}

#[tokio::test]
async fn a_name_that_no_listener_has_fails_the_handshake() {
    let (trigate, _upstream, _) = listeners(&["*.example.test", "exact.test"], &[]).await;
    for name in ["example.test", "other.test", "a.exact.test", ""] {
        let failed = tls(&trigate, trigate.external, name, &["h2"]).await;
        assert!(failed.is_err(), "{name:?} was served");
    }
}

#[tokio::test]
async fn a_listener_without_a_hostname_serves_every_other_name_and_none() {
    let any = ["other.test", "no-name.example.test"];
    let (trigate, _upstream, leaves) = listeners(&["", "exact.test"], &any).await;
    for (name, leaf) in [("other.test", 0), ("", 0), ("exact.test", 1)] {
        assert_eq!(certificate_for(&trigate, name).await, leaves[leaf].der, "{name:?}");
    }
    let stream = tls(&trigate, trigate.external, "", &["http/1.1"]).await.expect("it is served");
    let mut client = Client::http1_on(stream).await.expect("HTTP/1 is spoken");
    assert_eq!(client.send(Ask::get("other.test", "/")).await.status, 200);
}

#[tokio::test]
async fn a_connection_for_one_listener_is_misdirected_for_another() {
    // The table of the Gateway API's test for misdirected requests (GEP-3567).
    let any = ["first.test", "unknown.test"];
    let hostnames = ["", "second.test", "*.wild.test", "fourth.wild.test"];
    let (trigate, _upstream, _) = listeners(&hostnames, &any).await;
    for (server_name, host, status) in [
        ("first.test", "first.test", 200),
        ("first.test", "second.test", 421),
        ("first.test", "unknown.test", 200),
        ("second.test", "second.test", 200),
        ("second.test", "first.test", 421),
        ("second.test", "unknown.test", 421),
        ("third.wild.test", "third.wild.test", 200),
        ("third.wild.test", "fifth.wild.test", 200),
        ("third.wild.test", "fourth.wild.test", 421),
        ("third.wild.test", "second.test", 421),
        ("fourth.wild.test", "fourth.wild.test", 200),
        ("fourth.wild.test", "fifth.wild.test", 421),
        ("unknown.test", "first.test", 200),
    ] {
        let mut http2 = Client::https2(&trigate, trigate.external, server_name).await;
        let mut http1 = Client::https1(&trigate, trigate.external, server_name).await;
        for client in [&mut http2, &mut http1] {
            let answer = client.send(Ask::get(host, "/")).await;
            assert_eq!(answer.status, status, "{server_name} asked for {host}");
            let again = client.send(Ask::get(server_name, "/")).await;
            assert_eq!(again.status, 200, "the connection for {server_name} goes on");
        }
    }
}

#[tokio::test]
async fn a_tunnel_sends_every_host_under_one_name() {
    // cloudflared with originServerName: one TLS connection, SNI external.example.test, all hosts.
    let (one, two) = (Upstream::echo("one").await, Upstream::echo("two").await);
    let mut objects = service("one", &[one.address]);
    objects.extend(service("two", &[two.address]));
    objects.push(route("one").on("external").host("app1.example.test").to("one").object());
    objects.push(route("two").on("external").host("app2.example.test").to("two").object());
    let trigate = Trigate::serving(objects).await;
    let mut tunnel = Client::https2(&trigate, trigate.external, "external.example.test").await;
    for _ in 0..3 {
        assert_eq!(tunnel.send(Ask::get("app1.example.test", "/")).await.seen().upstream, "one");
        assert_eq!(tunnel.send(Ask::get("app2.example.test", "/")).await.seen().upstream, "two");
        assert_eq!(tunnel.send(Ask::get("nobody.example.test", "/")).await.status, 404);
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_sessions_resume() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(trigate.authority.client_of_version(version));
        let mut kinds = Vec::new();
        for _ in 0..4 {
            let stream = TcpStream::connect(trigate.external.https).await.expect("somebody listens");
            let name = ServerName::try_from(HOST).expect("a name");
            let stream =
                TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
            kinds.push(stream.get_ref().1.handshake_kind());
            let mut client = Client::http1_on(stream).await.expect("HTTP/1 is spoken");
            // Tickets come with the first bytes of the answer.
            assert_eq!(client.send(Ask::get(HOST, "/")).await.status, 200);
        }
        assert_eq!(kinds[0], Some(HandshakeKind::Full), "{version:?}");
        assert!(kinds[1..].contains(&Some(HandshakeKind::Resumed)), "{version:?}: {kinds:?}");
    }
}

#[tokio::test]
async fn a_secret_may_hold_its_pair_in_base64() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new().without_gateways();
    let leaf = builder.leaf(&["*.example.test"]);
    let mut encoded = secret("wildcard", "", "");
    encoded.as_object_mut().expect("an object").remove("stringData");
    encoded["data"]["tls.crt"] = STANDARD.encode(&leaf.chain_pem).into();
    encoded["data"]["tls.key"] = STANDARD.encode(&leaf.key_pem).into();
    let trigate = builder
        .with(gateway("external", &[https_listener("https", 443, "", "wildcard")]))
        .with(encoded)
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").to("app"))
        .start()
        .await;
    assert_eq!(certificate_for(&trigate, HOST).await, leaf.der);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_under_handshakes_and_none_fails() {
    let upstream = Upstream::echo("app").await;
    let trigate = Arc::new(in_front_of(&upstream).await);
    let before = certificate_for(&trigate, HOST).await;
    let mut old = Client::https2(&trigate, trigate.external, HOST).await;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let handshakes: Vec<_> = (0..4)
        .map(|_| {
            let (trigate, stop, count) = (Arc::clone(&trigate), Arc::clone(&stop), Arc::clone(&count));
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let mut client = Client::https1(&trigate, trigate.external, HOST).await;
                    assert_eq!(client.send(Ask::get(HOST, "/")).await.status, 200);
                    count.fetch_add(1, Relaxed);
                    tokio::time::sleep(Duration::from_millis(15)).await;
                }
            })
        })
        .collect();
    let mut last = before.clone();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let leaf = trigate.authority.leaf(&["*.example.test"]);
        trigate.apply(secret("wildcard", &leaf.chain_pem, &leaf.key_pem));
        let new = || async { (certificate_for(&trigate, HOST).await == leaf.der).then_some(()) };
        let ((), took) = eventually("the new certificate", new).await;
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        assert_ne!(last, leaf.der);
        last = leaf.der;
    }
    stop.store(true, Relaxed);
    for handshake in handshakes {
        handshake.await.expect("no handshake failed");
    }
    assert!(count.load(Relaxed) > 10, "there were {} handshakes", count.load(Relaxed));
    assert_eq!(old.send(Ask::get(HOST, "/")).await.status, 200, "the old connection is alive");
}

#[tokio::test]
async fn a_broken_secret_leaves_the_old_pair_in_place() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let before = certificate_for(&trigate, HOST).await;
    let other = trigate.authority.leaf(&["*.example.test"]);
    let good = trigate.authority.leaf(&["*.example.test"]);
    for (chain, key) in [("no PEM at all", "neither"), (good.chain_pem.as_str(), other.key_pem.as_str())] {
        trigate.apply(secret("wildcard", chain, key));
        // Another change that is seen after it proves that the broken one has been read.
        let marker = format!("marker-{}", chain.len());
        trigate.apply(route(&marker).on("external").host(&format!("{marker}.test")).to("app"));
        trigate.until_status(trigate.external.http, &format!("{marker}.test"), "/", 200).await;
        assert_eq!(certificate_for(&trigate, HOST).await, before);
    }
    trigate.apply(secret("wildcard", &good.chain_pem, &good.key_pem));
    eventually("the good pair", || async {
        (certificate_for(&trigate, HOST).await == good.der).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let trigate = Builder::new().set("limits.handshake_timeout", "300ms").start().await;
    let start = Instant::now();
    let mut silent = crate::harness::raw::Raw::connect(trigate.external.https).await;
    assert!(silent.closed_within(Duration::from_secs(5)).await);
    assert!(start.elapsed() >= Duration::from_millis(200));
    let stream = TcpStream::connect(trigate.external.https).await.expect("somebody listens");
    tls_on(&trigate, stream, HOST, &[]).await.expect("others are served");
}

#[tokio::test]
async fn clear_text_on_a_tls_socket_is_refused() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = crate::harness::raw::Raw::connect(trigate.external.https).await;
    connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(
        connection.closed_within(Duration::from_secs(5)).await
            || !connection.rest().await.starts_with(b"HTTP")
    );
    assert_eq!(upstream.accepted(), 0);
}
