//! Certificates that are broken, expired, not valid yet or of another name: what is said, and what is served.

use crate::HOST;
use crate::harness::certificate::{Authority, Leaf};
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::harness::manifest::{authority, gateway, https_listener, route, secret, service};
use crate::harness::openssl::{openssl, openssl_in};
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::Upstream;
use rustls::HandshakeKind;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HOUR: Duration = Duration::from_secs(3600);

/// `external` with one listener for [`HOST`] and this Secret called `tls`.
async fn serving(builder: Builder, certificate: Value, upstream: &Upstream) -> Trigate {
    builder
        .without_gateways()
        .with(certificate)
        .with(gateway("external", &[https_listener("https", 443, HOST, "tls")]))
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").host(HOST).to("app"))
        .start()
        .await
}

async fn shown(trigate: &Trigate) -> Option<CertificateDer<'static>> {
    // Whatever its dates: OpenSSL's client verifies nothing unless it is told to.
    let said = openssl(trigate.external.https, &["-servername", HOST]).0;
    let (_, rest) = said.split_once("-----BEGIN CERTIFICATE-----")?;
    let (text, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let pem = format!("-----BEGIN CERTIFICATE-----{text}-----END CERTIFICATE-----\n");
    rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).ok()
}

async fn until_shown(trigate: &Trigate, leaf: &Leaf) {
    eventually("the certificate", || async {
        (shown(trigate).await.as_ref() == Some(&leaf.der)).then_some(())
    })
    .await;
}

async fn until_said(trigate: &Trigate, words: &str) {
    eventually(words, || async { trigate.log().contains(words).then_some(()) }).await;
}

#[tokio::test]
async fn what_cannot_be_served_is_told_with_dates_and_names_and_the_last_good_one_stays() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new();
    let (good, other) = (builder.leaf(&[HOST]), builder.leaf(&["other.test"]));
    let now = SystemTime::now();
    let trigate = serving(builder, secret("tls", &good.chain_pem, &good.key_pem), &upstream).await;
    let expired = trigate.authority.leaf_valid(&[HOST], now - 48 * HOUR, now - 24 * HOUR);
    let early = trigate.authority.leaf_valid(&[HOST], now + 24 * HOUR, now + 48 * HOUR);
    let day =
        |time: SystemTime| jiff::Timestamp::try_from(time).expect("of our time").strftime("%F").to_string();
    for (chain, key, words) in [
        (&*good.chain_pem, "no key", "the private key is no PEM key".to_owned()),
        ("no chain", &*good.key_pem, "holds no certificate".to_owned()),
        (
            &good.chain_pem,
            &other.key_pem,
            format!("does not belong to the leaf certificate, which is for {HOST}"),
        ),
        (
            &expired.chain_pem,
            &expired.key_pem,
            format!("the certificate for {HOST}, valid from {}", day(now - 48 * HOUR)),
        ),
        (&early.chain_pem, &early.key_pem, format!("until {}", day(now + 48 * HOUR))),
    ] {
        trigate.apply(secret("tls", chain, key));
        until_said(&trigate, &words).await;
        assert_eq!(shown(&trigate).await.as_ref(), Some(&good.der), "{words}");
    }
    for words in ["has expired; its last good certificate is still served", "is not valid yet; its last good"]
    {
        assert!(trigate.log().contains(words), "{words}:\n{}", trigate.log());
    }
    let better = trigate.authority.leaf(&[HOST]);
    trigate.apply(secret("tls", &better.chain_pem, &better.key_pem));
    until_shown(&trigate, &better).await;
}

#[tokio::test]
async fn a_certificate_that_becomes_valid_takes_over_by_itself() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new();
    let good = builder.leaf(&[HOST]);
    let trigate = serving(builder, secret("tls", &good.chain_pem, &good.key_pem), &upstream).await;
    let now = SystemTime::now();
    let soon = trigate.authority.leaf_valid(&[HOST], now + Duration::from_secs(4), now + HOUR);
    trigate.apply(secret("tls", &soon.chain_pem, &soon.key_pem));
    until_said(&trigate, "is not valid yet").await;
    assert_eq!(shown(&trigate).await.as_ref(), Some(&good.der));
    until_shown(&trigate, &soon).await;
    until_said(&trigate, "no longer so").await;
}

