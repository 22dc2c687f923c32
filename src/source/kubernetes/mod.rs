//! Objects from the Kubernetes API, watched.
//!
//! ```text
//! discovery ─ installed kinds ─▶ follow (one task a kind) ──┐
//!                                                          ├─ News ─▶ Store ─ debounced ─▶ Change
//! fetch (Secrets, ConfigMaps that are referred to) ────────┘            │
//!   ▲                                                                   └─▶ Records (status, for who writes it)
//!   └───────────────────────── References ◀─────────────────────────────────┘
//! ```
//!
//! The API server may be slow, restart or vanish at any time: what is known stays known, and each watch takes up
//! by itself where it was. Nothing is told before every kind that is installed and served was listed once.

mod backoff;
mod discovery;
mod fetch;
mod follow;
mod item;
mod kinds;
mod references;
mod store;

use super::Change;
use crate::config::{KubernetesSource, ObjectName};
use crate::resource::Records;
use discovery::{Installed, discover};
use fetch::{References, follow_references};
use follow::{Discovered, News, Outlet, follow};
use kinds::{Kind, Part, kinds};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use references::Wanted;
use std::sync::Arc;
use std::time::Duration;
use store::{Impact, Store};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How long nothing may happen before a burst of changes counts as over.
const QUIET: Duration = Duration::from_millis(1);
/// How long a burst may go on before it is told anyway.
const PATIENCE: Duration = Duration::from_millis(5);
/// How long a new reference is waited for, so that what refers to it is not called broken meanwhile.
const REFERENCE_PATIENCE: Duration = Duration::from_millis(250);
/// The same before anything was told.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// News that wait to be read; a watch that has more waits with them.
const BACKLOG: usize = 256;
/// An answer or an event must begin within this time; above the length of a watch.
const READ_TIMEOUT: Duration = Duration::from_secs(follow::WATCH_SECONDS as u64 + 10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The objects of a cluster.
pub struct Kubernetes {
    news: mpsc::Receiver<(&'static Kind, News)>,
    store: Store,
    records: Records,
    /// What changed and was not told yet.
    pending: Impact,
    /// When what is pending is told: when nothing happens until the first, or at the second in any case.
    quiet: Instant,
    patience: Instant,
    /// Until when new references are waited for.
    referenced: Instant,
    told: bool,
    /// They end when this is dropped.
    _tasks: JoinSet<()>,
}

/// A client of the API server that the configuration names. Nothing is asked of it yet.
///
/// # Errors
/// The kubeconfig file cannot be used, or this process does not run in a cluster.
pub async fn connect(config: &KubernetesSource) -> anyhow::Result<Client> {
    use anyhow::Context;
    let mut client = match &config.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file)
                .with_context(|| format!("cannot use the kubeconfig {}", file.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await.context(
            "no API server to talk to: run in a cluster, or name a kubeconfig in [source.kubernetes]",
        )?,
    };
    client.connect_timeout = Some(CONNECT_TIMEOUT);
    client.read_timeout = Some(READ_TIMEOUT);
    client.reset_reader_on_write = true;
    Ok(Client::try_from(client)?)
}

impl Kubernetes {
    /// Starts to watch, with these Secrets among what is read. Must be called within a runtime.
    pub fn start(client: &Client, config: &KubernetesSource, secrets: &[ObjectName]) -> Self {
        let manager: Arc<str> = config.field_manager().into();
        let records = Records::default();
        let (sender, news) = mpsc::channel(BACKLOG);
        let (installed, found) = watch::channel(None::<Arc<Installed>>);
        let first = References { version: 0, wanted: secrets.iter().map(Wanted::secret).collect() };
        let (wanted, references) = watch::channel(Arc::new(first));
        let discovered = Discovered { installed: found, again: Arc::new(Notify::new()) };
        let mut tasks = JoinSet::new();
        tasks.spawn(discover(client.clone(), installed, discovered.again.clone()));
        for kind in kinds() {
            let outlet = Outlet { kind, news: sender.clone(), manager: manager.clone() };
            let (client, discovered) = (client.clone(), discovered.clone());
            match kind.part {
                Part::Referenced(_) => {
                    tasks.spawn(follow_references(client, discovered, outlet, references.clone()))
                }
                Part::All | Part::Fields(_) | Part::Labels(_) => {
                    tasks.spawn(follow(client, discovered, outlet))
                }
            };
        }
        let now = Instant::now();
        Self {
            news,
            store: Store::new(records.clone(), wanted),
            records,
            pending: Impact::Nothing,
            quiet: now,
            patience: now,
            referenced: now,
            told: false,
            _tasks: tasks,
        }
    }

    /// What the API server knows of the objects whose status is written.
    pub fn records(&self) -> Records {
        self.records.clone()
    }

    /// Waits until something changed, and until it seems to be over. The first call waits until everything is
    /// there. Safe to drop while it waits.
    pub async fn changed(&mut self) -> Change {
        loop {
            let news = match self.deadline() {
                // News that come in all the time must not put it off for ever.
                Some(deadline) if deadline <= Instant::now() => return self.tell(),
                Some(deadline) => match timeout_at(deadline, self.news.recv()).await {
                    Ok(news) => news,
                    Err(_) => return self.tell(),
                },
                None => self.news.recv().await,
            };
            match news {
                Some((kind, news)) => self.take(kind, news),
                // The tasks never end before this does.
                None => std::future::pending().await,
            }
        }
    }

    fn take(&mut self, kind: &'static Kind, news: News) {
        let references = self.store.references();
        let impact = self.store.take(kind, news);
        let now = Instant::now();
        if self.store.references() != references {
            let patience = if self.told { REFERENCE_PATIENCE } else { FIRST_PATIENCE };
            self.referenced = now + patience;
        }
        if impact == Impact::Nothing {
            return;
        }
        if self.pending == Impact::Nothing {
            self.patience = now + PATIENCE;
        }
        self.quiet = now + QUIET;
        self.pending = self.pending.max(impact);
    }

    /// When to tell what is pending, if anything is.
    fn deadline(&self) -> Option<Instant> {
        if !self.store.is_complete() || (self.told && self.pending == Impact::Nothing) {
            return None;
        }
        let burst = self.quiet.min(self.patience);
        Some(if self.store.is_settled() { burst } else { burst.max(self.referenced) })
    }

    fn tell(&mut self) -> Change {
        let endpoints_only = self.told && self.pending == Impact::Endpoints;
        self.pending = Impact::Nothing;
        self.told = true;
        Change { snapshot: self.store.snapshot(), endpoints_only }
    }
}
