//! A compilation after another one gives what a whole one gives, whatever changed in between.

use super::super::{Binding, Certificates, Compiled, compile_after};
use super::Kept;
use crate::resource::{Object, ObjectRef, Place, Snapshot, read};
use crate::routing::GatewayId;
use crate::tls::TlsOptions;
use crate::upstream::{ClusterSpec, Planned};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, mem};

const SEQUENCES: u64 = 30;
const STEPS: usize = 20;

/// A source of snapshots, and a user of compilations that takes over what did not change.
#[derive(Default)]
struct Rig {
    /// Where objects stand, if they stand in files.
    file: Option<Arc<PathBuf>>,
    objects: BTreeMap<ObjectRef, (Object, Option<Place>)>,
    changed: BTreeSet<&'static str>,
    edits: u32,
    snapshot: Snapshot,
    kept: Kept,
    certificates: Certificates,
    clusters: Vec<ClusterSpec>,
}

impl Rig {
    fn new(seed: u64) -> Self {
        let file = (seed % 2 == 1).then(|| Arc::new(PathBuf::from("all.yaml")));
        Self { file, ..Self::default() }
    }

    fn put(&mut self, object: &Object) {
        self.edits += 1;
        let line = self.edits;
        let place = self.file.clone().map(|file| Place { file, line, column: 1 });
        self.changed.insert(object.kind());
        self.objects.insert(object.reference(), (object.clone(), place));
    }

    /// Removes the object of this name; whether there is one.
    fn remove(&mut self, name: &ObjectRef) -> bool {
        let gone = self.objects.remove(name);
        self.changed.extend(gone.iter().map(|(object, _)| object.kind()));
        gone.is_some()
    }

    /// Compiles what changed, and compares with a whole compilation. Returns how many clusters stayed.
    fn compile(&mut self) -> usize {
        let changed = mem::take(&mut self.changed);
        let objects = self.objects.values().cloned();
        self.snapshot = self.snapshot.with(|kind| changed.contains(kind), objects, Vec::new());
        let bindings = bindings(&self.snapshot);
        let whole = compile_after(&self.snapshot, &bindings, &self.certificates, Kept::default());
        let kept = mem::take(&mut self.kept);
        let mut again = compile_after(&self.snapshot, &bindings, &self.certificates, kept);
        let same = again.clusters.iter().filter(|planned| planned.spec().is_none()).count();
        for (key, spec) in &again.endpoints {
            assert_eq!(whole.endpoints.get(key), Some(spec), "{key:?}");
        }
        self.reconcile(mem::take(&mut again.clusters));
        self.kept = mem::take(&mut again.kept);
        let clusters = self.clusters.iter().cloned().map(Planned::New).collect();
        let again = Compiled { clusters, endpoints: whole.endpoints.clone(), ..again };
        assert_eq!(page(&again), page(&whole));
        self.certificates = again.certificates;
        same
    }

    fn reconcile(&mut self, plan: Vec<Planned>) {
        let before = mem::take(&mut self.clusters);
        let specs = plan.into_iter().enumerate().map(|(place, planned)| match planned {
            Planned::New(spec) => spec,
            Planned::Same => before[place].clone(),
        });
        self.clusters = specs.collect();
    }

    /// Puts or removes an object of those that are made up.
    fn edit(&mut self, random: &mut Rng) {
        let kinds = ["HTTPRoute", "GRPCRoute", "TCPRoute", "Service", "ReferenceGrant", "BackendTLSPolicy"];
        let kind = kinds[[0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5][random.usize(..12)]];
        let number = random.usize(..6);
        let object = match kind {
            "Service" => service(number, random),
            "ReferenceGrant" => grant(number),
            "BackendTLSPolicy" => policy(number),
            _ => route(kind, number, random),
        };
        if random.u8(..4) != 0 || !self.remove(&object.reference()) {
            self.put(&object);
        }
    }
}

/// All that a compilation says, but for what the next one is given.
fn page(compiled: &Compiled) -> String {
    let Compiled { table, gateways, routes, policies, certificates, .. } = compiled;
    format!("{}{:#?}", compiled.dump(), (table.rules(), gateways, routes, policies, certificates))
}

/// Every Gateway is bound.
fn bindings(snapshot: &Snapshot) -> Vec<Binding> {
    let gateways = snapshot.gateways.iter().map(|entry| entry.object.metadata.key());
    let binding = |(number, (namespace, name)): (u16, (&str, &str))| Binding {
        id: GatewayId(number),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        object: name.to_owned(),
        tls: TlsOptions::default(),
    };
    (0..).zip(gateways).map(binding).collect()
}

fn object(yaml: &str) -> Object {
    readable(yaml).expect("an object")
}

fn readable(yaml: &str) -> Option<Object> {
    let header = serde_saphyr::from_str(yaml).ok()?;
    let reading = serde_saphyr::with_deserializer_from_str(yaml, |source| read(&header, source));
    Some(reading.ok()??.object)
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// The objects of every golden input, which know every kind and field together.
fn golden() -> Vec<Vec<Object>> {
    let topics = listed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    let files = topics.iter().filter(|path| path.is_dir()).flat_map(|topic| listed(topic));
    let inputs = files.filter(|path| path.to_string_lossy().ends_with(".in.yaml"));
    let texts = inputs.map(|input| fs::read_to_string(input).expect("an input"));
    texts.map(|text| text.split("\n---\n").filter_map(readable).collect()).collect()
}

fn gateway() -> Object {
    object(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: external, namespace: apps}, spec: {listeners: [\
         {name: all, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}, \
         {name: own, port: 81, protocol: HTTP, hostname: '*.a.test'}, \
         {name: odd, port: 82, protocol: ODD}, \
         {name: tcp, port: 83, protocol: TCP}]}}",
    )
}

