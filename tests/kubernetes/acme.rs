//! Certificates that are ordered in a cluster: by the replica that leads, kept in Secrets, served by all.

use crate::cluster::Place;
use crate::harness::eventually;
use crate::harness::trigate::Builder;
use crate::pebble::{self, Pebble, handshake, own_address, trusted};
use crate::trigate;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

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
    let events: kube::Api<k8s_openapi::api::events::v1::Event> =
        kube::Api::namespaced(place.client.clone(), &place.namespace);
    let (event, _) = eventually("an Event", || async {
        let all = events.list(&kube::api::ListParams::default()).await.ok()?;
        all.into_iter().find(|event| event.reason.as_deref() == Some("OrderFailed"))
    })
    .await;
    assert_eq!(event.regarding.expect("a Secret").name.as_deref(), Some("ordered-0"));
    assert!(event.note.expect("a note").contains("theirs.example.test"));
    let kept = place.get(&others).await.expect("it is there");
    assert!(kept["metadata"]["labels"].is_null(), "{kept}");
    assert!(trigate.log().contains("ordered-1 is somebody else's"), "{}", trigate.log());
    let client = Arc::new(pebble.client().await);
    assert!(handshake(&client, trigate.external.https, "theirs.example.test").await.is_err());
}
