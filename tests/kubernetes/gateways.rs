//! Gateways that come and go, their addresses and their Services.

use crate::cluster::{Cluster, Place, verdict};
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::{trigate, with_app};
use serde_json::{Value, json};
use std::net::SocketAddr;

fn programmed(found: &Value) -> bool {
    verdict(&found["status"]["conditions"], "Programmed") == "True/Programmed"
}

fn service(place: &Place, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": place.namespace } })
}

#[tokio::test]
async fn a_further_gateway_has_its_own_address_until_it_is_deleted() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    // All of 127/8 is this machine's, as the operator of a pool would have it.
    let pool = format!("127.{}.0.0/16", 100 + std::process::id() % 100);
    let _trigate = trigate(&place)
        .set("source.kubernetes.addresses.pool", pool)
        .set("source.kubernetes.service.type", "ClusterIP")
        .start()
        .await;
    let mut gateway = place.gateway("more");
    gateway["spec"]["listeners"][0]["port"] = json!(8080);
    place.apply(&gateway).await;
    let mut route = place.route("more", "more", "more.test");
    route["spec"]["parentRefs"] = json!([{ "name": "more" }]);
    place.apply(&route).await;
    let found = place.until(&gateway, "it is programmed", programmed).await;
    let address: SocketAddr =
        format!("{}:8080", found["status"]["addresses"][0]["value"].as_str().expect("an address"))
            .parse()
            .expect("an IP address");
    let served = || async {
        let answer =
            Client::try_http1(address).await.ok()?.try_send(Ask::get("more.test", "/")).await.ok()?;
        (answer.status == 200).then_some(())
    };
    eventually("it is served", served).await;
    let made = place.until(&service(&place, "more"), "it has a Service", |_| true).await;
    assert_eq!(made["spec"]["type"], "ClusterIP", "{made:#}");
    place.delete(&gateway).await;
    let closed = || async { Client::try_http1(address).await.err().map(|_| ()) };
    eventually("its socket is closed", closed).await;
}

#[tokio::test]
async fn addresses_of_the_spec_are_used_or_refused() {
    let Some(place) = Place::shared().await else { return };
    let pool = format!("127.{}.0.0/16", 200 + std::process::id() % 50);
    let usable = pool.replace("0.0/16", "7.7");
    let _trigate = trigate(&place).set("source.kubernetes.addresses.pool", pool).start().await;
    let mut gateway = place.gateway("static");
    gateway["spec"]["listeners"][0]["port"] = json!(8080);
    let address = |kind: &str, value: &str| json!({ "type": kind, "value": value });
    let outside = address("IPAddress", "192.0.2.77");
    let inside = address("IPAddress", &usable);
    gateway["spec"]["addresses"] = json!([outside, inside, address("test.dev/fake", "x")]);
    place.apply(&gateway).await;
    let is = |kind: &'static str, wanted: &'static str| {
        move |found: &Value| verdict(&found["status"]["conditions"], kind) == wanted
    };
    place.until(&gateway, "the kind is refused", is("Accepted", "False/UnsupportedAddress")).await;
    gateway["spec"]["addresses"] = json!([outside, inside]);
    place.apply(&gateway).await;
    let found =
        place.until(&gateway, "the address is refused", is("Programmed", "False/AddressNotUsable")).await;
    assert_eq!(verdict(&found["status"]["conditions"], "Accepted"), "True/Accepted");
    gateway["spec"]["addresses"] = json!([inside]);
    place.apply(&gateway).await;
    let found = place.until(&gateway, "it is programmed", programmed).await;
    assert_eq!(found["status"]["addresses"], json!([inside]));
}

