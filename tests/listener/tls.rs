//! Handshakes: which certificate answers, what is agreed on, what is remembered, what is refused.

use crate::client::{certificate, certificate_with, client, client_of, handshake};
use crate::rig::{Rig, Setup, ask, ends, soon, until};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{AlertDescription, ClientConfig, Error, HandshakeKind, NamedGroup, SignatureScheme, version};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use trigate::config::Limits;
use trigate::tls::Certificate;

fn rig() -> Rig {
    Rig::echo(Setup { tls: true, ..Setup::default() })
}

async fn connect(rig: &Rig, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    handshake(config, name, rig.connect().await).await
}

/// Whether the server showed this certificate.
fn shown(stream: &TlsStream<TcpStream>, certificate: &Certificate) -> bool {
    stream.get_ref().1.peer_certificates().unwrap()[0] == certificate.key.cert[0]
}

async fn alert(rig: &Rig, config: &Arc<ClientConfig>, name: &str) -> AlertDescription {
    let error = connect(rig, config, name).await.expect_err("the handshake fails");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => *alert,
        other => panic!("{name}: no alert but {other:?}: {error}"),
    }
}

#[tokio::test]
async fn the_server_name_chooses_the_listener_and_is_passed_on() {
    let mut rig = rig();
    let (exact, wildcard) = (certificate(&["a.w.test"]), certificate(&["*.w.test"]));
    rig.listeners(&[("*.w.test", &[&wildcard]), ("a.w.test", &[&exact])]);
    let config = Arc::new(client(&[&exact, &wildcard]));
    for (name, want, passed_on) in [
        ("a.w.test", &exact, "a.w.test"),
        ("b.w.test", &wildcard, "b.w.test"),
        ("A.W.Test", &exact, "a.w.test"),
    ] {
        let mut stream = connect(&rig, &config, name).await.unwrap();
        assert!(shown(&stream, want), "{name}");
        ask(&mut stream, b"hello").await;
        assert_eq!(rig.served().await.server_name.as_deref(), Some(passed_on));
    }
}

#[tokio::test]
async fn a_name_of_no_listener_and_no_name_at_all_are_refused_as_unrecognized() {
    let mut rig = rig();
    let certificate = certificate(&["a.test", "127.0.0.1"]);
    rig.listeners(&[("a.test", &[&certificate])]);
    let config = Arc::new(client(&[&certificate]));
    for name in ["b.test", "a.a.test", "127.0.0.1"] {
        assert_eq!(alert(&rig, &config, name).await, AlertDescription::UnrecognisedName, "{name}");
    }
    assert!(connect(&rig, &config, "a.test").await.is_ok());
    assert_eq!(rig.served().await.server_name.as_deref(), Some("a.test"));
    until(|| rig.options.stats.sum(|shard| shard.no_filter_chain_match.get()) == 3).await;
}

#[tokio::test]
async fn a_listener_without_hostname_serves_clients_without_server_name() {
    let mut rig = rig();
    let certificate = certificate(&["a.test", "127.0.0.1"]);
    rig.listeners(&[("*", &[&certificate])]);
    let config = Arc::new(client(&[&certificate]));
    connect(&rig, &config, "127.0.0.1").await.unwrap();
    assert_eq!(rig.served().await.server_name.as_deref(), Some(""));
}

#[tokio::test]
async fn a_listener_without_certificate_fails_alone() {
    let rig = rig();
    let certificate = certificate(&["a.test", "b.test"]);
    rig.listeners(&[("a.test", &[&certificate]), ("b.test", &[])]);
    let config = Arc::new(client(&[&certificate]));
    assert_eq!(alert(&rig, &config, "b.test").await, AlertDescription::HandshakeFailure);
    assert!(connect(&rig, &config, "a.test").await.is_ok());
}

#[tokio::test]
async fn several_certificates_of_a_listener_are_told_apart_by_their_names() {
    let rig = rig();
    let first = certificate(&["z.test", "x.y.w.test"]);
    let (exact, wildcard) = (certificate(&["a.w.test"]), certificate(&["*.w.test"]));
    rig.listeners(&[("*", &[&first, &wildcard, &exact])]);
    let config = Arc::new(client(&[&first, &exact, &wildcard]));
    for (name, want) in
        [("a.w.test", &exact), ("b.w.test", &wildcard), ("z.test", &first), ("x.y.w.test", &first)]
    {
        assert!(shown(&connect(&rig, &config, name).await.unwrap(), want), "{name}");
    }
}

#[tokio::test]
async fn one_name_with_two_keys_is_served_with_the_key_that_the_client_can_verify() {
    let rig = rig();
    let rsa = certificate_with(&["a.test"], &rcgen::PKCS_RSA_SHA256);
    let ecdsa = certificate(&["a.test"]);
    rig.listeners(&[("a.test", &[&rsa, &ecdsa])]);
    let modern = Arc::new(client(&[&rsa, &ecdsa]));
    assert!(shown(&connect(&rig, &modern, "a.test").await.unwrap(), &ecdsa));

    let mut algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let rsa_only: Vec<_> = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| format!("{scheme:?}").starts_with("RSA"))
        .copied()
        .collect();
    assert!(rsa_only.iter().any(|(scheme, _)| *scheme == SignatureScheme::RSA_PSS_SHA256));
    algorithms.mapping = rsa_only.leak();
    let provider =
        CryptoProvider { signature_verification_algorithms: algorithms, ..aws_lc_rs::default_provider() };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rsa.key.cert[0].clone()).unwrap();
    let old = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert!(shown(&connect(&rig, &Arc::new(old), "a.test").await.unwrap(), &rsa));
}

