//! A compiled rule: what to do with a request that it matched.

use super::{Retry, Session, Timeouts};
use crate::filter::{ClusterId, Filters};
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

/// 2^32 divided by the golden ratio: its multiples fill the circle evenly, and so does every n-th of them, which is
/// what one of several rules gets (a Weyl sequence).
const GOLDEN: u32 = 0x9E37_79B9;

thread_local! {
    /// Where on the circle the last request of this thread was.
    static POINT: Cell<u32> = Cell::new(fastrand::u32(..));
}

/// Which rule of which route: `httproute/<namespace>/<name>/rule/<index>`, which is the cluster name that Envoy Gateway
/// gives. One text for the rule, its cluster and its metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleName(Arc<str>);

impl RuleName {
    /// The name of a rule of a route of this kind.
    pub fn new(kind: &str, namespace: &str, route: &str, index: usize) -> Self {
        Self(format!("{}/{namespace}/{route}/rule/{index}", kind.to_ascii_lowercase()).into())
    }

    /// The text, to share it.
    pub fn text(&self) -> &Arc<str> {
        &self.0
    }

    /// The route that the rule is of: `httproute/<namespace>/<name>`.
    pub fn route(&self) -> &str {
        self.0.rsplit_once("/rule/").map_or(&self.0, |(route, _)| route)
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a rule does. There may be a hundred thousand, so what few of them have stands apart.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: RuleName,
    pub backends: Backends,
    /// `None` passes requests on as they are.
    pub terms: Option<Box<Terms>>,
}

/// What a rule does beside passing requests on.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// `rules[].name`, where the user gave one.
    pub name: Option<String>,
    pub filters: Filters,
    pub timeouts: Timeouts,
    /// `None` leaves it at what is safe whatever the request is.
    pub retry: Option<Retry>,
    /// Keeps clients at one endpoint.
    pub session: Option<Session>,
}

impl Terms {
    /// What a rule keeps of them: nothing where they say nothing.
    pub fn kept(self) -> Option<Box<Self>> {
        let Self { name, filters, timeouts, retry, session } = &self;
        let plain = name.is_none()
            && filters.is_empty()
            && *timeouts == Timeouts::default()
            && retry.is_none()
            && session.is_none();
        (!plain).then(|| Box::new(self))
    }
}

impl Rule {
    /// The filters of the rule; `None` when there are none.
    pub fn filters(&self) -> Option<&Filters> {
        self.terms.as_deref().map(|terms| &terms.filters)
    }

    /// The time limits of the rule.
    pub fn timeouts(&self) -> Timeouts {
        self.terms.as_deref().map(|terms| terms.timeouts).unwrap_or_default()
    }

    /// When requests are tried again.
    pub fn retry(&self) -> Option<&Retry> {
        self.terms.as_deref()?.retry.as_ref()
    }

    /// What keeps clients at one endpoint.
    pub fn session(&self) -> Option<&Session> {
        self.terms.as_deref()?.session.as_ref()
    }

    /// `rules[].name`, where the user gave one.
    pub fn own_name(&self) -> Option<&str> {
        self.terms.as_deref()?.name.as_deref()
    }
}

/// Where a rule sends its requests, by weight.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    /// The cluster that all of the rule's backends belong to; `None` when not one of them can be used.
    cluster: Option<ClusterId>,
    entries: Box<[Backend]>,
}

/// One `backendRef`.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its share of the sum of all weights; 0 gets nothing.
    pub weight: u32,
    /// Its place in the cluster; `None` when the reference is not valid, which answers 500 for its share.
    pub index: Option<u16>,
    /// Applied after the rule's filters.
    pub filters: Option<Box<Filters>>,
}

impl Backends {
    /// Backends of one cluster.
    pub fn new(cluster: Option<ClusterId>, entries: Vec<Backend>) -> Self {
        Self { cluster, entries: entries.into() }
    }

    /// The cluster of the rule.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// All backends, in the order written.
    pub fn entries(&self) -> &[Backend] {
        &self.entries
    }

    /// The backend for the next request on this thread; `None` when all weights are 0. Shares are even over few
    /// requests already, where random ones would be off by their square root.
    pub fn next(&self) -> Option<&Backend> {
        self.choose(|| {
            let point = POINT.get().wrapping_add(GOLDEN);
            POINT.set(point);
            point
        })
    }

    /// The backend for this request, by a number that is uniform over all `u32`; `None` when all weights are 0.
    pub fn choose(&self, random: impl FnOnce() -> u32) -> Option<&Backend> {
        if let [only] = &*self.entries {
            return (only.weight > 0).then_some(only);
        }
        // It cannot overflow: the Gateway API allows 16 backends of at most 1,000,000, and `compile` refuses more.
        let total = self.entries.iter().fold(0u32, |sum, backend| sum.saturating_add(backend.weight));
        if total == 0 {
            return None;
        }
        // Scaling by multiplication is uniform to within 2^-32 and needs no division.
        let mut point = ((u64::from(random()) * u64::from(total)) >> 32) as u32;
        self.entries.iter().find(|backend| {
            let hit = point < backend.weight;
            point = point.wrapping_sub(backend.weight);
            hit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::TimeLimit;
    use super::*;

    fn backends(weights: &[u32]) -> Backends {
        let entries = weights
            .iter()
            .enumerate()
            .map(|(i, &weight)| Backend { weight, filters: None, index: Some(i as u16) })
            .collect();
        Backends::new(Some(ClusterId(0)), entries)
    }

    #[test]
    fn weights_hold_over_all_random_numbers() {
        let backends = backends(&[1, 0, 2, 7]);
        let mut hits = [0u32; 4];
        for step in 0..10_000u32 {
            let backend = backends.choose(|| step.wrapping_mul(u32::MAX / 10_000)).expect("a weight above 0");
            hits[usize::from(backend.index.expect("valid"))] += 1;
        }
        for (hit, want) in hits.iter().zip([1000, 0, 2000, 7000]) {
            assert!(hit.abs_diff(want) <= 1, "{hits:?}");
        }
    }

    #[test]
    fn ten_thousand_requests_hold_their_weights_to_one_percent_also_when_rules_take_turns() {
        for turns in [1, 2, 3, 7] {
            let backends = backends(&[1, 0, 2, 7]);
            let mut hits = [0u32; 4];
            for step in 0..10_000 * turns {
                let backend = backends.next().expect("a weight above 0");
                // The other requests are those of other rules.
                if step % turns == 0 {
                    hits[usize::from(backend.index.expect("valid"))] += 1;
                }
            }
            for (hit, want) in hits.iter().zip([1000u32, 0, 2000, 7000]) {
                assert!(hit.abs_diff(want) * 100 <= want, "every {turns}: {hits:?}");
            }
        }
    }

    #[test]
    fn a_rule_that_says_nothing_special_is_small() {
        assert_eq!((size_of::<Rule>(), size_of::<Backend>()), (48, 16));
        assert!(Terms::default().kept().is_none());
        let limited = Timeouts { request: TimeLimit::Never, ..Timeouts::default() };
        assert!(Terms { timeouts: limited, ..Terms::default() }.kept().is_some());
    }

    #[test]
    fn without_weight_nothing_is_chosen() {
        for weights in [&[][..], &[0], &[0, 0]] {
            assert!(backends(weights).choose(|| 7).is_none(), "{weights:?}");
        }
    }
}
