//! Writes statuses: only what changed, only by the replica that leads, and only what is already being served.
//!
//! ```text
//! Publication (what is live) ──┐
//! Records (what the API has) ──┼─▶ survey ─▶ jobs ─▶ PATCH …/status ─▶ Records
//! Leadership ──────────────────┘      └─ the same as before: nothing to do
//! ```
//!
//! Every patch carries the version of the object that it was made for. If the object has changed meanwhile, the
//! API server refuses, and the next survey looks again.

use super::address::{judge, reach};
use super::class::class;
use super::keeper::Keeper;
use super::merge::{Shared, complaints, entries, only_counts, whole};
use super::pace::Paces;
use super::proxies::{is_about_ours, proxy};
use super::publication::Publication;
use super::trouble::Troubles;
use crate::bindings::Served;
use crate::compile::{GatewayReport, ListenerSetReport, PolicyReport, RouteReport, class_parameters};
use crate::config::KubernetesSource;
use crate::resource::{EnvoyProxy, GatewayClass, ObjectRef, Record, Records, Resource, observed_by};
use foldhash::fast::FixedState;
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

/// Patches that are under way at once.
const AT_ONCE: usize = 8;
/// Patches after which to look whether there is something newer to tell.
const BATCH: usize = 128;
/// Our own writes come back as news; they are looked at together.
const ECHO: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(1);
const STATUS: &str = "the status";
/// How often to ask which version of the Gateway API is installed.
const BUNDLE_AGE: Duration = Duration::from_secs(300);
/// The same when nobody answered.
const BUNDLE_RETRY: Duration = Duration::from_secs(10);

/// The one who writes.
pub(super) struct Writer {
    pub client: Client,
    pub records: Records,
    pub config: KubernetesSource,
    /// Trigate's own.
    pub namespace: String,
    pub publications: watch::Receiver<Option<Arc<Publication>>>,
    pub leads: watch::Receiver<bool>,
    pub keeper: Keeper,
    /// What was found in order: what it should say, as a hash, and the record that says it.
    pub settled: HashMap<ObjectRef, (u64, Arc<Record>)>,
    pub paces: Paces,
    pub troubles: Troubles,
    /// When to ask for the version of the Gateway API, and what it was.
    pub bundle: Option<(Instant, Option<String>)>,
    /// When to look again although nothing happened.
    pub due: Option<Instant>,
}

