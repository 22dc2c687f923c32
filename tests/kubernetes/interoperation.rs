//! What others read of what trigate writes: Flux, external-dns, the k8s-gateway DNS plugin, cert-manager.

use crate::cluster::{Place, verdict};
use crate::harness::PATIENCE;
use crate::harness::bound::Bound;
use crate::harness::client::{Ask, Client};
use crate::{trigate, with_app};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What kstatus says of objects, the package by which Flux waits for them.
fn kstatus(objects: &[Value]) -> Vec<String> {
    let mut child = Command::new("go")
        .args(["run", "-trimpath", "."])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/kstatus"))
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Go can be run");
    let mut stdin = child.stdin.take().expect("piped");
    objects.iter().for_each(|object| writeln!(stdin, "{object}").expect("it reads"));
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "kstatus does not understand {objects:#?}");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// external-dns' own source `gateway-httproute`, asked by lines.
struct ExternalDns {
    child: Bound,
    answers: Lines<BufReader<ChildStdout>>,
}

impl ExternalDns {
    fn start(place: &Place) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/external-dns");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("external-dns");
        let built = Command::new("go")
            .args(["build", "-trimpath", "-o"])
            .arg(&program)
            .current_dir(folder)
            .env("GOWORK", "off")
            .env("CGO_ENABLED", "0")
            .status();
        assert!(built.expect("Go can be run").success(), "external-dns cannot be built");
        let mut child = Command::new(program)
            .arg(&place.kubeconfig)
            .arg(&place.namespace)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be run");
        let answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child: Bound(child), answers }
    }

    /// The addresses and names to which it would have a name lead.
    fn targets(&mut self, name: &str) -> Vec<String> {
        writeln!(self.child.stdin.as_mut().expect("piped")).expect("it reads");
        let answer = self.answers.next().expect("it answers").expect("text");
        let names: BTreeMap<String, Vec<String>> = serde_json::from_str(&answer).expect("JSON");
        names.get(name).cloned().unwrap_or_default()
    }

    /// Waits until it would have a name lead to these.
    async fn until(&mut self, name: &str, wanted: &[&str]) {
        let began = Instant::now();
        loop {
            let targets = self.targets(name);
            if targets == wanted {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{name} leads to {targets:?} and not to {wanted:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn flux_sees_that_what_is_served_is_current() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let route = place.route("app", "external", "app.test");
    place.apply(&route).await;
    let _trigate = trigate(&place).start().await;
    let accepted =
        |found: &Value| verdict(&found["status"]["parents"][0]["conditions"], "Accepted") == "True/Accepted";
    let route = place.until(&route, "it is accepted", accepted).await;
    let programmed =
        |found: &Value| verdict(&found["status"]["conditions"], "Programmed") == "True/Programmed";
    let gateway = place.until(&place.gateway("external"), "it is programmed", programmed).await;
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": { "name": place.class },
    });
    let class = place.get(&class).await.expect("it is there");
    for object in [&class, &gateway, &route] {
        let text = object["status"].to_string();
        let generation = &object["metadata"]["generation"];
        let observed = text.matches(&format!("\"observedGeneration\":{generation}")).count();
        assert_eq!(observed, text.matches("\"lastTransitionTime\"").count(), "{object:#}");
    }
    let said = tokio::task::spawn_blocking(move || kstatus(&[class, gateway, route])).await.expect("it ends");
    assert!(said.len() == 3 && said.iter().all(|line| line.starts_with("Current ")), "{said:?}");
}

#[tokio::test]
async fn dns_leads_to_the_gateways_that_a_route_is_accepted_by_and_to_no_other_one() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let trigate = trigate(&place)
        .set("gateways.internal.object", format!("{}/internal", place.namespace))
        .set("gateways.tailscale.object", format!("{}/tailscale", place.namespace))
        .set("source.kubernetes.service.type", "LoadBalancer")
        .start()
        .await;
    let addresses =
        [("external", json!([{ "ip": "192.0.2.1" }])), ("internal", json!([{ "ip": "192.0.2.2" }]))];
    let tailscale = json!([{ "hostname": "gateway.example.ts.net" }, { "ip": "100.64.0.9" }]);
    for (name, ingress) in addresses.into_iter().chain([("tailscale", tailscale)]) {
        let mut gateway = place.gateway(name);
        if name == "external" {
            gateway["metadata"]["annotations"] =
                json!({ "external-dns.alpha.kubernetes.io/target": "external.example.test" });
        }
        place.apply(&gateway).await;
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": place.namespace },
        });
        place.until(&service, "there is a Service", |_| true).await;
        place.patch_status(&service, &json!({ "loadBalancer": { "ingress": ingress } })).await;
    }
    let mut route = place.route("app", "external", "app.test");
    route["spec"]["parentRefs"] = json!([{ "name": "internal" }, { "name": "tailscale" }]);
    place.apply(&route).await;
    let place = Arc::new(place);
    let of_place = place.clone();
    let started = tokio::task::spawn_blocking(move || ExternalDns::start(&of_place));
    let mut dns = started.await.expect("it starts");
    dns.until("app.test", &["100.64.0.9", "192.0.2.2", "gateway.example.ts.net"]).await;
    // A parent that is removed is gone within five seconds, in status and on the wire.
    let mut fewer = route.clone();
    fewer["spec"]["parentRefs"] = json!([{ "name": "internal" }]);
    place.apply(&fewer).await;
    let began = Instant::now();
    dns.until("app.test", &["192.0.2.2"]).await;
    let one = |found: &Value| found["status"]["parents"].as_array().map(Vec::len) == Some(1);
    place.until(&route, "the other entry is gone", one).await;
    assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
    trigate.until_status(trigate.tailscale.http, "app.test", "/", 404).await;
    fewer["spec"]["parentRefs"] = json!([{ "name": "external" }]);
    place.apply(&fewer).await;
    dns.until("app.test", &["external.example.test"]).await;
}

#[tokio::test]
async fn the_solver_of_cert_manager_answers_where_everything_else_is_redirected() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let mut redirect = place.route("redirect", "external", "app.test");
    redirect["spec"]["rules"] = json!([{ "filters": [{
        "type": "RequestRedirect", "requestRedirect": { "scheme": "https", "statusCode": 301 },
    }] }]);
    place.apply(&redirect).await;
    let trigate = trigate(&place).start().await;
    trigate.until_status(trigate.external.http, "app.test", "/", 301).await;
    // As cert-manager makes it for an HTTP-01 challenge, with its Service.
    let token = "/.well-known/acme-challenge/token";
    let mut solver = place.route("cm-acme-http-solver-x7k2p", "external", "app.test");
    solver["metadata"]["labels"] = json!({ "acme.cert-manager.io/http01-solver": "true" });
    solver["spec"]["rules"][0]["matches"] = json!([{ "path": { "type": "Exact", "value": token } }]);
    place.apply(&solver).await;
    trigate.until_status(trigate.external.http, "app.test", token, 200).await;
    let other = Client::http1(trigate.external.http).await.send(Ask::get("app.test", "/other")).await;
    assert_eq!(other.status, 301);
    place.delete(&solver).await;
    trigate.until_status(trigate.external.http, "app.test", token, 301).await;
}
