//! Whether a record can be seen: on every name server of its zone, asked directly, so that no resolver keeps the
//! answer that it is not there.

use super::Record;
use super::query::ask;
use super::resolve::Resolver;
use crate::config::DnsPropagation;
use anyhow::bail;
use futures::future::join_all;
use hickory_proto::rr::{RData, RecordType};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often the servers are asked.
const AGAIN: Duration = Duration::from_secs(1);

/// Waits until the record is on all servers.
///
/// # Errors
/// One of them does not have it in time, or nobody knows the servers.
pub(super) async fn everywhere(record: &Record, propagation: &DnsPropagation) -> anyhow::Result<()> {
    let end = Instant::now() + propagation.timeout;
    let servers = match &*propagation.servers {
        [] => Resolver::new(propagation)?.name_servers(&record.name).await,
        servers => servers.to_vec(),
    };
    if servers.is_empty() {
        bail!("no name server of {} is known; write [acme.propagation] servers", record.name);
    }
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
