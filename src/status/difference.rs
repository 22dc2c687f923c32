//! From the Service that there is to the one that there should be: pure, so that a Service is written only when it
//! has to be. What others set stays, and what came from us goes when it is no longer wished for.

use crate::resource::EnvoyPatch;
use serde_json::{Map, Value, json};

/// Which annotations came from us, so that they can go again.
pub(super) const ANNOTATIONS: &str = "trigate.dev/propagated-annotations";
/// The same for labels.
pub(super) const LABELS: &str = "trigate.dev/propagated-labels";
/// The same for fields of the spec.
pub(super) const FIELDS: &str = "trigate.dev/propagated-fields";

/// What to change in a Service as a merge patch; `None` when it is as it should be.
pub(super) fn difference(current: &Value, desired: &Value) -> Option<Value> {
    let mut metadata = Map::new();
    for (field, list) in [("labels", LABELS), ("annotations", ANNOTATIONS)] {
        let mut changed: Map<String, Value> = Map::new();
        let now = desired.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
        for (key, value) in now.into_iter().flatten() {
            if current["metadata"][field][key] != *value {
                changed.insert(key.clone(), value.clone());
            }
        }
        for key in noted(current, list).filter(|key| now.is_none_or(|now| !now.contains_key(*key))) {
            if current["metadata"][field].get(key).is_some() {
                changed.insert(key.to_owned(), Value::Null);
            }
        }
        if !changed.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(changed));
        }
    }
    let owners = &desired["metadata"]["ownerReferences"];
    let uid = |owners: &Value| owners.pointer("/0/uid").cloned();
    if owners.is_array() && uid(owners) != uid(&current["metadata"]["ownerReferences"]) {
        metadata.insert("ownerReferences".to_owned(), owners.clone());
    }
    let mut spec = changed_spec(&current["spec"], &desired["spec"]);
    for field in noted(current, FIELDS) {
        if desired["spec"].get(field).is_none() && current["spec"].get(field).is_some() {
            spec.insert(field.to_owned(), Value::Null);
        }
    }
    if metadata.is_empty() && spec.is_empty() {
        return None;
    }
    Some(json!({ "metadata": metadata, "spec": spec }))
}

/// What is wrong when a load balancer would have to be somebody else's: Kubernetes lets that be set only once.
pub(super) fn fixed_class(current: &Value, desired: &Value) -> Option<String> {
    let (now, wished) = (&current["spec"]["loadBalancerClass"], &desired["spec"]["loadBalancerClass"]);
    let is_fixed = current["spec"]["type"] == "LoadBalancer" && wished.is_string() && now != wished;
    is_fixed.then(|| {
        let now = now.as_str().unwrap_or_default();
        format!(
            "has loadBalancerClass `{now}`, which cannot be changed to {wished}; delete the Service, and it is made anew"
        )
    })
}

/// What this annotation of a Service lists.
fn noted<'v>(current: &'v Value, annotation: &str) -> impl Iterator<Item = &'v str> {
    let list = current["metadata"]["annotations"][annotation].as_str().unwrap_or_default();
    list.split(',').filter(|key| !key.is_empty())
}

fn changed_spec(current: &Value, desired: &Value) -> Map<String, Value> {
    let mut changed = Map::new();
    let Some(fields) = desired.as_object() else { return changed };
    for (field, value) in fields {
        let same = match field.as_str() {
            "selector" => current[field] == *value,
            // It can be set only when the Service becomes a load balancer.
            "loadBalancerClass" => current["type"] == "LoadBalancer",
            _ => covers(&current[field], value),
        };
        if !same {
            changed.insert(field.clone(), value.clone());
        }
    }
    if let Some(ports) = changed.get_mut("ports").filter(|_| desired["type"] != "ClusterIP") {
        keep_node_ports(&current["ports"], ports);
    }
    // A merge patch merges maps, and a label that stays in the selector would choose nothing.
    if let Some(selector) = changed.get_mut("selector").and_then(Value::as_object_mut) {
        for key in current["selector"].as_object().into_iter().flatten().map(|(key, _)| key) {
            selector.entry(key.clone()).or_insert(Value::Null);
        }
    }
    changed
}

/// Leaves ports of the nodes as they are: the API server does so for ports of the same name only, and firewalls know
/// them by their number.
fn keep_node_ports(current: &Value, ports: &mut Value) {
    for port in ports.as_array_mut().into_iter().flatten().filter(|port| port["nodePort"].is_null()) {
        let same = current
            .as_array()
            .into_iter()
            .flatten()
            .find(|other| other["port"] == port["port"] && other["protocol"] == port["protocol"]);
        if let Some(number) = same.and_then(|same| same.get("nodePort")) {
            port["nodePort"] = number.clone();
        }
    }
}

/// Whether all that is desired is there; the API server adds what it decides itself, a port's `nodePort`.
fn covers(current: &Value, desired: &Value) -> bool {
    match (current, desired) {
        (Value::Object(current), Value::Object(desired)) => {
            desired.iter().all(|(key, value)| current.get(key).is_some_and(|there| covers(there, value)))
        }
        (Value::Array(current), Value::Array(desired)) => {
            current.len() == desired.len() && current.iter().zip(desired).all(|(a, b)| covers(a, b))
        }
        _ => current == desired,
    }
}

/// Lays the patch of an EnvoyProxy over a Service.
pub(super) fn lay_over(service: &mut Value, patch: &EnvoyPatch) {
    let EnvoyPatch { r#type, value } = patch;
    if !value.is_object() {
        return;
    }
    let mut value = value.clone();
    if r#type.as_deref() != Some("JSONMerge") {
        let ports = value.pointer_mut("/spec/ports").map(Value::take);
        if let Some(Value::Array(ports)) = ports {
            value["spec"]["ports"] = by_port(&service["spec"]["ports"], &ports);
        }
    }
    merge(service, &value);
}

