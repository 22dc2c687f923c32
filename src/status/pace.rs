//! How often a status is written of which only numbers change. A thousand routes that attach one after the other
//! must not become a thousand writes of one Gateway.

use crate::resource::ObjectRef;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);
/// After this time without a write, pauses are short again.
const CALM: Duration = Duration::from_secs(20);

/// The paces of all objects.
#[derive(Debug, Default)]
pub(super) struct Paces(HashMap<ObjectRef, Pace>);

#[derive(Debug)]
struct Pace {
    last: Instant,
    pause: Duration,
}

impl Paces {
    /// When the object may be written, if that is later than now. What `can_wait` is not held up.
    pub fn later(&mut self, object: &ObjectRef, can_wait: bool) -> Option<Instant> {
        let now = Instant::now();
        if !can_wait {
            return None;
        }
        let pace = self.0.entry(object.clone()).or_insert(Pace { last: now, pause: Duration::ZERO });
        let next = pace.last + pace.pause;
        if pace.pause > Duration::ZERO && next > now {
            return Some(next);
        }
        let calm = pace.pause.is_zero() || now > next + CALM;
        pace.pause = if calm { FIRST } else { (pace.pause * 2).min(LONGEST) };
        pace.last = now;
        None
    }

    /// Forgets objects that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&ObjectRef) -> bool) {
        self.0.retain(|object, _| is_there(object));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_of_changes_becomes_a_dozen_writes() {
        let gateway = ObjectRef { kind: "Gateway".into(), namespace: "a".into(), name: "b".into() };
        let mut paces = Paces::default();
        let mut writes = 0;
        for _ in 0..6000 {
            tokio::time::advance(Duration::from_millis(10)).await;
            writes += u32::from(paces.later(&gateway, true).is_none());
        }
        assert!((5..=13).contains(&writes), "{writes}");
        assert_eq!(paces.later(&gateway, false), None);
    }
}
