//! Certificates that the process orders itself: where they are kept, and what orders them.

use crate::acme::{Folder, Lead, Ordering, Parts, Store};
use crate::challenge::Challenges;
use crate::config::{Acme, Config};
use crate::status::Publisher;
use crate::telemetry;
use anyhow::Context;
use std::path::PathBuf;
use std::sync::Arc;

/// Where they are kept, before anything is ordered.
pub struct Orders {
    acme: Acme,
    folder: Folder,
    challenges: Arc<Challenges>,
}

impl Orders {
    /// Nothing without `[acme]`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(acme) = config.acme.clone() else { return Ok(None) };
        let path = acme.folder.clone().unwrap_or_else(|| "acme".into());
        let folder = Folder::open(path.clone());
        let folder = folder.with_context(|| format!("[acme] cannot keep anything in {}", path.display()))?;
        let challenges = Arc::new(Challenges::new(Some(folder.challenges())));
        Ok(Some(Self { acme, folder, challenges }))
    }

    /// What authorities are answered.
    pub fn challenges(&self) -> Arc<Challenges> {
        Arc::clone(&self.challenges)
    }

    /// Where the source finds what was ordered.
    pub fn folder(&self) -> PathBuf {
        self.folder.certificates()
    }

    /// What orders, to be run once there is something that answers authorities.
    ///
    /// # Errors
    /// `[acme]` names files that cannot be used.
    pub fn ordering(self, orders: &telemetry::Orders, publisher: &Publisher) -> anyhow::Result<Ordering> {
        let Self { acme, folder, challenges } = self;
        let parts = Parts {
            acme,
            store: Store::Folder(folder.clone()),
            challenges,
            orders: orders.clone(),
            publications: publisher.subscribe(),
            lead: Lead::Lock(folder),
        };
        Ordering::new(parts)
    }
}
