//! The EnvoyProxy that `parametersRef` of a Gateway or a class names.

use crate::cluster::{Place, verdict};
use crate::{trigate, with_app};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Installs a kind of Envoy Gateway from the folder that developers share; says so where there is none.
pub async fn install(place: &Place, plural: &str) -> bool {
    let folder = std::env::var_os("TRIGATE_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let file = folder.join(format!("crds/envoy-gateway/gateway.envoyproxy.io_{plural}.yaml"));
    let Ok(text) = std::fs::read_to_string(&file) else {
        eprintln!("skipped: there is no {}", file.display());
        return false;
    };
    let definition: Value = serde_saphyr::from_str(&text).expect("it is YAML");
    place.apply(&definition).await;
    let established =
        |found: &Value| verdict(&found["status"]["conditions"], "Established").starts_with("True");
    place.until(&definition, "the kind is installed", established).await;
    true
}

fn proxy(place: &Place, spec: &Value) -> Value {
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyProxy",
        "metadata": { "name": "proxy", "namespace": place.namespace }, "spec": spec,
    })
}

fn service(place: &Place, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": place.namespace } })
}

fn accepted(found: &Value) -> String {
    verdict(&found["status"]["conditions"], "Accepted")
}

/// Applies an object of a kind that the API server may have learned a moment ago.
async fn apply_soon(place: &Place, object: &Value) {
    for _ in 0..100 {
        if place.try_apply(object).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    place.apply(object).await;
}

#[tokio::test]
async fn an_envoy_proxy_says_what_the_service_is_like_and_how_long_a_drain_takes() {
    let Some(place) = Place::shared().await else { return };
    if !install(&place, "envoyproxies").await {
        return;
    }
    let asked = json!({
        "shutdown": { "drainTimeout": "17s", "minDrainDuration": "1s" },
        "logging": { "level": { "default": "info" } }, "mergeType": "StrategicMerge",
        "provider": { "type": "Kubernetes", "kubernetes": { "envoyService": {
            "name": "front", "type": "LoadBalancer", "loadBalancerClass": "tailscale",
            "externalTrafficPolicy": "Local", "loadBalancerIP": "192.0.2.7",
            "labels": { "team": "home" }, "annotations": { "tailscale.com/hostname": "gateway" },
            "patch": { "value": { "spec": {
                "sessionAffinity": "ClientIP", "ports": [{ "port": 80, "appProtocol": "http" }],
            } } },
        } } },
    });
    apply_soon(&place, &proxy(&place, &asked)).await;
    let mut gateway = place.gateway("external");
    gateway["spec"]["infrastructure"] = json!({ "parametersRef": {
        "group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "proxy",
    } });
    let _upstream = with_app(&place).await;
    place.apply(&gateway).await;
    let mut trigate = trigate(&place)
        .set("source.kubernetes.service.type", "ClusterIP")
        .set("source.kubernetes.service.selector.app", "trigate")
        .start()
        .await;
    let made = |found: &Value| {
        let spec = &found["spec"];
        spec["type"] == "LoadBalancer"
            && spec["loadBalancerClass"] == "tailscale"
            && spec["externalTrafficPolicy"] == "Local"
            && spec["loadBalancerIP"] == "192.0.2.7"
            && spec["sessionAffinity"] == "ClientIP"
            && spec["ports"][0]["appProtocol"] == "http"
            && spec["ports"][0]["targetPort"] == trigate.external.http.port()
            && found["metadata"]["labels"]["team"] == "home"
            && found["metadata"]["annotations"]["tailscale.com/hostname"] == "gateway"
    };
    place.until(&service(&place, "front"), "the Service is as it was asked for", made).await;
    let told = |found: &Value| {
        let ancestor = &found["status"]["ancestors"][0];
        ancestor["ancestorRef"]["kind"] == "Gateway"
            && ancestor["ancestorRef"]["name"] == "external"
            && found["status"]["ancestors"].as_array().map(Vec::len) == Some(1)
            && verdict(&ancestor["conditions"], "Accepted") == "True/Accepted"
    };
    place.until(&proxy(&place, &asked), "the EnvoyProxy says who uses it", told).await;
    let unread = trigate.log();
    for field in ["spec.logging", "spec.mergeType"] {
        assert!(unread.contains(field), "what is not read of it is told: {unread}");
    }
    // What is no longer asked for goes.
    let less = json!({
        "shutdown": { "drainTimeout": "17s", "minDrainDuration": "1s" },
        "provider": { "type": "Kubernetes", "kubernetes": { "envoyService": {
            "name": "front", "type": "LoadBalancer", "loadBalancerClass": "tailscale",
        } } },
    });
    place.apply(&proxy(&place, &less)).await;
    let lessened = |found: &Value| {
        found["spec"]["loadBalancerIP"].is_null()
            && found["spec"]["sessionAffinity"] == "None"
            && found["metadata"]["annotations"]["tailscale.com/hostname"].is_null()
    };
    place.until(&service(&place, "front"), "what is not asked for is gone", lessened).await;
    place.delete(&proxy(&place, &less)).await;
    let refused = |found: &Value| accepted(found) == "False/InvalidParameters";
    place.until(&gateway, "the missing parameters are told", refused).await;
    let kept = place.get(&service(&place, "front")).await.expect("the Service stays as it is");
    assert_eq!(kept["spec"]["type"], "LoadBalancer");
    apply_soon(&place, &proxy(&place, &less)).await;
    place.until(&gateway, "the parameters are back", |found| accepted(found) == "True/Accepted").await;
    trigate.terminate();
    trigate.ended(Duration::from_secs(15)).await;
    let log = trigate.log();
    assert!(log.contains("sockets accept for 1s, requests may finish for 17s"), "{log}");
}

#[tokio::test]
async fn parameters_of_a_class_are_for_its_gateways_and_refused_when_they_are_missing() {
    let Some(place) = Place::shared().await else { return };
    if !install(&place, "envoyproxies").await {
        return;
    }
    let _upstream = with_app(&place).await;
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": { "name": place.class },
        "spec": { "controllerName": place.controller, "parametersRef": {
            "group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "proxy", "namespace": place.namespace,
        } },
    });
    place.apply(&class).await;
    let _trigate = trigate(&place).set("source.kubernetes.service.type", "ClusterIP").start().await;
    let refused = |found: &Value| accepted(found) == "False/InvalidParameters";
    place.until(&class, "the class is refused", refused).await;
    let spec = json!({ "provider": { "type": "Kubernetes", "kubernetes": { "envoyService": {
        "type": "NodePort", "annotations": { "a": "b" },
    } } } });
    apply_soon(&place, &proxy(&place, &spec)).await;
    place.until(&class, "the class is accepted", |found| accepted(found) == "True/Accepted").await;
    let told = |found: &Value| found["status"]["ancestors"][0]["ancestorRef"]["kind"] == "GatewayClass";
    place.until(&proxy(&place, &spec), "the EnvoyProxy says who uses it", told).await;
    let made =
        |found: &Value| found["spec"]["type"] == "NodePort" && found["metadata"]["annotations"]["a"] == "b";
    place.until(&service(&place, "external"), "the Service is as the class wants it", made).await;
}

#[tokio::test]
async fn objects_of_kinds_that_are_not_served_are_told() {
    let Some(place) = Place::shared().await else { return };
    if !install(&place, "clienttrafficpolicies").await {
        return;
    }
    let policy = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "ClientTrafficPolicy",
        "metadata": { "name": "policy", "namespace": place.namespace },
        "spec": { "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "external" }] },
    });
    apply_soon(&place, &policy).await;
    let trigate = trigate(&place).start().await;
    let name = format!("ClientTrafficPolicy {}/policy", place.namespace);
    let told = || async { trigate.log().lines().any(|line| line.contains(&name)).then_some(()) };
    crate::harness::eventually("it is told", told).await;
}
