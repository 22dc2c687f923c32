//! TLS to backends (BackendTLSPolicy), and certificates of clients in both directions.

use crate::HOST;
use crate::harness::certificate::{Authority, Leaf};
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::harness::manifest::{
    authority, backend_tls, gateway, http_listener, https_listener, route, secret, service,
};
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::{Seen, Upstream};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A gateway in front of a TLS upstream with the Service `app`, and these objects beside it.
async fn in_front_of(upstream: &Upstream, objects: impl IntoIterator<Item = Value>) -> Trigate {
    let mut all = service("app", &[upstream.address]);
    all.push(route("app").on("external").host(HOST).to("app").object());
    all.extend(objects);
    Trigate::serving(all).await
}

async fn status(trigate: &Trigate) -> u16 {
    trigate.external.get(HOST, "/").await.status
}

#[tokio::test]
async fn a_backend_is_spoken_to_over_tls_and_only_as_who_it_should_be() {
    let (own, other) = (Authority::new(), Authority::new());
    let upstream = Upstream::tls_echo("app", &own.leaf(&["backend.test"])).await;
    let objects = |hostname: &str, of: &Authority| {
        [authority("apps", "ca", &of.pem()), backend_tls("policy", "app", "ca", hostname)]
    };
    let trigate = in_front_of(&upstream, objects("backend.test", &own)).await;
    assert_eq!(status(&trigate).await, 200);
    for (hostname, of, want) in
        [("wrong.test", &own, 502), ("backend.test", &own, 200), ("backend.test", &other, 502)]
    {
        trigate.apply_all(objects(hostname, of));
        trigate.until_status(trigate.external.http, HOST, "/", want).await;
    }
}

#[tokio::test]
async fn an_authority_that_comes_goes_and_comes_back_is_followed() {
    let own = Authority::new();
    let upstream = Upstream::tls_echo("app", &own.leaf(&["backend.test"])).await;
    let trigate = in_front_of(&upstream, [backend_tls("policy", "app", "ca", "backend.test")]).await;
    assert_eq!(status(&trigate).await, 502, "there is no authority yet");
    for (pem, want) in [(own.pem(), 200), (String::new(), 502), (own.pem(), 200)] {
        trigate.apply(authority("apps", "ca", &pem));
        trigate.until_status(trigate.external.http, HOST, "/", want).await;
    }
    trigate.delete("ConfigMap", "apps", "ca");
    trigate.until_status(trigate.external.http, HOST, "/", 502).await;
}

#[tokio::test]
async fn a_self_signed_certificate_is_believed_when_it_is_trusted_itself() {
    let leaf = Leaf::self_signed(&["backend.test"]);
    let upstream = Upstream::tls_echo("app", &leaf).await;
    let objects =
        [authority("apps", "ca", &leaf.chain_pem), backend_tls("policy", "app", "ca", "backend.test")];
    let trigate = in_front_of(&upstream, objects).await;
    assert_eq!(status(&trigate).await, 200);
    trigate.apply(backend_tls("policy", "app", "ca", "wrong.test"));
    trigate.until_status(trigate.external.http, HOST, "/", 502).await;
}

#[tokio::test]
async fn wanted_names_are_the_only_ones_that_count() {
    let own = Authority::new();
    let leaf = own.leaf_with_uri(&["one.test", "*.wild.test"], "spiffe://home/app");
    let upstream = Upstream::tls_echo("app", &leaf).await;
    let policy = |names: Value| {
        let mut policy = backend_tls("policy", "app", "ca", "only-a-server-name.test");
        policy["spec"]["validation"]["subjectAltNames"] = names;
        policy
    };
    let dns = |name: &str| json!({ "type": "Hostname", "hostname": name });
    let uri = |uri: &str| json!({ "type": "URI", "uri": uri });
    let trigate =
        in_front_of(&upstream, [authority("apps", "ca", &own.pem()), policy(json!([dns("one.test")]))]).await;
    assert_eq!(status(&trigate).await, 200);
    for (names, want) in [
        (json!([dns("two.test")]), 502),
        (json!([uri("spiffe://home/app")]), 200),
        (json!([uri("spiffe://home/other")]), 502),
        (json!([uri("spiffe://home/other"), dns("a.wild.test")]), 200),
        (json!([dns("only-a-server-name.test")]), 502),
        (json!([dns("*.wild.test")]), 200),
    ] {
        trigate.apply(policy(names));
        trigate.until_status(trigate.external.http, HOST, "/", want).await;
    }
}

#[tokio::test]
async fn the_gateway_shows_its_certificate_to_backends_that_ask() {
    let own = Authority::new();
    let leaf = own.leaf(&["backend.test"]);
    let upstream = Upstream::tls_echo_with("app", leaf.server_asking(&own)).await;
    let mut shown = gateway("external", &[http_listener("http", 80)]);
    let plain = gateway("internal", &[http_listener("http", 80)]);
    shown["spec"]["tls"] = json!({ "backend": { "clientCertificateRef": { "name": "identity" } } });
    let identity = own.leaf(&["gateway.test"]);
    let trigate = Builder::new()
        .without_gateways()
        .with_all([shown, plain, secret("identity", &identity.chain_pem, &identity.key_pem)])
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").on("internal").host(HOST).to("app"))
        .with_all([authority("apps", "ca", &own.pem()), backend_tls("policy", "app", "ca", "backend.test")])
        .start()
        .await;
    assert_eq!(trigate.external.get(HOST, "/").await.status, 200);
    assert_eq!(trigate.internal.get(HOST, "/").await.status, 503, "the other gateway has none to show");
    assert_eq!(trigate.external.get(HOST, "/").await.status, 200);
}

