//! What is in `deploy/` is what an API server takes, says what is meant, and grants what is needed and no more.

use crate::cluster::{Place, verdict};
use crate::harness::eventually;
use crate::{trigate, with_app};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use trigate::config::Config;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---");
    let read =
        |part: &str| serde_saphyr::from_str::<Value>(part).unwrap_or_else(|error| panic!("{error}: {part}"));
    parts.map(read).filter(Value::is_object).collect()
}

/// All documents of the manifests but those that only kustomize reads.
fn manifests() -> Vec<Value> {
    let files = fs::read_dir(deploy().join("kustomize")).expect("the folder is there").flatten();
    let files =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|ext| ext == "yaml"));
    let files = files.filter(|path| path.file_stem().is_some_and(|stem| stem != "kustomization"));
    files.flat_map(|path| documents(&fs::read_to_string(path).expect("it can be read"))).collect()
}

/// What Helm makes of the chart with these values.
fn rendered(values: &Value) -> Vec<Value> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut child = Command::new("go")
        .args(["run", "-trimpath", "."])
        .arg(deploy().join("helm/trigate"))
        .args(["gateways", "network"])
        .current_dir(project.join("tests/chart"))
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Go can be run");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(values.to_string().as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the chart cannot be rendered with {values}");
    documents(&String::from_utf8(output.stdout).expect("text"))
}

/// Has the API server check a document in full, without keeping it.
async fn check(place: &Place, mut document: Value) {
    const NO_NAMESPACE: [&str; 4] = ["Namespace", "ClusterRole", "ClusterRoleBinding", "GatewayClass"];
    // Their definitions are Prometheus' operator's.
    if document["apiVersion"] == "monitoring.coreos.com/v1" {
        return;
    }
    if !NO_NAMESPACE.iter().any(|kind| document["kind"] == *kind) {
        document["metadata"]["namespace"] = place.namespace.clone().into();
    }
    place.dry_run(&document).await.unwrap_or_else(|error| panic!("{error}: {document:#}"));
}

