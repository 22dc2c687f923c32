//! Certificates in PEM files, as the Secrets that listeners refer to: a pair of files is one more object.
//!
//! A pair of which a file cannot be read keeps its last good content, as manifests do. So does the OCSP response
//! beside it: its own dates say until when it is good.

use super::said;
use super::stored::Stored;
use crate::config::{CertificateFiles, ObjectName};
use crate::resource::{Diagnostic, Object, ObjectHeader, ObjectRef, Place, Severity, read};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A chain and a key are smaller than this; what is larger is the wrong file.
const MAX_FILE: u64 = 1 << 20;

/// The certificates of a configuration.
#[derive(Default)]
pub struct Certificates {
    pairs: Vec<Pair>,
    /// Those that the gateway orders itself.
    ordered: Option<Stored>,
}

struct Pair {
    files: CertificateFiles,
    /// What the files held when they were last read well.
    pem: Option<(String, String)>,
    staple: Option<Vec<u8>>,
    secret: Option<Object>,
    fault: Option<Unread>,
    no_staple: Option<Unread>,
}

/// A file, and why it cannot be read.
type Unread = (PathBuf, String);

impl Certificates {
    /// The certificates in these files, of which nothing is read so far.
    pub fn new(files: impl IntoIterator<Item = CertificateFiles>) -> Self {
        let pair =
            |files| Pair { files, pem: None, staple: None, secret: None, fault: None, no_staple: None };
        Self { pairs: files.into_iter().map(pair).collect(), ordered: None }
    }

    /// The same with those that the gateway orders itself and keeps in this folder.
    pub fn with_ordered(self, folder: PathBuf) -> Self {
        Self { ordered: Some(Stored::new(folder)), ..self }
    }

    /// Takes this chain and key for the certificate of a Secret until its files are there.
    pub fn provide(&mut self, files: &CertificateFiles, chain: String, key: String) {
        for pair in self.pairs.iter_mut().filter(|pair| pair.files == *files) {
            pair.hold(chain.clone(), key.clone());
        }
    }

    /// Reads all files again; says whether something changed.
    pub(super) fn look(&mut self) -> bool {
        let ordered = self.ordered.as_mut().is_some_and(Stored::look);
        self.pairs.iter_mut().fold(ordered, |changed, pair| pair.look() | changed)
    }

    /// The files to watch.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let files = self.pairs.iter().map(|pair| &pair.files);
        let pairs = files.flat_map(|files| [&files.chain, &files.key].into_iter().chain(&files.ocsp));
        pairs.chain(self.ordered.iter().map(|stored| &stored.folder))
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = (Object, Option<Place>)> {
        let pairs = self.pairs.iter();
        let pairs = pairs.filter_map(|pair| Some((pair.secret.clone()?, Some(start_of(&pair.files.chain)))));
        pairs.chain(self.ordered.iter().flat_map(Stored::objects))
    }

    pub(super) fn diagnostics(&self) -> impl Iterator<Item = Diagnostic> {
        self.pairs.iter().flat_map(|pair| {
            let pem = pair.fault.as_ref().map(|fault| {
                let way_out = match pair.secret {
                    Some(_) => "what was read of it before is still served",
                    None => "put the files there; they are watched",
                };
                pair.diagnostic(Severity::Error, fault, way_out)
            });
            let staple = pair.no_staple.as_ref().map(|fault| {
                let way_out = match pair.staple {
                    Some(_) => "what was read of it before is still stapled, until its date",
                    None => "nothing is stapled until it is there; it is watched",
                };
                pair.diagnostic(Severity::Warning, fault, way_out)
            });
            pem.into_iter().chain(staple)
        })
    }
}

impl Pair {
    fn look(&mut self) -> bool {
        let stapled = self.look_at_staple();
        let changed = self.look_at_pem();
        if stapled {
            self.make_secret();
        }
        stapled | changed
    }

    fn look_at_staple(&mut self) -> bool {
        let Some(file) = &self.files.ocsp else { return false };
        match read_bytes(file) {
            Ok(staple) => {
                let is_new = self.staple.as_ref() != Some(&staple);
                self.staple = Some(staple);
                self.no_staple.take().is_some() | is_new
            }
            Err(fault) => self.no_staple.replace(fault.clone()) != Some(fault),
        }
    }

    fn look_at_pem(&mut self) -> bool {
        let pem = read_text(&self.files.chain).and_then(|chain| Ok((chain, read_text(&self.files.key)?)));
        match pem {
            Ok(pem) if self.pem.as_ref() == Some(&pem) => self.fault.take().is_some(),
            Ok((chain, key)) => {
                self.hold(chain, key);
                self.fault = None;
                true
            }
            // Both missing while something was provided is not a fault: the files are still to come.
            Err(_) if self.fault.is_none() && self.is_provided() => false,
            Err(fault) => self.fault.replace(fault.clone()) != Some(fault),
        }
    }

    fn is_provided(&self) -> bool {
        self.secret.is_some() && !self.files.chain.exists() && !self.files.key.exists()
    }

    fn hold(&mut self, chain: String, key: String) {
        self.pem = Some((chain, key));
        self.make_secret();
    }

