//! Tells when something under the watched paths may have changed: at once through the kernel, and now and then
//! by the clock, for file systems whose changes the kernel does not tell (NFS, links that lead elsewhere).

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How long nothing may happen before a burst of changes counts as over.
const QUIET: Duration = Duration::from_millis(8);
/// How long a burst may go on before it is looked at anyway.
const PATIENCE: Duration = Duration::from_millis(20);
/// Of more changes than this all files are looked at.
const MOST_PATHS: usize = 64;
/// How often to look although nothing was told.
const POLL: Duration = Duration::from_secs(5);

/// A watch of files and folders.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    touched: Arc<Mutex<Touched>>,
    changes: Receiver<()>,
    poll: Instant,
}

/// What may have changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Touched {
    Anything,
    /// Nothing but what has these names: files, folders, links.
    Paths(BTreeSet<PathBuf>),
}

impl Touched {
    /// Notes one more thing that may have changed.
    fn note(&mut self, event: notify::Result<Event>) {
        match (&mut *self, event) {
            (Self::Paths(paths), Ok(event)) if !event.need_rescan() && !event.paths.is_empty() => {
                paths.extend(event.paths);
                if paths.len() > MOST_PATHS {
                    *self = Self::Anything;
                }
            }
            _ => *self = Self::Anything,
        }
    }
}

impl Watch {
    /// A watch of nothing yet. Where the kernel has no watches left, only the clock tells.
    pub(super) fn new() -> Self {
        // One waiting mark says all: whoever takes it looks at everything.
        let (sender, changes) = channel(1);
        let touched = Arc::new(Mutex::new(Touched::Paths(BTreeSet::new())));
        let noted = touched.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, |event| is_change(event.kind)) {
                noted.lock().unwrap_or_else(PoisonError::into_inner).note(event);
                let _ = sender.try_send(());
            }
        });
        let poll = Instant::now() + POLL;
        Self { watcher: watcher.ok(), watched: BTreeSet::new(), touched, changes, poll }
    }

    /// Watches what of these paths exists and is not watched yet. Of a file its folder is watched, because
    /// editors and ConfigMap mounts replace files instead of writing to them.
    pub(super) fn follow(&mut self, paths: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        self.watched.retain(|path| path.exists());
        for path in paths {
            let (folder, mode) = match (path.is_dir(), path.parent()) {
                (true, _) => (path.as_path(), RecursiveMode::Recursive),
                (false, Some(parent)) if parent.as_os_str().is_empty() => {
                    (Path::new("."), RecursiveMode::NonRecursive)
                }
                (false, Some(parent)) => (parent, RecursiveMode::NonRecursive),
                (false, None) => continue,
            };
            if !self.watched.contains(folder) && watcher.watch(folder, mode).is_ok() {
                self.watched.insert(folder.to_owned());
            }
        }
    }

    /// Waits until something may have changed, and until it seems to be over. Says what that is.
    pub(super) async fn wait(&mut self) -> Touched {
        let told = match timeout_at(self.poll, self.changes.recv()).await {
            Ok(Some(())) => {
                let end = Instant::now() + PATIENCE;
                while let Ok(Ok(Some(()))) = timeout_at(end, timeout(QUIET, self.changes.recv())).await {}
                true
            }
            // Without a watcher the channel is closed.
            Ok(None) => {
                sleep_until(self.poll).await;
                false
            }
            Err(_) => false,
        };
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let touched = std::mem::replace(&mut *touched, Touched::Paths(BTreeSet::new()));
        // What the kernel does not tell is found by looking at everything now and then, changes or not.
        if !told || Instant::now() >= self.poll {
            self.poll = Instant::now() + POLL;
            return Touched::Anything;
        }
        touched
    }
}

/// Reading is told as well, and we read ourselves.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
