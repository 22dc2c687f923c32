//! Whether a record can be seen: on every name server of its zone, asked directly, so that no resolver keeps the
//! answer that it is not there.

use super::Record;
use super::query::ask;
use crate::config::DnsPropagation;
use anyhow::{Context, bail};
use futures::future::join_all;
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::TokioResolver;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often the servers are asked.
const AGAIN: Duration = Duration::from_secs(1);
const DNS: u16 = 53;

/// Waits until the record is on all servers.
///
/// # Errors
/// One of them does not have it in time, or nobody knows the servers.
pub(super) async fn everywhere(record: &Record, propagation: &DnsPropagation) -> anyhow::Result<()> {
    let end = Instant::now() + propagation.timeout;
    let servers = match &*propagation.servers {
        [] => authoritative(&record.name).await?,
        servers => servers.to_vec(),
    };
    loop {
        let asked = join_all(servers.iter().map(|server| missing(*server, record))).await;
        let Some(missing) = asked.into_iter().flatten().next() else { return Ok(()) };
        if Instant::now() + AGAIN > end {
            bail!(
                "{missing} after {:?}; does the provider serve the zone that the world asks?",
                propagation.timeout
            );
        }
        sleep(AGAIN).await;
    }
}

/// What is missing at this server, as a sentence.
async fn missing(server: SocketAddr, record: &Record) -> Option<String> {
    let Record { name, value } = record;
    let answer = match ask(server, name, RecordType::TXT).await {
        Ok(answer) => answer,
        Err(error) => return Some(format!("{error:#}")),
    };
    let is_it = |data: &RData| match data {
        RData::TXT(text) => text.txt_data.concat() == value.as_bytes(),
        _ => false,
    };
    let found = answer.answers.iter().any(|record| is_it(&record.data));
    (!found).then(|| format!("the name server {server} has no such TXT record for {name}"))
}

/// The servers of the zone of a name, by what the system's resolver says.
async fn authoritative(name: &Name) -> anyhow::Result<Vec<SocketAddr>> {
    let resolver = TokioResolver::builder_tokio()?.build()?;
    let mut zone = name.base_name();
    while !zone.is_root() {
        let servers = resolver.lookup(zone.clone(), RecordType::NS).await;
        let names: Vec<Name> =
            servers.iter().flat_map(|found| found.answers()).filter_map(name_server).collect();
        let mut addresses = Vec::new();
        for server in names {
            let found = resolver.lookup_ip(server).await;
            addresses.extend(found.iter().flat_map(|found| found.iter()).map(|ip| SocketAddr::new(ip, DNS)));
        }
        if !addresses.is_empty() {
            return Ok(reachable(addresses));
        }
        zone = zone.base_name();
    }
    None.with_context(|| format!("no name server of {name} is known; write [acme.propagation] servers"))
}

fn name_server(record: &hickory_proto::rr::Record) -> Option<Name> {
    match &record.data {
        RData::NS(server) => Some(server.0.clone()),
        _ => None,
    }
}

/// Without IPv6 of our own the servers' IPv6 addresses say nothing; they are the same servers.
fn reachable(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let ipv4: Vec<SocketAddr> = addresses.iter().copied().filter(SocketAddr::is_ipv4).collect();
    if ipv4.is_empty() { addresses } else { ipv4 }
}