#[tokio::test]
async fn http2_is_agreed_on_with_who_offers_it() {
    let mut rig = rig();
    let certificate = certificate(&["a.test"]);
    rig.listeners(&[("a.test", &[&certificate])]);
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let mut config = client(&[&certificate]);
        config.alpn_protocols = offered.iter().map(|&protocol| protocol.into()).collect();
        let stream = connect(&rig, &Arc::new(config), "a.test").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
        assert_eq!(rig.served().await.http2, agreed == Some("h2"));
    }
    let mut config = client(&[&certificate]);
    config.alpn_protocols = vec![b"spdy/3".to_vec()];
    assert_eq!(alert(&rig, &Arc::new(config), "a.test").await, AlertDescription::NoApplicationProtocol);
}

#[tokio::test]
async fn sessions_are_resumed_across_a_rebuild_and_by_any_worker() {
    for version in [&version::TLS13, &version::TLS12] {
        let mut rig = Rig::echo(Setup { tls: true, workers: 2, ..Setup::default() });
        let (stays, other) = (certificate(&["a.test"]), certificate(&["b.test"]));
        rig.listeners(&[("a.test", &[&stays])]);
        let config = Arc::new(client_of(&[&stays], &[version]));
        let mut kinds = Vec::new();
        for listeners in [1, 1, 2, 1, 2] {
            let of_a: &[&Arc<Certificate>] = &[&stays];
            rig.listeners(&[("a.test", of_a), ("b.test", &[&other])][..listeners]);
            let mut stream = connect(&rig, &config, "a.test").await.unwrap();
            // Tickets come with the first answer.
            ask(&mut stream, b"hello").await;
            kinds.push(stream.get_ref().1.handshake_kind().unwrap());
            rig.served().await;
        }
        assert_eq!(kinds[0], HandshakeKind::Full);
        assert!(kinds[1..].iter().all(|&kind| kind == HandshakeKind::Resumed), "{version:?}: {kinds:?}");
        until(|| rig.options.stats.sum(|shard| shard.ssl_handshake.get()) == 5).await;
        until(|| rig.options.stats.sum(|shard| shard.ssl_session_reused.get()) == 4).await;
    }
}

#[tokio::test]
async fn a_session_is_good_for_its_own_name_only() {
    let rig = rig();
    let certificate = certificate(&["a.test", "b.test"]);
    rig.listeners(&[("a.test", &[&certificate]), ("b.test", &[&certificate])]);
    // A client that offers every session to every name, as no honest one does.
    let config = Arc::new(client(&[&certificate]));
    for (name, kind) in
        [("a.test", HandshakeKind::Full), ("b.test", HandshakeKind::Full), ("a.test", HandshakeKind::Resumed)]
    {
        let mut stream = connect(&rig, &config, name).await.unwrap();
        ask(&mut stream, b"hello").await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{name}");
    }
}

#[tokio::test]
async fn a_certificate_is_replaced_while_a_connection_goes_on() {
    let rig = rig();
    let (old, new) = (certificate(&["a.test"]), certificate(&["a.test"]));
    rig.listeners(&[("a.test", &[&old])]);
    let mut before = connect(&rig, &Arc::new(client(&[&old, &new])), "a.test").await.unwrap();
    rig.listeners(&[("a.test", &[&new])]);
    let after = connect(&rig, &Arc::new(client(&[&old, &new])), "a.test").await.unwrap();
    assert!(shown(&before, &old) && shown(&after, &new));
    assert_eq!(ask(&mut before, b"still here").await, b"still here");
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum() {
    let rig = rig();
    let certificate = certificate(&["a.test"]);
    rig.listeners(&[("a.test", &[&certificate])]);
    let stream = connect(&rig, &Arc::new(client(&[&certificate])), "a.test").await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_hello_that_is_too_large_or_too_slow_or_no_tls_ends_the_connection() {
    let limits = Limits { handshake_timeout: Duration::from_millis(200), ..Limits::default() };
    let mut rig = Rig::echo(Setup { tls: true, limits, ..Setup::default() });
    let certificate = certificate(&["a.test"]);
    rig.listeners(&[("a.test", &[&certificate])]);

    // Records of a handshake message that claims 60,000 bytes.
    let mut large = vec![22, 3, 1, 0x3f, 0xff, 1, 0, 0xea, 0x60];
    large.resize(5 + 0x3fff, 0);
    let mut stream = rig.connect().await;
    for _ in 0..4 {
        let _ = stream.write_all(&large).await;
        large[5..9].fill(0);
    }
    assert!(ends(&mut stream).await);

    // A look whether the port is open; it is no error.
    drop(rig.connect().await);

    let mut silent = rig.connect().await;
    assert!(ends(&mut silent).await);
    until(|| rig.options.stats.sum(|shard| shard.handshake_timeout.get()) == 1).await;

    let mut plain = rig.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = soon(plain.read_to_end(&mut said)).await;
    assert!(said.first().is_none_or(|&kind| kind == 21), "an alert or nothing: {said:?}");
    assert!(rig.served_no_more());
    until(|| rig.options.stats.sum(|shard| shard.ssl_connection_error.get()) == 2).await;
}

#[tokio::test]
async fn early_data_is_not_accepted() {
    let rig = rig();
    let certificate = certificate(&["a.test"]);
    rig.listeners(&[("a.test", &[&certificate])]);
    let mut config = client(&[&certificate]);
    config.enable_early_data = true;
    let config = Arc::new(config);
    ask(&mut connect(&rig, &config, "a.test").await.unwrap(), b"hello").await;
    let mut again = rustls::ClientConnection::new(config, "a.test".try_into().unwrap()).unwrap();
    assert!(again.early_data().is_none(), "the ticket allows none");
}
