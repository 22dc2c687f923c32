//! What `kubectl describe` shows is so.

use crate::cluster::{Place, condition, verdict};
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::{trigate, with_app};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// A ListenerSet of the Gateway `external`.
fn listener_set(place: &Place) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ListenerSet",
        "metadata": { "name": "more", "namespace": place.namespace },
        "spec": {
            "parentRef": { "name": "external" },
            "listeners": [{ "name": "more", "port": 80, "protocol": "HTTP", "hostname": "more.test" }],
        },
    })
}

#[tokio::test]
async fn classes_and_gateways_are_accepted_with_their_generation() {
    let Some(place) = Place::shared().await else { return };
    let _trigate = trigate(&place).start().await;
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": { "name": place.class },
    });
    let accepted = |found: &Value| verdict(&found["status"]["conditions"], "Accepted") == "True/Accepted";
    let found = place.until(&class, "the class is accepted", accepted).await;
    assert_eq!(verdict(&found["status"]["conditions"], "SupportedVersion"), "True/SupportedVersion");
    let features = found["status"]["supportedFeatures"].as_array().expect("features");
    assert!(features.contains(&json!({ "name": "HTTPRoute" })), "{features:?}");
    let mut gateway = place.gateway("external");
    place.apply(&gateway).await;
    gateway["spec"]["listeners"] = json!([
        { "name": "http", "port": 80, "protocol": "HTTP" },
        { "name": "strange", "port": 81, "protocol": "test.dev/strange" },
    ]);
    place.apply(&gateway).await;
    let settled = |found: &Value| {
        let generation = &found["metadata"]["generation"];
        let conditions = &found["status"]["conditions"];
        let current = |condition: &Value| condition["observedGeneration"] == *generation;
        *generation == 2 && conditions.as_array().is_some_and(|all| all.len() >= 2 && all.iter().all(current))
    };
    let found = place.until(&gateway, "the second generation is observed", settled).await;
    assert_eq!(verdict(&found["status"]["conditions"], "Accepted"), "True/ListenersNotValid");
    assert_eq!(verdict(&found["status"]["conditions"], "Programmed"), "True/Programmed");
    let names: Vec<&Value> =
        found["status"]["listeners"].as_array().expect("listeners").iter().map(|l| &l["name"]).collect();
    assert_eq!(names, ["http", "strange"]);
    let address = &found["status"]["addresses"][0];
    assert_eq!(address["type"], "IPAddress", "{found:#}");
    let row = place.row(&gateway).await;
    assert_eq!(row["Class"], place.class.as_str(), "{row}");
    assert_eq!((&row["Address"], &row["Programmed"]), (&address["value"], &json!("True")), "{row}");
}

