//! Secrets and ConfigMaps that somebody refers to.
//!
//! Of all others only the names are watched: a cluster keeps megabytes in them, and what is not in memory cannot
//! leak from it.

use super::follow::{Discovered, News, Outlet, Trouble, selection};
use super::item::{Item, Key, key};
use super::references::Wanted;
use futures::StreamExt;
use futures::stream::iter;
use kube::api::{Api, ApiResource, PartialObjectMeta};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

/// How many objects are read at once.
const AT_ONCE: usize = 8;
/// When to read again what could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// What is referred to, of both kinds, and how often that changed.
#[derive(Debug, Default)]
pub(super) struct References {
    pub version: u64,
    pub wanted: BTreeSet<Wanted>,
}

/// What is known of one kind.
struct Fetch {
    api: Api<Item>,
    version: String,
    outlet: Outlet,
    references: watch::Receiver<Arc<References>>,
    /// All objects, with their versions.
    there: BTreeMap<Key, String>,
    /// What a list that is going on has brought so far.
    listing: BTreeMap<Key, String>,
    /// Those that were read, with the version that was.
    read: BTreeMap<Key, String>,
    listed: bool,
}

/// Follows the objects of a kind that somebody refers to.
pub(super) async fn follow_references(
    client: Client,
    mut discovered: Discovered,
    outlet: Outlet,
    references: watch::Receiver<Arc<References>>,
) {
    let Some(resource) = discovered.resource(outlet.kind).await else { return };
    let names = Api::<PartialObjectMeta<Item>>::all_with(client.clone(), &resource);
    let mut events = pin!(watcher(names, selection(outlet.kind.part)));
    let mut trouble = Trouble::of(outlet.kind);
    let mut fetch = Fetch::new(client, &resource, outlet, references);
    let mut complete = true;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            changed = fetch.references.changed() => {
                if changed.is_err() {
                    return;
                }
                complete = fetch.catch_up().await;
                continue;
            }
            () = sleep(RETRY), if !complete => {
                complete = fetch.catch_up().await;
                continue;
            }
        };
        let event = match event {
            None => return,
            Some(Err(error)) => {
                if trouble.again(&error).await {
                    fetch.outlet.tell(News::Settled(0)).await;
                }
                continue;
            }
            Some(Ok(event)) => event,
        };
        // That a list begins says nothing of whether it will come.
        if !matches!(event, watcher::Event::Init) {
            trouble.over();
        }
        if fetch.note(event) {
            complete = fetch.catch_up().await;
        }
    }
}

impl Fetch {
    /// Notes what happened to names. True when it concerns objects that somebody refers to.
    fn note(&mut self, event: watcher::Event<PartialObjectMeta<Item>>) -> bool {
        let version = |item: &PartialObjectMeta<Item>| item.resource_version().unwrap_or_default();
        match event {
            watcher::Event::Init => {
                self.listing.clear();
                false
            }
            watcher::Event::InitApply(item) => {
                self.listing.insert(key(&item.metadata), version(&item));
                false
            }
            watcher::Event::InitDone => {
                self.there = std::mem::take(&mut self.listing);
                self.listed = true;
                true
            }
            watcher::Event::Apply(item) => {
                let key = key(&item.metadata);
                let touched = self.wants(&key);
                self.there.insert(key, version(&item));
                touched
            }
            watcher::Event::Delete(item) => {
                let key = key(&item.metadata);
                self.there.remove(&key);
                self.wants(&key)
            }
        }
    }

    fn new(
        client: Client,
        resource: &ApiResource,
        outlet: Outlet,
        references: watch::Receiver<Arc<References>>,
    ) -> Self {
        Self {
            api: Api::all_with(client, resource),
            version: resource.version.clone(),
            outlet,
            references,
            there: BTreeMap::new(),
            listing: BTreeMap::new(),
            read: BTreeMap::new(),
            listed: false,
        }
    }

    fn wants(&self, (namespace, name): &Key) -> bool {
        let wanted = Wanted { kind: self.outlet.kind.kind, namespace: namespace.clone(), name: name.clone() };
        self.references.borrow().wanted.contains(&wanted)
    }

    /// Reads what is wanted and new, drops what is not wanted any more. Says whether nothing is left to do.
    async fn catch_up(&mut self) -> bool {
        if !self.listed {
            return true;
        }
        let references = self.references.borrow_and_update().clone();
        let of_kind = references.wanted.iter().filter(|wanted| wanted.kind == self.outlet.kind.kind);
        let wanted: BTreeMap<Key, String> = of_kind
            .filter_map(|wanted| {
                let key = (wanted.namespace.clone(), wanted.name.clone());
                let version = self.there.get(&key)?.clone();
                Some((key, version))
            })
            .collect();
        let dropped: Vec<Key> = self.read.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in dropped {
            self.read.remove(&key);
            self.outlet.tell(News::Deleted(key)).await;
        }
        let new = wanted.into_iter().filter(|(key, version)| self.read.get(key) != Some(version));
        let new: Vec<_> = new.collect();
        let count = new.len();
        let answers: Vec<_> =
            iter(new).map(|wanted| get(&self.api, wanted)).buffer_unordered(AT_ONCE).collect().await;
        let mut answered = 0;
        for (key, version, item) in answers.into_iter().flatten() {
            answered += 1;
            self.read.insert(key, version);
            if let Some(item) = item {
                let stored = self.outlet.read(item, &self.version);
                self.outlet.tell(News::Applied(Box::new(stored))).await;
            }
        }
        if answered == count {
            self.outlet.tell(News::Settled(references.version)).await;
        }
        answered == count
    }
}

/// Reads one object, in a version not older than the one that is asked for. `None` when that failed.
async fn get(api: &Api<Item>, (key, version): (Key, String)) -> Option<(Key, String, Option<Item>)> {
    let (namespace, name) = &key;
    match api.clone().constrain(namespace).get_opt(name).await {
        Ok(item) => Some((key, version, item)),
        Err(error) => {
            warn!("cannot read {namespace}/{name}, which is referred to: {error}");
            None
        }
    }
}