/// Something whose status we write.
enum Subject<'p> {
    Class(&'p GatewayClass),
    Gateway(Rc<Judged>),
    Set(Rc<Judged>, &'p ListenerSetReport),
    Route(&'p RouteReport),
    Policy(&'p PolicyReport),
    Proxy(&'p EnvoyProxy),
    /// A Gateway or a ListenerSet that was ours, and whose status says so still.
    Lost(ObjectRef),
}

/// What became of a Gateway with all that is known beside what was compiled.
struct Judged {
    report: GatewayReport,
    /// `status.addresses`.
    addresses: Vec<Value>,
}

/// A status to write.
struct Job {
    object: ObjectRef,
    record: Arc<Record>,
    desired: u64,
    patch: Value,
    complaints: Vec<(String, String, String)>,
}

impl Writer {
    /// Never returns, unless nobody can publish any more.
    pub async fn run(mut self) {
        let mut changes = self.records.changes();
        loop {
            let due = self.due;
            tokio::select! {
                changed = self.publications.changed() => if changed.is_err() { return },
                _ = changes.changed() => sleep(ECHO).await,
                _ = self.leads.changed() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            changes.mark_unchanged();
            self.due = None;
            if !*self.leads.borrow_and_update() {
                // Somebody else writes: what is known to be in order will not stay so.
                self.settled.clear();
                self.keeper.forget();
                continue;
            }
            let publication = self.publications.borrow_and_update().clone();
            if let Some(publication) = publication {
                self.round(&publication).await;
            }
        }
    }

    /// Writes what is not in order, or the first part of it.
    async fn round(&mut self, publication: &Publication) {
        self.ask_for_bundle().await;
        if let Some(then) = self.keeper.keep_services(publication).await {
            self.look_again(then);
        }
        let mut jobs = self.survey(publication);
        if jobs.len() > BATCH {
            jobs.truncate(BATCH);
            self.due = Some(Instant::now());
        }
        let (client, manager) = (self.client.clone(), self.config.field_manager());
        let written = futures::stream::iter(jobs).map(|job| {
            let (client, manager) = (client.clone(), manager.clone());
            async move {
                let answer = patch(&client, &job, &manager).await;
                (job, answer)
            }
        });
        let mut written = std::pin::pin!(written.buffer_unordered(AT_ONCE));
        while let Some((job, answer)) = written.next().await {
            self.note(job, answer);
        }
    }

    fn note(&mut self, job: Job, answer: kube::Result<Record>) {
        let Job { object, record, desired, patch: _, complaints } = job;
        match answer {
            Ok(written) => {
                let written = Arc::new(written);
                self.records.put(object.clone(), written.clone());
                self.keeper.tell(&object, &record, complaints);
                self.troubles.over(&object, STATUS);
                // Even if the API server understood something else: the same patch would not help.
                self.settled.insert(object, (desired, written));
            }
            // The news of the other change are on their way.
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                self.look_again(Instant::now() + RETRY);
            }
            Err(error) => {
                let then = self.troubles.note(&object, STATUS, &error);
                self.look_again(then);
            }
        }
    }

    fn look_again(&mut self, then: Instant) {
        self.due = Some(self.due.map_or(then, |due| due.min(then)));
    }

    /// What there is to write.
    fn survey(&mut self, publication: &Publication) -> Vec<Job> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut jobs = Vec::new();
        for subject in self.subjects(publication) {
            let object = subject.object();
            let Some(record) = self.records.get(&object) else { continue };
            let settled = self.settled.get(&object).filter(|(_, known)| Arc::ptr_eq(known, &record));
            let mut desired = None;
            let hash = match &subject {
                // Of thousands of routes one changed: the others are not worth a status to compare.
                Subject::Route(report) => of_route(report),
                _ => {
                    let status = desired.insert(self.desired(&subject, publication));
                    FixedState::default().hash_one(status.to_string())
                }
            };
            if settled.is_some_and(|(before, _)| *before == hash) {
                continue;
            }
            let desired = desired.unwrap_or_else(|| self.desired(&subject, publication));
            let current = current(&record);
            let patch = match desired {
                Value::Array(ours) => {
                    let is_ours = |entry: &Value| self.is_ours(&subject, entry, publication);
                    entries(&current, subject.shared(), is_ours, ours, &now)
                }
                status => whole(&current, status, &now),
            };
            match patch {
                None => {
                    self.settled.insert(object, (hash, record));
                }
                Some(patch) => {
                    let later = self.troubles.later(&object);
                    let later = later.or_else(|| self.paces.later(&object, only_counts(&current, &patch)));
                    if let Some(later) = later {
                        self.look_again(later);
                        continue;
                    }
                    let complaints = complaints(&current, &patch);
                    jobs.push(Job { object, record, desired: hash, patch, complaints });
                }
            }
        }
        self.forget_gone(publication);
        jobs
    }

    fn subjects<'p>(&self, publication: &'p Publication) -> Vec<Subject<'p>> {
        let controller = self.config.controller_name.as_str();
        let classes = publication.snapshot.gateway_classes.iter().map(|entry| &*entry.object);
        let classes = classes.filter(|class| *class.spec.controller_name == *controller).map(Subject::Class);
        let mut subjects: Vec<_> = classes.collect();
        for report in &publication.gateways {
            let served = publication.served.iter().find(|served| served.binding.id == report.id);
            if let Some(served) = served {
                let judged = Rc::new(self.judged(publication, served, report));
                subjects.push(Subject::Gateway(judged.clone()));
                let sets = report.listener_sets.iter();
                subjects.extend(sets.map(|set| Subject::Set(judged.clone(), set)));
            }
        }
        subjects.extend(publication.routes.iter().map(Subject::Route));
        subjects.extend(publication.policies.iter().map(Subject::Policy));
        let proxies = publication.snapshot.envoy_proxies.iter();
        subjects.extend(proxies.map(|entry| Subject::Proxy(&entry.object)));
        subjects.extend(self.lost(&subjects).into_iter().map(Subject::Lost));
        subjects
    }

    /// Gateways and ListenerSets whose status says still what we wrote, or another replica of ours did, and which are
    /// not ours any more: the class is another one now, or the parent is. What somebody else has looked at since is
    /// his.
    fn lost(&self, subjects: &[Subject<'_>]) -> Vec<ObjectRef> {
        let ours =
            subjects.iter().filter(|subject| matches!(subject, Subject::Gateway(_) | Subject::Set(..)));
        let ours: HashSet<ObjectRef> = ours.map(Subject::object).collect();
        self.records.observed().into_iter().filter(|object| !ours.contains(object)).collect()
    }

    /// What a status should say: an object for one that is all ours, a list of entries for one that is shared.
    fn desired(&self, subject: &Subject<'_>, publication: &Publication) -> Value {
        let value = match subject {
            Subject::Class(of) => {
                let bundle = self.bundle.as_ref().and_then(|(_, version)| version.as_deref());
                let fault = class_parameters(&publication.snapshot, of).err();
                Ok(class(of, bundle, fault))
            }
            Subject::Gateway(judged) => {
                serde_json::to_value(super::gateway(&judged.report)).map(|mut status| {
                    status["addresses"] = Value::Array(judged.addresses.clone());
                    status
                })
            }
            Subject::Set(judged, set) => serde_json::to_value(super::listener_set(set, &judged.report)),
            Subject::Route(report) => {
                serde_json::to_value(super::route(report, &self.config.controller_name).parents)
            }
            Subject::Policy(report) => {
                serde_json::to_value(super::policy(report, &self.config.controller_name).ancestors)
            }
            Subject::Proxy(of) => {
                serde_json::to_value(proxy(of, publication, &self.config.controller_name).ancestors)
            }
            Subject::Lost(object) => Ok(super::unclaimed(&object.kind)),
        };
        value.expect("a status has nothing in it that JSON could not say")
    }

    /// Whether an entry of a shared list is ours.
    fn is_ours(&self, subject: &Subject<'_>, entry: &Value, publication: &Publication) -> bool {
        let controller = &*self.config.controller_name;
        match subject {
            Subject::Proxy(_) => is_about_ours(entry, publication, controller),
            _ => entry["controllerName"] == controller,
        }
    }

    fn judged(&self, publication: &Publication, served: &Served, report: &GatewayReport) -> Judged {
        let reach = reach(publication, served, &self.config, &self.namespace, &self.records);
        Judged { report: judge(report.clone(), &reach), addresses: reach.addresses }
    }

    fn forget_gone(&mut self, publication: &Publication) {
        self.troubles.retain(|object| self.records.get(object).is_some());
        if self.settled.len() > 2 * publication.snapshot.len() {
            self.settled.retain(|object, _| self.records.get(object).is_some());
            self.paces.retain(|object| self.settled.contains_key(object));
        }
    }

    /// Finds out which version of the Gateway API is installed, where that may be asked.
    async fn ask_for_bundle(&mut self) {
        if self.bundle.as_ref().is_some_and(|(due, _)| *due > Instant::now()) {
            return;
        }
        let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(
            self.client.clone(),
            &ApiResource::from_gvk(&kind),
        );
        let (pause, version) = match api.get("gatewayclasses.gateway.networking.k8s.io").await {
            Ok(found) => {
                let annotations = found.metadata.annotations.unwrap_or_default();
                (BUNDLE_AGE, annotations.get("gateway.networking.k8s.io/bundle-version").cloned())
            }
            Err(error) => {
                debug!("cannot ask for the version of the Gateway API: {error}");
                let is_final = matches!(&error, kube::Error::Api(status) if status.code < 500);
                let known = self.bundle.take().and_then(|(_, version)| version);
                (if is_final { BUNDLE_AGE } else { BUNDLE_RETRY }, known)
            }
        };
        self.bundle = Some((Instant::now() + pause, version));
    }
}

impl Subject<'_> {
    fn object(&self) -> ObjectRef {
        match self {
            Self::Class(class) => class.reference(),
            Self::Proxy(proxy) => proxy.reference(),
            Self::Gateway(judged) => ObjectRef {
                kind: "Gateway".to_owned(),
                namespace: judged.report.namespace.clone(),
                name: judged.report.name.clone(),
            },
            Self::Set(_, report) => ObjectRef {
                kind: "ListenerSet".to_owned(),
                namespace: report.namespace.clone(),
                name: report.name.clone(),
            },
            Self::Route(report) => report.route.reference(),
            Self::Lost(object) => object.clone(),
            Self::Policy(report) => ObjectRef {
                kind: report.kind.to_owned(),
                namespace: report.namespace.clone(),
                name: report.name.clone(),
            },
        }
    }

    /// The list in which other controllers have entries, too.
    fn shared(&self) -> Shared {
        match self {
            Self::Policy(_) | Self::Proxy(_) => Shared::Ancestors,
            Self::Class(_) | Self::Gateway(_) | Self::Set(..) | Self::Route(_) | Self::Lost(_) => {
                Shared::Parents
            }
        }
    }
}

/// All that a route's status is made of, as a hash.
fn of_route(report: &RouteReport) -> u64 {
    let RouteReport { route, verdicts } = report;
    let references =
        verdicts.parents.iter().map(|parent| &route.parent_refs()[parent.place]).collect::<Vec<_>>();
    FixedState::default().hash_one((route.generation(), references, verdicts))
}

fn current(record: &Record) -> Value {
    record.status.as_ref().and_then(|status| serde_json::from_str(status).ok()).unwrap_or_default()
}

async fn patch(client: &Client, job: &Job, manager: &str) -> kube::Result<Record> {
    let Job { object, record, patch, .. } = job;
    let (group, version) = record.api_version.split_once('/').unwrap_or(("", &record.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &object.kind));
    let api = match object.namespace.as_str() {
        "" => Api::<DynamicObject>::all_with(client.clone(), &resource),
        namespace => Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource),
    };
    let patch = json!({ "metadata": { "resourceVersion": &*record.resource_version }, "status": patch });
    let parameters = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let written = api.patch_status(&object.name, &parameters, &Patch::Merge(&patch)).await?;
    let writes = serde_json::to_value(&written.metadata.managed_fields).unwrap_or_default();
    Ok(Record {
        api_version: record.api_version.clone(),
        uid: written.metadata.uid.unwrap_or_default().into(),
        resource_version: written.metadata.resource_version.unwrap_or_default().into(),
        generation: written.metadata.generation,
        status: written.data.get("status").map(|status| status.to_string().into()),
        observed: observed_by(&object.kind, &writes, manager),
    })
}
