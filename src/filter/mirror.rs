//! RequestMirror: a copy of requests goes to another backend, whose responses are ignored.

use super::Destination;
use std::fmt;

/// Who gets copies, and of how many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    pub to: Destination,
    pub share: Share,
}

/// A part of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    numerator: u32,
    denominator: u32,
}

impl Share {
    /// All requests: neither `percent` nor `fraction` is given.
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };

    /// `percent`; `None` above 100.
    pub fn percent(percent: u32) -> Option<Self> {
        Self::fraction(percent, 100)
    }

    /// `fraction`; `None` for what is more than all, or no fraction.
    pub fn fraction(numerator: u32, denominator: u32) -> Option<Self> {
        (denominator > 0 && numerator <= denominator).then_some(Self { numerator, denominator })
    }

    /// Whether the request with this number, uniform over all `u32`, is one of them.
    pub fn takes(self, random: u32) -> bool {
        (u64::from(random) * u64::from(self.denominator)) >> 32 < u64::from(self.numerator)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { numerator, denominator } = self;
        if numerator == denominator { f.write_str("all") } else { write!(f, "{numerator} of {denominator}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_holds_over_all_random_numbers() {
        for (share, want) in [
            (Some(Share::ALL), Some(10_000)),
            (Share::percent(0), Some(0)),
            (Share::percent(20), Some(2000)),
            (Share::percent(100), Some(10_000)),
            (Share::percent(101), None),
            (Share::fraction(25, 50), Some(5000)),
            (Share::fraction(1, 3), Some(3333)),
            (Share::fraction(1, 0), None),
        ] {
            let hits = share.map(|share| {
                (0..10_000u32).filter(|step| share.takes(step.wrapping_mul(u32::MAX / 10_000))).count()
            });
            let near = |(hits, want): (usize, usize)| hits.abs_diff(want) <= 1;
            assert!(
                hits.is_some() == want.is_some() && hits.zip(want).is_none_or(near),
                "{share:?} {hits:?}"
            );
        }
    }
}
