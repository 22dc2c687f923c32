//! Where control path and data path meet: the revision that serves, and the place that holds it.

use crate::challenge::Challenges;
use crate::routing::{RoutingTable, SocketId};
use crate::telemetry::Observers;
use crate::tls::TlsSocket;
use crate::upstream::Cluster;
use arc_swap::ArcSwapOption;
use std::sync::Arc;

/// All that a request reads, of one moment. A request keeps the revision that it began with.
#[derive(Debug)]
pub struct Revision {
    /// Counted from 1.
    pub number: u64,
    pub table: Arc<RoutingTable>,
    /// In the order of `routing::ClusterId`.
    pub clusters: Arc<[Arc<Cluster>]>,
    pub tls: Vec<(SocketId, Arc<TlsSocket>)>,
    /// Who wants to know of exchanges.
    pub observers: Observers,
}

impl Revision {
    /// The certificates of a socket that speaks TLS.
    pub fn tls(&self, id: SocketId) -> Option<&Arc<TlsSocket>> {
        self.tls.iter().find(|(socket, _)| *socket == id).map(|(_, tls)| tls)
    }
}

/// The revision of this moment. Only `control` installs one.
#[derive(Debug, Default)]
pub struct Live {
    revision: ArcSwapOption<Revision>,
    challenges: Option<Arc<Challenges>>,
}

impl Live {
    /// No revision yet; certificate authorities are answered from these challenges.
    pub fn answering(challenges: Option<Arc<Challenges>>) -> Self {
        Self { challenges, ..Self::default() }
    }

    /// The revision, or `None` before the first one.
    pub fn load(&self) -> Option<Arc<Revision>> {
        self.revision.load_full()
    }

    /// From now on requests begin with this revision.
    pub fn install(&self, revision: Revision) {
        self.revision.store(Some(Arc::new(revision)));
    }

    /// What certificate authorities are answered; `None` where no certificates are ordered. No part of a
    /// revision: orders come and go while it serves.
    pub fn challenges(&self) -> Option<&Challenges> {
        self.challenges.as_deref()
    }
}
