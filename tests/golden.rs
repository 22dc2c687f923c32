//! Golden pairs: `tests/golden/<topic>/<sentence>.in.yaml` compiles to the page in `<sentence>.out.yaml`.
//!
//! With UPDATE_GOLDEN=1 the pages are written instead of compared; read the difference before you commit it.
//! Every Gateway of the input is bound, in the order of their names, except those whose class is `foreign`. A first
//! line `# here: NODE ZONE` says where trigate runs.

use std::fs;
use std::path::{Path, PathBuf};
use trigate::compile::{Binding, compile};
use trigate::resource::{Here, Snapshot};
use trigate::routing::GatewayId;
use trigate::source::read_text;
use trigate::tls::TlsOptions;

#[test]
fn every_golden_input_compiles_to_its_page() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let inputs = inputs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    assert!(inputs.len() >= 40, "only {} golden inputs were found", inputs.len());
    let mut differing = Vec::new();
    for input in inputs {
        let page = page(&fs::read_to_string(&input).unwrap());
        let output = PathBuf::from(input.to_str().unwrap().replace(".in.yaml", ".out.yaml"));
        if update {
            fs::write(&output, &page).unwrap();
        }
        let want = fs::read_to_string(&output).unwrap_or_default();
        if page != want {
            differing.push(format!("{}:\n{}", output.display(), difference(&want, &page)));
        }
    }
    assert!(differing.is_empty(), "{}\nUPDATE_GOLDEN=1 accepts what is new", differing.join("\n"));
}

#[test]
fn every_page_belongs_to_an_input_and_is_yaml() {
    for output in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), ".out.yaml") {
        let input = PathBuf::from(output.to_str().unwrap().replace(".out.yaml", ".in.yaml"));
        assert!(input.exists(), "{} has no input", output.display());
        let text = fs::read_to_string(&output).unwrap();
        if let Err(error) = serde_saphyr::from_str::<serde_json::Value>(&text) {
            panic!("{} is no YAML: {error}", output.display());
        }
    }
}

fn page(text: &str) -> String {
    let mut snapshot = read_text(Path::new("in.yaml"), text);
    if let Some(here) = text.lines().next().and_then(|line| line.strip_prefix("# here: ")) {
        let (node, zone) = here.split_once(' ').unwrap();
        snapshot.here = Here { node: Some(node.into()), zone: Some(zone.into()) };
    }
    compile(&snapshot, &bindings(&snapshot)).dump()
}

fn bindings(snapshot: &Snapshot) -> Vec<Binding> {
    let ours = snapshot.gateways.iter().filter(|entry| &*entry.object.spec.gateway_class_name != "foreign");
    ours.enumerate()
        .map(|(i, entry)| Binding {
            id: GatewayId(i as u16),
            name: entry.object.metadata.name.to_string(),
            namespace: entry.object.metadata.namespace.to_string(),
            object: entry.object.metadata.name.to_string(),
            tls: TlsOptions::default(),
        })
        .collect()
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    files(folder, ".in.yaml")
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The lines in which two pages differ.
fn difference(want: &str, got: &str) -> String {
    let missing =
        want.lines().filter(|line| !got.lines().any(|other| other == *line)).map(|line| format!("- {line}"));
    let new =
        got.lines().filter(|line| !want.lines().any(|other| other == *line)).map(|line| format!("+ {line}"));
    missing.chain(new).collect::<Vec<_>>().join("\n")
}
