//! Whether the process serves: what `/ready` says, and what makes connections end.
//!
//! `control` tells when the first revision is live and `app` when the process drains; `admin` fails and restores
//! the health check for an operator. Everybody may read.

use std::fmt;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Envoy's states of a server, as far as there are any here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Live,
    /// Still serving, and not to be sent new connections.
    Draining,
    /// Before the first revision.
    PreInitializing,
}

impl State {
    /// Envoy's number for it: the value of `envoy_server_state`.
    pub fn number(self) -> u64 {
        match self {
            Self::Live => 0,
            Self::Draining => 1,
            Self::PreInitializing => 2,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
        })
    }
}

/// What was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    initialized: bool,
    draining: bool,
    health_check_failed: bool,
}

impl Told {
    fn state(self) -> State {
        match self {
            Self { initialized: false, .. } => State::PreInitializing,
            Self { draining: true, .. } | Self { health_check_failed: true, .. } => State::Draining,
            Self { .. } => State::Live,
        }
    }
}

/// Who this process is among the proxies of a cluster, as far as it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// The set of proxies that it belongs to.
    pub cluster: String,
    /// Its own name: that of its pod.
    pub id: String,
    pub zone: String,
}

/// The state of this process.
#[derive(Debug)]
pub struct Server {
    node: Node,
    started: Instant,
    told: watch::Sender<Told>,
}

impl Server {
    /// A process that starts now and has no revision yet.
    pub fn new() -> Self {
        Self::named(Node::default())
    }

    /// The same, with a name.
    pub fn named(node: Node) -> Self {
        Self { node, started: Instant::now(), told: watch::Sender::default() }
    }

    /// Who this process is.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The state of this moment.
    pub fn state(&self) -> State {
        self.told.borrow().state()
    }

    /// How long the process has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The first revision is live.
    pub fn initialized(&self) {
        self.tell(|told| told.initialized = true);
    }

    /// The process is about to end. There is no way back.
    pub fn draining(&self) {
        self.tell(|told| told.draining = true);
    }

    /// An operator takes the process out of service, or puts it back.
    pub fn fail_health_check(&self, failed: bool) {
        self.tell(|told| told.health_check_failed = failed);
    }

    /// Waits until the state is this one.
    pub async fn reached(&self, state: State) {
        let mut told = self.told.subscribe();
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = told.wait_for(|told| told.state() == state).await;
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        self.told.send_if_modified(|told| {
            let before = *told;
            change(told);
            *told != before
        });
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_live_from_its_first_revision_until_it_drains() {
        let server = Server::new();
        server.fail_health_check(true);
        assert_eq!(server.state(), State::PreInitializing);
        server.initialized();
        assert_eq!(server.state(), State::Draining);
        server.fail_health_check(false);
        assert_eq!(server.state(), State::Live);
        server.draining();
        server.fail_health_check(false);
        assert_eq!(server.state(), State::Draining);
    }

    #[tokio::test]
    async fn a_state_can_be_waited_for() {
        let server = Server::new();
        tokio::join!(server.reached(State::Draining), async {
            server.initialized();
            server.draining();
        });
        server.reached(State::Draining).await;
    }
}
