//! `trigate check`: what would be served and what is wrong with it, without opening a socket.

use crate::compile::{Diagnostic, Severity};
use crate::config::Config;
use crate::source::{Certificates, Files};
use crate::tls::dev;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Prints every diagnostic of the manifests, those at `paths` or else those that the configuration names.
///
/// # Errors
/// The configuration cannot be used.
pub fn check(file: &Path, paths: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut config = if paths.is_empty() { Config::load(file)? } else { Config::read(file)? };
    if !paths.is_empty() {
        config.source.files.paths = paths;
    }
    let snapshot = files(&config)?.read();
    Ok(print(&snapshot.diagnostics))
}

/// The manifests of a configuration. A development certificate that a start would make is made here too, but not
/// written.
fn files(config: &Config) -> anyhow::Result<Files> {
    let mut certificates = Certificates::new(config.certificates.values().cloned());
    for files in config.certificates.values() {
        if !files.generate.is_empty() && !files.chain.exists() && !files.key.exists() {
            let made = dev::make(&files.generate)?;
            certificates.provide(files, made.chain, made.key);
        }
    }
    Ok(Files::new(config.source.files.paths.clone()).with_certificates(certificates))
}

fn print(diagnostics: &[Diagnostic]) -> ExitCode {
    diagnostics.iter().for_each(|diagnostic| println!("{diagnostic}"));
    let errors = diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
    let warnings = diagnostics.len() - errors;
    eprintln!("{errors} errors, {warnings} warnings");
    if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
