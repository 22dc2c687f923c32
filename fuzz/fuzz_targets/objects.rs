//! Any text as a file of manifests: it is read and compiled without a panic, and twice to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use trigate::compile::{Binding, compile};
use trigate::routing::GatewayId;
use trigate::source::read_text;
use trigate::tls::TlsOptions;

fuzz_target!(|text: &str| {
    let bindings = ["external", "internal"].map(|name| Binding {
        id: GatewayId(u16::from(name == "internal")),
        name: name.to_owned(),
        namespace: "network".to_owned(),
        object: name.to_owned(),
        tls: TlsOptions::default(),
    });
    for file in ["fuzz.yaml", "fuzz.json"] {
        let snapshot = read_text(Path::new(file), text);
        let compiled = compile(&snapshot, &bindings);
        let again = compile(&snapshot, &bindings);
        assert_eq!(compiled.diagnostics, again.diagnostics, "compile is a function");
        assert_eq!(compiled.clusters, again.clusters, "compile is a function");
    }
});