/// `external` with an HTTPS listener that asks its clients for certificates.
async fn asking(upstream: &Upstream, clients: &Authority, mode: Option<&str>) -> Trigate {
    let builder = Builder::new().without_gateways();
    let leaf = builder.leaf(&["*.example.test"]);
    let mut listener = https_listener("https", 443, "", "wildcard");
    listener["tls"]["options"] = json!({ "trigate.dev/forward-client-certificate": "Subject,DNS" });
    let mut object = gateway("external", &[http_listener("http", 80), listener]);
    let mut validation =
        json!({ "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": "clients" }] });
    if let Some(mode) = mode {
        validation["mode"] = mode.into();
    }
    object["spec"]["tls"] = json!({ "frontend": { "default": { "validation": validation } } });
    builder
        .with_all([object, secret("wildcard", &leaf.chain_pem, &leaf.key_pem)])
        .with(authority("network", "clients", &clients.pem()))
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").to("app"))
        .start()
        .await
}

/// What the upstream saw of a request over TLS with these settings; `None` when the handshake or the request fails.
async fn seen(trigate: &Trigate, config: ClientConfig) -> Option<Seen> {
    let stream = TcpStream::connect(trigate.external.https).await.expect("somebody listens");
    let name = ServerName::try_from(HOST).expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let mut client = Client::http1_on(stream).await.ok()?;
    let ask = Ask::get(HOST, "/").header("x-forwarded-client-cert", "Hash=lie");
    let answer = client.try_send(ask).await.ok()?;
    Some(answer.seen())
}

#[tokio::test]
async fn only_clients_with_a_valid_certificate_are_let_in_and_backends_are_told_of_it() {
    let upstream = Upstream::echo("app").await;
    let (clients, strangers) = (Authority::new(), Authority::new());
    let trigate = asking(&upstream, &clients, None).await;
    let client = clients.leaf(&["client.test"]);
    let told = seen(&trigate, trigate.authority.client_showing(&client)).await.expect("it is let in");
    let told = told.header("x-forwarded-client-cert").expect("the backend is told").to_owned();
    assert!(told.starts_with("Hash=") && told.ends_with(";DNS=client.test"), "{told}");
    let stranger = strangers.leaf(&["client.test"]);
    assert!(seen(&trigate, trigate.authority.client_showing(&stranger)).await.is_none());
    assert!(seen(&trigate, trigate.authority.client(&[])).await.is_none(), "none at all");
    assert_eq!(trigate.external.get(HOST, "/").await.status, 200, "cleartext is asked for nothing");
    // A session of the old authority is of no use under the new one.
    let config = trigate.authority.client_showing(&client);
    assert!(seen(&trigate, config.clone()).await.is_some());
    trigate.apply(authority("network", "clients", &strangers.pem()));
    eventually("the new authority", || async {
        seen(&trigate, trigate.authority.client_showing(&stranger)).await
    })
    .await;
    assert!(seen(&trigate, config).await.is_none());
}

#[tokio::test]
async fn with_insecure_fallback_everybody_is_let_in_and_only_valid_certificates_are_told() {
    let upstream = Upstream::echo("app").await;
    let (clients, strangers) = (Authority::new(), Authority::new());
    let trigate = asking(&upstream, &clients, Some("AllowInsecureFallback")).await;
    for (config, told) in [
        (trigate.authority.client_showing(&clients.leaf(&["client.test"])), true),
        (trigate.authority.client_showing(&strangers.leaf(&["client.test"])), false),
        (trigate.authority.client(&[]), false),
    ] {
        let seen = seen(&trigate, config).await.expect("everybody is let in");
        assert_eq!(seen.header("x-forwarded-client-cert").is_some(), told, "{seen:?}");
    }
}

#[tokio::test]
async fn a_client_that_is_not_let_in_is_told_why() {
    use tokio::io::AsyncReadExt;
    let upstream = Upstream::echo("app").await;
    let (clients, strangers) = (Authority::new(), Authority::new());
    let trigate = asking(&upstream, &clients, None).await;
    for (config, why) in [
        (trigate.authority.client(&[]), "CertificateRequired"),
        // Both authorities have one name, so it is the signature that tells them apart.
        (trigate.authority.client_showing(&strangers.leaf(&["client.test"])), "DecryptError"),
    ] {
        let stream = TcpStream::connect(trigate.external.https).await.expect("somebody listens");
        let name = ServerName::try_from(HOST).expect("a name");
        // With TLS 1.3 the client is done before its certificate is judged.
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("its half");
        let error = stream.read(&mut [0; 1]).await.expect_err("it is refused");
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
}
