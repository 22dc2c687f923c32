//! From an applied object to an answer.

use crate::cluster::{Place, verdict};
use crate::harness::client::{Ask, Client, tls};
use crate::harness::eventually;
use crate::{trigate, with_app};
use serde_json::{Value, json};
use std::time::Instant;

#[tokio::test]
async fn an_applied_route_is_served_and_a_deleted_one_is_not() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let trigate = trigate(&place).start().await;
    let mut times = Vec::new();
    for number in 0..5 {
        let host = format!("app-{number}.test");
        let began = Instant::now();
        place.apply(&place.route("app", "external", &host)).await;
        trigate.until_status(trigate.external.http, &host, "/", 200).await;
        times.push(began.elapsed());
    }
    eprintln!("from apply to the first 200: {times:?}");
    place.delete(&place.route("app", "external", "app-4.test")).await;
    trigate.until_status(trigate.external.http, "app-4.test", "/", 404).await;
}

#[tokio::test]
async fn a_route_that_is_called_accepted_is_served_at_once() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let trigate = trigate(&place).start().await;
    for number in 0..10 {
        let host = format!("accepted-{number}.test");
        let route = place.route(&format!("accepted-{number}"), "external", &host);
        place.apply(&route).await;
        let accepted = |found: &Value| {
            verdict(&found["status"]["parents"][0]["conditions"], "Accepted") == "True/Accepted"
        };
        place.until(&route, "Accepted", accepted).await;
        let answer = Client::http1(trigate.external.http).await.send(Ask::get(&host, "/")).await;
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[tokio::test]
async fn a_certificate_that_comes_later_or_is_replaced_is_served() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let builder = trigate(&place);
    let leaf = builder.leaf(&["app.test"]);
    let trigate = builder.start().await;
    let mut gateway = place.gateway("external");
    gateway["spec"]["listeners"] = json!([{
        "name": "https", "port": 443, "protocol": "HTTPS",
        "tls": { "certificateRefs": [{ "name": "app-tls" }] },
    }]);
    place.apply(&gateway).await;
    place.apply(&place.route("app", "external", "app.test")).await;
    let lacking = |found: &Value| {
        verdict(&found["status"]["listeners"][0]["conditions"], "ResolvedRefs")
            == "False/InvalidCertificateRef"
    };
    place.until(&gateway, "the missing certificate is told", lacking).await;
    for kind in ["kubernetes.io/tls", "Opaque"] {
        let leaf = if kind == "Opaque" { trigate.authority.leaf(&["app.test"]) } else { leaf.clone() };
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": { "name": "app-tls", "namespace": place.namespace },
        });
        if place.get(&secret).await.is_some() {
            place.delete(&secret).await;
        }
        secret["stringData"] = json!({ "tls.crt": leaf.chain_pem, "tls.key": leaf.key_pem });
        place.apply(&secret).await;
        let shown = || async {
            let stream = tls(&trigate, trigate.external, "app.test", &["http/1.1"]).await.ok()?;
            let shown = stream.get_ref().1.peer_certificates()?.first()?;
            (*shown == leaf.der).then_some(())
        };
        eventually("the certificate is shown", shown).await;
    }
    let fine = |found: &Value| {
        verdict(&found["status"]["listeners"][0]["conditions"], "ResolvedRefs") == "True/ResolvedRefs"
    };
    place.until(&gateway, "the certificate is resolved", fine).await;
}
