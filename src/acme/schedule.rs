//! When to order again. Pure: the clock and the dice are the caller's.

use std::time::Duration;

/// A failed order is not tried sooner than this much earlier or later than its pause, so that many certificates
/// that failed together do not come back together.
const SPREAD_OF_PAUSES: f64 = 0.2;
/// How much of the lifetime replicas and certificates are spread over, before the time that is due.
const SPREAD_OF_RENEWALS: f64 = 0.05;
/// What an authority suggests is not believed of a certificate this young: its clock, or ours, is wrong.
const YOUNGEST: i64 = 3600;

/// The validity of a certificate, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

impl Validity {
    fn length(self) -> i64 {
        (self.not_after - self.not_before).max(0)
    }

    /// When to renew after so many percent of the lifetime; `dice` is from 0 to 1.
    pub fn due(self, percent: u8, dice: f64) -> i64 {
        let length = self.length() as f64;
        let early = length * SPREAD_OF_RENEWALS * dice;
        // At most a lifetime, so it fits.
        self.not_before + (length * f64::from(percent) / 100.0 - early).max(0.0) as i64
    }

    /// When to renew by the window that the authority suggests: a time in it (RFC 9773 4.2), but not at once
    /// after the certificate was issued, or two that disagree on the time would order for ever.
    pub fn due_in(self, (start, end): (i64, i64), dice: f64) -> i64 {
        let width = end.saturating_sub(start).max(0) as f64;
        let youngest = self.not_before + (self.length() / 10).min(YOUNGEST);
        start.saturating_add((width * dice) as i64).max(youngest)
    }
}

/// The pause after so many failures in a row (at least one).
pub fn pause(failures: u32, first: Duration, longest: Duration, dice: f64) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(31)));
    doubled.min(longest).mul_f64(1.0 + SPREAD_OF_PAUSES * (2.0 * dice - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn validity(days: i64) -> Validity {
        Validity { not_before: 1000, not_after: 1000 + days * DAY }
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_however_long_it_lives() {
        for days in [90, 6] {
            let (latest, earliest) = (validity(days).due(67, 0.0), validity(days).due(67, 1.0));
            assert_eq!(latest, 1000 + days * DAY * 67 / 100);
            assert_eq!(earliest, 1000 + days * DAY * 62 / 100);
        }
    }

    #[test]
    fn the_authoritys_window_counts_even_when_it_is_over() {
        let window = (1000 + 30 * DAY, 1000 + 32 * DAY);
        assert_eq!(validity(90).due_in(window, 0.5), 1000 + 31 * DAY);
        assert_eq!(validity(90).due_in((5, 6), 0.5), 1000 + YOUNGEST);
        assert_eq!(validity(90).due_in((6, 5), 1.0), 1000 + YOUNGEST);
        let minutes = Validity { not_before: 0, not_after: 600 };
        assert_eq!(minutes.due_in((-100, -50), 0.0), 60);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (first, longest) = (Duration::from_secs(60), Duration::from_secs(6 * 3600));
        let seconds = |failures| pause(failures, first, longest, 0.5).as_secs();
        assert_eq!([1, 2, 3, 9, 40].map(seconds), [60, 120, 240, 15_360, 21_600]);
        assert_eq!(pause(1, first, longest, 1.0).as_secs(), 72);
        assert_eq!(pause(1, first, longest, 0.0).as_secs(), 48);
    }
}