#[tokio::test]
async fn the_service_of_a_gateway_is_adopted_and_its_address_reported() {
    let Some(place) = Place::shared().await else { return };
    let mut old = service(&place, "external");
    old["metadata"]["labels"] = json!({ "gateway.envoyproxy.io/owning-gateway-name": "external" });
    old["spec"] = json!({
        "type": "LoadBalancer", "selector": { "app.kubernetes.io/name": "envoy" },
        "ports": [{ "name": "http", "port": 80, "targetPort": 10080, "protocol": "TCP" }],
    });
    old["metadata"]["labels"]["theirs"] = json!("x");
    old["metadata"]["annotations"] = json!({ "example.com/theirs": "x" });
    let before = place.apply(&old).await;
    let before = serde_json::to_value(before).expect("it came as JSON");
    let mut gateway = place.gateway("external");
    gateway["spec"]["infrastructure"] = json!({
        "labels": { "team": "home" }, "annotations": { "lbipam.cilium.io/ips": "192.0.2.9" },
    });
    place.apply(&gateway).await;
    let trigate = trigate(&place)
        .set("source.kubernetes.service.type", "LoadBalancer")
        .set("source.kubernetes.service.external_traffic_policy", "Local")
        .set("source.kubernetes.service.selector.app", "trigate")
        .start()
        .await;
    let adopted = |found: &Value| found["spec"]["selector"] == json!({ "app": "trigate" });
    let found = place.until(&old, "it is adopted", adopted).await;
    for kept in ["/metadata/uid", "/spec/clusterIP", "/spec/ports/0/nodePort"] {
        assert!(found.pointer(kept).is_some_and(|value| before.pointer(kept) == Some(value)), "{kept}");
    }
    assert_eq!(found["metadata"]["labels"]["theirs"], "x");
    assert_eq!(found["metadata"]["annotations"]["example.com/theirs"], "x");
    assert_eq!(found["metadata"]["annotations"]["lbipam.cilium.io/ips"], "192.0.2.9");
    assert_eq!(found["metadata"]["labels"]["team"], "home");
    assert_eq!(found["spec"]["ports"][0]["targetPort"], trigate.external.http.port());
    assert_eq!(found["spec"]["externalTrafficPolicy"], "Local");
    let waiting =
        |found: &Value| verdict(&found["status"]["conditions"], "Programmed") == "False/AddressNotAssigned";
    place.until(&gateway, "the address is waited for", waiting).await;
    let ingress = json!([{ "hostname": "external.example.ts.net" }, { "ip": "100.64.0.9" }]);
    place.patch_status(&old, &json!({ "loadBalancer": { "ingress": ingress } })).await;
    let found = place.until(&gateway, "it is programmed", programmed).await;
    let addresses = json!([
        { "type": "IPAddress", "value": "100.64.0.9" }, { "type": "Hostname", "value": "external.example.ts.net" },
    ]);
    assert_eq!(found["status"]["addresses"], addresses);
    // What is no longer wished for goes.
    gateway["spec"]["infrastructure"] = json!({ "labels": { "floor": "2" } });
    place.apply(&gateway).await;
    let changed = |found: &Value| {
        let Value::Object(_) = found["metadata"]["labels"] else { return false };
        found["metadata"]["annotations"]["lbipam.cilium.io/ips"].is_null()
            && found["metadata"]["labels"]["team"].is_null()
            && found["metadata"]["labels"]["floor"] == "2"
            && found["metadata"]["labels"]["theirs"] == "x"
    };
    place.until(&old, "the annotation and the label are gone", changed).await;
}

#[tokio::test]
async fn a_further_gateway_has_ports_of_the_range_until_it_is_deleted() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let _trigate = trigate(&place)
        // Below the ports that connections are given.
        .set("source.kubernetes.addresses.ports", "21100-21199")
        .set("source.kubernetes.service.type", "LoadBalancer")
        .start()
        .await;
    let gateway = place.gateway("more");
    place.apply(&gateway).await;
    place.apply(&place.route("more", "more", "more.test")).await;
    let made = place.until(&service(&place, "more"), "it has a Service", |_| true).await;
    let target = made["spec"]["ports"][0]["targetPort"].as_u64().expect("a number");
    assert!((21100..=21199).contains(&target), "{made:#}");
    let address: SocketAddr = format!("127.0.0.1:{target}").parse().expect("an address");
    let served = || async {
        let answer =
            Client::try_http1(address).await.ok()?.try_send(Ask::get("more.test", "/")).await.ok()?;
        (answer.status == 200).then_some(())
    };
    eventually("it is served", served).await;
    let ingress = json!([{ "hostname": "more.example.ts.net" }]);
    place.patch_status(&made, &json!({ "loadBalancer": { "ingress": ingress } })).await;
    let found = place.until(&gateway, "it is programmed", programmed).await;
    let address_of = json!([{ "type": "Hostname", "value": "more.example.ts.net" }]);
    assert_eq!(found["status"]["addresses"], address_of);
    place.delete(&gateway).await;
    let closed = || async { Client::try_http1(address).await.err().map(|_| ()) };
    eventually("its socket is closed", closed).await;
}

