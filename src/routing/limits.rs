//! Time limits and retries of a rule.

use http::StatusCode;
use std::time::Duration;

/// The time limits of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's head to the response's last byte, over all tries. Unset, the gateway's own limit holds.
    pub request: TimeLimit,
    /// The same for one try. Unset, there is none.
    pub backend_request: TimeLimit,
}

/// How long something may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeLimit {
    /// Nothing is said.
    #[default]
    Unset,
    /// However long it takes: `0s` in the Gateway API.
    Never,
    After(Duration),
}

impl TimeLimit {
    /// A duration as the Gateway API reads it.
    pub fn new(duration: Duration) -> Self {
        if duration.is_zero() { Self::Never } else { Self::After(duration) }
    }

    /// What is said of it, where it is an end.
    pub fn said(self) -> Option<Duration> {
        match self {
            Self::Unset | Self::Never => None,
            Self::After(duration) => Some(duration),
        }
    }

    /// The limit that holds; `None` is no limit.
    pub fn or(self, default: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Unset => default,
            Self::Never => None,
            Self::After(duration) => Some(duration),
        }
    }
}

/// When a request is tried again: after a failure of the connection and a try that took too long always, and after
/// a response with one of the codes (GEP-1731).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often, beside the first try.
    attempts: u32,
    codes: Box<[StatusCode]>,
    /// The least time between tries.
    backoff: Duration,
}

impl Retry {
    /// What `attempts` is where nothing is said: Envoy Gateway's.
    const ATTEMPTS: u32 = 2;
    /// Envoy's base interval.
    const BACKOFF: Duration = Duration::from_millis(25);
    /// The time between tries doubles up to so many times the first one (Envoy's).
    const MOST_BACKOFF: u32 = 10;

    /// `retry` of a rule, with what it leaves out.
    pub fn new(attempts: Option<u32>, codes: Vec<StatusCode>, backoff: Option<Duration>) -> Self {
        Self {
            attempts: attempts.unwrap_or(Self::ATTEMPTS),
            codes: codes.into(),
            backoff: backoff.unwrap_or(Self::BACKOFF),
        }
    }

    /// How often, beside the first try.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The codes of responses after which it is tried again.
    pub fn codes(&self) -> &[StatusCode] {
        &self.codes
    }

    /// The least time between tries.
    pub fn backoff(&self) -> Duration {
        self.backoff
    }

    /// How long to wait before the retry with this number, counted from 0: twice as long each time, up to ten
    /// times the least, and up to half as much again at random so that many clients do not come back at once.
    /// `random` is uniform over all `u32`.
    pub fn pause(&self, retry: u32, random: u32) -> Duration {
        let factor = 1u32.checked_shl(retry).unwrap_or(u32::MAX).clamp(1, Self::MOST_BACKOFF);
        let least = self.backoff.saturating_mul(factor);
        least.saturating_add(least.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_not_the_same_as_never() {
        let second = Duration::from_secs(1);
        for (limit, want) in [
            (TimeLimit::Unset, Some(second)),
            (TimeLimit::new(Duration::ZERO), None),
            (TimeLimit::new(2 * second), Some(2 * second)),
        ] {
            assert_eq!(limit.or(Some(second)), want, "{limit:?}");
        }
    }

    #[test]
    fn pauses_grow_up_to_a_limit_and_are_never_shorter_than_asked_for() {
        let retry = Retry::new(None, Vec::new(), Some(Duration::from_millis(100)));
        for (number, least, most) in
            [(0, 100, 150), (1, 200, 300), (3, 800, 1200), (4, 1000, 1500), (99, 1000, 1500)]
        {
            let pause = |random| retry.pause(number, random).as_millis();
            assert_eq!((pause(0), pause(u32::MAX)), (least, most), "{number}");
        }
    }
}
