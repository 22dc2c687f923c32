//! Renewal: in time, by what the authority says, and without anybody noticing.

use crate::harness::client::Ask;
use crate::harness::eventually;
use crate::harness::upstream::Upstream;
use crate::pebble::{Builder, Pebble};
use crate::{handshake, order, ordering, own_address, to, trusted};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use x509_parser::prelude::{FromDer, X509Certificate};

/// From the beginning of a certificate's validity to its end.
fn lifetime(certificate: &CertificateDer<'_>) -> Duration {
    let (_, parsed) = X509Certificate::from_der(certificate).expect("a certificate");
    let validity = parsed.validity();
    let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
    Duration::from_secs(seconds.unsigned_abs())
}

#[tokio::test]
async fn a_certificate_is_renewed_under_load_and_no_handshake_fails() {
    let pebble = Builder::debian(own_address()).set("certificateValidityPeriod", 40.into()).start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let upstream = Upstream::echo("app").await;
    let client = Arc::new(pebble.client().await);
    let names = ["app.example.test", "other.example.test"];
    // Renewed after some seconds, and long before it would expire on a busy machine.
    let builder = ordering(&pebble, folder.path(), &names).set("acme.renew_at_percent", 20);
    let trigate = to(builder, &upstream).start().await;
    for name in names {
        trusted(&client, trigate.external.https, name).await;
    }
    all_see_two_certificates(&client, trigate.external.https, names).await;
}

/// Many handshakes with each of two names, none of which fails, until all clients have seen two certificates.
async fn all_see_two_certificates(client: &Arc<ClientConfig>, socket: SocketAddr, names: [&'static str; 2]) {
    const CLIENTS: usize = 4;
    let end = Instant::now() + Duration::from_secs(30);
    let clients = (0..CLIENTS).map(|index| {
        let (client, name) = (Arc::clone(client), names[index % 2]);
        tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            while seen.len() < 2 && Instant::now() < end {
                let certificate = handshake(&client, socket, name).await.expect("every handshake is good");
                seen.insert(certificate.to_vec());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            seen.len()
        })
    });
    for client in clients.collect::<Vec<_>>() {
        assert_eq!(client.await.expect("no handshake fails"), 2, "certificates were seen");
    }
}

#[tokio::test]
async fn the_authority_says_when_to_renew_and_for_how_long_a_profile_is() {
    let Some(builder) = Builder::newer(own_address()) else { return };
    let pebble = builder.start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let gateway =
        || ordering(&pebble, folder.path(), &["app.example.test"]).set("acme.profile", "shortlived");
    let trigate = gateway().start().await;
    let first = trusted(&client, trigate.external.https, "app.example.test").await;
    let days = lifetime(&first).as_secs().div_ceil(24 * 3600);
    assert_eq!(days, 6, "the profile decides");
    drop(trigate);

    // Two thirds of six days are four; the authority wants it sooner.
    let start = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(48)).expect("a time");
    advise(&pebble, &first, start).await;
    let trigate = gateway().start().await;
    eventually("the window decides", || async {
        let order = order(&trigate, "network/ordered-0").await;
        let due: jiff::Timestamp = order["next_order"].as_str()?.parse().ok()?;
        ((due.as_second() - start.as_second()).abs() <= 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_certificate_is_renewed_when_the_authority_says_so_and_no_handshake_fails() {
    let Some(builder) = Builder::newer(own_address()) else { return };
    let profile = json!({ "description": "for tests", "validityPeriod": 120 });
    let pebble = builder.set("profiles", json!({ "default": profile })).start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let names = ["app.example.test", "other.example.test"];
    let gateway = || ordering(&pebble, folder.path(), &names);
    let trigate = gateway().start().await;
    let first = [
        trusted(&client, trigate.external.https, names[0]).await,
        trusted(&client, trigate.external.https, names[1]).await,
    ];
    drop(trigate);
    // It wants the certificate to be replaced now, as if it had to be revoked. That is done at a tenth of its life;
    // two thirds are longer than this test waits.
    let past = jiff::Timestamp::now();
    for certificate in &first {
        advise(&pebble, certificate, past).await;
    }
    let trigate = gateway().start().await;
    all_see_two_certificates(&client, trigate.external.https, names).await;
}

/// Lets the authority say that a certificate is to be renewed at a time.
async fn advise(pebble: &Pebble, certificate: &CertificateDer<'_>, time: jiff::Timestamp) {
    let text = STANDARD.encode(certificate);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    let window = json!({ "suggestedWindow": { "start": time, "end": time } }).to_string();
    let body = json!({ "certificate": pem, "ariResponse": window }).to_string();
    let answer = pebble.manage(Ask::post("localhost", "/set-renewal-info/", body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