/// Ports of a Service with others laid over them: a strategic merge knows them by their number.
fn by_port(ports: &Value, patches: &[Value]) -> Value {
    let mut merged = ports.as_array().cloned().unwrap_or_default();
    for patch in patches {
        match merged.iter_mut().find(|port| port["port"] == patch["port"]) {
            Some(port) => merge(port, patch),
            None => merged.push(patch.clone()),
        }
    }
    Value::Array(merged)
}

/// JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(annotations: Value, spec: Value) -> Value {
        json!({ "metadata": { "labels": { "a": "b" }, "annotations": annotations }, "spec": spec })
    }

    #[test]
    fn a_service_that_is_right_is_not_written() {
        let port = json!({ "name": "http-80", "port": 80, "targetPort": 10080, "protocol": "TCP" });
        let mut given = port.clone();
        given["nodePort"] = json!(30123);
        let current = service(
            json!({ "theirs": "x" }),
            json!({ "type": "LoadBalancer", "ports": [given], "clusterIP": "10.96.0.9" }),
        );
        let desired = service(json!({}), json!({ "type": "LoadBalancer", "ports": [port] }));
        assert_eq!(difference(&current, &desired), None);
    }

    #[test]
    fn annotations_and_labels_that_a_gateway_no_longer_wishes_go_and_others_stay() {
        let current = json!({ "metadata": {
            "labels": { "a": "b", "team": "home", "theirs": "x" },
            "annotations": { "theirs": "x", "old": "1", "kept": "2", ANNOTATIONS: "old,kept", LABELS: "a,team" },
        } });
        let desired = service(json!({ "kept": "2", ANNOTATIONS: "kept", LABELS: "a" }), json!({}));
        let patch = difference(&current, &desired).unwrap();
        let annotations = json!({ "old": null, ANNOTATIONS: "kept", LABELS: "a" });
        assert_eq!(patch["metadata"], json!({ "labels": { "team": null }, "annotations": annotations }));
    }

    #[test]
    fn a_load_balancer_stays_with_its_class_and_that_is_told() {
        let of =
            |class: Value| service(json!({}), json!({ "type": "LoadBalancer", "loadBalancerClass": class }));
        let (none, tailscale) = (of(Value::Null), of(json!("tailscale")));
        assert_eq!(difference(&none, &tailscale), None);
        assert!(fixed_class(&none, &tailscale).is_some_and(|message| message.contains("tailscale")));
        assert_eq!(fixed_class(&tailscale, &tailscale), None);
        let inner = service(json!({}), json!({ "type": "ClusterIP" }));
        assert_eq!(fixed_class(&inner, &tailscale), None, "it can be set with the type");
    }

    #[test]
    fn fields_that_are_no_longer_asked_for_go_and_others_stay() {
        let current = service(
            json!({ FIELDS: "loadBalancerIP" }),
            json!({ "loadBalancerIP": "192.0.2.1", "sessionAffinity": "None" }),
        );
        let patch = difference(&current, &service(json!({ FIELDS: "" }), json!({}))).unwrap();
        assert_eq!(patch["spec"], json!({ "loadBalancerIP": null }));
    }

    #[test]
    fn ports_of_nodes_stay_whatever_the_names_of_ports_become() {
        let port = |name: &str, number: u16| json!({ "name": name, "port": number, "protocol": "TCP" });
        let mut given = port("web", 80);
        given["nodePort"] = json!(30080);
        let current = service(json!({}), json!({ "type": "LoadBalancer", "ports": [given] }));
        let of = |kind: &str| {
            let ports = json!([port("http-80", 80), port("http-81", 81)]);
            let patch = difference(&current, &service(json!({}), json!({ "type": kind, "ports": ports })));
            patch.unwrap()["spec"]["ports"].clone()
        };
        let mut kept = port("http-80", 80);
        kept["nodePort"] = json!(30080);
        assert_eq!(of("LoadBalancer"), json!([kept, port("http-81", 81)]));
        assert_eq!(of("ClusterIP"), json!([port("http-80", 80), port("http-81", 81)]));
    }

    #[test]
    fn the_selector_of_a_service_that_is_adopted_is_replaced_as_a_whole() {
        let current = service(json!({}), json!({ "selector": { "app": "envoy", "name": "x" } }));
        let desired = service(json!({}), json!({ "selector": { "name": "trigate" } }));
        let patch = difference(&current, &desired).unwrap();
        assert_eq!(patch["spec"]["selector"], json!({ "app": null, "name": "trigate" }));
    }

    #[test]
    fn a_patch_is_laid_over_ports_by_their_number() {
        let made =
            json!({ "spec": { "type": "LoadBalancer", "ports": [{ "port": 80, "targetPort": 10080 }] } });
        let value =
            json!({ "spec": { "type": null, "ports": [{ "port": 80, "nodePort": 30080 }, { "port": 9 }] } });
        let patched = |kind: Option<&str>| {
            let mut service = made.clone();
            lay_over(&mut service, &EnvoyPatch { r#type: kind.map(Into::into), value: value.clone() });
            service
        };
        let port = json!({ "port": 80, "targetPort": 10080, "nodePort": 30080 });
        assert_eq!(patched(None), json!({ "spec": { "ports": [port, { "port": 9 }] } }));
        assert_eq!(patched(Some("JSONMerge"))["spec"]["ports"], value["spec"]["ports"]);
    }
}
