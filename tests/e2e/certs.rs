//! `trigate certs`: what it writes is served and trusted, what it lists is what there is.

use crate::harness::manifest::{gateway, https_listener};
use crate::harness::openssl::openssl;
use crate::harness::trigate::Builder;
use std::path::Path;
use std::process::Command;

fn certs(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trigate"));
    let done = command.arg("certs").args(arguments).current_dir(folder).output().expect("it is built");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&done.stderr));
    text
}

#[tokio::test]
async fn development_certificates_are_served_trusted_and_listed() {
    let builder = Builder::new().without_gateways();
    let folder = builder.path("");
    let said = certs(&folder, &["dev", "app.example.test", "*.wild.test"]);
    assert!(said.contains("--cacert") && said.contains("certs/dev/ca.crt"), "{said}");
    let files = |name: &str| (format!("certs/dev/{name}.crt"), format!("certs/dev/{name}.key"));
    let mut builder = builder;
    let mut listeners = Vec::new();
    for (name, hostname) in [("app.example.test", "app.example.test"), ("wildcard.wild.test", "*.wild.test")]
    {
        let (chain, key) = files(name);
        let table = name.replace('.', "-");
        listeners.push(https_listener(&table, 443, hostname, &table));
        builder = builder
            .set(&format!("certificates.{table}.secret"), format!("network/{table}"))
            .set(&format!("certificates.{table}.chain"), chain)
            .set(&format!("certificates.{table}.key"), key);
    }
    let trigate = builder.with(gateway("external", &listeners)).start().await;
    let authority = folder.join("certs/dev/ca.crt").display().to_string();
    for name in ["app.example.test", "a.wild.test"] {
        let verify = ["-CAfile", &authority, "-verify_return_error", "-verify_hostname", name];
        let said = openssl(trigate.external.https, &[&["-servername", name], &verify[..]].concat());
        assert!(said.agreed() && said.0.contains("Verification: OK"), "{name}: {said:?}");
    }
    let listed = certs(&folder, &["list", "--config", "proxy.toml"]);
    for words in [
        "certs/dev/app.example.test.crt",
        "app.example.test ",
        "*.wild.test",
        "CN=trigate development authority",
        "itself",
    ] {
        assert!(listed.contains(words), "{words}:\n{listed}");
    }
    // Of 820 days the last one may have begun.
    assert!(["819", "820"].iter().any(|days| listed.contains(&format!("{days} days left"))), "{listed}");
    assert_eq!(listed.lines().count(), 4, "a head, two leaves and their authority:\n{listed}");
}