fn service(number: usize, random: &mut Rng) -> Object {
    let port = 80 + random.u16(..2);
    object(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: s{number}, namespace: {}}}, spec: {{ports: [{{port: {port}}}]}}}}",
        namespace(number)
    ))
}

fn grant(number: usize) -> Object {
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {{name: g{number}, namespace: {}}}, \
         spec: {{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {}}}], to: [{{group: '', kind: Service}}]}}}}",
        namespace(number),
        namespace(number + 1)
    ))
}

fn policy(number: usize) -> Object {
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {{name: p{number}, namespace: {}}}, \
         spec: {{targetRefs: [{{group: '', kind: Service, name: s{number}}}], validation: {{hostname: s{number}.test, wellKnownCACertificates: System}}}}}}",
        namespace(number)
    ))
}

fn namespace(number: usize) -> &'static str {
    ["apps", "other"][number % 2]
}

fn route(kind: &str, number: usize, random: &mut Rng) -> Object {
    let hosts: Vec<_> = ["a.test", "b.a.test", "'*.a.test'", "c.test", "no host"]
        .into_iter()
        .filter(|_| random.u8(..4) == 0)
        .collect();
    let rules: Vec<_> = (0..random.usize(..4)).map(|_| rule(kind, random)).collect();
    let parents =
        ["{name: external, namespace: apps}", "{name: external, namespace: apps, sectionName: own}"];
    let parents = &parents[..1 + random.usize(..2)];
    let hosts =
        if kind == "TCPRoute" { String::new() } else { format!("hostnames: [{}], ", hosts.join(", ")) };
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: r{number}, namespace: {}, \
         creationTimestamp: '2026-01-01T00:00:0{}Z'}}, spec: {{parentRefs: [{}], {hosts}rules: [{}]}}}}",
        namespace(number),
        random.u8(..3),
        parents.join(", "),
        rules.join(", ")
    ))
}

fn rule(kind: &str, random: &mut Rng) -> String {
    let backends: Vec<_> = (0..random.usize(..3))
        .map(|_| {
            let number = random.usize(..6);
            format!("{{name: s{number}, namespace: {}, port: 80}}", namespace(number))
        })
        .collect();
    let mut text = format!("{{backendRefs: [{}]", backends.join(", "));
    if kind == "HTTPRoute" {
        let path = ["/", "/a", "/a/b", "wrong"][random.usize(..4)];
        let exact = ["Exact", "PathPrefix"][random.usize(..2)];
        text.push_str(&format!(", matches: [{{path: {{type: {exact}, value: {path}}}}}]"));
        if random.u8(..3) == 0 {
            let number = random.usize(..6);
            text.push_str(&format!(
                ", filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: s{number}, port: 80}}}}}}]"
            ));
        }
    }
    text + "}"
}

#[test]
fn after_any_edits_a_compilation_gives_what_a_whole_one_gives() {
    let mut same = 0;
    for seed in 0..SEQUENCES {
        let (mut random, mut rig) = (Rng::with_seed(seed), Rig::new(seed));
        rig.put(&gateway());
        (0..6).for_each(|number| rig.put(&service(number, &mut random)));
        rig.compile();
        for _ in 0..STEPS {
            (0..1 + random.usize(..2)).for_each(|_| rig.edit(&mut random));
            same += rig.compile();
        }
    }
    assert!(same > 50, "hardly anything was taken over: {same} clusters");
}

#[test]
fn after_any_edits_of_golden_inputs_a_compilation_gives_what_a_whole_one_gives() {
    let inputs = golden();
    let mut same = 0;
    for (seed, input) in (0..).zip(&inputs) {
        let (mut random, mut rig) = (Rng::with_seed(seed), Rig::new(seed));
        input.iter().for_each(|object| rig.put(object));
        rig.compile();
        // Another input has other objects of the same names.
        let other = random.choice(&inputs).expect("there are inputs");
        for object in input.iter().chain(other) {
            if rig.remove(&object.reference()) {
                same += rig.compile();
            }
            rig.put(object);
            same += rig.compile();
        }
    }
    assert!(same > 50, "hardly anything was taken over: {same} clusters");
}

#[test]
fn a_route_that_changes_is_the_only_one_that_is_compiled() {
    let mut rig = Rig::default();
    rig.put(&gateway());
    rig.put(&service(0, &mut Rng::with_seed(0)));
    let route = |number: usize, path: &str| {
        object(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r{number}, namespace: apps}}, spec: \
             {{parentRefs: [{{name: external}}], hostnames: [h{number}.test], \
             rules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: s0, port: 80}}, {{name: s0, port: 81}}]}}]}}}}"
        ))
    };
    (0..20).for_each(|number| rig.put(&route(number, "/")));
    assert_eq!(rig.compile(), 0);
    rig.put(&route(7, "/new"));
    assert_eq!(rig.compile(), 19);
    assert_eq!(rig.compile(), 20);
}