/// The configuration in the ConfigMap of these documents.
fn configuration(documents: &[Value]) -> Config {
    let found = documents.iter().find_map(|document| document["data"]["proxy.toml"].as_str());
    let text = found.expect("there is a configuration");
    Config::parse(Path::new("proxy.toml"), text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The metadata of the ConfigMap from which Grafana's sidecar takes the dashboard, whole.
fn dashboard(documents: &[Value]) -> Option<&Value> {
    let labelled = |document: &&Value| document["metadata"]["labels"]["grafana_dashboard"] == "1";
    let found = documents.iter().find(labelled)?;
    let file = fs::read_to_string(deploy().join("grafana/trigate.json")).expect("it can be read");
    assert_eq!((&found["kind"], &found["data"]), (&json!("ConfigMap"), &json!({ "trigate.json": file })));
    Some(&found["metadata"])
}

/// The rules of all roles, for comparison.
fn rules(documents: &[Value]) -> BTreeSet<String> {
    documents
        .iter()
        .filter_map(|document| document["rules"].as_array())
        .flatten()
        .map(Value::to_string)
        .collect()
}

#[tokio::test]
async fn the_manifests_are_what_the_api_server_takes() {
    let Some(place) = Place::shared().await else { return };
    for document in manifests() {
        check(&place, document).await;
    }
    let file = deploy().join("kustomize/proxy.toml");
    let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.gateways.len(), 3);
}

#[test]
fn kustomize_takes_the_dashboard_beside_the_manifests() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the folder is ours");
    let both = json!({ "resources": [link(folder.path(), "kustomize")], "components": [link(folder.path(), "grafana")] });
    fs::write(folder.path().join("kustomization.yaml"), both.to_string()).expect("the folder is ours");
    let Ok(output) = Command::new("kubectl").arg("kustomize").arg(folder.path()).output() else {
        println!("skipped: kubectl is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let documents = documents(&String::from_utf8(output.stdout).expect("text"));
    assert_eq!(dashboard(&documents).expect("it is there")["name"], "trigate-dashboard");
}

/// The way from a folder in `target/tmp` to one of `deploy/`: kustomize takes no absolute ones.
fn link(from: &Path, name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let below = from.strip_prefix(root).expect("it is within the project");
    format!("{}deploy/{name}", "../".repeat(below.components().count()))
}

#[tokio::test]
async fn the_chart_is_what_the_api_server_takes() {
    let Some(place) = Place::shared().await else { return };
    let values = [
        json!({}),
        json!({
            "takeOverFromEnvoyGateway": true, "gatewayClass": { "name": "envoy" },
            "gateways": { "external": { "create": false, "object": "networking/envoy-external" } },
            "monitoring": {
                "podMonitor": { "enabled": true }, "serviceMonitor": { "enabled": true },
                "dashboard": { "enabled": true, "labels": { "team": "home" } },
            },
            "example": { "enabled": true }, "autoscaling": { "enabled": false }, "addresses": { "pool": "10.97.0.0/16" },
            "service": { "type": "ClusterIP" }, "config": "[limits]\nconnections = 10",
            "podLabels": { "team": "home" }, "tolerations": [{ "operator": "Exists" }],
        }),
    ];
    let [plain, other] = values.map(|values| rendered(&values));
    assert!(dashboard(&plain).is_none(), "it is asked for");
    assert_eq!(dashboard(&other).expect("it is there")["labels"]["team"], "home");
    let config = configuration(&other);
    assert_eq!(config.limits.connections, 10);
    assert_eq!(config.gateways["external"].object.to_string(), "networking/envoy-external");
    let kubernetes = config.source.kubernetes.expect("it is the source");
    assert_eq!(kubernetes.controller_name, "gateway.envoyproxy.io/gatewayclass-controller");
    let config = configuration(&plain);
    let kubernetes = config.source.kubernetes.expect("it is the source");
    assert_eq!(kubernetes.service("tailscale").load_balancer_class.as_deref(), Some("tailscale"));
    let named = |rule: String| {
        rule.replace("[\"gateways\"]}", "[\"trigate\"]}")
            .replace("\"resourceNames\":[\"gateways\"]", "\"resourceNames\":[\"trigate\"]")
    };
    let of_chart: BTreeSet<String> = rules(&plain).into_iter().map(named).collect();
    assert_eq!(of_chart, rules(&manifests()), "the chart grants what the manifests grant");
    for document in plain.into_iter().chain(other) {
        check(&place, document).await;
    }
}

/// What the manifests grant, to be changed by a test.
pub fn roles() -> Vec<Value> {
    manifests()
        .into_iter()
        .filter(|document| document["kind"].as_str().is_some_and(is_about_rights))
        .collect()
}

fn is_about_rights(kind: &str) -> bool {
    ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"].contains(&kind)
}

#[tokio::test]
async fn the_roles_grant_the_service_account_all_that_is_needed() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let builder = trigate(&place);
    let own = builder.path("kubeconfig");
    place.service_account(&own, &roles()).await;
    let mut trigate = builder
        .set("source.kubernetes.kubeconfig", own.display().to_string())
        .set("source.kubernetes.service.type", "ClusterIP")
        .start()
        .await;
    let mut route = place.route("app", "external", "app.test");
    place.apply(&route).await;
    let accepted =
        |found: &Value| verdict(&found["status"]["parents"][0]["conditions"], "Accepted") == "True/Accepted";
    place.until(&route, "it is accepted", accepted).await;
    trigate.until_status(trigate.external.http, "app.test", "/", 200).await;
    let mut gateway = place.gateway("external");
    gateway["spec"]["allowedListeners"] = json!({ "namespaces": { "from": "Same" } });
    gateway["spec"]["listeners"] = json!([
        { "name": "http", "port": 80, "protocol": "HTTP" },
        { "name": "tls", "port": 8443, "protocol": "TLS", "tls": { "mode": "Passthrough" } },
        { "name": "tcp", "port": 8001, "protocol": "TCP" },
        { "name": "udp", "port": 8002, "protocol": "UDP" },
        { "name": "https", "port": 443, "protocol": "HTTPS", "tls": { "certificateRefs": [{ "name": "none" }] } },
    ]);
    place.apply(&gateway).await;
    let programmed =
        |found: &Value| verdict(&found["status"]["conditions"], "Programmed") == "True/Programmed";
    place.until(&gateway, "its Service has an address", programmed).await;
    let of_kind = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
            "metadata": { "name": kind.to_lowercase(), "namespace": place.namespace }, "spec": spec,
        })
    };
    let parents = json!([{ "name": "external" }]);
    let rules = json!([{ "backendRefs": [{ "name": "app", "port": 80 }] }]);
    for kind in ["GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"] {
        let mut object = of_kind(kind, json!({ "parentRefs": parents, "rules": rules }));
        if kind == "TLSRoute" {
            object["spec"]["hostnames"] = json!(["tls.test"]);
        }
        place.apply(&object).await;
        place.until(&object, kind, |found| !found["status"]["parents"][0].is_null()).await;
    }
    let listeners = json!([{ "name": "more", "port": 80, "protocol": "HTTP", "hostname": "more.test" }]);
    let set = of_kind("ListenerSet", json!({ "parentRef": { "name": "external" }, "listeners": listeners }));
    place.apply(&set).await;
    place.until(&set, "the set is programmed", programmed).await;
    let policy = of_kind(
        "BackendTLSPolicy",
        json!({
            "targetRefs": [{ "group": "", "kind": "Service", "name": "app" }],
            "validation": { "hostname": "app.test", "wellKnownCACertificates": "System" },
        }),
    );
    place.apply(&policy).await;
    place.until(&policy, "the policy is told", |found| !found["status"]["ancestors"][0].is_null()).await;
    route["spec"]["rules"][0]["backendRefs"][0]["name"] = "missing".into();
    place.apply(&route).await;
    let events =
        kube::Api::<k8s_openapi::api::events::v1::Event>::namespaced(place.client.clone(), &place.namespace);
    let told = || async { events.list(&kube::api::ListParams::default()).await.ok()?.items.pop() };
    eventually("an Event", told).await;
    // A Gateway that becomes somebody else's loses its Service.
    let theirs = place.class_of_somebody_else().await;
    gateway["spec"]["gatewayClassName"] = theirs.into();
    place.apply(&gateway).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "external", "namespace": place.namespace },
    });
    let gone = || async { place.get(&service).await.is_none().then_some(()) };
    eventually("the Service is gone", gone).await;
    trigate.terminate();
    trigate.ended(std::time::Duration::from_secs(15)).await;
    let log = trigate.log();
    assert!(!log.contains("forbidden"), "{log}");
}