#[tokio::test]
async fn the_only_certificate_is_served_although_it_has_expired() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new();
    let now = SystemTime::now();
    let expired = builder.authority().leaf_valid(&[HOST], now - 48 * HOUR, now - 24 * HOUR);
    let trigate = serving(builder, secret("tls", &expired.chain_pem, &expired.key_pem), &upstream).await;
    assert_eq!(shown(&trigate).await.as_ref(), Some(&expired.der));
    until_said(&trigate, "it is served all the same, because there is no better one").await;
}

#[tokio::test]
async fn a_certificate_for_other_names_is_a_warning() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new();
    let other = builder.leaf(&["other.test", "*.wild.test"]);
    let trigate = serving(builder, secret("tls", &other.chain_pem, &other.key_pem), &upstream).await;
    let words = format!(
        "clients that ask for `{HOST}` will refuse the certificate: network/tls is for other.test, *.wild.test, valid"
    );
    until_said(&trigate, &words).await;
    assert_eq!(shown(&trigate).await.as_ref(), Some(&other.der));
}

/// An authority, a leaf for [`HOST`] and what the authority says of it, all made by OpenSSL in a folder.
fn with_ocsp(folder: &std::path::Path) {
    let commands = [
        "ecparam -name prime256v1 -genkey -noout -out ca.key".to_owned(),
        "req -x509 -new -key ca.key -subj /CN=ca -days 2 -out ca.crt".to_owned(),
        "ecparam -name prime256v1 -genkey -noout -out leaf.key".to_owned(),
        format!("req -new -key leaf.key -subj /CN={HOST} -out leaf.csr"),
        "x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -extfile san -set_serial 4660 -days 2 -out leaf.crt".to_owned(),
        "ocsp -issuer ca.crt -cert leaf.crt -reqout request.der".to_owned(),
        "ocsp -index index -CA ca.crt -rsigner ca.crt -rkey ca.key -reqin request.der -respout good.der -ndays 1".to_owned(),
        "ocsp -index index -CA ca.crt -rsigner ca.crt -rkey ca.key -reqin request.der -respout endless.der".to_owned(),
        "ocsp -index revoked -CA ca.crt -rsigner ca.crt -rkey ca.key -reqin request.der -respout bad.der -ndays 1".to_owned(),
    ];
    let index =
        |state: &str, when: &str| format!("{state}\t491231235959Z\t{when}\t1234\tunknown\t/CN={HOST}\n");
    fs::write(folder.join("san"), format!("subjectAltName=DNS:{HOST}\n")).expect("the folder is ours");
    fs::write(folder.join("index"), index("V", "")).expect("the folder is ours");
    fs::write(folder.join("revoked"), index("R", "240101000000Z")).expect("the folder is ours");
    commands.iter().for_each(|command| openssl_in(folder, command));
}

#[tokio::test]
async fn a_word_of_the_authority_is_stapled_when_it_is_one_and_good() {
    use base64::Engine;
    let upstream = Upstream::echo("app").await;
    let folder = tempfile::tempdir().expect("a folder");
    with_ocsp(folder.path());
    let read = |file: &str| fs::read(folder.path().join(file)).expect("openssl wrote it");
    let text = |file: &str| String::from_utf8(read(file)).expect("PEM");
    let stapling = |staple: &[u8]| {
        let mut object = secret("tls", &text("leaf.crt"), &text("leaf.key"));
        let staple = base64::engine::general_purpose::STANDARD.encode(staple);
        object["data"] = json!({ "tls.ocsp-staple": staple });
        object
    };
    let trigate = serving(Builder::new(), stapling(&read("good.der")), &upstream).await;
    let status = || openssl(trigate.external.https, &["-servername", HOST, "-status"]).0;
    assert!(status().contains("OCSP Response Status: successful"), "{}", status());
    for (staple, words) in [
        (read("bad.der"), "it says that the certificate is not good"),
        (b"nonsense".to_vec(), "it is no OCSP response"),
        (b"0\x03\x0a\x01\x06".to_vec(), "the responder answered with its error 6"),
    ] {
        trigate.apply(stapling(&staple));
        until_said(&trigate, words).await;
        assert!(status().contains("OCSP response: no response sent"), "{words}: {}", status());
    }
    trigate.apply(stapling(&read("endless.der")));
    eventually("the staple", || async { status().contains("Response Status: successful").then_some(()) })
        .await;
}

