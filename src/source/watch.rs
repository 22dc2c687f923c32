//! Tells when something under the watched paths may have changed: at once through the kernel, and now and then
//! by the clock, for file systems whose changes the kernel does not tell (NFS, links that lead elsewhere).

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How long nothing may happen before a burst of changes counts as over.
const QUIET: Duration = Duration::from_millis(8);
/// How long a burst may go on before it is looked at anyway.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often to look although nothing was told.
const POLL: Duration = Duration::from_secs(5);

/// A watch of files and folders.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    changes: Receiver<()>,
    poll: Instant,
}

impl Watch {
    /// A watch of nothing yet. Where the kernel has no watches left, only the clock tells.
    pub(super) fn new() -> Self {
        // One waiting mark says all: whoever takes it looks at everything.
        let (sender, changes) = channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, |event| is_change(event.kind)) {
                let _ = sender.try_send(());
            }
        });
        Self { watcher: watcher.ok(), watched: BTreeSet::new(), changes, poll: Instant::now() + POLL }
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

    /// Waits until something may have changed, and until it seems to be over.
    pub(super) async fn wait(&mut self) {
        match timeout_at(self.poll, self.changes.recv()).await {
            Ok(Some(())) => {
                let end = Instant::now() + PATIENCE;
                while let Ok(Ok(Some(()))) = timeout_at(end, timeout(QUIET, self.changes.recv())).await {}
            }
            // Without a watcher the channel is closed.
            Ok(None) => sleep_until(self.poll).await,
            Err(_) => {}
        }
        self.poll = Instant::now() + POLL;
    }
}

/// Reading is told as well, and we read ourselves.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
