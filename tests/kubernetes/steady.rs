//! Clients notice nothing: not of changes, nor of a leader that dies, nor of an API server that is killed.

use crate::cluster::{Cluster, Place, verdict};
use crate::harness::client::{Ask, Client, tls};
use crate::harness::trigate::Trigate;
use crate::harness::upstream::Upstream;
use crate::harness::{eventually, soon};
use crate::parameters::install;
use crate::trigate;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Asks for one host over clear text and over TLS, each time on a new connection, until it is told to stop. Returns
/// how often it asked.
async fn ask_all_the_time(trigate: Arc<Trigate>, stop: Arc<AtomicBool>, asked: Arc<AtomicUsize>) {
    while !stop.load(Relaxed) {
        let plain = Client::http1(trigate.external.http).await.send(Ask::get("steady.test", "/")).await;
        assert_eq!(plain.status, 200, "over clear text, after {} requests", asked.load(Relaxed));
        let mut over_tls = Client::https1(&trigate, trigate.external, "steady.test").await;
        let answer = over_tls.send(Ask::get("steady.test", "/")).await;
        assert_eq!(answer.status, 200, "over TLS, after {} requests", asked.load(Relaxed));
        asked.fetch_add(2, Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn secret(place: &Place, trigate: &Trigate) -> Value {
    let leaf = trigate.authority.leaf(&["steady.test"]);
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "steady-tls", "namespace": place.namespace },
        "stringData": { "tls.crt": leaf.chain_pem, "tls.key": leaf.key_pem },
    })
}

/// A Backend that leads to these upstreams: its endpoints may be on loopback, and a Service's may not.
fn backend(place: &Place, upstreams: &[&Upstream]) -> Value {
    let endpoints: Vec<Value> = upstreams
        .iter()
        .map(|upstream| json!({ "ip": { "address": "127.0.0.1", "port": upstream.address.port() } }))
        .collect();
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
        "metadata": { "name": "steady", "namespace": place.namespace }, "spec": { "endpoints": endpoints },
    })
}

async fn shows_another_certificate(trigate: &Trigate, before: &mut Option<Vec<u8>>) {
    let shown = || async {
        let stream = tls(trigate, trigate.external, "steady.test", &["http/1.1"]).await.ok()?;
        stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec())
    };
    let new = || async { shown().await.filter(|shown| Some(shown) != before.as_ref()) };
    let (now, _) = eventually("the new certificate is shown", new).await;
    *before = Some(now);
}

#[tokio::test]
async fn no_request_fails_while_all_things_change() {
    let Some(cluster) = tokio::task::spawn_blocking(Cluster::start).await.expect("it does not panic") else {
        return;
    };
    let place = Place::of(&cluster.kubeconfig).await;
    if !install(&place, "backends").await {
        return;
    }
    let (old, new) = (Upstream::echo("old").await, Upstream::echo("new").await);
    let leader = trigate(&place).start().await;
    let led = || async { leader.log().contains("this replica leads").then_some(()) };
    eventually("it leads", led).await;
    let other = Arc::new(trigate(&place).start().await);
    let mut gateway = place.gateway("external");
    gateway["spec"]["listeners"] = json!([
        { "name": "http", "port": 80, "protocol": "HTTP" },
        { "name": "https", "port": 443, "protocol": "HTTPS",
          "tls": { "certificateRefs": [{ "name": "steady-tls" }] } },
    ]);
    let mut route = place.route("steady", "external", "steady.test");
    route["spec"]["rules"] = json!([{ "backendRefs": [{
        "group": "gateway.envoyproxy.io", "kind": "Backend", "name": "steady", "port": 80,
    }] }]);
    let published = async {
        while place.try_apply(&backend(&place, &[&old])).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon("the kind is known", published).await;
    for object in [secret(&place, &other), gateway, route.clone()] {
        place.apply(&object).await;
    }
    let open = || async { Client::try_http1(other.external.http).await.ok().map(|_| ()) };
    eventually("its sockets are open", open).await;
    other.until_status(other.external.http, "steady.test", "/", 200).await;
    let mut shown = None;
    shows_another_certificate(&other, &mut shown).await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking = tokio::spawn(ask_all_the_time(other.clone(), stop.clone(), asked.clone()));
    let at = |what: &str| eprintln!("{} requests: {what}", asked.load(Relaxed));

    at("routes change");
    for number in 0..20 {
        let name = format!("more-{number}");
        place.apply(&place.route(&name, "external", &format!("{name}.test"))).await;
        route["spec"]["rules"][0]["name"] = json!(format!("rule-{number}"));
        place.apply(&route).await;
    }
    at("endpoints roll");
    for upstreams in [&[&old, &new][..], &[&new], &[&new, &old], &[&old]] {
        place.apply(&backend(&place, upstreams)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    at("certificates rotate");
    for _ in 0..3 {
        place.apply(&secret(&place, &other)).await;
        shows_another_certificate(&other, &mut shown).await;
    }
    at("the leader dies");
    let before = place.get(&route).await.expect("it is there");
    drop(leader);
    let follows = || async { other.log().contains("this replica leads").then_some(()) };
    tokio::time::timeout(Duration::from_secs(20), eventually("the other one leads", follows))
        .await
        .expect("the Lease moves");
    let late = place.route("late", "external", "late.test");
    place.apply(&late).await;
    let accepted =
        |found: &Value| verdict(&found["status"]["parents"][0]["conditions"], "Accepted") == "True/Accepted";
    place.until(&late, "the other one writes", accepted).await;
    let after = place.get(&route).await.expect("it is there");
    assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"], "nothing flaps");
    at("the API server is killed");
    cluster.crash();
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.back();
        cluster
    });
    let _cluster = cluster.await.expect("it is back");
    let last = place.route("last", "external", "last.test");
    place.apply(&last).await;
    place.until(&last, "it goes on where it was", accepted).await;
    at("the end");
    stop.store(true, Relaxed);
    asking.await.expect("no request failed");
    assert!(asked.load(Relaxed) > 100);
}
