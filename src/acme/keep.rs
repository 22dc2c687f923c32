//! One certificate, for as long as it is wanted and this replica orders: renewed when it is time, tried again when
//! that fails. A failure leaves the certificate in use as it is.

use super::http;
use super::order::Orderer;
use super::schedule::{Validity, pause};
use super::store::{Pair, Progress};
use super::tailscale;
use super::wanted::Wanted;
use crate::config::ObjectName;
use crate::telemetry::{OrderState, Orders};
use crate::tls::Certificate;
use instant_acme::CertificateIdentifier;
use rustls_pki_types::CertificateDer;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// The longest sleep: the clock may be set, or the machine may have slept itself.
const LOOK: i64 = 3600;
/// An order that takes longer has failed.
const ORDER: Duration = Duration::from_secs(600);
/// How soon an authority is asked again when to renew, whatever it says (RFC 9773 4.3.2).
const LEAST_ASKING: i64 = 60;
/// How soon it is asked again after it did not say.
const ASKING_AGAIN: i64 = 6 * 3600;

/// Tells people that there is no new certificate for a Secret, and why.
pub type Complaint = Box<dyn Fn(&ObjectName, &str) + Send + Sync>;

/// What all certificates share.
pub struct Keeper {
    pub orderer: Orderer,
    pub orders: Orders,
    /// Orders at one time.
    pub places: Semaphore,
    /// Told of every failure.
    pub complain: Complaint,
}

/// A certificate that is there.
struct Held {
    validity: Validity,
    leaf: CertificateDer<'static>,
}

/// What the authority said of when to renew.
#[derive(Default)]
struct Advice {
    /// Which certificate it is for, and the window, with the time in it that was chosen.
    window: Option<(CertificateDer<'static>, (i64, i64), i64)>,
    /// When to ask again.
    ask: i64,
}

impl Keeper {
    /// Keeps the certificate.
    pub async fn keep(self: Arc<Self>, wanted: Wanted) -> Infallible {
        let name = wanted.secret.to_string();
        let dice = fastrand::f64();
        let mut advice = Advice::default();
        let mut progress = self.progress(&wanted).await;
        loop {
            let held = self.held(&wanted).await;
            let due = match &held {
                None => 0,
                Some(held) => self.due(held, &mut advice, dice).await,
            };
            let due = due.max(progress.not_before);
            self.orders.update(&name, |one| {
                one.names = wanted.names.keys().cloned().collect();
                one.due = Some(due);
                one.error = progress.error.clone();
                one.state = if progress.error.is_some() { OrderState::Failed } else { OrderState::Waiting };
            });
            let pause = due - now();
            if pause > 0 {
                let pause = pause.min(LOOK).min((advice.ask - now()).max(1));
                sleep(Duration::from_secs(pause.unsigned_abs())).await;
                continue;
            }
            self.renew(&wanted, &mut progress, held).await;
        }
    }

    async fn renew(&self, wanted: &Wanted, progress: &mut Progress, held: Option<Held>) {
        let place = self.places.acquire().await.expect("the semaphore is never closed");
        let name = wanted.secret.to_string();
        let names = wanted.names.keys().cloned().collect::<Vec<_>>().join(", ");
        self.orders.update(&name, |one| one.state = OrderState::Ordering);
        info!("acme: the certificate {name} is ordered for {names}");
        let (ended, left_alone) = http::listening(async {
            let ordering = Box::pin(self.ordered(wanted, progress, held.as_ref()));
            let ended = timeout(ORDER, ordering).await;
            (
                ended.unwrap_or_else(|_| Err(anyhow::anyhow!("it took longer than {ORDER:?}"))),
                http::left_alone(),
            )
        })
        .await;
        drop(place);
        match ended {
            Ok(()) => {
                // Whatever it is good for: it is not ordered again at once, should it be due already.
                let pause = i64::try_from(self.orderer.acme.retry.as_secs().max(1)).unwrap_or(i64::MAX);
                let subject = std::mem::take(&mut progress.subject);
                *progress =
                    Progress { not_before: now().saturating_add(pause), subject, ..Progress::default() };
                self.orders.update(&name, |one| {
                    one.succeeded += 1;
                    one.error = None;
                });
                info!("acme: the certificate {name} is there");
            }
            Err(error) => self.failed(wanted, progress, &format!("{error:#}"), left_alone),
        }
        if let Err(error) = self.orderer.store.set_progress(&wanted.secret, progress).await {
            warn!("acme: what is known of {name} is not kept: {error:#}");
        }
    }

