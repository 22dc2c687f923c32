//! What an operator may have done, and the hands that do it.

use crate::live::Revision;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What the process is told to do. `app` receives these and acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// End connections. Without `graceful`, sockets are closed at once; with it, clients are told to go elsewhere,
    /// and sockets close when the time of a drain has passed, or with `stay` not at all.
    Drain { graceful: bool, stay: bool },
    /// End the process.
    Quit,
    /// Open the files of access logs again, because they were moved away.
    ReopenLogs,
}

/// Changes the log's level when it is given one, and returns the one that holds.
pub type LogLevel = Box<dyn Fn(Option<&str>) -> Result<String, String> + Send + Sync>;

/// What the admin socket needs of the rest of the process.
pub struct Operations {
    /// Where orders go. A full channel refuses: the process is busy with earlier ones.
    pub orders: mpsc::Sender<Order>,
    /// The revision that serves, once there is one.
    pub revision: Box<dyn Fn() -> Option<Arc<Revision>> + Send + Sync>,
    /// The same as text.
    pub dump: Box<dyn Fn() -> String + Send + Sync>,
    /// Changes the log's level (`debug`) when one is given, and returns the one that holds.
    pub log_level: LogLevel,
}
