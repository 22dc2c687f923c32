//! How long to wait before something that failed is tried again: longer each time, and never in step with others.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
/// An API server that comes back is asked this soon at the latest.
const LONGEST: Duration = Duration::from_secs(8);

/// Growing pauses.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure.
    pub fn next(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures += 1;
        jittered(pause)
    }

    /// How often it failed since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The pause, up to a quarter shorter or longer.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(fastrand::f64().mul_add(0.5, 0.75))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_again_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= FIRST.mul_f64(1.25) && pauses[5] > FIRST * 4, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST.mul_f64(1.25)), "{pauses:?}");
        backoff.reset();
        assert!(backoff.next() <= FIRST.mul_f64(1.25));
    }
}