/// The same response with a `nextUpdate` in 2020, which is the third date in it.
fn out_of_date(mut response: Vec<u8>) -> Vec<u8> {
    let is_date = |at: &usize| response[*at..].starts_with(b"\x18\x0f20");
    let date = (0..response.len()).filter(is_date).nth(2).expect("OpenSSL was told to write one") + 2;
    response[date..date + 4].copy_from_slice(b"2020");
    response
}

#[tokio::test]
async fn a_word_of_the_authority_comes_from_a_file_too_and_is_read_again_when_that_changes() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new().without_gateways();
    let folder = builder.path("");
    with_ocsp(&folder);
    let mut builder = builder;
    for (key, value) in
        [("secret", "network/tls"), ("chain", "leaf.crt"), ("key", "leaf.key"), ("ocsp", "tls.ocsp")]
    {
        builder = builder.set(&format!("certificates.home.{key}"), value);
    }
    let trigate = builder
        .with(gateway("external", &[https_listener("https", 443, HOST, "tls")]))
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").host(HOST).to("app"))
        .start()
        .await;
    let good = fs::read(folder.join("good.der")).expect("openssl wrote it");
    let status = || openssl(trigate.external.https, &["-servername", HOST, "-status"]);
    let is_stapled = || status().0.contains("OCSP Response Status: successful");
    until_said(&trigate, "tls.ocsp:1:1): no such file or directory; nothing is stapled").await;
    assert!(status().agreed() && !is_stapled(), "{:?}", status());
    for (staple, words) in [
        (good.clone(), None),
        (out_of_date(good.clone()), Some("not stapled any more: it was good until 2020-")),
        (good.clone(), None),
        (fs::read(folder.join("bad.der")).expect("openssl wrote it"), Some("the certificate is not good")),
    ] {
        fs::write(folder.join("tls.ocsp"), staple).expect("the folder is ours");
        eventually("the staple, or none", || async { (is_stapled() == words.is_none()).then_some(()) }).await;
        assert!(status().agreed(), "{:?}", status());
        if let Some(words) = words {
            until_said(&trigate, words).await;
        }
    }
}

#[tokio::test]
async fn a_session_ends_with_the_certificate_of_its_client() {
    let upstream = Upstream::echo("app").await;
    let clients = Authority::new();
    let builder = Builder::new().without_gateways();
    let leaf = builder.leaf(&[HOST]);
    let mut object = gateway("external", &[https_listener("https", 443, HOST, "tls")]);
    let references = json!([{ "group": "", "kind": "ConfigMap", "name": "clients" }]);
    let validation = json!({ "default": { "validation": { "caCertificateRefs": references } } });
    object["spec"]["tls"] = json!({ "frontend": validation });
    let trigate = builder
        .with_all([object, secret("tls", &leaf.chain_pem, &leaf.key_pem)])
        .with(authority("network", "clients", &clients.pem()))
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").host(HOST).to("app"))
        .start()
        .await;
    let now = SystemTime::now();
    let until = now + Duration::from_secs(6);
    let config =
        Arc::new(trigate.authority.client_showing(&clients.leaf_valid(&["client.test"], now - HOUR, until)));
    let visit = async || {
        let stream = TcpStream::connect(trigate.external.https).await.expect("somebody listens");
        let name = ServerName::try_from(HOST).expect("a name");
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await.ok()?;
        let kind = stream.get_ref().1.handshake_kind();
        let mut client = Client::http1_on(stream).await.ok()?;
        let answer = client.try_send(Ask::get(HOST, "/")).await.ok()?;
        kind.filter(|_| answer.status == 200)
    };
    assert_eq!(visit().await, Some(HandshakeKind::Full));
    assert_eq!(visit().await, Some(HandshakeKind::Resumed));
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_millis(1500)).await;
    assert_eq!(visit().await, None, "the certificate has expired");
}