#[tokio::test]
async fn a_service_that_cannot_become_what_is_wished_is_told() {
    let Some(place) = Place::shared().await else { return };
    let gateway = place.gateway("external");
    place.apply(&gateway).await;
    let with_class = |class: &str| {
        trigate(&place)
            .set("source.kubernetes.service.type", "LoadBalancer")
            .set("source.kubernetes.service.load_balancer_class", class)
    };
    let mut first = with_class("example.com/one").start().await;
    place.until(&service(&place, "external"), "it has a Service", |_| true).await;
    first.terminate();
    first.ended(std::time::Duration::from_secs(15)).await;
    let _second = with_class("example.com/two").start().await;
    let events =
        kube::Api::<k8s_openapi::api::events::v1::Event>::namespaced(place.client.clone(), &place.namespace);
    let told = || async {
        let found = events.list(&kube::api::ListParams::default()).await.ok()?.items;
        found.into_iter().find(|event| event.reason.as_deref() == Some("ServiceFixed"))
    };
    let (event, _) = eventually("an Event", told).await;
    assert!(event.note.is_some_and(|note| note.contains("example.com/two")));
    let kept = place.get(&service(&place, "external")).await.expect("it is there");
    assert_eq!(kept["spec"]["loadBalancerClass"], "example.com/one");
}

#[tokio::test]
async fn a_service_of_somebody_else_is_left_alone() {
    let Some(place) = Place::shared().await else { return };
    let mut theirs = service(&place, "external");
    theirs["spec"] = json!({ "ports": [{ "port": 1234 }], "selector": { "app": "theirs" } });
    place.apply(&theirs).await;
    let gateway = place.gateway("external");
    place.apply(&gateway).await;
    let _trigate = trigate(&place).set("source.kubernetes.service.type", "LoadBalancer").start().await;
    let told = |found: &Value| found["status"]["conditions"].to_string().contains("belongs to somebody else");
    place.until(&gateway, "the obstacle is told", told).await;
    let found = place.get(&theirs).await.expect("it is there");
    assert_eq!(found["spec"]["selector"], json!({ "app": "theirs" }));
}

/// How often one Service was read from an API server.
async fn reads_of_services(place: &Place) -> f64 {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    let page = place.client.request_text(request).await.expect("the metrics");
    let read = page.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"services\"")
            && line.contains("verb=\"GET\"")
    });
    read.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn a_copy_of_a_service_is_left_alone_and_asked_about_once() {
    // Others' questions would be counted, too.
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.expect("it does not panic");
    let Some(cluster) = cluster else { return };
    let place = Place::of(&cluster.kubeconfig).await;
    let gateway = place.gateway("external");
    place.apply(&gateway).await;
    let _trigate = trigate(&place).set("source.kubernetes.service.type", "LoadBalancer").start().await;
    let ours = place.until(&service(&place, "external"), "it has a Service", |_| true).await;
    let mut copy = service(&place, "copy");
    copy["metadata"]["labels"] = ours["metadata"]["labels"].clone();
    copy["metadata"]["annotations"] = ours["metadata"]["annotations"].clone();
    copy["spec"] = json!({ "ports": [{ "port": 80 }] });
    place.apply(&copy).await;
    const ROUNDS: usize = 12;
    let mut before = 0.0;
    for round in 0..ROUNDS {
        if round == 2 {
            before = reads_of_services(&place).await;
        }
        let route = place.route("app", "external", &format!("host-{round}.test"));
        let generation = place.apply(&route).await.metadata.generation.expect("it has one");
        let told = |found: &Value| {
            let condition = &found["status"]["parents"][0]["conditions"][0];
            condition["observedGeneration"].as_i64().is_some_and(|observed| observed >= generation)
        };
        place.until(&route, "the route is looked at", told).await;
    }
    let reads = reads_of_services(&place).await - before;
    assert!(reads < (ROUNDS / 2) as f64, "{reads} reads of Services in {} rounds", ROUNDS - 2);
    assert!(place.get(&copy).await.is_some(), "it is somebody's own");
}
