//! Objects from files: folders of YAML and JSON, watched.
//!
//! A file that cannot be read keeps its last good content, and so does an object in it: a slip of the editor
//! must not take down what was served a moment ago. Names that start with a dot are passed over, which are
//! editors' swap files, `.git`, and the hidden folders of a ConfigMap mount.

use super::certificates::Certificates;
use super::document::{Document, Fault, Format, Spot, read_documents};
use super::said;
use super::watch::{Touched, Watch};
use crate::resource::{Diagnostic, Object, ObjectRef, Place, Resource, Secret, Severity, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A file of more bytes is not read.
const MAX_FILE: u64 = 64 << 20;
/// How long a file that looks half-written is left alone.
const HALF_WRITTEN: Duration = Duration::from_millis(30);
/// The clock of file systems ticks slowly: a file this young may change without a trace in its times.
const YOUNG: Duration = Duration::from_millis(50);

/// All objects of one YAML text that stands in `file`, which is not opened.
pub fn read_text(file: &Path, text: &str) -> Snapshot {
    let file = File::new(file.to_owned(), read_documents(text, Format::Yaml, &[]));
    Snapshot::new(file.objects(), file.diagnostics())
}

/// The files and folders of a configuration.
pub struct Files {
    paths: Vec<PathBuf>,
    files: BTreeMap<PathBuf, File>,
    /// What is wrong with configured paths and folders.
    faults: BTreeMap<PathBuf, String>,
    certificates: Certificates,
    watch: Option<Watch>,
    /// Whether something changed that [`Files::changed`] did not return yet.
    pending: bool,
    /// The objects as they were last told, and the kinds that changed since beside those of files that are there.
    told: Snapshot,
    changed: BTreeSet<&'static str>,
}

/// One file, as it was last read.
#[derive(Debug)]
struct File {
    path: Arc<PathBuf>,
    stamp: Option<Stamp>,
    documents: Vec<Document>,
    /// Objects of earlier content that the file would have, were it not broken.
    kept: Vec<(Object, Spot)>,
    /// Why the file as a whole could not be read.
    fault: Option<String>,
    /// The kinds of objects that came, went or moved since they were last told.
    changed: BTreeSet<&'static str>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    inode: (u64, u64),
    size: u64,
}

/// What a look at the files found.
#[derive(Debug, Default, Clone, Copy)]
struct Look {
    changed: bool,
    /// A file looked half-written and was left alone.
    doubtful: bool,
}

impl Files {
    /// Objects of these files and folders, which need not exist yet. Nothing is read so far.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            files: BTreeMap::new(),
            faults: BTreeMap::new(),
            certificates: Certificates::default(),
            watch: None,
            pending: false,
            told: Snapshot::default(),
            // Some may be provided before anything is read.
            changed: BTreeSet::from([Secret::KIND]),
        }
    }

    /// The same with these certificates among the objects, as Secrets.
    pub fn with_certificates(self, certificates: Certificates) -> Self {
        Self { certificates, ..self }
    }

    /// All objects as the files have them now; only what changed is read again.
    pub fn read(&mut self) -> Snapshot {
        self.look(false);
        self.snapshot()
    }

    /// Waits for the next change and returns all objects after it. Changes since the last call are not lost.
    /// Safe to drop while it waits.
    pub async fn changed(&mut self) -> Snapshot {
        loop {
            let touched = match &mut self.watch {
                Some(watch) => watch.wait().await,
                None => {
                    self.watch = Some(Watch::new());
                    Touched::Anything
                }
            };
            if let Some(watch) = &mut self.watch {
                let certificates = self.certificates.paths();
                watch.follow(&self.paths.iter().chain(certificates).cloned().collect::<Vec<_>>());
            }
            let look = match self.known(touched) {
                Some(files) => self.look_at(files, true),
                None => self.look(true),
            };
            self.pending |= look.changed;
            if look.doubtful {
                tokio::time::sleep(HALF_WRITTEN).await;
                self.pending |= self.look(false).changed;
            }
            if std::mem::take(&mut self.pending) {
                return self.snapshot();
            }
        }
    }

    /// Brings the files up to date. With `patience` a file that looks half-written is left for the next look.
    fn look(&mut self, patience: bool) -> Look {
        let mut look = Look::default();
        let mut walk = Walk::default();
        for path in &self.paths {
            walk.visit(path, true);
        }
        let Walk { found, faults, seen: _ } = walk;
        look.changed |= faults != self.faults;
        self.faults = faults;
        let before = self.files.len();
        let (faults, changed) = (&self.faults, &mut self.changed);
        self.files.retain(|path, file| {
            // What stands under a folder that cannot be read now is still as it was.
            let stays = found.contains(path) || faults.keys().any(|folder| path.starts_with(folder));
            if !stays {
                changed.extend(file.kinds());
            }
            stays
        });
        look.changed |= self.files.len() != before;
        if self.certificates.look() {
            look.changed = true;
            self.changed.insert(Secret::KIND);
        }
        let of_files = self.look_at(found, patience);
        Look { changed: look.changed | of_files.changed, doubtful: of_files.doubtful }
    }

    /// Brings these files up to date.
    fn look_at(&mut self, paths: BTreeSet<PathBuf>, patience: bool) -> Look {
        let mut look = Look::default();
        for path in paths {
            let file = self.files.entry(path).or_insert_with_key(|path| File::new(path.clone(), Vec::new()));
            let of_file = file.look(patience);
            look.changed |= of_file.changed;
            look.doubtful |= of_file.doubtful;
        }
        look
    }

    /// The files that were touched, when these are files that are known and still there and nothing else was. Then
    /// it is not worth it to ask for the times of ten thousand others.
    fn known(&self, touched: Touched) -> Option<BTreeSet<PathBuf>> {
        let Touched::Paths(paths) = touched else { return None };
        let here = std::env::current_dir().unwrap_or_default();
        let mut known = BTreeSet::new();
        for path in paths {
            let name = path.file_name()?.as_encoded_bytes();
            // Nobody reads files whose name begins with a dot. ConfigMap mounts swap all their files by one with two.
            if name.starts_with(b".") && !name.starts_with(b"..") {
                continue;
            }
            // The watch tells absolute paths.
            let names = [Some(path.as_path()), path.strip_prefix(&here).ok()];
            let file = names.into_iter().flatten().find(|name| self.files.contains_key(*name))?;
            known.insert(file.to_owned());
        }
        known.iter().all(|path| path.is_file()).then_some(known)
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut changed = std::mem::take(&mut self.changed);
        self.files.values_mut().for_each(|file| changed.append(&mut file.changed));
        let files = self.files.values();
        let mut diagnostics: Vec<_> = files.clone().flat_map(File::diagnostics).collect();
        diagnostics.extend(self.faults.iter().map(|(path, fault)| of_file(path, None, fault.clone())));
        diagnostics.extend(self.certificates.diagnostics());
        let objects = files.flat_map(File::objects).chain(self.certificates.objects());
        self.told = self.told.with(|kind| changed.contains(kind), objects, diagnostics);
        self.told.clone()
    }
}

