//! How the configuration changes: revisions, clusters and sockets that come and go.
//!
//! The registry is told what is there now; what changed is seen by comparing it with what was there before. Only the
//! control path counts here.

use super::listener::ListenerStats;
use super::registry::{Revised, Socket};
use crate::stats::{Counter, Histogram, HistogramTotal, Tally};
use crate::upstream::Cluster;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Counters of what changed since the start.
#[derive(Debug, Default)]
pub struct Changes {
    revisions: Counter,
    compiling: Histogram,
    revised_at_ms: AtomicU64,
    clusters_added: Counter,
    clusters_modified: Counter,
    clusters_removed: Counter,
    sockets_opened: Counter,
    sockets_closed: Counter,
    sockets_modified: Counter,
    sockets_failed: Counter,
    /// Wanted and not open.
    sockets_waiting: AtomicU64,
    /// Sockets that are closed and had connections.
    closed: Mutex<Vec<Arc<ListenerStats>>>,
}

/// The counters, and what is there.
#[derive(Debug, Default)]
pub struct ChangeTotals {
    pub revision: u64,
    pub revisions: u64,
    pub compiling: HistogramTotal,
    /// Milliseconds since 1970.
    pub revised_at_ms: u64,
    pub clusters: u64,
    pub clusters_added: u64,
    pub clusters_modified: u64,
    pub clusters_removed: u64,
    pub sockets: u64,
    pub sockets_opened: u64,
    pub sockets_closed: u64,
    pub sockets_modified: u64,
    pub sockets_failed: u64,
    pub sockets_waiting: u64,
    pub sockets_draining: u64,
}

impl Changes {
    /// One revision follows another.
    pub fn revised(&self, before: &Revised, now: &Revised) {
        self.revisions.inc();
        self.compiling.record(now.compile);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.revised_at_ms.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Relaxed);
        // Nearly all stay where they are.
        let known = |clusters: &[Arc<Cluster>], (place, cluster): &(usize, &Arc<Cluster>)| {
            clusters.get(*place).is_some_and(|known| Arc::ptr_eq(known, cluster))
        };
        let others = before.clusters.iter().enumerate().filter(|one| !known(&now.clusters, one));
        let mut gone: HashMap<&str, &Arc<Cluster>> =
            others.map(|(_, cluster)| (cluster.name(), cluster)).collect();
        for (_, cluster) in now.clusters.iter().enumerate().filter(|one| !known(&before.clusters, one)) {
            match gone.remove(cluster.name()) {
                None => self.clusters_added.inc(),
                Some(same) if Arc::ptr_eq(same, cluster) => {}
                Some(_) => self.clusters_modified.inc(),
            }
        }
        self.clusters_removed.add(gone.len() as u64);
    }

    /// Other sockets are open than before, or they have other certificates.
    pub fn sockets(&self, before: &[Socket], now: &[Socket]) {
        let mut gone: HashMap<&str, &Socket> =
            before.iter().map(|socket| (socket.name.as_str(), socket)).collect();
        for socket in now {
            match gone.remove(socket.name.as_str()) {
                None => self.sockets_opened.inc(),
                Some(same) if is_same(same, socket) => {}
                Some(_) => self.sockets_modified.inc(),
            }
        }
        self.sockets_closed.add(gone.len() as u64);
        let mut closed = self.closed();
        closed.extend(gone.into_values().map(|socket| Arc::clone(&socket.listener)));
        closed.retain(|stats| {
            has_connections(stats) && !now.iter().any(|socket| Arc::ptr_eq(&socket.listener, stats))
        });
    }

    /// So many sockets could not be opened; they are tried again.
    pub fn sockets_failed(&self, count: usize) {
        self.sockets_failed.add(count as u64);
        self.sockets_waiting.store(count as u64, Relaxed);
    }

    /// What all that came to.
    pub fn total(&self, revised: &Revised, sockets: &[Socket]) -> ChangeTotals {
        let mut compiling = HistogramTotal::default();
        self.compiling.add_to(&mut compiling);
        ChangeTotals {
            revision: revised.number,
            revisions: self.revisions.get(),
            compiling,
            revised_at_ms: self.revised_at_ms.load(Relaxed),
            clusters: revised.clusters.len() as u64,
            clusters_added: self.clusters_added.get(),
            clusters_modified: self.clusters_modified.get(),
            clusters_removed: self.clusters_removed.get(),
            sockets: sockets.len() as u64,
            sockets_opened: self.sockets_opened.get(),
            sockets_closed: self.sockets_closed.get(),
            sockets_modified: self.sockets_modified.get(),
            sockets_failed: self.sockets_failed.get(),
            sockets_waiting: self.sockets_waiting.load(Relaxed),
            sockets_draining: self.closed().iter().filter(|stats| has_connections(stats)).count() as u64,
        }
    }

    fn closed(&self) -> MutexGuard<'_, Vec<Arc<ListenerStats>>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_connections(stats: &ListenerStats) -> bool {
    stats.sum(|shard| shard.cx_active.get()).cast_signed() > 0
}

fn is_same(a: &Socket, b: &Socket) -> bool {
    a.addresses == b.addresses
        && a.speaks_http == b.speaks_http
        && a.certificates.len() == b.certificates.len()
        && a.certificates.iter().zip(&b.certificates).all(|(a, b)| Arc::ptr_eq(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::HttpStats;
    use std::net::SocketAddr;

    fn socket(port: u16) -> Socket {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Socket {
            name: format!("external/{port}"),
            gateway: "external".to_owned(),
            addresses: vec![address],
            tls: false,
            speaks_http: true,
            http: Arc::new(HttpStats::new(false, address)),
            listener: Arc::new(ListenerStats::new(address)),
            certificates: Vec::new(),
        }
    }

    #[test]
    fn sockets_that_come_and_go_are_counted_and_drain_while_they_have_connections() {
        let changes = Changes::default();
        let (first, second) = (socket(80), socket(443));
        changes.sockets(&[], &[first.clone(), second.clone()]);
        first.listener.mine().cx_active.inc();
        changes.sockets(&[first.clone(), second.clone()], &[Socket { speaks_http: false, ..second.clone() }]);
        changes.sockets_failed(1);
        let revised = Revised::nothing();
        let total = changes.total(&revised, std::slice::from_ref(&second));
        assert_eq!((total.sockets_opened, total.sockets_closed, total.sockets_modified), (2, 1, 1));
        assert_eq!((total.sockets, total.sockets_failed, total.sockets_waiting), (1, 1, 1));
        assert_eq!(total.sockets_draining, 1);
        first.listener.mine().cx_active.dec();
        assert_eq!(changes.total(&revised, &[second]).sockets_draining, 0);
    }
}