#[tokio::test]
async fn other_controllers_keep_their_parents_and_stale_ones_of_ours_go() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let _trigate = trigate(&place).start().await;
    let mut route = place.route("app", "external", "app.test");
    route["spec"]["parentRefs"] =
        json!([{ "name": "external", "sectionName": "http" }, { "name": "theirs" }]);
    place.apply(&route).await;
    let ours = |found: &Value| {
        let parents = found["status"]["parents"].as_array().cloned().unwrap_or_default();
        parents
            .into_iter()
            .filter(|parent| parent["controllerName"] == place.controller.as_str())
            .collect::<Vec<_>>()
    };
    let found = place.until(&route, "our parent is there", |found| !ours(found).is_empty()).await;
    assert_eq!(ours(&found).len(), 1, "{found:#}");
    assert_eq!(ours(&found)[0]["parentRef"]["sectionName"], "http");
    let mut parents = found["status"]["parents"].as_array().cloned().unwrap_or_default();
    parents.push(json!({
        "controllerName": "example.com/other", "parentRef": { "name": "theirs" },
        "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }));
    place.patch_status(&route, &json!({ "parents": parents })).await;
    route["spec"]["parentRefs"] = json!([{ "name": "theirs" }]);
    place.apply(&route).await;
    let found = place.until(&route, "our entry is gone", |found| ours(found).is_empty()).await;
    assert_eq!(found["status"]["parents"][0]["controllerName"], "example.com/other");
    assert_eq!(found["status"]["parents"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn what_is_wrong_is_told_in_conditions_and_events() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let _trigate = trigate(&place).start().await;
    let mut route = place.route("broken", "external", "broken.test");
    route["spec"]["rules"] = json!([{ "backendRefs": [{ "name": "appp", "port": 80 }] }]);
    place.apply(&route).await;
    let told = |found: &Value| {
        verdict(&found["status"]["parents"][0]["conditions"], "ResolvedRefs") == "False/BackendNotFound"
    };
    let found = place.until(&route, "the missing Service is told", told).await;
    let first =
        condition(&found["status"]["parents"][0]["conditions"], "ResolvedRefs").cloned().expect("it is told");
    assert!(first["message"].as_str().is_some_and(|text| text.contains("app")), "{first}");
    let events =
        kube::Api::<k8s_openapi::api::events::v1::Event>::namespaced(place.client.clone(), &place.namespace);
    let events = &events;
    let told = || async move {
        let found = events.list(&kube::api::ListParams::default()).await.expect("a list").items;
        found.into_iter().find(|event| event.reason.as_deref() == Some("BackendNotFound"))
    };
    let (event, _) = eventually("an Event", told).await;
    assert_eq!(event.regarding.and_then(|object| object.name).as_deref(), Some("broken"));
    // Another message is no transition.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    route["spec"]["rules"] = json!([{ "backendRefs": [{ "name": "zzz", "port": 80 }] }]);
    place.apply(&route).await;
    let other = |found: &Value| {
        let now = condition(&found["status"]["parents"][0]["conditions"], "ResolvedRefs");
        now.is_some_and(|now| now["message"] != first["message"])
    };
    let found = place.until(&route, "the other missing Service is told", other).await;
    let now =
        condition(&found["status"]["parents"][0]["conditions"], "ResolvedRefs").cloned().expect("it is told");
    assert_eq!(now["lastTransitionTime"], first["lastTransitionTime"]);
}

#[tokio::test]
async fn many_routes_at_one_gateway_are_few_writes_of_it() {
    const ROUTES: usize = 300;
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let _trigate = trigate(&place).start().await;
    let gateway = place.gateway("external");
    let programmed =
        |found: &Value| verdict(&found["status"]["conditions"], "Programmed") == "True/Programmed";
    place.until(&gateway, "it is programmed", programmed).await;
    let seen = std::sync::Mutex::new(BTreeSet::new());
    let writing = async {
        for number in 0..ROUTES {
            place
                .apply(&place.route(&format!("app-{number}"), "external", &format!("app-{number}.test")))
                .await;
        }
    };
    let watching = async {
        loop {
            let found = place.get(&gateway).await.expect("it is there");
            seen.lock().expect("nobody panics").insert(found["metadata"]["resourceVersion"].to_string());
            if found["status"]["listeners"][0]["attachedRoutes"] == ROUTES {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(writing, tokio::time::timeout(Duration::from_secs(60), watching))
        .1
        .expect("all are counted");
    let writes = seen.lock().expect("nobody panics").len();
    assert!(writes <= 20, "{writes} writes");
}

#[tokio::test]
async fn what_is_not_ours_any_more_does_not_say_that_it_is_served() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let mut gateway = place.gateway("external");
    gateway["spec"]["allowedListeners"] = json!({ "namespaces": { "from": "Same" } });
    place.apply(&gateway).await;
    let set = listener_set(&place);
    place.apply(&set).await;
    let route = place.route("app", "external", "app.test");
    place.apply(&route).await;
    let trigate = trigate(&place).start().await;
    let programmed =
        |found: &Value| verdict(&found["status"]["conditions"], "Programmed") == "True/Programmed";
    place.until(&gateway, "it is programmed", programmed).await;
    place.until(&set, "the set is programmed", programmed).await;
    place.until(&route, "it has a parent", |found| !found["status"]["parents"][0].is_null()).await;
    gateway["spec"]["gatewayClassName"] = json!("somebody-elses");
    place.apply(&gateway).await;
    let began = std::time::Instant::now();
    let pending = |found: &Value| {
        verdict(&found["status"]["conditions"], "Programmed") == "Unknown/Pending"
            && found["status"]["listeners"].as_array().is_none_or(Vec::is_empty)
            && found["status"]["addresses"].as_array().is_none_or(Vec::is_empty)
    };
    place.until(&gateway, "it waits for its controller", pending).await;
    place.until(&set, "the set waits for its controller", pending).await;
    let no_parents = |found: &Value| found["status"]["parents"].as_array().is_none_or(Vec::is_empty);
    place.until(&route, "it has no parent", no_parents).await;
    assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
    let closed = || async { Client::try_http1(trigate.external.http).await.err().map(|_| ()) };
    eventually("its socket is closed", closed).await;
}

#[tokio::test]
async fn what_stopped_being_ours_while_nobody_led_is_found_at_the_start() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let theirs = place.class_of_somebody_else().await;
    let replica = || trigate(&place).set("source.kubernetes.service.type", "ClusterIP");
    let (mut lost, mut taken) = (place.gateway("external"), place.gateway("taken"));
    lost["spec"]["allowedListeners"] = json!({ "namespaces": { "from": "Same" } });
    let set = listener_set(&place);
    let route = place.route("app", "external", "app.test");
    for object in [&lost, &taken, &set, &route] {
        place.apply(object).await;
    }
    let mut first = replica().start().await;
    let programmed =
        |found: &Value| verdict(&found["status"]["conditions"], "Programmed") == "True/Programmed";
    place.until(&lost, "it is programmed", programmed).await;
    place.until(&set, "the set is programmed", programmed).await;
    place.until(&route, "it has a parent", |found| !found["status"]["parents"][0].is_null()).await;
    let observed = |found: &Value| found["status"]["conditions"][0]["observedGeneration"] == 1;
    place.until(&taken, "the other one is told, too", observed).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "external", "namespace": place.namespace },
    });
    let made = place.until(&service, "there is a Service", |_| true).await;
    first.terminate();
    first.ended(Duration::from_secs(15)).await;

    for gateway in [&mut lost, &mut taken] {
        gateway["spec"]["gatewayClassName"] = theirs.clone().into();
        place.apply(gateway).await;
    }
    let accepted = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "by somebody else",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 2,
    });
    place.patch_status(&taken, &json!({ "conditions": [accepted] })).await;
    // Labelled like ours, and nobody's.
    let mut alike = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "alike", "namespace": place.namespace },
        "spec": { "ports": [{ "port": 80 }] },
    });
    alike["metadata"]["labels"] = made["metadata"]["labels"].clone();
    alike["metadata"]["annotations"] = made["metadata"]["annotations"].clone();
    place.apply(&alike).await;

    let _second = replica().start().await;
    let pending = |found: &Value| {
        verdict(&found["status"]["conditions"], "Programmed") == "Unknown/Pending"
            && found["status"]["listeners"].as_array().is_none_or(Vec::is_empty)
    };
    place.until(&lost, "it waits for its controller", pending).await;
    place.until(&set, "the set waits for its controller", pending).await;
    let no_parents = |found: &Value| found["status"]["parents"].as_array().is_none_or(Vec::is_empty);
    place.until(&route, "it has no parent", no_parents).await;
    let gone = || async { place.get(&service).await.is_none().then_some(()) };
    eventually("the Service is gone", gone).await;
    assert!(place.get(&alike).await.is_some(), "a Service that is not the Gateway's stays");
    let found = place.get(&taken).await.expect("it is there");
    assert_eq!(found["status"]["conditions"], json!([accepted]), "what another controller wrote stays");
}

