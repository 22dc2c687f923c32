//! DNS names of backends (`ExternalName`, `Backend` fqdn), resolved again when their records expire.

use super::endpoint::EndpointSet;
use super::{Address, DnsName, EndpointSpec};
use hickory_resolver::TokioResolver;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// A record that lives shorter is asked for again only after this time.
const SHORTEST: Duration = Duration::from_secs(1);
/// A record that lives longer is asked for again after this time all the same (Envoy Gateway's refresh rate).
const LONGEST: Duration = Duration::from_secs(30);

/// Asks the system's name servers.
#[derive(Clone)]
pub struct Resolver(Arc<TokioResolver>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// The name servers of `/etc/resolv.conf`.
    ///
    /// # Errors
    /// When that file cannot be used.
    pub fn from_system() -> anyhow::Result<Self> {
        Ok(Self(Arc::new(TokioResolver::builder_tokio()?.build()?)))
    }

    /// Starts tasks that keep `set` what the names resolve to, beside `addresses`. A name that stops resolving
    /// keeps its last addresses, and takes nothing from the others.
    pub(super) fn keep_resolved(
        &self,
        names: &[DnsName],
        addresses: &[EndpointSpec],
        set: &Arc<EndpointSet>,
    ) -> Vec<AbortHandle> {
        let parts = vec![None; names.len()];
        let merged =
            Arc::new(Merged { set: Arc::clone(set), known: addresses.to_vec(), parts: parts.into() });
        if !addresses.is_empty() {
            set.update(addresses);
        }
        let names = names.iter().cloned().enumerate();
        names.map(|(place, name)| self.keep_one(name, place, Arc::clone(&merged))).collect()
    }

    fn keep_one(&self, name: DnsName, place: usize, merged: Arc<Merged>) -> AbortHandle {
        let resolver = Arc::clone(&self.0);
        tokio::spawn(async move {
            let DnsName { host, port } = name;
            let mut failures = 0u32;
            loop {
                let wait = match lookup(&resolver, &host).await {
                    Ok((addresses, valid_until)) => {
                        failures = 0;
                        merged.update(place, endpoints(addresses, port));
                        valid_until.saturating_duration_since(Instant::now()).clamp(SHORTEST, LONGEST)
                    }
                    Err(error) => {
                        if failures == 0 {
                            tracing::warn!(
                                "{host} does not resolve, its last addresses stay in use: {error}"
                            );
                        }
                        failures += 1;
                        (SHORTEST * 2u32.saturating_pow(failures.min(5) - 1)).min(LONGEST)
                    }
                };
                tokio::time::sleep(wait).await;
            }
        })
        .abort_handle()
    }
}

/// A set whose endpoints come from several names.
struct Merged {
    set: Arc<EndpointSet>,
    /// Those that need no resolver.
    known: Vec<EndpointSpec>,
    /// What each name resolved to last; `None` before it did.
    parts: Mutex<Vec<Option<Vec<EndpointSpec>>>>,
}

impl Merged {
    fn update(&self, place: usize, part: Vec<EndpointSpec>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts[place] = Some(part);
        let mut all = self.known.clone();
        for endpoint in parts.iter().flatten().flatten() {
            if !all.contains(endpoint) {
                all.push(endpoint.clone());
            }
        }
        // Within the lock, so that of two names that resolve at once none undoes what the other did.
        self.set.update(&all);
    }
}

async fn lookup(resolver: &TokioResolver, host: &str) -> Result<(Vec<IpAddr>, Instant), String> {
    if let Ok(address) = host.parse() {
        return Ok((vec![address], Instant::now() + LONGEST));
    }
    if let Some(addresses) = loopback(host) {
        return Ok((addresses, Instant::now() + LONGEST));
    }
    let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
    Ok((found.iter().collect(), found.valid_until()))
}

/// `localhost` is the loopback address without asking anybody (RFC 6761 6.3).
fn loopback(host: &str) -> Option<Vec<IpAddr>> {
    let host = host.trim_end_matches('.');
    (host == "localhost" || host.ends_with(".localhost")).then(|| vec![IpAddr::from([127, 0, 0, 1])])
}

/// One family only, IPv4 where there is one (Envoy Gateway's `V4_PREFERRED`), in a stable order.
fn endpoints(mut addresses: Vec<IpAddr>, port: u16) -> Vec<EndpointSpec> {
    if addresses.iter().any(IpAddr::is_ipv4) {
        addresses.retain(IpAddr::is_ipv4);
    }
    addresses.sort();
    addresses.dedup();
    addresses.into_iter().map(|ip| EndpointSpec { address: Address::Ip(SocketAddr::new(ip, port)) }).collect()
}
