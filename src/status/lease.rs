//! Which replica leads: the one that holds a Lease of the API server.
//!
//! Clocks of two machines are never compared. A replica takes a Lease over when it has seen it unchanged for a
//! whole term by its own clock, and a leader that cannot renew stops well before that.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// How long a Lease holds after it was renewed, in seconds.
const TERM_SECONDS: i32 = 10;
const TERM: Duration = Duration::from_secs(TERM_SECONDS as u64);
/// A leader that could not renew for this long stops.
const SURRENDER: Duration = Duration::from_secs(6);
/// When a Lease that did not change counts as left behind: after the leader has stopped, within the term.
const LEFT_BEHIND: Duration = Duration::from_millis(8_500);
const RENEW: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(1);

/// The competition for a Lease. Ends when it is dropped, without giving the Lease back.
pub struct Leadership {
    leads: watch::Receiver<bool>,
    resign: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Leadership {
    /// Competes for the Lease of this name as `identity`, which no other replica may have.
    pub fn compete(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        let (sender, leads) = watch::channel(false);
        let resign = Arc::new(Notify::new());
        let candidate = Candidate {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            seen: None,
            renewed: None,
            troubled: false,
        };
        let task = tokio::spawn(candidate.run(sender, resign.clone()));
        Self { leads, resign, task }
    }

    /// Whether this replica leads, now and later.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Stops to lead and gives the Lease back, so that another replica need not wait for its end.
    pub async fn resign(mut self) {
        self.resign.notify_one();
        let _ = timeout(Duration::from_secs(2), &mut self.task).await;
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The version of the Lease that was seen last, and since when.
    seen: Option<(String, Instant)>,
    /// When our own Lease began, before it was asked for.
    renewed: Option<Instant>,
    troubled: bool,
}

impl Candidate {
    async fn run(mut self, leads: watch::Sender<bool>, resign: Arc<Notify>) {
        loop {
            let before = Instant::now();
            let answer = timeout(SURRENDER.saturating_sub(RENEW), self.attempt()).await;
            match answer.unwrap_or_else(|_| Err(Failure::Silence)) {
                Ok(is_ours) => {
                    self.renewed = is_ours.then_some(before);
                    self.troubled = false;
                }
                Err(failure) => self.complain(&failure),
            }
            let holds = self.renewed.is_some_and(|renewed| renewed.elapsed() < SURRENDER);
            tell(&leads, holds);
            let pause = if holds && self.renewed == Some(before) { RENEW } else { LOOK };
            let pause = pause.mul_f64(fastrand::f64().mul_add(0.2, 0.8));
            tokio::select! {
                () = sleep(pause) => {}
                () = resign.notified() => break,
            }
        }
        let held = *leads.borrow();
        tell(&leads, false);
        if held {
            let _ = self.give_back().await;
        }
    }

    /// Takes or renews the Lease. Whether it is ours then.
    async fn attempt(&mut self) -> Result<bool, Failure> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.ours(None)),
            };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => Instant::now(),
        };
        self.seen = Some((version, since));
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && since.elapsed() < LEFT_BEHIND {
            return Ok(false);
        }
        lease.spec = Some(self.ours(Some(&spec)));
        lease.metadata.managed_fields = None;
        // The version that was read goes along: of two who try, one fails.
        let replaced = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        won(replaced)
    }

    fn ours(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let held = before.filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(TERM_SECONDS),
            acquire_time: held.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(held.is_none() && before.is_some())),
            ..LeaseSpec::default()
        }
    }

    async fn give_back(&self) -> kube::Result<()> {
        let mut lease = self.api.get(&self.name).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() == Some(&self.identity) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            lease.metadata.managed_fields = None;
            self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    fn complain(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.troubled, true) {
            warn!("cannot renew or take the Lease {}, so nothing is written: {failure}", self.name);
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("the API server does not answer")]
    Silence,
}

/// Whether the Lease is ours after this answer: who came second has lost, and that is no failure.
fn won(answer: kube::Result<Lease>) -> Result<bool, Failure> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn tell(leads: &watch::Sender<bool>, holds: bool) {
    let changed = leads.send_if_modified(|before| std::mem::replace(before, holds) != holds);
    match (changed, holds) {
        (true, true) => info!("this replica leads: it writes status and Services"),
        (true, false) => info!("this replica does not lead any more"),
        _ => {}
    }
}

const _: () =
    assert!(SURRENDER.as_millis() < LEFT_BEHIND.as_millis() && LEFT_BEHIND.as_millis() < TERM.as_millis());
