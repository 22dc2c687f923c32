//! Certificates that the gateway gets, keeps and renews itself (RFC 8555), for hosts without Kubernetes and for
//! clusters without cert-manager.
//!
//! ```text
//! Publication ─ wanted ─▶ one task for each certificate (keep) ─ due? ─▶ order ─▶ store ─▶ the source sees it
//!  (control)              │ schedule: ARI, or a part of the lifetime      │ proofs     (folder, Secret)
//!                         └ failed: pause, metric, log, Event, /certs     └ http-01, tls-alpn-01, dns-01
//! ```
//!
//! A certificate that was ordered is stored where the source of objects looks for certificates, so it is served and
//! replaced like any other, by all replicas. One replica orders: the one that holds the lock of the folder, or the
//! Lease. Nothing here touches a certificate before its successor is whole.

mod account;
mod dns;
mod folder;
mod http;
mod keep;
mod order;
mod proofs;
mod schedule;
mod secrets;
mod store;
mod tailscale;
mod wanted;

pub use folder::Folder;
pub use keep::Complaint;
pub use secrets::Secrets;
pub use store::Store;
pub use wanted::{ANNOTATION, Asked, LABEL, List, Wanted, list};

use crate::bindings::{Place, Served};
use crate::challenge::Challenges;
use crate::config::{Acme, ObjectName};
use crate::resource::Snapshot;
use crate::status::Publication;
use crate::telemetry::{OrderState, Orders};
use account::Accounts;
use dns::Publishers;
use http::Https;
use keep::Keeper;
use order::Orderer;
use proofs::Prover;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{info, warn};

/// Orders at one time: authorities bound the requests of a second.
const ORDERS: usize = 8;
/// How often a replica that does not order looks whether the one that does is gone.
const LOOK: Duration = Duration::from_secs(2);

/// What says whether this replica orders.
pub enum Lead {
    /// Whoever holds the lock of the folder.
    Lock(Folder),
    /// Whoever holds the Lease.
    Lease(watch::Receiver<bool>),
}

/// All that orders are made of.
pub struct Parts {
    pub acme: Acme,
    pub store: Store,
    pub challenges: Arc<Challenges>,
    pub orders: Orders,
    pub publications: watch::Receiver<Option<Arc<Publication>>>,
    pub lead: Lead,
    /// Told of every order that fails.
    pub complaint: Complaint,
}

/// Keeps the certificates that are wanted.
pub struct Ordering {
    acme: Acme,
    keeper: Arc<Keeper>,
    publications: watch::Receiver<Option<Arc<Publication>>>,
    lead: Lead,
    /// What was said already.
    told: BTreeSet<String>,
    running: BTreeMap<ObjectName, (Wanted, Task)>,
}

