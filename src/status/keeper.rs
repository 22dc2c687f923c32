//! Keeps the Services of Gateways, and tells people by Events what is wrong.

use super::condition::cut;
use super::difference::{difference, fixed_class};
use super::publication::Publication;
use super::services::{Leftover, Plan, Uncalled, is_ours_to_remove, leftovers};
use super::trouble::Troubles;
use crate::bindings::{GATEWAY_LABEL, Served, shortened};
use crate::config::KubernetesSource;
use crate::resource::{GATEWAY_GROUP, ObjectRef, Record, Records};
use foldhash::fast::FixedState;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams, Preconditions,
};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, ResourceExt};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::{debug, info};

/// Services that are looked after at once.
const AT_ONCE: usize = 4;
/// Events for one write of one object. A broken route says the same for every parent.
const EVENTS: usize = 4;
const SERVICE: &str = "the spec";
/// The API takes no longer notes, in bytes.
const LONGEST_NOTE: usize = 1000;

/// Who keeps Services and tells Events.
pub(super) struct Keeper {
    client: Client,
    records: Records,
    config: KubernetesSource,
    namespace: String,
    recorder: Recorder,
    /// Services that were found in order: what they should be, as a hash, and the record of what they are.
    settled: HashMap<ObjectRef, (u64, Option<Arc<Record>>)>,
    /// Services that look like leftovers of ours and are somebody's own, by the record of what they are.
    spared: HashMap<ObjectRef, Arc<Record>>,
    troubles: Troubles,
}

/// What the API server says of a Service that looks like a leftover.
enum Removal {
    Removed,
    /// It is somebody's own for as long as it stays what it is.
    Spared,
    /// It is gone, or may still be needed.
    Later,
}

