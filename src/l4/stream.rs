//! A connection and its backend: bytes are copied both ways until both have ended, or nothing moves any more.

use super::traffic::{Client, Moved};
use super::{Target, Told};
use crate::config::Limits;
use crate::reply::{Outcome, Reply};
use crate::telemetry::{Carrier, ListenerStats};
use crate::upstream::{Address, Backend, Cluster, ConnectError, Dialed, Endpoint, dial, dial_plain};
use crate::wire::{Metered, Transport};
use std::cell::Cell;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::time::timeout;
use tracing::debug;

/// What is read at once, of each direction.
const BUFFER: usize = 16 * 1024;
/// So many endpoints are tried before the connection is closed.
const MOST_TRIES: usize = 3;

/// Carries a connection to its target and back. One side that ends its half leaves the other half open.
pub async fn carry(
    client: Box<dyn Transport>,
    target: Target,
    limits: &Limits,
    stats: &ListenerStats,
    carrier: Carrier,
) -> Told {
    let mut told = Told { cluster: target.cluster().cloned(), ..Told::default() };
    let counted = stats.carried().streams(carrier);
    counted.cx_active.inc();
    if let (Some(cluster), Some(backend)) = (target.cluster(), target.backend())
        && let Some(upstream) = reach(cluster, backend, carrier, &mut told).await
    {
        let (received, sent) = (Cell::new(0), Cell::new(0));
        let moved = Moved::now();
        let side = Client { stats, carrier, moved: moved.clone(), received: &received, sent: &sent };
        let mut client = Metered::new(client, side);
        let mut upstream = Metered::new(upstream, moved.clone());
        let copied = tokio::select! {
            copied = copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER) => Some(copied),
            () = moved.idle(limits.stream_idle_timeout) => None,
        };
        match copied {
            None => {
                counted.idle_timeout.inc();
                told.outcome = Outcome::IDLE;
            }
            Some(Err(error)) => debug!("{}: a connection broke: {error}", cluster.name()),
            Some(Ok(_)) => {}
        }
        (told.received, told.sent) = (received.get(), sent.get());
    }
    counted.cx_active.dec();
    told
}

/// A connection to one of the backend's endpoints; another one is tried when one cannot be reached.
async fn reach(
    cluster: &Cluster,
    backend: &Backend,
    carrier: Carrier,
    told: &mut Told,
) -> Option<Box<dyn Transport>> {
    let mut failed: Option<Address> = None;
    for _ in 0..backend.endpoints.len().clamp(1, MOST_TRIES) {
        let Some(active) = backend.endpoints.pick(|| fastrand::u32(..), failed.as_ref()) else {
            cluster.stats().mine().no_endpoint.inc();
            debug!("{}: there is no endpoint", cluster.name());
            told.outcome = Reply::NoEndpoint.into();
            return None;
        };
        match connect(cluster, backend, active.endpoint(), carrier).await {
            Ok(upstream) => {
                told.endpoint = Some(active.endpoint().address.clone());
                (told.upstream_local, told.outcome) = (upstream.local, Outcome::UNKNOWN);
                return Some(upstream.transport);
            }
            Err(error) => {
                cluster.stats().connect_failed();
                if matches!(error, ConnectError::Timeout(_)) {
                    cluster.stats().connect_timed_out();
                }
                debug!("{}: {:?}: {error}", cluster.name(), active.endpoint().address);
                told.outcome = Reply::ConnectFailed.into();
                told.failure = Some(error.to_string().into());
                failed = Some(active.endpoint().address.clone());
            }
        }
    }
    None
}

async fn connect(
    cluster: &Cluster,
    backend: &Backend,
    endpoint: &Endpoint,
    carrier: Carrier,
) -> Result<Dialed, ConnectError> {
    let limit = cluster.connect_timeout();
    let opening = async {
        match carrier {
            // The client has its own TLS, all the way to the backend.
            Carrier::Passthrough => dial_plain(cluster, endpoint).await,
            Carrier::Tcp | Carrier::Terminated | Carrier::Udp => dial(cluster, backend, endpoint).await,
        }
    };
    timeout(limit, opening).await.map_err(|_| ConnectError::Timeout(limit))?
}
