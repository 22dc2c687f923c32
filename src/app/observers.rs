//! The three addresses that operators and probes ask, and what an operator may order there.

use crate::admin::{Admin, LogLevel, Operations, Order, Surface, serve};
use crate::config::Config;
use crate::live::Live;
use crate::routing::{self, GatewayId, Page};
use crate::telemetry::Registry;
use anyhow::Context;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Orders that wait while an earlier one is carried out.
const WAITING_ORDERS: usize = 4;

/// Opens the three sockets. They answer at once: not ready, until the first revision is live.
///
/// # Errors
/// One of the addresses cannot be bound.
pub async fn open(
    config: &Config,
    live: Arc<Live>,
    registry: Arc<Registry>,
    log_level: LogLevel,
) -> anyhow::Result<mpsc::Receiver<Order>> {
    let (orders, received) = mpsc::channel(WAITING_ORDERS);
    let names: Vec<String> = config.gateways.keys().cloned().collect();
    let of_revision = Arc::clone(&live);
    let revision = Box::new(move || of_revision.load());
    let dump = Box::new(move || dump(&live, &names));
    let admin = Arc::new(Admin::new(registry, Operations { orders, revision, dump, log_level }));
    for (table, address, surface) in [
        ("admin", config.admin.address, Surface::Admin),
        ("stats", config.stats.address, Surface::Stats),
        ("ready", config.ready.address, Surface::Ready),
    ] {
        let listener = TcpListener::bind(address).await.with_context(|| cannot_bind(table, address))?;
        tokio::spawn(serve(listener, surface, Arc::clone(&admin)));
    }
    Ok(received)
}

/// What is not bound, and which table of proxy.toml asks for it.
pub fn cannot_bind(table: &str, address: SocketAddr) -> String {
    format!("cannot bind {address}, which [{table}] in proxy.toml asks for")
}

/// The revision that serves, as text.
fn dump(live: &Live, names: &[String]) -> String {
    let Some(revision) = live.load() else { return "no revision is live yet\n".to_owned() };
    // Gateways that came later have no name in the configuration.
    let name =
        |id: GatewayId| names.get(usize::from(id.0)).cloned().unwrap_or_else(|| format!("gateway {}", id.0));
    let mut page = Page::default();
    page.entry(0, "revision", revision.number);
    routing::dump(&revision.table, name, &mut page);
    page.into_text()
}
