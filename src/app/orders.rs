//! Certificates that the process orders itself: where they are kept, and what orders them.

use crate::acme::{Complaint, Folder, Lead, Ordering, Parts, Secrets, Store};
use crate::challenge::Challenges;
use crate::config::{Acme, Config};
use crate::status::Publisher;
use crate::telemetry;
use anyhow::Context;
use kube::Client;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Where they are kept, before anything is ordered.
pub struct Orders {
    acme: Acme,
    /// `None` keeps them in Secrets.
    folder: Option<Folder>,
    challenges: Arc<Challenges>,
}

/// A cluster, as far as orders need it.
pub struct Cluster {
    pub client: Client,
    /// Trigate's own.
    pub namespace: String,
    pub controller: String,
    /// Whether this replica holds the Lease.
    pub leads: watch::Receiver<bool>,
}

impl Orders {
    /// Nothing without `[acme]`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(acme) = config.acme.clone() else { return Ok(None) };
        let folder = acme.folder.clone().map(|path| {
            let folder = Folder::open(path.clone());
            folder.with_context(|| format!("[acme] cannot keep anything in {}", path.display()))
        });
        let folder = folder.transpose()?;
        let challenges = Arc::new(Challenges::new(folder.as_ref().map(Folder::challenges)));
        Ok(Some(Self { acme, folder, challenges }))
    }

    /// What authorities are answered.
    pub fn challenges(&self) -> Arc<Challenges> {
        Arc::clone(&self.challenges)
    }

    /// Where the source finds what was ordered.
    pub fn folder(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(Folder::certificates)
    }

    /// What orders, to be run once there is something that answers authorities.
    ///
    /// # Errors
    /// `[acme]` names files that cannot be used.
    pub fn ordering(
        self,
        cluster: Option<Cluster>,
        orders: &telemetry::Orders,
        publisher: &Publisher,
    ) -> anyhow::Result<Option<Ordering>> {
        let Self { acme, folder, challenges } = self;
        let (store, lead, complaint): (_, _, Complaint) = match (folder, cluster) {
            (Some(folder), _) => {
                (Store::Folder(folder.clone()), Lead::Lock(folder), Box::new(|_: &_, _: &_| {}))
            }
            (None, Some(Cluster { client, namespace, controller, leads })) => {
                let secrets = Secrets::new(client, namespace);
                tokio::spawn(secrets.clone().follow(Arc::clone(&challenges)));
                let complaint = secrets.complaint(&controller);
                (Store::Secrets(secrets), Lead::Lease(leads), complaint)
            }
            (None, None) => return Ok(None),
        };
        let (orders, publications) = (orders.clone(), publisher.subscribe());
        Ordering::new(Parts { acme, store, challenges, orders, publications, lead, complaint }).map(Some)
    }
}
