//! Endpoints that are running, and the choice between them.

use super::{Address, EndpointSpec};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// One address, with what is known of it while it runs.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in the process: connections in a pool are kept by it.
    pub(super) id: u64,
    pub address: Address,
    /// Exchanges that are going on.
    active: AtomicU32,
}

impl Endpoint {
    fn new(address: Address) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Relaxed), address, active: AtomicU32::new(0) }
    }
}

impl Endpoint {
    /// How many exchanges are going on with it.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }
}

/// An exchange with an endpoint, counted while it lasts.
#[derive(Debug)]
pub struct Active(Arc<Endpoint>);

impl Active {
    fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Relaxed);
        Self(Arc::clone(endpoint))
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// The endpoints of a Service port or of a `Backend`; clusters that mean the same ones share them.
#[derive(Debug, Default)]
pub struct EndpointSet {
    all: ArcSwap<Vec<Arc<Endpoint>>>,
    /// How often the list changed.
    changes: AtomicU64,
}

impl EndpointSet {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.load().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The endpoints of this moment.
    pub fn all(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.all.load_full()
    }

    /// How often the list changed so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// The endpoint whose address is the wanted one, for an exchange.
    pub fn find(&self, wanted: impl Fn(&Address) -> bool) -> Option<Active> {
        self.all.load().iter().find(|endpoint| wanted(&endpoint.address)).map(Active::new)
    }

    /// Takes over a new list; an address that stays keeps its endpoint, and so its connections.
    pub(super) fn update(&self, specs: &[EndpointSpec]) {
        let old = self.all.load();
        if old.len() == specs.len() && old.iter().zip(specs).all(|(have, want)| have.address == want.address)
        {
            return;
        }
        let new = specs.iter().map(|spec| {
            let kept = old.iter().find(|endpoint| endpoint.address == spec.address);
            kept.map_or_else(|| Arc::new(Endpoint::new(spec.address.clone())), Arc::clone)
        });
        self.all.store(Arc::new(new.collect()));
        self.changes.fetch_add(1, Relaxed);
    }

    /// The endpoint for an exchange: of two at random the one with fewer going on. `failed` is avoided while
    /// there is another.
    pub fn pick(&self, mut random: impl FnMut() -> u32, failed: Option<&Address>) -> Option<Active> {
        let all = self.all.load();
        let below = |n: usize, random: u32| ((u64::from(random) * n as u64) >> 32) as usize;
        let chosen = match all.as_slice() {
            [] => return None,
            [only] => only,
            many => {
                let first = below(many.len(), random());
                let second = (first + 1 + below(many.len() - 1, random())) % many.len();
                let (a, b) = (&many[first], &many[second]);
                let avoid = |endpoint: &Endpoint| failed == Some(&endpoint.address);
                let load = |endpoint: &Endpoint| (avoid(endpoint), endpoint.active.load(Relaxed));
                if load(b) < load(a) { b } else { a }
            }
        };
        Some(Active::new(chosen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(port: u16) -> EndpointSpec {
        EndpointSpec { address: Address::Ip(([127, 0, 0, 1], port).into()) }
    }

    #[test]
    fn an_address_that_stays_keeps_its_endpoint() {
        let set = EndpointSet::default();
        set.update(&[spec(1), spec(2)]);
        let before = set.all();
        set.update(&[spec(2), spec(3)]);
        let after = set.all();
        assert_eq!(after[0].id, before[1].id);
        assert_ne!(after[1].id, before[0].id);
        set.update(&[spec(2), spec(3)]);
        assert_eq!(set.changes(), 2, "the same list again is no change");
    }

    #[test]
    fn the_less_busy_of_two_is_picked_and_a_failed_one_avoided() {
        let set = EndpointSet::default();
        assert!(set.pick(|| 0, None).is_none());
        set.update(&[spec(1), spec(2)]);
        let first = set.pick(|| 0, None).expect("there are two");
        for random in [0, u32::MAX / 3, u32::MAX] {
            let second = set.pick(|| random, None).expect("there are two");
            assert_ne!(second.endpoint().address, first.endpoint().address);
        }
        let failed = set.all()[1].address.clone();
        let third = set.pick(|| 0, Some(&failed)).expect("there are two");
        assert_eq!(third.endpoint().address, first.endpoint().address);
    }
}