/// A Service to look after.
struct Task {
    service: ObjectRef,
    desired: Value,
    hash: u64,
    record: Option<Arc<Record>>,
    gateway: ObjectRef,
    owner: Arc<Record>,
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
        Self {
            client,
            records,
            config,
            namespace,
            recorder,
            settled: HashMap::new(),
            spared: HashMap::new(),
            troubles: Troubles::default(),
        }
    }

    /// Forgets what was in order, because somebody else looks after it.
    pub fn forget(&mut self) {
        self.settled.clear();
    }

    /// Makes all Services as they should be. When to go on, if something is left to do.
    pub async fn keep_services(&mut self, publication: &Publication) -> Option<Instant> {
        let mut due = Vec::new();
        let tasks: Vec<Task> =
            publication.served.iter().filter_map(|served| self.task(publication, served, &mut due)).collect();
        let (client, manager) = (self.client.clone(), self.config.field_manager());
        let done = futures::stream::iter(tasks).map(|task| {
            let (client, manager) = (client.clone(), manager.clone());
            async move {
                let answer = keep(&client, &task, &manager).await;
                (task, answer)
            }
        });
        let mut done = std::pin::pin!(done.buffer_unordered(AT_ONCE));
        while let Some((task, answer)) = done.next().await {
            let Task { service, desired: _, hash, record, gateway, owner } = task;
            match answer {
                Ok(fixed) => {
                    self.troubles.over(&service, SERVICE);
                    self.settled.insert(service, (hash, record));
                    self.complain(&gateway, &owner, "ServiceFixed", fixed);
                }
                Err(error) => {
                    let refused = match &error {
                        kube::Error::Api(status) if status.is_invalid() => Some(status.message.clone()),
                        _ => None,
                    };
                    self.complain(&gateway, &owner, "ServiceRefused", refused);
                    due.push(self.troubles.note(&service, SERVICE, &error));
                }
            }
        }
        due.extend(self.remove_leftovers(publication).await);
        self.forget_gone(publication);
        due.into_iter().min()
    }

    /// Tells people what is wrong with a Gateway's Service, if anything is.
    fn complain(&self, gateway: &ObjectRef, owner: &Record, reason: &str, message: Option<String>) {
        let complaint = message.map(|message| ("Service".to_owned(), reason.to_owned(), message));
        self.tell(gateway, owner, complaint.into_iter().collect());
    }

    /// What is to be done for a Gateway. Where it is too early for that, `due` learns when it is time.
    fn task(&mut self, publication: &Publication, served: &Served, due: &mut Vec<Instant>) -> Option<Task> {
        let plan = Plan::new(publication, served, &self.config, &self.namespace);
        if !plan.is_certain {
            return None;
        }
        let gateway = named("Gateway", &served.binding.namespace, &served.binding.object);
        let owner = self.records.get(&gateway)?;
        let service = named("Service", &plan.namespace, &plan.name);
        let record = self.records.get(&service);
        let desired = plan.desired(publication, served, &owner)?;
        let hash = FixedState::default().hash_one(desired.to_string());
        let is_settled = self.settled.get(&service).is_some_and(|(before, known)| {
            *before == hash && known.as_ref().map(Arc::as_ptr) == record.as_ref().map(Arc::as_ptr)
        });
        if is_settled {
            return None;
        }
        if let Some(later) = self.troubles.later(&service) {
            due.push(later);
            return None;
        }
        if let Some(obstacle) = plan.obstacle(&publication.snapshot) {
            self.complain(&gateway, &owner, "ServiceNotOurs", Some(obstacle));
            self.settled.insert(service, (hash, record));
            return None;
        }
        Some(Task { service, desired, hash, record, gateway, owner })
    }

    /// Removes Services of ours that no Gateway has any more. When to go on, if something is left to do.
    async fn remove_leftovers(&mut self, publication: &Publication) -> Option<Instant> {
        let mut due = Vec::new();
        for leftover in leftovers(publication, &self.config, &self.namespace) {
            let service = named("Service", &leftover.namespace, &leftover.name);
            if let Some(later) = self.troubles.later(&service) {
                due.push(later);
                continue;
            }
            let record = self.records.get(&service);
            let spared = self.spared.get(&service);
            if record.as_ref().zip(spared).is_some_and(|(record, spared)| Arc::ptr_eq(record, spared)) {
                continue;
            }
            match self.remove(&leftover).await {
                Ok(removal) => {
                    self.troubles.over(&service, SERVICE);
                    match (removal, record) {
                        (Removal::Removed, _) => info!("removed {service}, which no Gateway has any more"),
                        (Removal::Spared, Some(record)) => {
                            self.spared.insert(service, record);
                        }
                        (Removal::Spared | Removal::Later, _) => {}
                    }
                }
                Err(error) => due.push(self.troubles.note(&service, "the end", &error)),
            }
        }
        due.into_iter().min()
    }

    /// Forgets Services that no Gateway has any more and that are gone.
    fn forget_gone(&mut self, publication: &Publication) {
        let planned = |served| {
            let plan = Plan::new(publication, served, &self.config, &self.namespace);
            named("Service", &plan.namespace, &plan.name)
        };
        let planned: HashSet<ObjectRef> = publication.served.iter().map(planned).collect();
        let is_there = |service: &ObjectRef| planned.contains(service) || self.records.get(service).is_some();
        self.settled.retain(|service, _| is_there(service));
        self.spared.retain(|service, _| is_there(service));
        self.troubles.retain(is_there);
    }

    /// Removes one, if the API server says, too, that it is ours and not needed.
    async fn remove(&self, leftover: &Leftover) -> kube::Result<Removal> {
        let Leftover { namespace, name, why } = leftover;
        let api = services(&self.client, namespace);
        let Some(service) = api.get_opt(name).await? else { return Ok(Removal::Later) };
        let metadata = service.metadata.clone();
        let service = serde_json::to_value(service).map_err(kube::Error::SerdeError)?;
        if !is_ours_to_remove(&service, &self.config.controller_name) {
            return Ok(Removal::Spared);
        }
        if let Uncalled::Unseen { namespace } = why
            && !has_no_gateway(&self.client, namespace, &service).await?
        {
            return Ok(Removal::Later);
        }
        // What somebody changes meanwhile may not be ours any more.
        let Some(uid) = metadata.uid else { return Ok(Removal::Later) };
        let unchanged = Preconditions { uid: Some(uid), resource_version: metadata.resource_version };
        let parameters = DeleteParams { preconditions: Some(unchanged), ..DeleteParams::default() };
        match api.delete(name, &parameters).await {
            Ok(_) => Ok(Removal::Removed),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Removal::Later),
            Err(error) => Err(error),
        }
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
                false => cut(&message, LONGEST_NOTE),
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

