//! What the control path tells about the revision that is live, for others to read it in the API.

use crate::bindings::Served;
use crate::compile::{GatewayReport, PolicyReport, RouteReport};
use crate::resource::Snapshot;
use crate::routing::SocketId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// What became of a snapshot. Everything that it says is served is being served.
#[derive(Debug, Clone)]
pub struct Publication {
    pub snapshot: Snapshot,
    /// The Gateways that are served, with their places.
    pub served: Vec<Served>,
    pub gateways: Vec<GatewayReport>,
    pub routes: Vec<RouteReport>,
    pub policies: Vec<PolicyReport>,
    /// The sockets that are wanted: where they listen, or why they do not.
    pub sockets: BTreeMap<SocketId, Result<Vec<SocketAddr>, String>>,
}

/// Where publications go. Of two that nobody has read yet the first is dropped, and so are all while nobody subscribes.
#[derive(Debug, Clone)]
pub struct Publisher(watch::Sender<Option<Arc<Publication>>>);

impl Default for Publisher {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Publisher {
    /// Tells what the revision that is live now means.
    pub fn publish(&self, publication: Publication) {
        // Of objects in files nobody reads it, and there may be a hundred thousand routes.
        if self.0.receiver_count() > 0 {
            self.0.send_replace(Some(Arc::new(publication)));
        }
    }

    /// Changes what was told last, if anything was.
    pub fn amend(&self, change: impl FnOnce(&mut Publication)) {
        let last = self.0.borrow().clone();
        if let Some(last) = last {
            let mut next = Publication::clone(&last);
            change(&mut next);
            if next.sockets != last.sockets {
                self.publish(next);
            }
        }
    }

    /// What was told last, and what will be.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Publication>>> {
        self.0.subscribe()
    }
}
