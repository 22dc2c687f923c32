//! TXT records for DNS-01: published by a provider of `[acme.dns.*]`, seen on all servers of their zone before the
//! authority is told to look, and taken away when the order is over.

mod cloudflare;
mod query;
mod resolve;
mod rfc2136;
mod visible;

use super::http::Https;
use super::proofs::Standing;
use crate::config::{Acme, Cloudflare, DnsProvider, ObjectName};
use crate::status::Publication;
use anyhow::{Context, anyhow};
use futures::future::join_all;
use hickory_proto::rr::Name;
use resolve::Resolver;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tracing::warn;

/// All of `[acme.dns.*]`.
#[derive(Clone)]
pub struct Publishers {
    pub acme: Arc<Acme>,
    /// Trusts the system's authorities: a provider is no certificate authority.
    pub https: Option<Https>,
    /// Where Secrets with tokens are.
    pub publications: watch::Receiver<Option<Arc<Publication>>>,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    /// `_acme-challenge.example.com.`, or what that is an alias of.
    name: Name,
    value: String,
}

/// A published record, until it is dropped.
pub struct Published(Entry);

/// A record with its provider.
#[derive(Clone)]
struct Entry {
    publishers: Publishers,
    provider: DnsProvider,
    record: Record,
}

impl Publishers {
    /// Publishes the record that proves a name.
    ///
    /// # Errors
    /// The provider does not take it.
    pub async fn publish(
        &self,
        provider: Option<&str>,
        name: &str,
        value: String,
    ) -> anyhow::Result<Published> {
        let provider = self.acme.provider(provider);
        let (called, provider) = provider.context("no table [acme.dns.*] says who publishes its record")?;
        let name = Name::from_ascii(format!("_acme-challenge.{name}."))?;
        let name = Resolver::new(&self.acme.propagation)?.followed(name).await?;
        let record = Record { name, value };
        let entry = Entry { publishers: self.clone(), provider: provider.clone(), record };
        // Before it is there: what a broken connection left in doubt is taken away as well.
        let published = Published(entry);
        published.0.add().await.with_context(|| format!("[acme.dns.{called}]"))?;
        Ok(published)
    }

    /// Waits until all these records can be seen.
    ///
    /// # Errors
    /// One of them is not there in time.
    pub async fn seen(&self, standing: &[Standing]) -> anyhow::Result<()> {
        let records = standing.iter().filter_map(|standing| match standing {
            Standing::Record(published) => Some(&published.0.record),
            Standing::Answer(_) => None,
        });
        let seen = records.map(|record| visible::everywhere(record, &self.acme.propagation));
        join_all(seen).await.into_iter().collect()
    }

    /// The API token of a provider, as it is now.
    fn token(&self, Cloudflare { token_file, token_secret, .. }: &Cloudflare) -> anyhow::Result<String> {
        if let Some(file) = token_file {
            return secret_file(file);
        }
        let secret = token_secret.as_ref().context("neither token_file nor token_secret is there")?;
        let ObjectName { namespace, name } = secret;
        let publication = self.publications.borrow().clone();
        let entry = publication.as_ref().and_then(|one| one.snapshot.secrets.get(namespace, name));
        let entry = entry.ok_or_else(|| anyhow!("there is no Secret {secret}"))?;
        let token = entry.object.get("token").ok_or_else(|| anyhow!("the Secret {secret} has no `token`"))?;
        Ok(String::from_utf8_lossy(token.reveal()).trim().to_owned())
    }

    fn https(&self) -> anyhow::Result<&Https> {
        self.https.as_ref().context("this system trusts no authority; install ca-certificates")
    }
}

impl Entry {
    async fn add(&self) -> anyhow::Result<()> {
        let Self { publishers, provider, record } = self;
        match provider {
            DnsProvider::Rfc2136(server) => rfc2136::add(server, record).await,
            DnsProvider::Cloudflare(zone) => {
                cloudflare::add(publishers.https()?, zone, &publishers.token(zone)?, record).await
            }
        }
    }

    async fn remove(&self) -> anyhow::Result<()> {
        let Self { publishers, provider, record } = self;
        match provider {
            DnsProvider::Rfc2136(server) => rfc2136::remove(server, record).await,
            DnsProvider::Cloudflare(zone) => {
                cloudflare::remove(publishers.https()?, zone, &publishers.token(zone)?, record).await
            }
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let entry = self.0.clone();
        // Without a runtime the process ends, and what is left is a record that nobody asks for.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(error) = entry.remove().await {
                warn!("acme: the record {} is not taken away: {error:#}", entry.record.name);
            }
        });
    }
}

/// A secret in a file, without the line break that editors add.
fn secret_file(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}
