//! A development authority and a leaf signed by it, so that a fresh clone speaks TLS.
//!
//! The authority that a start makes by itself throws its key away once it has signed: whoever trusts `ca.crt` trusts
//! this one leaf and nothing that could be made later. That of `trigate certs dev` keeps it, for later leaves.

use super::{Age, Certificate, date};
use crate::host::HostPattern;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// Browsers refuse leaves of a private authority that are valid for more than 825 days.
const VALIDITY: Duration = Duration::from_secs(820 * 24 * 3600);

/// Clocks of clients may be behind ours.
const LEEWAY: Duration = Duration::from_secs(24 * 3600);

/// Why there is no development certificate.
#[derive(Debug, Error)]
pub enum DevelopmentError {
    #[error(
        "{0:?} is no host name; write one such as app.localhost or *.example.test (without scheme, port and path, and xn--… for other scripts than ASCII), or an IP address"
    )]
    Name(String),
    #[error("cannot make a development certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot write the development certificate to {}: {error}", file.display())]
    Write { file: PathBuf, error: io::Error },
    #[error("cannot read {}: {error}", file.display())]
    Read { file: PathBuf, error: io::Error },
    #[error("{} cannot sign: {fault}; remove it and the ca.key beside it to make a new authority, which clients have to trust anew", file.display())]
    Authority { file: PathBuf, fault: String },
    #[error("there is {} and no {}, so nothing can be signed; remove it, or name another folder with --out", there.display(), missing.display())]
    Half { there: PathBuf, missing: PathBuf },
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
    let (leaf, key) = leaf(&issuer, names, SystemTime::now() + VALIDITY)?;
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

/// Makes a leaf for each name in `folder`, `NAME.crt` and `NAME.key` (`wildcard.NAME` for `*.NAME`), and their
/// authority, `ca.crt` and `ca.key`. An authority that is there already is used again, so that clients who trust it
/// trust what is added later; leaves that are there are replaced. Returns the chains, in the order of the names.
///
/// # Errors
/// A name that no certificate can have, an authority that cannot be used, a folder that cannot be written.
pub fn write_leaves(folder: &Path, names: &[String]) -> Result<Vec<PathBuf>, DevelopmentError> {
    names.iter().try_for_each(|name| valid(name))?;
    let (authority, authority_key) = (folder.join("ca.crt"), folder.join("ca.key"));
    let mut until = SystemTime::now() + VALIDITY;
    let (pem, issuer) = match (read(&authority)?, read(&authority_key)?) {
        (Some(pem), Some(key)) => {
            let fault = |fault| DevelopmentError::Authority { file: authority, fault };
            let end = end_of(&pem, &key).map_err(fault)?;
            until = until.min(end);
            (pem, Issuer::new(authority_params()?, KeyPair::from_pem(&key)?))
        }
        // To replace what somebody trusts, or whose key is elsewhere, is not for us to decide.
        (Some(_), None) => return Err(DevelopmentError::Half { there: authority, missing: authority_key }),
        (None, Some(_)) => return Err(DevelopmentError::Half { there: authority_key, missing: authority }),
        (None, None) => {
            let key = KeyPair::generate()?;
            let (pem, key_pem) = (authority_params()?.self_signed(&key)?.pem(), key.serialize_pem());
            write(&authority_key, &key_pem, 0o600)?;
            write(&authority, &pem, 0o644)?;
            (pem, Issuer::new(authority_params()?, key))
        }
    };
    let mut chains = Vec::new();
    for name in names {
        let (leaf, key) = leaf(&issuer, std::slice::from_ref(name), until)?;
        let file = name.replace('*', "wildcard");
        let chain = folder.join(format!("{file}.crt"));
        write(&folder.join(format!("{file}.key")), &key, 0o600)?;
        write(&chain, &format!("{leaf}{pem}"), 0o644)?;
        chains.push(chain);
    }
    Ok(chains)
}

/// Until when an authority can sign, or why it cannot.
fn end_of(pem: &str, key: &str) -> Result<SystemTime, String> {
    let authority =
        Certificate::from_pem("", pem.as_bytes(), key.as_bytes()).map_err(|error| error.to_string())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (_, end) = authority.validity;
    match authority.age(i64::try_from(now).unwrap_or(i64::MAX)) {
        Age::Expired => Err(format!("it has expired on {}", date(end))),
        Age::Valid | Age::NotYetValid => Ok(UNIX_EPOCH + Duration::from_secs(end.unsigned_abs())),
    }
}

