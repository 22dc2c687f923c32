//! A development authority and a leaf signed by it, so that a fresh clone speaks TLS.
//!
//! The authority's key is thrown away once it has signed: whoever trusts `ca.crt` trusts this one leaf and
//! nothing that could be made later.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use thiserror::Error;

/// Browsers refuse leaves of a private authority that are valid for more than 825 days.
const VALIDITY: Duration = Duration::from_secs(820 * 24 * 3600);

/// Clocks of clients may be behind ours.
const LEEWAY: Duration = Duration::from_secs(24 * 3600);

/// Why there is no development certificate.
#[derive(Debug, Error)]
pub enum DevelopmentError {
    #[error("{name:?} cannot be a name in a certificate: {error}")]
    Name { name: String, error: rcgen::Error },
    #[error("cannot make a development certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot write the development certificate to {}: {error}", file.display())]
    Write { file: PathBuf, error: io::Error },
}

/// A leaf with its authority, as PEM.
pub struct Development {
    pub authority: String,
    /// The leaf and the authority.
    pub chain: String,
    /// The leaf's key.
    pub key: String,
}

/// Makes an authority and a leaf for `names`.
///
/// # Errors
/// A name that no certificate can have.
pub fn make(names: &[String]) -> Result<Development, DevelopmentError> {
    let (authority, issuer) = authority()?;
    let (leaf, key) = leaf(&issuer, names)?;
    Ok(Development { chain: format!("{leaf}{authority}"), authority, key })
}

/// Makes them and writes them, when neither `chain` nor `key` is there. Returns the file with the authority,
/// `ca.crt` beside the chain, or `None` where one of the files is there already.
///
/// # Errors
/// A name that no certificate can have, or a folder that cannot be written.
pub fn generate(chain: &Path, key: &Path, names: &[String]) -> Result<Option<PathBuf>, DevelopmentError> {
    if chain.exists() || key.exists() {
        return Ok(None);
    }
    let made = make(names)?;
    let authority = chain.with_file_name("ca.crt");
    // The chain comes last: whoever watches never meets a new chain without its key.
    write(key, &made.key, 0o600)?;
    write(&authority, &made.authority, 0o644)?;
    write(chain, &made.chain, 0o644)?;
    Ok(Some(authority))
}

fn authority() -> Result<(String, Issuer<'static, KeyPair>), rcgen::Error> {
    let mut params = params(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "trigate development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Issuer::new(params, key)))
}

fn leaf(issuer: &Issuer<'_, KeyPair>, names: &[String]) -> Result<(String, String), DevelopmentError> {
    for name in names {
        if let Err(error) = CertificateParams::new(vec![name.clone()]) {
            return Err(DevelopmentError::Name { name: name.clone(), error });
        }
    }
    let mut params = params(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, "trigate development certificate");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn params(names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let now = SystemTime::now();
    params.not_before = (now - LEEWAY).into();
    params.not_after = (now + VALIDITY).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params)
}

/// Writes a file that only ever appears whole, and never with more rights than `mode`.
fn write(file: &Path, text: &str, mode: u32) -> Result<(), DevelopmentError> {
    let failed = |error| DevelopmentError::Write { file: file.to_owned(), error };
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let mut options = OpenOptions::new();
    // A left-over of a start that was cut short may have other rights.
    let _ = std::fs::remove_file(&new);
    let mut open = options.write(true).create_new(true).mode(mode).open(&new).map_err(failed)?;
    open.write_all(text.as_bytes()).map_err(failed)?;
    std::fs::rename(&new, file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Certificate;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_generated_leaf_has_its_names_and_only_its_owner_reads_the_key() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (chain, key) = (folder.path().join("certs/tls.crt"), folder.path().join("certs/tls.key"));
        let names = ["localhost".to_owned(), "*.example.test".to_owned()];
        let authority =
            generate(&chain, &key, &names).expect("it can be written").expect("nothing was there");
        assert_eq!(authority, folder.path().join("certs/ca.crt"));
        let read = |file: &Path| std::fs::read(file).expect("it was written");
        let certificate = Certificate::from_pem("dev", &read(&chain), &read(&key)).expect("a pair");
        assert_eq!(certificate.dns_names, names);
        assert_eq!(certificate.key.cert.len(), 2, "the authority is part of the chain");
        assert_eq!(key.metadata().expect("it was written").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path().join("certs")).expect("a folder").count(), 3);
    }

    #[test]
    fn files_that_are_there_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (chain, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        std::fs::write(&key, "mine").expect("the folder is ours");
        assert_eq!(generate(&chain, &key, &["localhost".to_owned()]).expect("nothing to do"), None);
        assert!(!chain.exists());
        assert_eq!(std::fs::read_to_string(&key).expect("it is there"), "mine");
    }

    #[test]
    fn a_name_that_no_certificate_can_have_is_told() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (chain, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let error = generate(&chain, &key, &["ünfit".to_owned()]).expect_err("it is not ASCII");
        assert!(error.to_string().contains("ünfit"), "{error}");
    }
}
