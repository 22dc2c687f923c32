//! Conditions as the Gateway API prescribes them, from objects to what the API server is sent.

use std::path::Path;
use trigate::compile::{Binding, Compiled, GatewayReport, Verdict, compile};
use trigate::resource::GATEWAY_GROUP;
use trigate::routing::GatewayId;
use trigate::source::read_text;
use trigate::status::{Condition, RouteKindStatus, gateway, listener_set, route};
use trigate::tls::TlsOptions;

const OBJECTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: external, namespace: network, generation: 3}
spec:
  gatewayClassName: trigate
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: HTTPRoute}]}}
  - {name: ssh, port: 22, protocol: example.test/QUACK}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: default, generation: 7}
spec:
  parentRefs:
  - {name: external, namespace: network, sectionName: http}
  - {name: external, namespace: network, port: 81}
  - {name: elsewhere, namespace: network}
  rules:
  - matches: [{path: {value: /fine}}]
    backendRefs: [{name: missing, port: 80}]
  - matches: [{path: {type: RegularExpression, value: '('}}]
";

fn compiled() -> Compiled {
    compiled_from(OBJECTS)
}

fn compiled_from(objects: &str) -> Compiled {
    let binding = Binding {
        id: GatewayId(0),
        name: "external".into(),
        namespace: "network".into(),
        object: "external".into(),
        tls: TlsOptions::default(),
    };
    compile(&read_text(Path::new("objects.yaml"), objects), &[binding])
}

/// `type=status/reason` of each condition.
fn words(conditions: &[Condition]) -> Vec<String> {
    let words =
        |condition: &Condition| format!("{}={}/{}", condition.r#type, condition.status, condition.reason);
    conditions.iter().map(words).collect()
}

#[test]
fn a_gateway_lists_its_listeners_with_their_conditions() {
    let status = gateway(&compiled().gateways[0]);
    assert_eq!(
        words(&status.conditions),
        ["Accepted=True/ListenersNotValid", "Programmed=True/Programmed", "ResolvedRefs=True/ResolvedRefs"]
    );
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(3)));
    let [http, ssh] = &*status.listeners else { panic!("{:?}", status.listeners) };
    assert_eq!((http.name.as_str(), http.attached_routes), ("http", 1));
    assert_eq!(http.supported_kinds, [RouteKindStatus { group: GATEWAY_GROUP, kind: "HTTPRoute" }]);
    assert_eq!(
        words(&ssh.conditions),
        [
            "Accepted=False/UnsupportedProtocol",
            "Programmed=False/Invalid",
            "ResolvedRefs=True/ResolvedRefs",
            "Conflicted=False/NoConflicts"
        ]
    );
    assert!(ssh.supported_kinds.is_empty());
}

#[test]
fn a_route_has_one_entry_for_each_parent_of_ours() {
    let status = route(&compiled().routes[0], "trigate.dev/gateway-controller");
    let [by_section, by_port] = &*status.parents else { panic!("{:?}", status.parents) };
    assert_eq!(
        words(&by_section.conditions),
        [
            "Accepted=True/Accepted",
            "ResolvedRefs=False/BackendNotFound",
            "PartiallyInvalid=True/UnsupportedValue"
        ]
    );
    assert!(by_section.conditions[2].message.starts_with("Dropped Rule"), "{:?}", by_section.conditions[2]);
    assert_eq!(
        words(&by_port.conditions),
        ["Accepted=False/NoMatchingParent", "ResolvedRefs=False/BackendNotFound"]
    );
    assert!(by_port.conditions.iter().all(|condition| condition.observed_generation == Some(7)));
}

#[test]
fn a_status_is_written_as_the_api_spells_it() {
    let status = route(&compiled().routes[0], "trigate.dev/gateway-controller");
    let json = serde_json::to_value(&status.parents[1]).unwrap();
    assert_eq!(
        json["parentRef"],
        serde_json::json!({"name": "external", "namespace": "network", "port": 81})
    );
    assert_eq!(json["controllerName"], "trigate.dev/gateway-controller");
    assert_eq!(json["conditions"][0]["type"], "Accepted");
    assert_eq!(json["conditions"][0]["status"], "False");
    assert_eq!(json["conditions"][0]["observedGeneration"], 7);
    assert!(json["conditions"][0]["message"].as_str().unwrap().contains("on port 81"));
}

const SETS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: external, namespace: network, generation: 3}
spec:
  gatewayClassName: trigate
  allowedListeners: {namespaces: {from: All}}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: fine, namespace: media, generation: 5}
spec:
  parentRef: {name: external, namespace: network}
  listeners:
  - {name: http, port: 8080, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: taken, namespace: media, generation: 6}
spec:
  parentRef: {name: external, namespace: network}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
";

#[test]
fn a_listener_set_has_conditions_of_its_own_and_its_gateway_counts_it_when_it_is_accepted() {
    let report = &compiled_from(SETS).gateways[0];
    let [fine, taken] = &*report.listener_sets else { panic!("{:?}", report.listener_sets) };
    let status = listener_set(fine, report);
    assert_eq!(words(&status.conditions), ["Accepted=True/Accepted", "Programmed=True/Programmed"]);
    assert_eq!(status.listeners[0].name, "http");
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(5)));
    let status = listener_set(taken, report);
    assert_eq!(
        words(&status.conditions),
        ["Accepted=False/ListenersNotValid", "Programmed=False/ListenersNotValid"]
    );
    assert_eq!(
        words(&status.listeners[0].conditions),
        [
            "Accepted=False/HostnameConflict",
            "Programmed=False/HostnameConflict",
            "ResolvedRefs=True/ResolvedRefs",
            "Conflicted=True/HostnameConflict"
        ]
    );
    assert_eq!(gateway(report).attached_listener_sets, 1);
}

#[test]
fn a_listener_set_is_no_better_than_its_gateway() {
    let report = &compiled_from(SETS).gateways[0];
    let mut lost = report.clone();
    lost.programmed = Verdict::no("AddressNotAssigned", "");
    let conditions =
        |gateway: &GatewayReport| words(&listener_set(&report.listener_sets[0], gateway).conditions);
    assert_eq!(conditions(&lost), ["Accepted=True/Accepted", "Programmed=False/ParentNotProgrammed"]);
    lost.accepted = Verdict::no("UnsupportedAddress", "");
    assert_eq!(
        conditions(&lost),
        ["Accepted=False/ParentNotAccepted", "Programmed=False/ParentNotProgrammed"]
    );
    assert_eq!(gateway(&lost).attached_listener_sets, 0);
}
