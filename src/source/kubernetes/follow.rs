//! Follows all objects of one kind, for as long as the process runs.

use super::backoff::{Backoff, jittered};
use super::discovery::Installed;
use super::item::{Item, Key, Stored};
use super::kinds::{Kind, Part};
use futures::StreamExt;
use kube::Client;
use kube::api::{Api, ApiResource};
use kube::runtime::watcher::{self, watcher};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// Seconds after which the API server ends a watch, which is then taken up where it was. A connection that died
/// without a word is found out after this time.
pub(super) const WATCH_SECONDS: u32 = 120;
/// Objects of one answer: enough that a list is quick, few enough that it is not held in memory.
pub(super) const PAGE: u32 = 250;

/// How long a right that is missing is waited for before the rest is served without the kind: somebody may be about
/// to grant it.
const GRANTING: Duration = Duration::from_secs(10);

/// After so many failures in a row it is told again, every few minutes.
const REMINDER: u32 = 32;
/// When to look again for a kind that vanished.
const AGAIN: Duration = Duration::from_millis(500);

/// News of a kind.
#[derive(Debug)]
pub(super) enum News {
    /// These are all objects.
    All(Vec<Stored>),
    Applied(Box<Stored>),
    Deleted(Key),
    /// All that was referred to as of this version of the references is there, as far as it exists.
    Settled(u64),
}

/// Where news of a kind go.
#[derive(Clone)]
pub(super) struct Outlet {
    pub kind: &'static Kind,
    pub news: mpsc::Sender<(&'static Kind, News)>,
    /// Who writes statuses for us.
    pub manager: Arc<str>,
}

impl Outlet {
    /// Reads an object of the kind.
    pub fn read(&self, item: Item, version: &str) -> Stored {
        item.read(self.kind, version, &self.manager)
    }

    /// Passes on news. Waits while the reader is busy.
    pub async fn tell(&self, news: News) {
        // The reader goes only when the process does.
        let _ = self.news.send((self.kind, news)).await;
    }
}

/// Says when kinds were installed or removed, and can be told to look.
#[derive(Clone)]
pub(super) struct Discovered {
    pub installed: watch::Receiver<Option<Arc<Installed>>>,
    pub again: Arc<Notify>,
}

impl Discovered {
    /// Waits until it is known whether the kind is installed, and how it is then asked for.
    pub async fn resource(&mut self, kind: &Kind) -> Option<ApiResource> {
        if !kind.is_installed() {
            return Installed::default().resource(kind);
        }
        let known = self.installed.wait_for(Option::is_some).await;
        known.ok().and_then(|installed| installed.as_ref().and_then(|installed| installed.resource(kind)))
    }
}

/// Follows one kind, whether it is installed or not.
pub(super) async fn follow(client: Client, mut discovered: Discovered, outlet: Outlet) {
    loop {
        match discovered.resource(outlet.kind).await {
            Some(resource) => {
                info!("watching {} ({})", outlet.kind.kind, resource.api_version);
                follow_installed(&client, &resource, &outlet).await;
                warn!("{} is no longer installed", outlet.kind.kind);
                outlet.tell(News::All(Vec::new())).await;
                discovered.again.notify_one();
                // It may be back already, in which case nobody says that anything changed.
                sleep(jittered(AGAIN)).await;
            }
            None => {
                outlet.tell(News::All(Vec::new())).await;
                if discovered.installed.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Follows the kind until the API server does not know it any more.
async fn follow_installed(client: &Client, resource: &ApiResource, outlet: &Outlet) {
    let kind = outlet.kind;
    let api = Api::<Item>::all_with(client.clone(), resource);
    let mut events = pin!(watcher(api, selection(kind.part)));
    let mut all = Vec::new();
    let mut trouble = Trouble::of(kind);
    while let Some(event) = events.next().await {
        let read = |item: Item| outlet.read(item, &resource.version);
        match event {
            Ok(watcher::Event::Init) => all.clear(),
            Ok(watcher::Event::InitApply(item)) => all.push(read(item)),
            Ok(watcher::Event::InitDone) => {
                trouble.over();
                outlet.tell(News::All(std::mem::take(&mut all))).await;
            }
            Ok(watcher::Event::Apply(item)) => {
                trouble.over();
                outlet.tell(News::Applied(Box::new(read(item)))).await;
            }
            Ok(watcher::Event::Delete(item)) => {
                trouble.over();
                outlet.tell(News::Deleted(item.key())).await;
            }
            Err(error) if is_unknown(&error) && kind.is_installed() => return,
            Err(error) => {
                if trouble.again(&error).await {
                    outlet.tell(News::All(Vec::new())).await;
                }
            }
        }
    }
}

/// Which objects are watched, and how.
pub(super) fn selection(part: Part) -> watcher::Config {
    let all = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    match part {
        Part::All => all,
        Part::Fields(selector) | Part::Referenced(selector) => all.fields(selector),
        Part::Labels(selector) => all.labels(selector),
    }
}

/// Whether the API server does not know the kind.
fn is_unknown(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// A watch that fails, and how patiently it is tried again.
pub(super) struct Trouble {
    kind: &'static Kind,
    backoff: Backoff,
    /// When it began.
    since: Instant,
    /// Whether nothing waits for it: it was listed, or given up, or is not served anyway.
    is_known: bool,
}

impl Trouble {
    pub fn of(kind: &'static Kind) -> Self {
        Self { kind, backoff: Backoff::default(), since: Instant::now(), is_known: !kind.is_served() }
    }

    /// Notes a failure and waits until the next try. Whether the rest is now to be served without the kind, because
    /// it may not be read.
    pub async fn again(&mut self, error: &watcher::Error) -> bool {
        let kind = self.kind.kind;
        // A list that is too old is the API's way to say that all has to be listed again.
        let is_old = matches!(error, watcher::Error::WatchError(status) if status.code == 410);
        if !is_old && self.backoff.failures().is_multiple_of(REMINDER) {
            let meanwhile = match self.is_known {
                true => "what is known of it is still served",
                false => "it is waited for before anything is served",
            };
            warn!("the watch of {kind} failed, {meanwhile}: {}", told(error));
        }
        let gives_up = !self.is_known
            && !self.kind.is_vital()
            && is_forbidden(error)
            && self.since.elapsed() >= GRANTING;
        if gives_up {
            warn!(
                "{kind} may not be read, so all else is served without it; it is tried on: {}",
                told(error)
            );
            self.is_known = true;
        }
        sleep(self.backoff.next()).await;
        gives_up
    }

    /// Notes that it works.
    pub fn over(&mut self) {
        if self.backoff.failures() > 1 {
            info!("the watch of {} works again", self.kind.kind);
        }
        self.backoff.reset();
        self.is_known = true;
    }
}

/// Whether a right to read the kind is missing.
fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.is_forbidden(),
        _ => false,
    }
}

/// An error with its causes, and a hint where one helps.
fn told(error: &watcher::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    if text.contains("forbidden") {
        text.push_str("; add the kind to trigate's ClusterRole");
    }
    text
}