/// Makes one Service as it should be. Returns what of it cannot be changed.
async fn keep(client: &Client, task: &Task, manager: &str) -> kube::Result<Option<String>> {
    let Task { service, desired, .. } = task;
    let ObjectRef { namespace, name, .. } = service;
    let manager = Some(manager.to_owned());
    let api = services(client, namespace);
    let Some(current) = api.get_opt(name).await? else {
        let new: DynamicObject = serde_json::from_value(desired.clone()).map_err(kube::Error::SerdeError)?;
        let parameters = PostParams { field_manager: manager, ..PostParams::default() };
        return match api.create(&parameters, &new).await {
            Ok(_) => {
                info!("made {service}");
                Ok(None)
            }
            // The namespace may be on the way out, and the Gateway with it.
            Err(kube::Error::Api(status))
                if status.is_not_found() || status.message.contains("being terminated") =>
            {
                debug!("cannot make {service}: {}", status.message);
                Ok(None)
            }
            Err(error) => Err(error),
        };
    };
    let current = serde_json::to_value(&current).map_err(kube::Error::SerdeError)?;
    if let Some(patch) = difference(&current, desired) {
        let parameters = PatchParams { field_manager: manager, ..PatchParams::default() };
        api.patch(name, &parameters, &Patch::Merge(&patch)).await?;
        info!("changed {service}");
    }
    Ok(fixed_class(&current, desired).map(|message| format!("{service} {message}")))
}

/// Whether the API server knows Gateways, and none in this namespace that the labels of a Service could mean.
async fn has_no_gateway(client: &Client, namespace: &str, service: &Value) -> kube::Result<bool> {
    let kind = GroupVersionKind::gvk(GATEWAY_GROUP, "v1", "Gateway");
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind));
    let there = match api.list_metadata(&ListParams::default()).await {
        Ok(there) => there,
        // The kind is not installed, at least for now.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
        Err(error) => return Err(error),
    };
    let label = &service["metadata"]["labels"][GATEWAY_LABEL];
    Ok(!there.items.iter().any(|gateway| *label == *shortened(&gateway.name_any())))
}

fn services(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn named(kind: &str, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Snapshot;
    use std::collections::BTreeMap;

    #[tokio::test(start_paused = true)]
    async fn what_became_of_a_service_is_forgotten_when_it_is_gone() {
        let nobody = kube::Config::new(http::Uri::from_static("http://127.0.0.1:1"));
        let client = Client::try_from(nobody).expect("nothing is asked of it yet");
        let records = Records::default();
        let (config, text) = (KubernetesSource::default(), str::to_owned);
        let mut keeper = Keeper::new(client, records.clone(), config, text("trigate"), text("pod-1"));
        let [gone, there] = ["gone", "there"].map(|name| named("Service", "network", name));
        let record = Arc::new(Record {
            api_version: "v1".into(),
            uid: "1".into(),
            resource_version: "1".into(),
            generation: None,
            status: None,
            observed: false,
        });
        records.put(there.clone(), record.clone());
        let refused = kube::core::Status::failure("no", "Forbidden").with_code(403);
        let error = kube::Error::Api(refused.boxed());
        for service in [&gone, &there] {
            keeper.troubles.note(service, SERVICE, &error);
            keeper.settled.insert(service.clone(), (0, None));
            keeper.spared.insert(service.clone(), record.clone());
        }
        let nothing = Publication {
            snapshot: Snapshot::default(),
            served: Vec::new(),
            gateways: Vec::new(),
            routes: Vec::new(),
            policies: Vec::new(),
            sockets: BTreeMap::new(),
        };
        assert_eq!(keeper.keep_services(&nothing).await, None);
        assert_eq!(keeper.troubles.later(&gone), None);
        assert!(keeper.troubles.later(&there).is_some());
        assert!(keeper.settled.keys().eq([&there]) && keeper.spared.keys().eq([&there]));
    }
}
