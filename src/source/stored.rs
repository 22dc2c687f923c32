//! Certificates that the gateway has ordered, as the Secrets that listeners refer to: `NAMESPACE/NAME.pem` in a folder,
//! each with a key and its chain.

use super::certificates::secret;
use crate::config::ObjectName;
use crate::resource::{Object, Place, read};
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A chain and a key are smaller than this.
const MAX_FILE: u64 = 1 << 20;

/// The folder, as it was last read. A file that cannot be read keeps its last content; one that is gone is gone.
#[derive(Debug)]
pub(super) struct Stored {
    pub folder: PathBuf,
    files: BTreeMap<PathBuf, File>,
}

#[derive(Debug)]
struct File {
    stamp: (u64, u64, i64, i64),
    secret: Option<Object>,
}

impl Stored {
    /// Nothing is read so far.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, files: BTreeMap::new() }
    }

    /// Reads again what changed; says whether something did.
    pub fn look(&mut self) -> bool {
        let mut found = BTreeMap::new();
        for namespace in entries(&self.folder) {
            let files = entries(&namespace).filter(|file| file.extension().is_some_and(|end| end == "pem"));
            let files = files.filter(|file| {
                !file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
            });
            found.extend(files.filter_map(|file| Some((file.clone(), fs::metadata(&file).ok()?))));
        }
        let before = self.files.len();
        self.files.retain(|path, _| found.contains_key(path));
        let mut changed = before != self.files.len();
        for (path, metadata) in found {
            let stamp = stamp(&metadata);
            if self.files.get(&path).is_some_and(|file| file.stamp == stamp) || metadata.len() > MAX_FILE {
                continue;
            }
            if let Some(secret) = object(&path) {
                self.files.insert(path, File { stamp, secret: Some(secret) });
                changed = true;
            }
        }
        changed
    }

    /// The Secrets, with the files that they are.
    pub fn objects(&self) -> impl Iterator<Item = (Object, Option<Place>)> {
        self.files.iter().filter_map(|(path, file)| {
            let place = Place { file: Arc::new(path.clone()), line: 1, column: 1 };
            Some((file.secret.clone()?, Some(place)))
        })
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// A file is replaced as a whole, so it has another number then.
fn stamp(metadata: &Metadata) -> (u64, u64, i64, i64) {
    (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn object(path: &Path) -> Option<Object> {
    let name = ObjectName {
        namespace: path.parent()?.file_name()?.to_str()?.to_owned(),
        name: path.file_stem()?.to_str()?.to_owned(),
    };
    let text = fs::read_to_string(path).ok()?;
    let (key, chain) = text.split_at(text.find("-----BEGIN CERTIFICATE-----")?);
    let (header, object) = secret(&name, chain, key, true);
    Some(read(&header, object).ok()??.object)
}

#[cfg(test)]
mod tests {
    use super::super::{Certificates, Files};
    use super::*;

    #[test]
    fn an_ordered_certificate_is_a_secret_that_is_known_as_such() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = folder.path().join("network/tls.pem");
        fs::create_dir(folder.path().join("network")).expect("the folder is ours");
        let certificates = Certificates::default().with_ordered(folder.path().to_owned());
        let mut source = Files::new(Vec::new()).with_certificates(certificates);
        assert!(source.read().is_empty());
        for content in ["one", "two"] {
            let new = folder.path().join("network/.tls.pem.new");
            fs::write(&new, format!("key\n-----BEGIN CERTIFICATE-----\n{content}"))
                .expect("the folder is ours");
            fs::rename(&new, &file).expect("the folder is ours");
            let snapshot = source.read();
            let secret = &snapshot.secrets.get("network", "tls").expect("it is there").object;
            let value =
                |key| String::from_utf8_lossy(secret.get(key).expect("a value").reveal()).into_owned();
            assert_eq!(value("tls.key"), "key\n");
            assert!(value("tls.crt").ends_with(content), "{}", value("tls.crt"));
            assert!(secret.metadata.labels.get("trigate.dev/acme").is_some());
        }
        fs::remove_file(&file).expect("it is there");
        assert!(source.read().is_empty());
    }
}
