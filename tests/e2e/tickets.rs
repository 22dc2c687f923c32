//! Sessions that are resumed: by another replica, for as long as a ticket is good, and only by whom they are of.

use crate::HOST;
use crate::harness::certificate::Authority;
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::harness::manifest::{authority, gateway, https_listener, route, secret, service};
use crate::harness::openssl::openssl;
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::Upstream;
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

const SECRET: &str = "Hn0mTz0aQ7vY0yJ5mE2rYk8pXo3LwQd1";

/// One request over a new connection, and how its handshake went.
async fn visit(trigate: &Trigate, config: &Arc<ClientConfig>) -> HandshakeKind {
    answered(trigate.external.https, config).await.expect("a handshake and an answer")
}

/// The same of any socket; `None` where the client is not let in.
async fn answered(socket: SocketAddr, config: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let stream = TcpStream::connect(socket).await.expect("somebody listens");
    let name = ServerName::try_from(HOST).expect("a name");
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.ok()?;
    let kind = stream.get_ref().1.handshake_kind().expect("it is done");
    // Tickets come with the first bytes of the answer.
    let mut client = Client::http1_on(stream).await.ok()?;
    assert_eq!(client.try_send(Ask::get(HOST, "/")).await.ok()?.status, 200);
    Some(kind)
}

/// A gateway that serves [`HOST`] with this certificate.
fn replica(builder: Builder, certificate: &Value, upstream: &Upstream) -> Builder {
    builder
        .without_gateways()
        .with(certificate.clone())
        .with(gateway("external", &[https_listener("https", 443, HOST, "tls")]))
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").host(HOST).to("app"))
}

fn keys(text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "tickets", "namespace": "network" },
        "stringData": { "keys": text },
    })
}

#[tokio::test]
async fn a_session_of_one_replica_is_resumed_by_another_that_shares_its_keys() {
    let upstream = Upstream::echo("app").await;
    let builders = [Builder::new(), Builder::new(), Builder::new()];
    let leaf = builders[0].leaf(&[HOST]);
    let certificate = secret("tls", &leaf.chain_pem, &leaf.key_pem);
    let [from_secret, from_file, alone] = builders;
    let from_secret = from_secret.set("session_tickets.secret", "network/tickets").with(keys(SECRET));
    std::fs::write(from_file.path("tickets.key"), format!("{SECRET}\n")).expect("the folder is ours");
    let from_file = from_file.set("session_tickets.file", "tickets.key");
    let one = replica(from_secret, &certificate, &upstream).start().await;
    let two = replica(from_file, &certificate, &upstream).start().await;
    let alone = replica(alone, &certificate, &upstream).start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(one.authority.client_of_version(version));
        assert_eq!(visit(&one, &config).await, HandshakeKind::Full, "{version:?}");
        assert_eq!(visit(&two, &config).await, HandshakeKind::Resumed, "{version:?}");
        assert_eq!(visit(&one, &config).await, HandshakeKind::Resumed, "{version:?}");
        assert_eq!(visit(&alone, &config).await, HandshakeKind::Full, "{version:?}");
    }
    // New keys: what was given under the old ones is still good, and what is given now is not for who has the old.
    one.apply(keys("a secret that nobody else has, forty bytes"));
    let config = Arc::new(one.authority.client_of_version(&rustls::version::TLS13));
    let taken = || async {
        visit(&one, &config).await;
        (visit(&two, &config).await == HandshakeKind::Full).then_some(())
    };
    eventually("the new keys", taken).await;
    assert_eq!(
        visit(&one, &config).await,
        HandshakeKind::Resumed,
        "of the other replica, under the old keys"
    );
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_told_and_sessions_are_resumed_all_the_same() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new().set("session_tickets.secret", "network/tickets").with(keys("short"));
    let leaf = builder.leaf(&[HOST]);
    let trigate = replica(builder, &secret("tls", &leaf.chain_pem, &leaf.key_pem), &upstream).start().await;
    let told = || async { trigate.log().contains("fewer than 32 characters").then_some(()) };
    eventually("a word on the keys", told).await;
    let config = Arc::new(trigate.authority.client_of_version(&rustls::version::TLS13));
    assert_eq!(visit(&trigate, &config).await, HandshakeKind::Full);
    assert_eq!(visit(&trigate, &config).await, HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_ticket_ends_with_the_keys_that_it_is_under() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new().set("session_tickets.lifetime", "3s");
    let leaf = builder.leaf(&[HOST]);
    let trigate = replica(builder, &secret("tls", &leaf.chain_pem, &leaf.key_pem), &upstream).start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(trigate.authority.client_of_version(version));
        assert_eq!(visit(&trigate, &config).await, HandshakeKind::Full, "{version:?}");
        assert_eq!(visit(&trigate, &config).await, HandshakeKind::Resumed, "{version:?}");
        sleep(Duration::from_millis(6100)).await;
        assert_eq!(visit(&trigate, &config).await, HandshakeKind::Full, "{version:?}");
    }
}

