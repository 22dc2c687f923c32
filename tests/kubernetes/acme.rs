//! Certificates that are ordered in a cluster: by the replica that leads, kept in Secrets, served by all.

use crate::cluster::Place;
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::harness::trigate::{Builder, Trigate};
use crate::pebble::{self, Pebble, handshake, own_address, trusted};
use crate::{cloudflare, trigate};
use k8s_openapi::api::events::v1::Event;
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A replica at this address that orders from this authority.
fn replica(place: &Place, pebble: &Pebble, address: IpAddr) -> Builder {
    let challenges = json!({ "alpn.example.test": "tls-alpn-01" });
    let challenges: toml::Table = serde_json::from_value(challenges).expect("a table");
    trigate(place)
        .set("gateways.external.bind", vec![address.to_string()])
        .set("gateways.external.ports.80", i64::from(pebble.http))
        .set("gateways.external.ports.443", i64::from(pebble.tls))
        .set("acme.directory", pebble.directory())
        .set("acme.ca", pebble.ca())
        .set("acme.retry", "1s")
        .set("acme.challenges", challenges)
}

/// The Gateway `external` with a listener for each name, each with a Secret of its own, and the annotation.
fn gateway(place: &Place, names: &[&str]) -> Value {
    let mut gateway = place.gateway("external");
    gateway["metadata"]["annotations"] = json!({ "trigate.dev/acme": "true" });
    let listeners = names.iter().enumerate().map(|(index, name)| {
        json!({
            "name": format!("https-{index}"), "port": 443, "protocol": "HTTPS", "hostname": name,
            "tls": { "certificateRefs": [{ "name": format!("ordered-{index}") }] },
        })
    });
    let http = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    gateway["spec"]["listeners"] = std::iter::once(http).chain(listeners).collect();
    gateway
}

fn secret(place: &Place, name: &str) -> Value {
    let metadata = json!({ "name": name, "namespace": place.namespace });
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata })
}

#[tokio::test]
async fn the_leader_orders_into_secrets_and_all_replicas_answer_and_serve() {
    let Some(place) = Place::shared().await else { return };
    // The authority looks for names at the second replica only.
    let pebble = pebble::Builder::debian(own_address()).start().await;
    let client = Arc::new(pebble.client().await);
    let first = replica(&place, &pebble, own_address()).start().await;
    let leads = || async { first.log().contains("this replica orders").then_some(()) };
    eventually("the first replica leads", leads).await;
    let second = replica(&place, &pebble, pebble.gateway).start().await;
    let names = ["http.example.test", "alpn.example.test"];
    place.apply(&gateway(&place, &names)).await;
    for name in names {
        let one = trusted(&client, first.external.https, name).await;
        let other = trusted(&client, second.external.https, name).await;
        assert_eq!(one, other, "{name}");
    }
    let ordered = place.get(&secret(&place, "ordered-0")).await.expect("it is there");
    assert_eq!(ordered["type"], "kubernetes.io/tls");
    assert_eq!(ordered["metadata"]["labels"]["trigate.dev/acme"], "true");
    assert!(!second.log().contains("is ordered for"), "{}", second.log());
}

#[tokio::test]
async fn a_failed_order_is_an_event_and_a_secret_of_somebody_else_is_left_alone() {
    let Some(place) = Place::shared().await else { return };
    let pebble = pebble::Builder::debian(own_address()).start().await;
    let elsewhere = own_address();
    pebble.tell_dns("/add-a", json!({ "host": "theirs.example.test.", "addresses": [elsewhere] })).await;
    let mut others = secret(&place, "ordered-1");
    others["stringData"] = json!({ "tls.crt": "", "tls.key": "" });
    others["type"] = "kubernetes.io/tls".into();
    place.apply(&others).await;
    let trigate = replica(&place, &pebble, pebble.gateway).start().await;
    place.apply(&gateway(&place, &["theirs.example.test", "other.example.test"])).await;
    let event = failure(&place).await;
    assert_eq!(event.regarding.expect("a Secret").name.as_deref(), Some("ordered-0"));
    assert!(event.note.expect("a note").contains("theirs.example.test"));
    let kept = place.get(&others).await.expect("it is there");
    assert!(kept["metadata"]["labels"].is_null(), "{kept}");
    assert!(trigate.log().contains("ordered-1 is somebody else's"), "{}", trigate.log());
    let client = Arc::new(pebble.client().await);
    assert!(handshake(&client, trigate.external.https, "theirs.example.test").await.is_err());
}

