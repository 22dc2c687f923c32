//! Where a connection or a flow goes: chosen once, when it begins, and kept until it ends.

use crate::live::{Live, Revision};
use crate::routing::SocketId;
use crate::upstream::{Address, Backend, Cluster};
use std::sync::Arc;

/// A backend, of one revision.
#[derive(Debug, Clone)]
pub struct Target {
    revision: Arc<Revision>,
    cluster: usize,
    backend: u16,
    /// Whose certificate is shown to the backend.
    gateway: u16,
}

impl Target {
    /// The backend for a connection with this server name (lower case; empty when there is none), by weight. `None`
    /// when no route is for it, or its share of the weight leads nowhere.
    pub fn find(live: &Live, socket: SocketId, server_name: &str) -> Option<Self> {
        let revision = live.load()?;
        let rule = revision.table.find_stream(socket, server_name)?;
        let chosen = rule.backends.next()?;
        if chosen.filters.as_ref().is_some_and(|filters| filters.broken.is_some()) {
            return None;
        }
        let (cluster, backend) = (rule.backends.cluster()?.0 as usize, chosen.index?);
        let target = Self { revision, cluster, backend, gateway: socket.gateway.0 };
        target.backend().is_some().then_some(target)
    }

    /// The cluster.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.revision.clusters.get(self.cluster)
    }

    /// The backend in it.
    pub fn backend(&self) -> Option<&Backend> {
        self.cluster()?.backend_of(self.gateway, self.backend)
    }
}

/// Whether what began earlier may go on to this address: a route for the socket still leads there.
pub(super) fn still_leads(live: &Live, socket: SocketId, address: &Address) -> bool {
    let Some(revision) = live.load() else { return false };
    let Some(rule) = revision.table.find_stream(socket, "") else { return false };
    let cluster = rule.backends.cluster().and_then(|id| revision.clusters.get(id.0 as usize));
    cluster.is_some_and(|cluster| {
        rule.backends.entries().iter().any(|entry| {
            let backend = entry.index.filter(|_| entry.weight > 0).and_then(|index| cluster.backend(index));
            backend.is_some_and(|backend| backend.endpoints.find(|known| known == address).is_some())
        })
    })
}
