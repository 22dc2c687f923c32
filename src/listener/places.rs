//! How many connections the process has, how many it may have, and when it has none any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use tokio::sync::Notify;

/// All open connections, of all workers and sockets.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicU32,
    emptied: Notify,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// A place for one more connection, or `None` when there are `limit` already.
    pub fn take(self: &Arc<Self>, limit: u32) -> Option<Place> {
        let one_more = |taken: u32| (taken < limit).then(|| taken + 1);
        self.taken.fetch_update(SeqCst, SeqCst, one_more).ok().map(|_| Place(self.clone()))
    }

    /// The number of open connections.
    pub fn taken(&self) -> u32 {
        self.taken.load(SeqCst)
    }

    /// Waits until there is no connection.
    pub async fn emptied(&self) {
        loop {
            // Registered before the look, so that the last connection cannot end in between unseen.
            let emptied = self.emptied.notified();
            if self.taken() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, SeqCst) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_free_again_when_its_connection_ends() {
        let places = Arc::new(Places::default());
        let (one, two) = (places.take(2).unwrap(), places.take(2).unwrap());
        assert!(places.take(2).is_none());
        drop(one);
        assert!(places.take(2).is_some());
        assert_eq!(places.taken(), 1);
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.emptied().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(two);
        waiting.await.unwrap();
    }
}
