//! What happens to an API server that a test has to itself: it crashes, kinds come and go.

use crate::cluster::{Cluster, Place, verdict};
use crate::deploy::roles;
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::{trigate, with_app};
use serde_json::{Value, json};
use std::time::Duration;

async fn own_cluster() -> Option<Cluster> {
    tokio::task::spawn_blocking(Cluster::start).await.expect("it does not panic")
}

#[tokio::test]
async fn the_last_revision_serves_while_the_api_server_is_gone_and_news_follow_when_it_is_back() {
    let Some(cluster) = own_cluster().await else { return };
    let place = Place::of(&cluster.kubeconfig).await;
    let _upstream = with_app(&place).await;
    place.apply(&place.route("app", "external", "app.test")).await;
    let trigate = trigate(&place).start().await;
    trigate.until_status(trigate.external.http, "app.test", "/", 200).await;
    cluster.crash();
    let back = tokio::task::spawn_blocking(move || {
        cluster.back();
        cluster
    });
    let mut asked = 0;
    while !back.is_finished() {
        let answer = Client::http1(trigate.external.http).await.send(Ask::get("app.test", "/")).await;
        assert_eq!(answer.status, 200);
        asked += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(asked > 0);
    let _cluster = back.await.expect("it is back");
    place.apply(&place.route("late", "external", "late.test")).await;
    trigate.until_status(trigate.external.http, "late.test", "/", 200).await;
}

#[tokio::test]
async fn kinds_may_be_missing_and_come_later() {
    let Some(cluster) = own_cluster().await else { return };
    let place = Place::of(&cluster.kubeconfig).await;
    let _upstream = with_app(&place).await;
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "httproutes.gateway.networking.k8s.io" },
    });
    let definition = place.get(&crd).await.expect("the kind is installed");
    place.apply(&place.route("app", "external", "app.test")).await;
    let trigate = trigate(&place).start().await;
    trigate.until_status(trigate.external.http, "app.test", "/", 200).await;
    place.delete(&crd).await;
    trigate.until_status(trigate.external.http, "app.test", "/", 404).await;
    let gone = || async { place.get(&crd).await.is_none().then_some(()) };
    eventually("the kind is gone", gone).await;
    place.apply(&fresh(&definition)).await;
    let established = |found: &Value| {
        found["status"]["conditions"].to_string().contains("no conflicts found")
            && found["status"]["acceptedNames"]["kind"] == "HTTPRoute"
    };
    place.until(&crd, "the kind is back", established).await;
    let route = place.route("again", "external", "again.test");
    let mut tries = 0;
    let applied = async {
        // The API server takes a moment to know the kind again.
        while place.try_apply(&route).await.is_err() {
            tries += 1;
            assert!(tries < 200, "the kind is not served");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    applied.await;
    trigate.until_status(trigate.external.http, "again.test", "/", 200).await;
}

#[tokio::test]
async fn endpoints_change_without_a_new_revision() {
    let Some(cluster) = own_cluster().await else { return };
    let place = Place::of(&cluster.kubeconfig).await;
    place.apply(&place.gateway("external")).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "app", "namespace": place.namespace },
        "spec": { "ports": [{ "name": "http", "port": 80 }] },
    });
    place.apply(&service).await;
    place.apply(&place.route("app", "external", "app.test")).await;
    let trigate = trigate(&place).start().await;
    trigate.until_status(trigate.external.http, "app.test", "/", 503).await;
    let cluster = format!("httproute/{}/app/rule/0", place.namespace);
    let label = format!("envoy_cluster_name=\"{cluster}\"");
    for count in [2, 5, 1] {
        let endpoints: Vec<Value> =
            (1..=count).map(|last| json!({ "addresses": [format!("192.0.2.{last}")] })).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "app-1", "namespace": place.namespace, "labels": { "kubernetes.io/service-name": "app" },
            },
            "endpoints": endpoints, "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        });
        place.apply(&slice).await;
        let there = || async {
            let members = trigate.metric("envoy_cluster_membership_total", &[&label]).await;
            (members == f64::from(count)).then_some(())
        };
        eventually("the endpoints are known", there).await;
    }
    let revisions = trigate.log().matches("is live after").count();
    assert_eq!(revisions, 0, "{}", trigate.log());
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_is_used() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let builder = trigate(&place);
    let own = builder.path("kubeconfig");
    place.service_account(&own, &roles()).await;
    let trigate = builder.set("source.kubernetes.kubeconfig", own.display().to_string()).start().await;
    let gateway = place.gateway("external");
    let accepted = |found: &Value| verdict(&found["status"]["conditions"], "Accepted") == "True/Accepted";
    place.until(&gateway, "it is accepted", accepted).await;
    // Tokens of an account end with it, and another one of that name has others.
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "trigate", "namespace": place.namespace },
    });
    place.delete(&account).await;
    let refused = || async { trigate.log().contains("Unauthorized").then_some(()) };
    let (_, took) = eventually("it is refused, and tells it", refused).await;
    eprintln!("refused after {took:?}");
    place.apply(&account).await;
    place.write_token(&own.with_extension("token")).await;
    let route = place.route("late", "external", "late.test");
    place.apply(&route).await;
    let written =
        |found: &Value| verdict(&found["status"]["parents"][0]["conditions"], "Accepted") == "True/Accepted";
    // A token is read again after a minute at the latest.
    let written = async {
        while !place.get(&route).await.is_some_and(|found| written(&found)) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(100), written).await.expect("the new token is used");
}

/// A definition as its author wrote it.
fn fresh(definition: &Value) -> Value {
    json!({
        "apiVersion": definition["apiVersion"], "kind": definition["kind"],
        "metadata": {
            "name": definition["metadata"]["name"], "annotations": definition["metadata"]["annotations"],
        },
        "spec": definition["spec"],
    })
}
