//! Where a record belongs, by what name servers say: under which name, and on which servers.

use crate::config::DnsPropagation;
use anyhow::bail;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::net::SocketAddr;
use tracing::debug;

const DNS: u16 = 53;
/// Resolvers and authorities follow about as many.
const MOST_ALIASES: usize = 8;

/// Asks `resolvers`, or without them the servers that must have the record, or without those the system's.
pub(super) struct Resolver(TokioResolver);

impl Resolver {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// The system does not say whom it asks.
    pub fn new(DnsPropagation { resolvers, servers, timeout: _ }: &DnsPropagation) -> anyhow::Result<Self> {
        let asked = if resolvers.is_empty() { servers } else { resolvers };
        let resolver = if asked.is_empty() {
            TokioResolver::builder_tokio()?.build()?
        } else {
            let servers = asked.iter().copied().map(server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()?
        };
        Ok(Self(resolver))
    }

    /// The name that holds the records of this one: another one where it is an alias (CNAME), so that a zone which
    /// takes updates can stand in for one that does not.
    ///
    /// # Errors
    /// The aliases do not end.
    pub async fn followed(&self, name: Name) -> anyhow::Result<Name> {
        let mut at = name.clone();
        for _ in 0..=MOST_ALIASES {
            match self.alias(&at).await {
                Some(next) => at = next,
                None => return Ok(at),
            }
        }
        bail!(
            "{name} is an alias of {at}, and that of another one; more than {MOST_ALIASES} are not followed"
        )
    }

    async fn alias(&self, name: &Name) -> Option<Name> {
        let found = self.0.lookup(name.clone(), RecordType::CNAME).await;
        let found = found.inspect_err(|error| debug!("acme: no alias is known of {name}: {error}")).ok()?;
        let of_it = |record: &&Record| record.name == *name;
        found.answers().iter().filter(of_it).find_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        })
    }

    /// The servers of the zone that a name is in, which may be one of its own; none where nobody knows them.
    pub async fn name_servers(&self, name: &Name) -> Vec<SocketAddr> {
        let mut zone = name.clone();
        while !zone.is_root() {
            let found = self.0.lookup(zone.clone(), RecordType::NS).await;
            let names = found.iter().flat_map(|found| found.answers()).filter_map(name_server);
            let mut addresses = Vec::new();
            for server in names {
                let found = self.0.lookup_ip(server).await;
                let ips = found.iter().flat_map(|found| found.iter());
                addresses.extend(ips.map(|ip| SocketAddr::new(ip, DNS)));
            }
            if !addresses.is_empty() {
                return reachable(addresses);
            }
            zone = zone.base_name();
        }
        Vec::new()
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections.iter_mut().for_each(|connection| connection.port = address.port());
    server
}

fn name_server(record: &Record) -> Option<Name> {
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