#[tokio::test]
async fn a_renewal_that_fails_is_told_in_four_places_and_leaves_the_certificate_in_use() {
    let Some(place) = Place::shared().await else { return };
    let pebble = pebble::Builder::debian(own_address()).set("certificateValidityPeriod", 300.into());
    let pebble = pebble.forgetful().start().await;
    let client = Arc::new(pebble.client().await);
    // Renewed fifteen seconds after it was issued, or a little earlier.
    let replica = replica(&place, &pebble, pebble.gateway).set("acme.renew_at_percent", 5);
    let trigate = replica.set("acme.ari", false).start().await;
    place.apply(&gateway(&place, &["app.example.test"])).await;
    let first = trusted(&client, trigate.external.https, "app.example.test").await;
    let elsewhere = own_address();
    pebble.tell_dns("/add-a", json!({ "host": "app.example.test.", "addresses": [elsewhere] })).await;
    let secret = secret(&place, "ordered-0");
    let kept = place.get(&secret).await.expect("it is there");
    let name = format!("{}/ordered-0", place.namespace);

    let event = failure(&place).await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(event.regarding.expect("a Secret").name.as_deref(), Some("ordered-0"));
    let line = format!("there is no new certificate {name}, it is tried again in");
    assert!(trigate.log().contains(&line), "{}", trigate.log());
    let failing = [format!("certificate=\"{name}\"")];
    assert_eq!(trigate.metric("trigate_certificate_order_failing", &[failing[0].as_str()]).await, 1.0);
    assert!(trigate.metric("trigate_certificate_orders_total", &["result=\"failure\""]).await >= 1.0);
    let answer = Client::http1(trigate.admin).await.send(Ask::get("localhost", "/certs")).await;
    let page: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let order =
        page["orders"].as_array().expect("orders").iter().find(|order| order["path"] == name.as_str());
    let told = order.expect("a line")["last_error"].as_str().expect("a reason");
    assert!(told.contains("app.example.test"), "{told}");

    let now = place.get(&secret).await.expect("it is there");
    assert_eq!(now["metadata"]["resourceVersion"], kept["metadata"]["resourceVersion"], "nobody touched it");
    let served = handshake(&client, trigate.external.https, "app.example.test").await.expect("it is served");
    assert_eq!(served, first);
}

/// The Event that an order has failed.
async fn failure(place: &Place) -> Event {
    let events: kube::Api<Event> = kube::Api::namespaced(place.client.clone(), &place.namespace);
    let found = eventually("an Event", || async {
        let all = events.list(&kube::api::ListParams::default()).await.ok()?;
        all.into_iter().find(|event| event.reason.as_deref() == Some("OrderFailed"))
    });
    found.await.0
}

#[tokio::test]
async fn the_token_for_cloudflare_is_in_a_secret_and_read_afresh() {
    let Some(place) = Place::shared().await else { return };
    let pebble = Arc::new(pebble::Builder::debian(own_address()).start().await);
    let token = Arc::new(Mutex::new("token-1".to_owned()));
    let (api, zone) = cloudflare::serve("example.test", Arc::clone(&pebble), Arc::clone(&token)).await;
    let client = Arc::new(pebble.client().await);
    let with_token = |token: &str| {
        let mut object = secret(&place, "cloudflare");
        object["stringData"] = json!({ "token": format!("{token}\n") });
        object
    };
    place.apply(&with_token("wrong")).await;
    let trigate = replica(&place, &pebble, pebble.gateway)
        .set("acme.challenge", "dns-01")
        .set("acme.dns.cf.cloudflare.api", format!("http://{api}/client/v4"))
        .set("acme.dns.cf.cloudflare.token_secret", format!("{}/cloudflare", place.namespace))
        .set("acme.propagation.servers", vec![pebble.dns.to_string()])
        .start()
        .await;
    place.apply(&gateway(&place, &["*.example.test"])).await;
    assert!(failure(&place).await.note.expect("a note").contains("Invalid access token (9109)"));
    place.apply(&with_token("token-1")).await;
    trusted(&client, trigate.external.https, "app.example.test").await;
    assert!(zone.lock().expect("nobody panics with it").refused >= 1);
    assert!(!trigate.log().contains("token-1"), "the token is nowhere in the log");
}

#[tokio::test]
async fn a_session_of_one_replica_is_resumed_by_another_with_the_keys_of_a_secret() {
    let Some(place) = Place::shared().await else { return };
    let mut keys = secret(&place, "tickets");
    keys["stringData"] = json!({ "keys": "Hn0mTz0aQ7vY0yJ5mE2rYk8pXo3LwQd1\n" });
    place.apply(&keys).await;
    let replica = || trigate(&place).set("session_tickets.secret", format!("{}/tickets", place.namespace));
    let (one, two) = (replica().start().await, replica().start().await);
    let leaf = one.authority.leaf(&["app.example.test"]);
    let mut pair = secret(&place, "ordered-0");
    pair["stringData"] = json!({ "tls.crt": leaf.chain_pem, "tls.key": leaf.key_pem });
    pair["type"] = "kubernetes.io/tls".into();
    place.apply(&pair).await;
    let mut gateway = gateway(&place, &["app.example.test"]);
    gateway["metadata"]["annotations"] = json!({});
    place.apply(&gateway).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Arc::new(one.authority.client_of_version(version));
        let (first, _) = eventually("a handshake", || async { visit(&one, &client).await.ok() }).await;
        assert_eq!(first, HandshakeKind::Full);
        let (second, _) = eventually("a handshake", || async { visit(&two, &client).await.ok() }).await;
        assert_eq!(second, HandshakeKind::Resumed, "{version:?}");
    }
}

/// One request over a new connection, and how its handshake went.
async fn visit(trigate: &Trigate, client: &Arc<ClientConfig>) -> io::Result<HandshakeKind> {
    let stream = TcpStream::connect(trigate.external.https).await?;
    let name = ServerName::try_from("app.example.test").expect("a name");
    let stream = TlsConnector::from(Arc::clone(client)).connect(name, stream).await?;
    let kind = stream.get_ref().1.handshake_kind().expect("it is done");
    // Tickets come with the first bytes of the answer.
    let mut client = Client::http1_on(stream).await.expect("HTTP/1 is spoken");
    client.send(Ask::get("app.example.test", "/")).await;
    Ok(kind)
}