/// A task that ends when this is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Ordering {
    /// Nothing is ordered yet.
    ///
    /// # Errors
    /// `[acme]` names files that cannot be used.
    pub fn new(parts: Parts) -> anyhow::Result<Self> {
        let Parts { acme, store, challenges, orders, publications, lead, complaint } = parts;
        let accounts = Accounts::new(&acme)?;
        let publishers = Publishers {
            acme: Arc::new(acme.clone()),
            https: Https::new(None).ok(),
            publications: publications.clone(),
        };
        let prover = Prover { challenges, store: store.clone(), publishers };
        let orderer = Orderer { acme: acme.clone(), store, accounts, prover: Arc::new(prover) };
        let places = Semaphore::new(ORDERS);
        let keeper = Arc::new(Keeper { orderer, orders, places, complain: complaint });
        let (told, running) = (BTreeSet::new(), BTreeMap::new());
        Ok(Self { acme, keeper, publications, lead, told, running })
    }

    /// Orders while this replica is the one that does.
    pub async fn run(mut self) -> Infallible {
        loop {
            let held = self.led().await;
            info!("acme: this replica orders certificates");
            self.orders_while_leading().await;
            info!("acme: this replica orders no certificates any more");
            self.running.clear();
            drop(held);
        }
    }

    /// Waits until this replica orders; returns the lock, where there is one.
    async fn led(&mut self) -> Option<File> {
        loop {
            let publication = self.publications.borrow_and_update().clone();
            let wanted = publication.map(|publication| self.wanted(&publication)).unwrap_or_default();
            match &mut self.lead {
                Lead::Lock(folder) => match folder.lock() {
                    Ok(Some(lock)) => return Some(lock),
                    Ok(None) => {}
                    Err(error) => self.say(format!("the lock of the folder cannot be taken: {error}")),
                },
                Lead::Lease(leads) => {
                    if *leads.borrow_and_update() {
                        return None;
                    }
                }
            }
            self.follow(&wanted);
            sleep(LOOK).await;
        }
    }

    /// Shows what another replica keeps.
    fn follow(&self, wanted: &BTreeMap<ObjectName, Wanted>) {
        let orders = &self.keeper.orders;
        orders.retain(|name| wanted.keys().any(|secret| secret.to_string() == name));
        for (secret, wanted) in wanted {
            orders.update(&secret.to_string(), |one| {
                one.names = wanted.names.keys().cloned().collect();
                one.state = OrderState::Elsewhere;
            });
        }
    }

    /// Keeps what is wanted, until this replica does not lead.
    async fn orders_while_leading(&mut self) {
        loop {
            let publication = self.publications.borrow_and_update().clone();
            if let Some(publication) = publication {
                let wanted = self.wanted(&publication);
                self.reconcile(wanted);
            }
            let lost = async {
                match &mut self.lead {
                    // Nobody takes the lock of a file away.
                    Lead::Lock(_) => std::future::pending().await,
                    Lead::Lease(leads) => {
                        while *leads.borrow_and_update() && leads.changed().await.is_ok() {}
                    }
                }
            };
            tokio::select! {
                changed = self.publications.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                }
                () = lost => return,
            }
        }
    }

    fn reconcile(&mut self, wanted: BTreeMap<ObjectName, Wanted>) {
        self.running.retain(|secret, (before, _)| wanted.get(secret) == Some(before));
        self.keeper.orders.retain(|name| wanted.keys().any(|secret| secret.to_string() == name));
        for (secret, wanted) in wanted {
            self.running.entry(secret).or_insert_with(|| {
                let keeping = Arc::clone(&self.keeper).keep(wanted.clone());
                (wanted, Task(tokio::spawn(keeping).abort_handle()))
            });
        }
    }

    /// The certificates to have, without those of somebody else.
    fn wanted(&mut self, publication: &Publication) -> BTreeMap<ObjectName, Wanted> {
        let Publication { snapshot, served, .. } = publication;
        let List { mut wanted, faults } = list(&self.acme, snapshot, &asked(&self.acme, served));
        faults.into_iter().for_each(|fault| self.say(fault));
        wanted.retain(|secret, _| {
            let ours = is_ours(snapshot, secret);
            if !ours {
                self.say(format!("the Secret {secret} is somebody else's, so nothing is ordered for it"));
            }
            ours
        });
        wanted
    }

    /// Says something once.
    fn say(&mut self, sentence: String) {
        if !self.told.contains(&sentence) {
            warn!("acme: {sentence}");
            self.told.insert(sentence);
        }
    }
}

/// The Gateways of this process.
pub fn asked<'a>(acme: &Acme, served: &'a [Served]) -> Vec<Asked<'a>> {
    let asked = served.iter().map(|Served { binding, place, .. }| {
        let listed = *place == Place::Configured && acme.gateways.contains(&binding.name);
        Asked { namespace: &binding.namespace, name: &binding.object, listed }
    });
    asked.collect()
}

/// Whether a Secret is not there yet, or there because it was ordered.
fn is_ours(snapshot: &Snapshot, ObjectName { namespace, name }: &ObjectName) -> bool {
    let secret = snapshot.secrets.get(namespace, name);
    secret.is_none_or(|entry| entry.object.metadata.labels.get(LABEL).is_some())
}