/// Files found under the configured paths.
#[derive(Default)]
struct Walk {
    found: BTreeSet<PathBuf>,
    faults: BTreeMap<PathBuf, String>,
    /// Folders that were visited, by device and inode: links may lead in circles.
    seen: BTreeSet<(u64, u64)>,
}

impl Walk {
    fn visit(&mut self, path: &Path, configured: bool) {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            // A dangling link, or a file that went away while we looked.
            Err(_) if !configured => return,
            Err(error) => {
                self.faults.insert(path.to_owned(), said(&error));
                return;
            }
        };
        if metadata.is_file() {
            if configured || format(path).is_some() {
                self.found.insert(path.to_owned());
            }
        } else if metadata.is_dir() && self.seen.insert((metadata.dev(), metadata.ino())) {
            match fs::read_dir(path) {
                Ok(entries) => {
                    let visible = |name: &std::ffi::OsStr| !name.as_encoded_bytes().starts_with(b".");
                    let mut entries: Vec<_> =
                        entries.flatten().filter(|entry| visible(&entry.file_name())).collect();
                    entries.sort_by_key(fs::DirEntry::file_name);
                    entries.iter().for_each(|entry| self.visit(&entry.path(), false));
                }
                Err(error) => {
                    self.faults.insert(path.to_owned(), said(&error));
                }
            }
        }
    }
}

impl File {
    fn new(path: PathBuf, documents: Vec<Document>) -> Self {
        let path = Arc::new(path);
        Self { path, stamp: None, documents, kept: Vec::new(), fault: None, changed: BTreeSet::new() }
    }

