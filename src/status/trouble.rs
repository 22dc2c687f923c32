//! What could not be written: it is tried again after a pause that grows, and told once, so that what the API server
//! refuses (a right that is missing, a webhook) neither holds up the rest nor fills the log.

use crate::resource::ObjectRef;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// So many objects of a kind are told; more of them have the same reason.
const TOLD: usize = 3;

/// Objects that could not be written.
#[derive(Debug, Default)]
pub(super) struct Troubles(HashMap<ObjectRef, Trouble>);

#[derive(Debug)]
struct Trouble {
    until: Instant,
    pause: Duration,
    told: bool,
}

impl Troubles {
    /// When to try the object again, if that is later than now.
    pub fn later(&self, object: &ObjectRef) -> Option<Instant> {
        self.0.get(object).map(|trouble| trouble.until).filter(|until| *until > Instant::now())
    }

    /// Notes that something of the object (`its status`) could not be written. Returns when to try again.
    pub fn note(&mut self, object: &ObjectRef, what: &str, error: &kube::Error) -> Instant {
        let before = self.0.get(object);
        let pause = match before {
            // What keeps us from writing anything ends for all objects at once, and they are wanted soon then.
            Some(before) if !is_general(error) => (before.pause * 2).min(LONGEST),
            _ => FIRST,
        };
        // An object that was removed meanwhile is no trouble, unless it is not found for long.
        let is_news = match error {
            kube::Error::Api(status) if status.is_not_found() => pause > FIRST,
            _ => true,
        };
        let of_kind = self.0.iter().filter(|(other, trouble)| trouble.told && other.kind == object.kind);
        let told = before.is_some_and(|before| before.told) || (is_news && of_kind.take(TOLD).count() < TOLD);
        if told && !before.is_some_and(|before| before.told) {
            warn!("cannot write {what} of {object}, it is tried again: {error}{}", hint(object, error));
        }
        let until = Instant::now() + pause;
        self.0.insert(object.clone(), Trouble { until, pause, told });
        until
    }

    /// Notes that it was written.
    pub fn over(&mut self, object: &ObjectRef, what: &str) {
        if self.0.remove(object).is_some_and(|trouble| trouble.told) {
            info!("{what} of {object} is written again");
        }
    }

    /// Forgets objects that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&ObjectRef) -> bool) {
        self.0.retain(|object, _| is_there(object));
    }
}

/// Whether it would happen to any object: nobody answers, or we are not known.
fn is_general(error: &kube::Error) -> bool {
    match error {
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::Auth(_) => true,
        kube::Error::Api(status) => matches!(status.code, 401 | 429),
        _ => false,
    }
}

/// What to do about it, where that is known.
fn hint(object: &ObjectRef, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            format!(
                "; if it is a right that is missing, compare trigate's ClusterRole with deploy/ ({})",
                object.kind
            )
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(number: usize) -> ObjectRef {
        ObjectRef { kind: "HTTPRoute".into(), namespace: "a".into(), name: format!("route-{number}") }
    }

    fn refused(code: u16, reason: &str) -> kube::Error {
        kube::Error::Api(kube::core::Status::failure("no", reason).with_code(code).boxed())
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end_with_the_first_success() {
        let mut troubles = Troubles::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let until = troubles.note(&route(0), "the status", &refused(403, "Forbidden"));
            pauses.push((until - Instant::now()).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(troubles.later(&route(0)).is_some());
        assert_eq!(troubles.later(&route(1)), None, "others are not held up");
        troubles.over(&route(0), "the status");
        assert_eq!(troubles.later(&route(0)), None);
        for _ in 0..8 {
            let until = troubles.note(&route(0), "the status", &refused(401, "Unauthorized"));
            assert_eq!(until - Instant::now(), FIRST, "nothing is wrong with the object");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_with_the_same_trouble_a_few_are_told() {
        let mut troubles = Troubles::default();
        for number in 0..100 {
            troubles.note(&route(number), "the status", &refused(403, "Forbidden"));
        }
        assert_eq!(troubles.0.values().filter(|trouble| trouble.told).count(), TOLD);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_gone_is_told_only_when_it_stays_so() {
        let mut troubles = Troubles::default();
        troubles.note(&route(0), "the status", &refused(404, "NotFound"));
        assert!(!troubles.0[&route(0)].told);
        troubles.note(&route(0), "the status", &refused(404, "NotFound"));
        assert!(troubles.0[&route(0)].told);
    }
}