#[tokio::test]
async fn rights_that_are_missing_are_told_and_all_else_is_served_and_written() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let mut fewer = roles();
    let rules = fewer.iter_mut().filter_map(|document| document.get_mut("rules")?.as_array_mut());
    for rule in rules.flatten() {
        if let Some(resources) = rule["resources"].as_array_mut() {
            resources.retain(|resource| resource != "udproutes" && resource != "httproutes/status");
        }
    }
    let builder = trigate(&place);
    let own = builder.path("kubeconfig");
    place.service_account(&own, &fewer).await;
    let mut routes = Vec::new();
    for number in 0..8 {
        let route = place.route(&format!("app-{number}"), "external", &format!("app-{number}.test"));
        place.apply(&route).await;
        routes.push(route);
    }
    let trigate = builder.set("source.kubernetes.kubeconfig", own.display().to_string()).start().await;
    trigate.until_status(trigate.external.http, "app-0.test", "/", 200).await;
    let programmed =
        |found: &Value| verdict(&found["status"]["conditions"], "Programmed") == "True/Programmed";
    place.until(&place.gateway("external"), "other statuses are written", programmed).await;
    let told = || async { trigate.log().contains("cannot write the status").then_some(()) };
    eventually("it is told", told).await;
    let log = trigate.log();
    assert!(log.contains("UDPRoute may not be read, so all else is served without it"), "{log}");
    assert!(log.contains("udproutes") && log.contains("ClusterRole"), "{log}");
    assert!((1..=3).contains(&log.matches("cannot write the status").count()), "{log}");
    place.service_account(&own, &roles()).await;
    let accepted =
        |found: &Value| verdict(&found["status"]["parents"][0]["conditions"], "Accepted") == "True/Accepted";
    for route in &routes {
        place.until(route, "it is written when it may be", accepted).await;
    }
}