    /// Reads the file again if it changed.
    fn look(&mut self, patience: bool) -> Look {
        let unchanged = Look::default();
        match fs::metadata(&*self.path).map(|metadata| (Stamp::of(&metadata), metadata)) {
            Ok((stamp, _)) if self.fault.is_none() && self.stamp == Some(stamp) => return unchanged,
            Ok((_, metadata)) if metadata.len() > MAX_FILE => {
                return self.fail(format!("is larger than {} MiB, split it", MAX_FILE >> 20));
            }
            Ok((stamp, metadata)) => self.stamp = is_settled(&metadata).then_some(stamp),
            Err(error) => return self.fail(said(&error)),
        }
        let text = match fs::read(&*self.path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => return self.fail("is no UTF-8 text".to_owned()),
            Err(error) => return self.fail(said(&error)),
        };
        let documents = read_documents(&text, format(&self.path).unwrap_or(Format::Yaml), &self.documents);
        let same = |a: &Document, b: &Document| a.line == b.line && Arc::ptr_eq(&a.content, &b.content);
        if self.fault.is_none()
            && documents.len() == self.documents.len()
            && documents.iter().zip(&self.documents).all(|(a, b)| same(a, b))
        {
            return unchanged;
        }
        let broken = documents.iter().flat_map(|document| &document.content.faults).any(|fault| fault.hides);
        let had = self.documents.iter().any(|document| !document.content.objects.is_empty());
        if patience && had && (broken || documents.is_empty()) {
            self.stamp = None;
            return Look { changed: false, doubtful: true };
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.extend(self.kinds());
        self.kept = if broken { self.missing_from(&documents) } else { Vec::new() };
        self.documents = documents;
        self.fault = None;
        changed.extend(self.kinds());
        self.changed = changed;
        Look { changed: true, doubtful: false }
    }

    fn fail(&mut self, fault: String) -> Look {
        let changed = self.fault.as_ref() != Some(&fault);
        self.fault = Some(fault);
        Look { changed, doubtful: false }
    }

    /// The objects that these documents do not have any more.
    fn missing_from(&self, documents: &[Document]) -> Vec<(Object, Spot)> {
        let there: BTreeSet<ObjectRef> = documents
            .iter()
            .flat_map(|document| &document.content.objects)
            .map(|(object, _)| object.reference())
            .collect();
        self.located().filter(|(object, _)| !there.contains(&object.reference())).collect()
    }

    /// The kinds of all objects, kept ones included.
    fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let current = self.documents.iter().flat_map(|document| &document.content.objects);
        current.chain(&self.kept).map(|(object, _)| object.kind())
    }

    /// All objects, kept ones included, with their spots in the file.
    fn located(&self) -> impl Iterator<Item = (Object, Spot)> {
        let current = self.documents.iter().flat_map(|document| {
            document.content.objects.iter().map(|(object, spot)| (object.clone(), spot.after(document.line)))
        });
        current.chain(self.kept.iter().cloned())
    }

    fn objects(&self) -> impl Iterator<Item = (Object, Option<Place>)> {
        self.located().map(|(object, spot)| (object, Some(self.place(spot))))
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut diagnostics: Vec<_> = self
            .documents
            .iter()
            .flat_map(|document| {
                document.content.faults.iter().map(|fault| self.diagnostic(document.line, fault))
            })
            .collect();
        if let Some(fault) = &self.fault {
            let place = self.place(Spot::default());
            diagnostics.push(of_file(&self.path, Some(place), fault.clone()));
        }
        diagnostics
    }

    fn diagnostic(&self, line: u32, fault: &Fault) -> Diagnostic {
        let Fault { severity, object, spot, field, reason, message, hides } = fault;
        let kept = self.kept.len();
        let message = match (hides, kept) {
            (true, 1..) => {
                format!("{message}; until it can, {kept} of this file's objects stay as they were")
            }
            _ => message.clone(),
        };
        Diagnostic {
            severity: *severity,
            object: object.clone(),
            place: Some(self.place(spot.after(line))),
            field: field.clone(),
            reason,
            message,
        }
    }

    fn place(&self, spot: Spot) -> Place {
        Place {
            file: self.path.clone(),
            line: spot.line.saturating_add(1),
            column: spot.column.saturating_add(1),
        }
    }
}

fn of_file(path: &Path, place: Option<Place>, fault: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        object: ObjectRef { kind: "file".into(), namespace: String::new(), name: path.display().to_string() },
        place,
        field: String::new(),
        reason: "Unreadable",
        message: format!("{fault}; what was read of it before is still served"),
    }
}

fn format(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
}

/// Whether the next change of the file will show in its times.
fn is_settled(metadata: &fs::Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age > YOUNG)
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
        }
    }
}
