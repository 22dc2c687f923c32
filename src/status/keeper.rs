//! Keeps the Services of Gateways, and tells people by Events what is wrong.

use super::difference::difference;
use super::publication::Publication;
use super::services::{Plan, leftover};
use crate::bindings::Served;
use crate::config::KubernetesSource;
use crate::resource::{ObjectRef, Record, Records};
use foldhash::fast::FixedState;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::Value;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use tracing::{debug, info, warn};

/// Services that are looked after at once.
const AT_ONCE: usize = 4;
/// Events for one write of one object. A broken route says the same for every parent.
const EVENTS: usize = 4;
/// The API takes no longer notes, in bytes.
const LONGEST_NOTE: usize = 1000;

/// Namespace and name.
type Name = (String, String);

/// Who keeps Services and tells Events.
pub(super) struct Keeper {
    client: Client,
    records: Records,
    config: KubernetesSource,
    namespace: String,
    recorder: Recorder,
    /// Services that were found in order: what they should be, as a hash, and the record of what they are.
    settled: HashMap<Name, (u64, Option<Arc<Record>>)>,
}

/// A Service to look after.
struct Task {
    key: Name,
    desired: Value,
    hash: u64,
    record: Option<Arc<Record>>,
}

impl Keeper {
    pub fn new(
        client: Client,
        records: Records,
        config: KubernetesSource,
        namespace: String,
        identity: String,
    ) -> Self {
        let reporter = Reporter { controller: config.controller_name.clone(), instance: Some(identity) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, records, config, namespace, recorder, settled: HashMap::new() }
    }

    /// Forgets what was in order, because somebody else looks after it.
    pub fn forget(&mut self) {
        self.settled.clear();
    }

    /// Makes all Services as they should be. Whether something is left to do.
    pub async fn keep_services(&mut self, publication: &Publication) -> bool {
        let tasks: Vec<Task> =
            publication.served.iter().filter_map(|served| self.task(publication, served)).collect();
        let client = self.client.clone();
        let done = futures::stream::iter(tasks).map(|task| {
            let client = client.clone();
            async move {
                let answer = keep(&client, &task).await;
                (task, answer)
            }
        });
        let mut failed = false;
        let mut done = std::pin::pin!(done.buffer_unordered(AT_ONCE));
        while let Some((task, answer)) = done.next().await {
            let Task { key, hash, record, .. } = task;
            match answer {
                Ok(()) => {
                    self.settled.insert(key, (hash, record));
                }
                Err(kube::Error::Api(status)) if status.is_invalid() => {
                    warn!("the API server does not take Service {}/{}: {}", key.0, key.1, status.message);
                    self.settled.insert(key, (hash, record));
                }
                Err(error) => {
                    failed = true;
                    warn!("cannot write Service {}/{}, it is tried again: {error}", key.0, key.1);
                }
            }
        }
        self.remove_leftovers(publication).await || failed
    }

    fn task(&mut self, publication: &Publication, served: &Served) -> Option<Task> {
        let plan = Plan::new(publication, served, &self.config, &self.namespace);
        if !plan.is_certain {
            return None;
        }
        let gateway = named("Gateway", &served.binding.namespace, &served.binding.object);
        let owner = self.records.get(&gateway)?;
        let record = self.records.get(&named("Service", &plan.namespace, &plan.name));
        let key = (plan.namespace.clone(), plan.name.clone());
        let desired = plan.desired(publication, served, &owner)?;
        let hash = FixedState::default().hash_one(desired.to_string());
        let is_settled = self.settled.get(&key).is_some_and(|(before, known)| {
            *before == hash && known.as_ref().map(Arc::as_ptr) == record.as_ref().map(Arc::as_ptr)
        });
        if is_settled {
            return None;
        }
        if let Some(obstacle) = plan.obstacle(&publication.snapshot) {
            self.tell(&gateway, &owner, vec![("Service".to_owned(), "ServiceNotOurs".to_owned(), obstacle)]);
            self.settled.insert(key, (hash, record));
            return None;
        }
        Some(Task { key, desired, hash, record })
    }

    async fn remove_leftovers(&self, publication: &Publication) -> bool {
        let mut failed = false;
        for name in leftover(publication, &self.config, &self.namespace) {
            let api = services(&self.client, &self.namespace);
            match api.delete(&name, &DeleteParams::default()).await {
                Ok(_) => info!("removed Service {}/{name}, whose Gateway is gone", self.namespace),
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => {
                    failed = true;
                    warn!("cannot remove Service {}/{name}: {error}", self.namespace);
                }
            }
        }
        failed
    }

    /// Tells people what is newly wrong with an object.
    pub fn tell(&self, object: &ObjectRef, record: &Record, complaints: Vec<(String, String, String)>) {
        let reference = ObjectReference {
            api_version: Some(record.api_version.to_string()),
            kind: Some(object.kind.clone()),
            name: Some(object.name.clone()),
            namespace: Some(object.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            uid: Some(record.uid.to_string()),
            ..ObjectReference::default()
        };
        for (condition, reason, message) in complaints.into_iter().take(EVENTS) {
            let note = match message.is_empty() {
                true => format!("{condition}: {reason}"),
                false => shortened(message),
            };
            let event = Event {
                type_: EventType::Warning,
                reason,
                note: Some(note),
                action: format!("Check{condition}"),
                secondary: None,
            };
            let (recorder, reference) = (self.recorder.clone(), reference.clone());
            // Nobody waits for an Event, and nothing depends on it.
            tokio::spawn(async move {
                if let Err(error) = recorder.publish(&event, &reference).await {
                    debug!("cannot publish an Event: {error}");
                }
            });
        }
    }
}

/// Makes one Service as it should be.
async fn keep(client: &Client, task: &Task) -> kube::Result<()> {
    let Task { key: (namespace, name), desired, .. } = task;
    let api = services(client, namespace);
    let Some(current) = api.get_opt(name).await? else {
        let service: DynamicObject =
            serde_json::from_value(desired.clone()).map_err(kube::Error::SerdeError)?;
        return match api.create(&PostParams::default(), &service).await {
            Ok(_) => {
                info!("made Service {namespace}/{name}");
                Ok(())
            }
            // The namespace may be on the way out, and the Gateway with it.
            Err(kube::Error::Api(status))
                if status.is_not_found() || status.message.contains("being terminated") =>
            {
                debug!("cannot make Service {namespace}/{name}: {}", status.message);
                Ok(())
            }
            Err(error) => Err(error),
        };
    };
    let current = serde_json::to_value(&current).map_err(kube::Error::SerdeError)?;
    if let Some(patch) = difference(&current, desired) {
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        info!("changed Service {namespace}/{name}");
    }
    Ok(())
}

fn services(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn named(kind: &str, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

fn shortened(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE).rev().find(|&end| note.is_char_boundary(end)).unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}