    fn make_secret(&mut self) {
        let Some((chain, key)) = &self.pem else { return };
        let (header, mut object) = secret(&self.files.secret, chain, key, false);
        if let Some(staple) = &self.staple {
            object["data"] = json!({ "tls.ocsp-staple": STANDARD.encode(staple) });
        }
        let read = read(&header, object).ok().flatten();
        self.secret = read.map(|reading| reading.object);
    }

    fn diagnostic(&self, severity: Severity, (path, fault): &Unread, way_out: &str) -> Diagnostic {
        let ObjectName { namespace, name } = self.files.secret.clone();
        Diagnostic {
            severity,
            object: ObjectRef { kind: "Secret".to_owned(), namespace, name },
            place: Some(start_of(path)),
            field: String::new(),
            reason: "Unreadable",
            message: format!("{fault}; {way_out}"),
        }
    }
}

/// The Secret as a manifest would have it; with a label where the gateway orders it itself.
pub(super) fn secret(
    name: &ObjectName,
    chain: &str,
    key: &str,
    ordered: bool,
) -> (ObjectHeader, serde_json::Value) {
    let header = ObjectHeader {
        api_version: Some("v1".to_owned()),
        kind: Some("Secret".to_owned()),
        ..ObjectHeader::default()
    };
    let labels = if ordered { json!({ "trigate.dev/acme": "true" }) } else { json!({}) };
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "namespace": name.namespace, "name": name.name, "labels": labels },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": chain, "tls.key": key },
    });
    (header, object)
}

fn read_text(path: &Path) -> Result<String, Unread> {
    let no_text = |_| (path.to_owned(), "is no PEM text; convert it with `openssl x509`".to_owned());
    String::from_utf8(read_bytes(path)?).map_err(no_text)
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Unread> {
    let fault = |fault: String| (path.to_owned(), fault);
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_FILE => {
            Err(fault("is larger than 1 MiB, so it is another file".to_owned()))
        }
        Ok(_) => fs::read(path).map_err(|error| fault(said(&error))),
        Err(error) => Err(fault(said(&error))),
    }
}

fn start_of(path: &Path) -> Place {
    Place { file: Arc::new(path.to_owned()), line: 1, column: 1 }
}

#[cfg(test)]
mod tests {
    use super::super::Files;
    use super::*;

    fn files(folder: &Path) -> CertificateFiles {
        CertificateFiles {
            secret: crate::config::ObjectName { namespace: "network".to_owned(), name: "tls".to_owned() },
            chain: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            ocsp: None,
            generate: Vec::new(),
        }
    }

    fn chain_in(files: &mut Files) -> Option<String> {
        let snapshot = files.read();
        let secret = snapshot.secrets.get("network", "tls")?;
        assert_eq!(secret.object.r#type.as_deref(), Some("kubernetes.io/tls"));
        Some(String::from_utf8_lossy(secret.object.get("tls.crt")?.reveal()).into_owned())
    }

    #[test]
    fn a_pair_of_files_is_a_secret_that_follows_them_and_outlives_a_missing_one() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let pair = files(folder.path());
        let mut source = Files::new(Vec::new()).with_certificates(Certificates::new([pair.clone()]));
        let missing = source.read().diagnostics;
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].to_string().contains("tls.crt:1:1"), "{}", missing[0]);
        fs::write(&pair.chain, "chain").expect("the folder is ours");
        fs::write(&pair.key, "key").expect("the folder is ours");
        assert_eq!(chain_in(&mut source).as_deref(), Some("chain"));
        assert!(source.read().diagnostics.is_empty());
        fs::write(&pair.chain, "next").expect("the folder is ours");
        assert_eq!(chain_in(&mut source).as_deref(), Some("next"));
        fs::remove_file(&pair.key).expect("it is there");
        assert_eq!(chain_in(&mut source).as_deref(), Some("next"));
        assert!(source.read().diagnostics[0].message.contains("is still served"));
    }

    #[test]
    fn a_provided_pair_stands_in_for_files_that_are_still_to_come() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let pair = files(folder.path());
        let mut certificates = Certificates::new([pair.clone()]);
        certificates.provide(&pair, "provided".to_owned(), "key".to_owned());
        let mut source = Files::new(Vec::new()).with_certificates(certificates);
        assert_eq!(chain_in(&mut source).as_deref(), Some("provided"));
        assert!(source.read().diagnostics.is_empty());
        fs::write(&pair.chain, "chain").expect("the folder is ours");
        fs::write(&pair.key, "key").expect("the folder is ours");
        assert_eq!(chain_in(&mut source).as_deref(), Some("chain"));
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_a_change() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let pair = files(folder.path());
        fs::write(&pair.chain, "chain").expect("the folder is ours");
        fs::write(&pair.key, "key").expect("the folder is ours");
        let mut source = Files::new(Vec::new()).with_certificates(Certificates::new([pair.clone()]));
        source.read();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            fs::write(&pair.chain, "renewed").expect("the folder is ours");
        });
        let changed = tokio::time::timeout(std::time::Duration::from_secs(2), source.changed());
        let snapshot = changed.await.expect("the change is seen before the next poll");
        let secret = snapshot.secrets.get("network", "tls").expect("it is there");
        assert_eq!(secret.object.get("tls.crt").expect("it has a chain").reveal(), b"renewed");
    }
}
