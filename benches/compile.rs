//! How long it takes until a change is a table: reading files, compiling, and compiling endpoints alone.
//!
//! A swap with one changed route reads one document again and compiles one route, for all others are taken over from
//! the compilation before. What is left grows with the number of routes: sorting them, and sharing what they were.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use trigate::compile::{Binding, Certificates, Kept, compile, compile_after, endpoints};
use trigate::routing::GatewayId;
use trigate::source::{Files, read_text};
use trigate::tls::TlsOptions;

const COUNTS: [usize; 2] = [1_000, 10_000];

fn main() {
    divan::main();
}

/// A Gateway, and this many routes with a Service and its endpoints each, as home clusters write them.
fn manifest(routes: usize) -> String {
    let mut text = String::from(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: external, namespace: network}\nspec:\n  \
         gatewayClassName: trigate\n  listeners:\n  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}\n",
    );
    for i in 0..routes {
        text.push_str(&document(i, 8080));
    }
    text
}

fn document(i: usize, port: u16) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: app-{i}
  namespace: ns-{}
spec:
  parentRefs:
  - name: external
    namespace: network
  hostnames:
  - app-{i}.example.test
  rules:
  - matches:
    - path:
        type: PathPrefix
        value: /
    backendRefs:
    - name: app-{i}
      port: 80
---
apiVersion: v1
kind: Service
metadata: {{name: app-{i}, namespace: ns-{}}}
spec:
  ports: [{{name: web, port: 80, targetPort: {port}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: app-{i}, namespace: ns-{}, labels: {{kubernetes.io/service-name: app-{i}}}}}
addressType: IPv4
ports: [{{name: web, port: {port}}}]
endpoints: [{{addresses: [10.0.{}.{}]}}]
",
        i % 50,
        i % 50,
        i % 50,
        i / 250 % 250,
        i % 250
    );
    text
}

fn bindings() -> [Binding; 1] {
    let name = "external".to_owned();
    [Binding {
        id: GatewayId(0),
        name: name.clone(),
        namespace: "network".to_owned(),
        object: name,
        tls: TlsOptions::default(),
    }]
}

#[divan::bench(args = COUNTS, sample_count = 10)]
fn read_everything(bencher: Bencher, routes: usize) {
    let text = manifest(routes);
    bencher.counter(ItemsCount::new(routes)).bench(|| read_text(Path::new("bench.yaml"), black_box(&text)));
}

#[divan::bench(args = COUNTS, sample_count = 20)]
fn compile_everything(bencher: Bencher, routes: usize) {
    let snapshot = read_text(Path::new("bench.yaml"), &manifest(routes));
    let bindings = bindings();
    assert_eq!(compile(&snapshot, &bindings).table.rules().len(), routes);
    bencher.counter(ItemsCount::new(routes)).bench(|| compile(black_box(&snapshot), &bindings));
}

#[divan::bench(args = COUNTS, sample_count = 20)]
fn compile_endpoints_alone(bencher: Bencher, routes: usize) {
    let snapshot = read_text(Path::new("bench.yaml"), &manifest(routes));
    let compiled = compile(&snapshot, &bindings());
    bencher
        .counter(ItemsCount::new(routes))
        .bench(|| endpoints(black_box(&snapshot), compiled.endpoints.keys()));
}

#[divan::bench(args = COUNTS, sample_count = 10)]
fn swap_with_one_changed_route(bencher: Bencher, routes: usize) {
    let folder = TempDir::new().expect("a folder for the manifests");
    fs::write(folder.path().join("routes.yaml"), manifest(routes)).expect("the manifests");
    let mut files = Files::new(vec![folder.path().to_owned()]);
    let bindings = bindings();
    let mut kept = Kept::default();
    let mut swap = |files: &mut Files| {
        let before = std::mem::take(&mut kept);
        let compiled = compile_after(&files.read(), &bindings, &Certificates::default(), before);
        kept = compiled.kept;
        compiled.table
    };
    let route = |path: usize| document(routes, 8080).replace("value: /", &format!("value: /{path}"));
    fs::write(folder.path().join("one.yaml"), route(0)).expect("the route that changes");
    swap(&mut files);
    let mut path = 0;
    bencher.bench_local(|| {
        path += 1;
        fs::write(folder.path().join("one.yaml"), route(path)).expect("the change");
        swap(&mut files)
    });
}