#[tokio::test]
async fn statuses_that_are_refused_hold_up_no_others() {
    // More than are written before the writer looks for news.
    const REFUSED: usize = 140;
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let name = format!("no-status-{}", place.namespace);
    let of_kind = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        })
    };
    let policy = of_kind(
        "ValidatingAdmissionPolicy",
        json!({
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["gateway.networking.k8s.io"], "apiVersions": ["v1"], "operations": ["UPDATE"],
                "resources": ["httproutes/status"],
            }] },
            "validations": [{ "expression": "!object.metadata.name.startsWith('refused')", "message": "not today" }],
        }),
    );
    let here = json!({ "matchLabels": { "kubernetes.io/metadata.name": place.namespace } });
    let binding = of_kind(
        "ValidatingAdmissionPolicyBinding",
        json!({
            "policyName": name, "validationActions": ["Deny"], "matchResources": { "namespaceSelector": here },
        }),
    );
    place.apply(&policy).await;
    place.apply(&binding).await;
    for number in 0..REFUSED {
        let name = format!("refused-{number}");
        place.apply(&place.route(&name, "external", &format!("{name}.test"))).await;
    }
    let refused = place.route("refused-0", "external", "refused-0.test");
    let enforced = || async {
        let status = json!({ "parents": [] });
        place.try_patch_status(&refused, &status).await.err().map(|_| ())
    };
    eventually("the policy is enforced", enforced).await;
    let trigate = trigate(&place).start().await;
    let accepted =
        |found: &Value| verdict(&found["status"]["parents"][0]["conditions"], "Accepted") == "True/Accepted";
    let told = || async { trigate.log().contains("not today").then_some(()) };
    eventually("the refusal is told", told).await;
    let fine = place.route("fine", "external", "fine.test");
    place.apply(&fine).await;
    place.until(&fine, "others are written", accepted).await;
    let log = trigate.log();
    assert!(log.matches("cannot write the status").count() <= 3, "{log}");
    place.delete(&binding).await;
    place.until(&refused, "it is written when it may be", accepted).await;
}
