//! Account, certificates and pending orders as files of one folder.
//!
//! ```text
//! account-<hash>.json            the key with an authority, by the hash of its directory
//! certificates/NS/NAME.pem       the key, then the chain: one file, so that a pair is replaced at once
//! orders/NS/NAME.json            an order that is not over, and what failed before
//! challenges/…                   answers that replicas share
//! lock                           whoever holds it orders
//! ```
//!
//! A file only ever appears whole (written beside, synchronised, renamed), and its owner alone reads it.

use crate::config::ObjectName;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, where it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let folder = Self(path);
        for part in [folder.0.clone(), folder.certificates(), folder.challenges()] {
            make(&part)?;
        }
        Ok(folder)
    }

    /// Where the certificates are, for the source to watch.
    pub fn certificates(&self) -> PathBuf {
        self.0.join("certificates")
    }

    /// Where replicas share the answers of pending orders.
    pub fn challenges(&self) -> PathBuf {
        self.0.join("challenges")
    }

    /// The file of an account.
    pub fn account(&self, hash: &str) -> PathBuf {
        self.0.join(format!("account-{hash}.json"))
    }

    /// The file of a certificate.
    pub fn certificate(&self, ObjectName { namespace, name }: &ObjectName) -> PathBuf {
        self.certificates().join(namespace).join(format!("{name}.pem"))
    }

    /// The file of an order.
    pub fn order(&self, ObjectName { namespace, name }: &ObjectName) -> PathBuf {
        self.0.join("orders").join(namespace).join(format!("{name}.json"))
    }

    /// Takes the lock, if no other process has it. It is free again when the file is dropped.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.0.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// The text of a file, or `None` where it is not there.
///
/// # Errors
/// It cannot be read.
pub fn read(file: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file, or makes it.
///
/// # Errors
/// It cannot be written; what was there before is still there.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    make(folder)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".new");
    let new = folder.join(name);
    // A left-over of a process that was killed may have other rights.
    remove(&new)?;
    let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    open.write_all(text.as_bytes())?;
    open.sync_all()?;
    std::fs::rename(&new, file)?;
    // The name is in the folder, which is a file too.
    File::open(folder)?.sync_all()
}

/// Removes a file, if it is there.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_its_owners_alone_and_leaves_nothing_beside_it() {
        let temporary = tempfile::tempdir().expect("a folder for the test");
        let folder = Folder::open(temporary.path().join("a/acme")).expect("it can be made");
        let secret = ObjectName { namespace: "network".to_owned(), name: "tls".to_owned() };
        let file = folder.certificate(&secret);
        assert_eq!(read(&file).expect("nothing there"), None);
        for text in ["one", "two"] {
            write(&file, text).expect("it can be written");
            assert_eq!(read(&file).expect("it was written").as_deref(), Some(text));
        }
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().expect("a folder"))), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(file.parent().expect("a folder")).expect("a folder").count(), 1);
    }

    #[test]
    fn one_holds_the_lock_until_it_lets_go() {
        let temporary = tempfile::tempdir().expect("a folder for the test");
        let folder = Folder::open(temporary.path().to_owned()).expect("it can be made");
        let held = folder.lock().expect("a file").expect("it is free");
        assert!(folder.lock().expect("a file").is_none());
        drop(held);
        assert!(folder.lock().expect("a file").is_some());
    }
}
