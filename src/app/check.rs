//! `trigate check`: what would be served and what is wrong with it, without opening a socket.

use super::counted;
use crate::acme::{List, Wanted, asked, list};
use crate::bindings::Bindings;
use crate::compile::{Certificates as CompiledCertificates, Compiled, Kept, Severity, compile_after};
use crate::config::{CertificateFiles, Config, Fault};
use crate::control::unheeded;
use crate::routing::{GatewayId, Transport};
use crate::source::{Certificates, Files};
use crate::tls::dev;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Prints every diagnostic of the manifests, those at `paths` or else those that the configuration names, and with
/// `dump` what they mean.
///
/// # Errors
/// The configuration cannot be used.
pub fn check(file: &Path, paths: Vec<PathBuf>, dump: bool) -> anyhow::Result<ExitCode> {
    let mut config = if paths.is_empty() { Config::load(file)? } else { Config::read(file)? };
    if !paths.is_empty() {
        config.source.files.paths = paths;
    }
    let mut snapshot = files(&config, Vec::new())?.read();
    let served = Bindings::new(config.clone().into()).update(&snapshot, |_| Vec::new());
    if let Some(acme) = &config.acme {
        let List { wanted, faults } = list(acme, &snapshot, &asked(acme, &served));
        faults.iter().for_each(|fault| println!("warning: acme: {fault}"));
        snapshot = files(&config, wanted.into_values().collect())?.read();
    }
    let bindings: Vec<_> = served.into_iter().map(|served| served.binding).collect();
    let now = jiff::Timestamp::now().as_second();
    let compiled =
        compile_after(&snapshot, &bindings, &CompiledCertificates::default().at(now), Kept::default());
    let name = |id: GatewayId| bindings.iter().find(|one| one.id == id).map_or("", |one| one.name.as_str());
    let listeners = |transport| {
        let ids = compiled.sockets.keys().filter(move |id| id.transport == transport);
        ids.map(|id| (name(id.gateway), id.port)).collect::<Vec<_>>()
    };
    let mut shared = config.shared_sockets(&listeners(Transport::Tcp));
    shared.extend(config.shared_sockets(&listeners(Transport::Udp)));
    if dump {
        print!("{}", compiled.dump());
    }
    let unheeded = unheeded(&config, &compiled.gateways);
    Ok(print(&compiled, &shared, &unheeded, dump))
}

/// The manifests of a configuration. A development certificate that a start would make is made here too, but not
/// written, and so is one in place of each that would be ordered.
fn files(config: &Config, wanted: Vec<Wanted>) -> anyhow::Result<Files> {
    let ordered = wanted.into_iter().map(|Wanted { secret, names, .. }| {
        let file = ordered_folder(config).join(secret.to_string()).with_extension("pem");
        let generate = names.into_keys().collect();
        CertificateFiles { secret, chain: file.clone(), key: file, ocsp: None, generate }
    });
    let pairs: Vec<_> = config.certificates.values().cloned().chain(ordered).collect();
    let mut certificates = Certificates::new(pairs.clone());
    for files in &pairs {
        if !files.generate.is_empty() && !files.chain.exists() && !files.key.exists() {
            let made = dev::make(&files.generate)?;
            certificates.provide(files, made.chain, made.key);
        }
    }
    Ok(Files::new(config.source.files.paths.clone()).with_certificates(certificates))
}

fn ordered_folder(config: &Config) -> PathBuf {
    let folder = config.acme.as_ref().and_then(|acme| acme.folder.clone());
    folder.unwrap_or_default().join("certificates")
}

fn print(compiled: &Compiled, shared: &[Fault], unheeded: &[String], dumped: bool) -> ExitCode {
    // The dump has the diagnostics already.
    if !dumped {
        compiled.diagnostics.iter().for_each(|diagnostic| println!("{diagnostic}"));
    }
    shared.iter().for_each(|fault| println!("error: {fault}"));
    unheeded.iter().for_each(|problem| println!("warning: {problem}"));
    let errors = compiled.diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
    let warnings = compiled.diagnostics.len() - errors + unheeded.len();
    let errors = errors + shared.len();
    eprintln!(
        "{} with {}: {}, {}",
        counted(compiled.routes.len(), "route"),
        counted(compiled.table.rules().len(), "rule"),
        counted(errors, "error"),
        counted(warnings, "warning"),
    );
    if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