fn valid(name: &str) -> Result<(), DevelopmentError> {
    let is_valid = HostPattern::parse(name).is_some() || name.parse::<IpAddr>().is_ok();
    is_valid.then_some(()).ok_or_else(|| DevelopmentError::Name(name.to_owned()))
}

fn read(file: &Path) -> Result<Option<String>, DevelopmentError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DevelopmentError::Read { file: file.to_owned(), error }),
    }
}

fn authority() -> Result<(String, Issuer<'static, KeyPair>), rcgen::Error> {
    let params = authority_params()?;
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Issuer::new(params, key)))
}

fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "trigate development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    names: &[String],
    until: SystemTime,
) -> Result<(String, String), DevelopmentError> {
    names.iter().try_for_each(|name| valid(name))?;
    let mut params = params(names.to_vec())?;
    params.not_after = until.into();
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
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, UnixTime};
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
    fn leaves_that_are_added_later_have_the_authority_that_was_there() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let file = |name: &str| folder.path().join(name);
        let first = write_leaves(folder.path(), &names(&["a.test", "*.b.test"])).expect("it can be written");
        assert_eq!(first, [file("a.test.crt"), file("wildcard.b.test.crt")]);
        let authority = std::fs::read(file("ca.crt")).expect("it was written");
        write_leaves(folder.path(), &names(&["c.test"])).expect("it can be written");
        assert_eq!(std::fs::read(file("ca.crt")).expect("it is there"), authority);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&authority).expect("PEM")).expect("it can be trusted");
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build();
        let verifier = verifier.expect("there is a root");
        for (name, of) in [("a.test", "a.test"), ("x.b.test", "wildcard.b.test"), ("c.test", "c.test")] {
            let read = |end: &str| std::fs::read(file(&format!("{of}.{end}"))).expect("it was written");
            let certificate = Certificate::from_pem(of, &read("crt"), &read("key")).expect("a pair");
            let (leaf, server) = (&certificate.key.cert[0], name.try_into().expect("a name"));
            let verified = verifier.verify_server_cert(leaf, &[], &server, &[], UnixTime::now());
            verified.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for key in ["ca.key", "a.test.key"] {
            assert_eq!(file(key).metadata().expect("it was written").permissions().mode() & 0o777, 0o600);
        }
        std::fs::remove_file(file("ca.key")).expect("it is there");
        let error = write_leaves(folder.path(), &names(&["d.test"])).expect_err("nothing can be signed");
        assert!(error.to_string().contains("ca.key"), "{error}");
    }

    #[test]
    fn a_name_that_no_certificate_can_have_is_told_before_anything_is_written() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        for bad in
            ["", "ünfit", "a b", "..", "a..test", "https://a.test", "a.test:443", "a/b", "*", "a.*.test"]
        {
            let (chain, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
            let error = generate(&chain, &key, &[bad.to_owned()]).expect_err("it is no name");
            assert!(error.to_string().contains(&format!("{bad:?} is no host name")), "{error}");
            write_leaves(folder.path(), &["good.test".to_owned(), bad.to_owned()])
                .expect_err("it is no name");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let addresses = ["127.0.0.1".to_owned(), "::1".to_owned()];
        assert_eq!(write_leaves(folder.path(), &addresses).expect("they are names, too").len(), 2);
    }

    #[test]
    fn an_authority_that_has_expired_or_lost_its_key_is_told_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let names = ["a.test".to_owned()];
        write_leaves(folder.path(), &names).expect("it can be written");
        let (authority, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
        let other = KeyPair::generate().expect("a key");
        let mut old = authority_params().expect("an authority");
        old.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
        let expired = old.self_signed(&other).expect("an authority").pem();
        for (pem, words) in [
            (std::fs::read_to_string(&authority).expect("it is there"), "does not belong"),
            (expired, "it has expired on 20"),
        ] {
            std::fs::write(&authority, &pem).expect("the folder is ours");
            std::fs::write(&key, other.serialize_pem()).expect("the folder is ours");
            let error = write_leaves(folder.path(), &names).expect_err("it cannot sign").to_string();
            assert!(error.contains(words) && error.contains("make a new authority"), "{error}");
            assert_eq!(std::fs::read_to_string(&authority).expect("it is there"), pem);
        }
    }
}