/// How many of a client's visits in a row, a second apart, resume the session of the one before.
async fn resumed_in_a_row(trigate: &Trigate, config: &Arc<ClientConfig>, most: usize) -> usize {
    for resumed in 0..most {
        sleep(Duration::from_secs(1)).await;
        if visit(trigate, config).await == HandshakeKind::Full {
            return resumed;
        }
    }
    most
}

#[tokio::test]
async fn a_session_of_tls_1_2_ends_however_often_it_is_resumed() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new().set("session_tickets.lifetime", "3s");
    let leaf = builder.leaf(&[HOST]);
    let trigate = replica(builder, &secret("tls", &leaf.chain_pem, &leaf.key_pem), &upstream).start().await;
    let [old, new] = [&rustls::version::TLS12, &rustls::version::TLS13]
        .map(|version| Arc::new(trigate.authority.client_of_version(version)));
    assert_eq!(visit(&trigate, &old).await, HandshakeKind::Full);
    assert_eq!(visit(&trigate, &new).await, HandshakeKind::Full);
    let (old, new) = tokio::join!(resumed_in_a_row(&trigate, &old, 8), resumed_in_a_row(&trigate, &new, 8));
    assert!((2..=6).contains(&old), "keys of one handshake for {old} s");
    assert_eq!(new, 8, "each resumption has keys of its own");
}

/// The Gateway with a listener for [`HOST`], which asks clients for certificates of `clients` where it is `strict`.
fn asking(name: &str, strict: bool) -> Value {
    let mut object = gateway(name, &[https_listener("https", 443, HOST, "tls")]);
    if strict {
        let references = json!([{ "group": "", "kind": "ConfigMap", "name": "clients" }]);
        let validation = json!({ "default": { "validation": { "caCertificateRefs": references } } });
        object["spec"]["tls"] = json!({ "frontend": validation });
    }
    object
}

#[tokio::test]
async fn no_session_lets_a_client_without_a_certificate_in_where_one_is_asked_for() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new().without_gateways();
    let leaf = builder.leaf(&[HOST]);
    let trigate = builder
        .with_all([asking("external", false), asking("internal", true)])
        .with(secret("tls", &leaf.chain_pem, &leaf.key_pem))
        .with(authority("network", "clients", &Authority::new().pem()))
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").on("internal").host(HOST).to("app"))
        .start()
        .await;
    let clients = [&rustls::version::TLS12, &rustls::version::TLS13]
        .map(|version| Arc::new(trigate.authority.client_of_version(version)));
    let file = trigate.path("session").display().to_string();
    // A session that the gateway remembers, as clients without tickets have it.
    let remembered = |socket, flag| {
        let asked = ["-tls1_2", "-no_ticket", "-servername", HOST, flag, &file];
        openssl(socket, &asked)
    };
    assert!(remembered(trigate.external.https, "-sess_out").agreed());
    let is_resumed = |socket| remembered(socket, "-sess_in").0.contains("Reused, TLSv1.2");
    assert!(is_resumed(trigate.external.https));
    for client in &clients {
        assert_eq!(visit(&trigate, client).await, HandshakeKind::Full);
        assert_eq!(visit(&trigate, client).await, HandshakeKind::Resumed);
        assert_eq!(answered(trigate.internal.https, client).await, None, "another gateway");
    }
    assert!(!is_resumed(trigate.internal.https), "another gateway");

    for client in &clients {
        // What was refused has cost the client its ticket.
        visit(&trigate, client).await;
        assert_eq!(visit(&trigate, client).await, HandshakeKind::Resumed);
    }
    trigate.apply(asking("external", true));
    let stranger = Arc::new(trigate.authority.client(&[]));
    eventually("certificates are asked for", || async {
        answered(trigate.external.https, &stranger).await.is_none().then_some(())
    })
    .await;
    for client in &clients {
        assert_eq!(answered(trigate.external.https, client).await, None, "the same gateway, later");
    }
    assert!(!is_resumed(trigate.external.https), "the same gateway, later");
}

#[tokio::test]
async fn without_tickets_every_handshake_is_a_whole_one() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new().set("session_tickets.enabled", false);
    let leaf = builder.leaf(&[HOST]);
    let trigate = replica(builder, &secret("tls", &leaf.chain_pem, &leaf.key_pem), &upstream).start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(trigate.authority.client_of_version(version));
        for _ in 0..3 {
            assert_eq!(visit(&trigate, &config).await, HandshakeKind::Full, "{version:?}");
        }
    }
}