    fn failed(&self, wanted: &Wanted, progress: &mut Progress, error: &str, left_alone: Option<SystemTime>) {
        let acme = &self.orderer.acme;
        progress.failures = progress.failures.saturating_add(1);
        let pause = pause(progress.failures, acme.retry, acme.retry_longest, fastrand::f64());
        // A second more, so that it is not before its time when parts of seconds are cut off.
        let own = now().saturating_add_unsigned(pause.as_secs() + u64::from(pause.subsec_nanos() > 0));
        progress.not_before = left_alone.map_or(own, |until| own.max(seconds(until)));
        progress.error = Some(error.to_owned());
        let name = wanted.secret.to_string();
        self.orders.update(&name, |one| {
            one.failed += 1;
            one.error = Some(error.to_owned());
        });
        let wait = progress.not_before - now();
        warn!("acme: there is no new certificate {name}, it is tried again in {wait} s: {error}");
        (self.complain)(&wanted.secret, error);
    }

    /// Orders, and keeps what it gets.
    async fn ordered(
        &self,
        wanted: &Wanted,
        progress: &mut Progress,
        held: Option<&Held>,
    ) -> anyhow::Result<()> {
        let Orderer { acme, store, .. } = &self.orderer;
        let pair = if wanted.is_tailscales() {
            let name = wanted.names.keys().next().map(String::as_str).unwrap_or_default();
            tailscale::certificate(&acme.tailscale_socket, name).await?
        } else {
            let replaces = held.filter(|_| acme.ari).and_then(Held::id);
            self.orderer.order(wanted, progress, replaces).await?
        };
        store.set_certificate(&wanted.secret, &pair).await
    }

    async fn progress(&self, wanted: &Wanted) -> Progress {
        let Orderer { acme, store, .. } = &self.orderer;
        let progress = store.progress(&wanted.secret).await.unwrap_or_else(|error| {
            warn!("acme: what is known of {} cannot be read: {error:#}", wanted.secret);
            Progress::default()
        });
        let subject = format!("{} {:?}", acme.directory, wanted.names);
        if progress.subject == subject { progress } else { Progress { subject, ..Progress::default() } }
    }

    /// The certificate that is there, if it is one for all names.
    async fn held(&self, wanted: &Wanted) -> Option<Held> {
        let stored = self.orderer.store.certificate(&wanted.secret).await;
        let Pair { key, chain } = stored
            .inspect_err(|error| warn!("acme: the certificate {} cannot be read: {error:#}", wanted.secret))
            .ok()??;
        let certificate = Certificate::from_pem("", chain.as_bytes(), key.as_bytes()).ok()?;
        let all = wanted.names.keys().all(|name| certificate.dns_names.contains(name));
        let (not_before, not_after) = certificate.validity;
        let leaf = certificate.key.cert.first()?.clone().into_owned();
        all.then_some(Held { validity: Validity { not_before, not_after }, leaf })
    }

    /// When it is time for another one.
    async fn due(&self, held: &Held, advice: &mut Advice, dice: f64) -> i64 {
        let acme = &self.orderer.acme;
        let own = held.validity.due(acme.renew_at_percent, dice);
        if !acme.ari {
            advice.ask = i64::MAX;
            return own;
        }
        let of_another = advice.window.as_ref().is_some_and(|(leaf, ..)| *leaf != held.leaf);
        if of_another || now() >= advice.ask {
            self.ask(held, advice).await;
        }
        match &advice.window {
            Some((leaf, _, chosen)) if *leaf == held.leaf => *chosen,
            _ => own,
        }
    }

    /// Asks the authority when to renew. Where it does not say, the last answer stays.
    async fn ask(&self, held: &Held, advice: &mut Advice) {
        let Orderer { acme, store, accounts, .. } = &self.orderer;
        advice.ask = now() + ASKING_AGAIN;
        let Some(id) = held.id() else { return };
        let asked = async {
            let account = accounts.open(acme, store).await?;
            Ok::<_, anyhow::Error>(account.renewal_info(&id).await?)
        };
        match asked.await {
            Ok((renewal, again)) => {
                let again = i64::try_from(again.as_secs()).unwrap_or(i64::MAX);
                advice.ask = now() + again.clamp(LEAST_ASKING, 4 * ASKING_AGAIN);
                let window = renewal.suggested_window;
                let window = (window.start.unix_timestamp(), window.end.unix_timestamp());
                let same = matches!(&advice.window, Some((leaf, known, _)) if *leaf == held.leaf && *known == window);
                if !same {
                    let chosen = held.validity.due_in(window, fastrand::f64());
                    advice.window = Some((held.leaf.clone(), window, chosen));
                }
            }
            Err(error) => debug!("acme: the authority does not say when to renew: {error:#}"),
        }
    }
}

impl Held {
    fn id(&self) -> Option<CertificateIdentifier<'static>> {
        CertificateIdentifier::try_from(&self.leaf).ok().map(CertificateIdentifier::into_owned)
    }
}

fn now() -> i64 {
    seconds(SystemTime::now())
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}
