//! The end of the process: a signal or an operator's order, the drain, and what cuts it short.

use crate::admin::Order;
use crate::config::Drain;
use crate::listener::Workers;
use crate::status::Writing;
use crate::telemetry::{Observation, Server, State};
use anyhow::Context;
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// How long the end waits for the last lines of access logs.
const LAST_LINES: Duration = Duration::from_secs(3);

/// What ends the process, and what has to be told of it.
pub struct End {
    /// How long the drain takes.
    pub drain: watch::Receiver<Drain>,
    pub workers: Arc<Workers>,
    pub server: Arc<Server>,
    pub signals: Signals,
    pub orders: mpsc::Receiver<Order>,
    /// What writes to the cluster, if anything does.
    pub writing: Option<Writing>,
    /// What writes access logs and spans.
    pub observation: Observation,
}

/// The two signals that ask for an end.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    /// Waits until the process is asked to end, drains it, and says how it ended.
    pub async fn reached(mut self) -> ExitCode {
        let grace = self.asked().await;
        let timeout = self.drain.borrow().timeout;
        self.server.draining();
        if let Some(writing) = self.writing.take() {
            // Another replica may lead from now on; this one has other things to do.
            tokio::spawn(writing.stop());
        }
        let code = self.drained(grace, timeout).await;
        // The last lines are written when the last request is over. Nothing else happens any more.
        tokio::task::block_in_place(|| self.observation.stop(LAST_LINES));
        code
    }

    async fn drained(&mut self, grace: Duration, timeout: Duration) -> ExitCode {
        info!("draining: sockets accept for {grace:?}, requests may finish for {timeout:?}");
        tokio::select! {
            left = self.workers.drain(grace, timeout) => {
                if left > 0 {
                    warn!("{left} connections were cut, because they did not end within the drain timeout");
                }
                info!("drained");
                ExitCode::SUCCESS
            }
            _ = self.signals.next() => {
                warn!("a second signal: not waiting for what is in flight");
                ExitCode::FAILURE
            }
        }
    }

    /// How long sockets are still to accept, once the process is asked to end.
    async fn asked(&mut self) -> Duration {
        loop {
            let order = tokio::select! {
                signal = self.signals.next() => return self.grace(signal),
                // The sender lives in the admin socket, which lives as long as the process.
                Some(order) = self.orders.recv() => order,
            };
            match order {
                Order::Quit => return Duration::ZERO,
                Order::Drain { graceful, stay } => self.drain_listeners(graceful, stay),
                Order::ReopenLogs => self.observation.observer().reopen(),
            }
        }
    }

    /// Somebody at a keyboard does not wait for load balancers to look elsewhere, and where a shutdown manager has
    /// failed the health check, they have been told before the signal.
    fn grace(&self, signal: SignalKind) -> Duration {
        let told = self.server.state() == State::Draining;
        if signal == SignalKind::terminate() && !told { self.drain.borrow().grace } else { Duration::ZERO }
    }

    /// Ends connections while the process goes on (Envoy's `/drain_listeners`): clients are told to come back, and
    /// sockets close at once, or after the time of a drain, or never.
    fn drain_listeners(&self, graceful: bool, stay: bool) {
        const UNTIL_THE_END: Duration = Duration::from_secs(365 * 24 * 3600);
        let (grace, sockets) = match (graceful, stay) {
            (true, true) => (UNTIL_THE_END, "stay open"),
            (true, false) => (self.drain.borrow().timeout, "close after the drain timeout"),
            (false, _) => (Duration::ZERO, "close"),
        };
        info!("connections are ended by order; sockets {sockets}");
        let workers = Arc::clone(&self.workers);
        tokio::spawn(async move { workers.drain(grace, UNTIL_THE_END).await });
    }
}

/// Tells clients to go elsewhere for as long as an operator fails the health check, as Envoy does: its shutdown
/// manager fails it and then waits for connections to end.
pub async fn follow_health_check(server: Arc<Server>, workers: Arc<Workers>) -> Infallible {
    loop {
        server.reached(State::Draining).await;
        workers.announce(true);
        server.reached(State::Live).await;
        workers.announce(false);
    }
}

impl Signals {
    /// Listens for SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    pub async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}
