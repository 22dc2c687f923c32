//! Where objects come from. Every source yields a [`Snapshot`]: of all objects, at one moment, with the places
//! where they stand.

mod certificates;
mod document;
mod files;
pub mod kubernetes;
mod locate;
mod pinpoint;
mod split;
mod stored;
mod suggest;
mod watch;

pub use crate::resource::{Here, ObjectRef, Records, Snapshot};
pub use certificates::Certificates;
pub use files::{Files, read_text};
pub use pinpoint::pinpoint;

use kubernetes::Kubernetes;
use std::io;

/// All objects after a change.
#[derive(Debug)]
pub struct Change {
    pub snapshot: Snapshot,
    /// Nothing but endpoints is different from the last one.
    pub endpoints_only: bool,
}

/// Where the objects of this process come from.
pub enum Source {
    Files(Files),
    Kubernetes(Kubernetes),
}

impl Source {
    /// All objects, once they are there.
    pub async fn first(&mut self) -> Snapshot {
        match self {
            Self::Files(files) => files.read(),
            Self::Kubernetes(kubernetes) => kubernetes.changed().await.snapshot,
        }
    }

    /// All objects after the next change. Safe to drop while it waits.
    pub async fn changed(&mut self) -> Change {
        match self {
            Self::Files(files) => Change { snapshot: files.changed().await, endpoints_only: false },
            Self::Kubernetes(kubernetes) => kubernetes.changed().await,
        }
    }

    /// What is known of objects beside what users wrote; nothing of those in files.
    pub fn records(&self) -> Records {
        match self {
            Self::Files(_) => Records::default(),
            Self::Kubernetes(kubernetes) => kubernetes.records(),
        }
    }
}

/// An operating system's error, without its number.
fn said(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
