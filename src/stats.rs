//! Counting without contention: each worker thread has its own shard, a scrape adds the shards up.
//!
//! A leaf that `upstream`, `telemetry` and `listener` share. A counter is a relaxed atomic in a cache line that
//! only its own worker writes, so a request pays an ordinary addition and no look-up.

mod handshakes;

pub use handshakes::{Agreed, Handshakes, HandshakesTotal};

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

static WORKERS: OnceLock<usize> = OnceLock::new();

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(0) };
    /// Whether no other thread writes to this thread's shards.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Says how many workers there will be, before the first [`Sharded`] is made. Shard 0 belongs to every thread
/// that is no worker.
pub fn set_workers(count: usize) {
    // A second call (tests start several gateways in one process) keeps the first count: shards are shared
    // by remainder then, which is slower and still right.
    let _ = WORKERS.set(count);
}

/// Makes the calling thread one of so many workers, the one with this index, counted from 0.
pub fn enter_worker(index: usize, count: usize) {
    let shards = shards().saturating_sub(1).max(1);
    SHARD.set(1 + index % shards);
    ALONE.set(count <= shards);
}

fn shards() -> usize {
    1 + *WORKERS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// One `T` for each worker, each in cache lines of its own.
#[derive(Debug)]
pub struct Sharded<T>(Box<[Padded<T>]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self((0..shards()).map(|_| Padded::default()).collect())
    }
}

impl<T> Sharded<T> {
    /// Shards that are made one after the other.
    pub fn made(mut make: impl FnMut() -> T) -> Self {
        Self((0..shards()).map(|_| Padded(make())).collect())
    }

    /// The calling thread's shard.
    pub fn mine(&self) -> &T {
        &self.0[SHARD.get().min(self.0.len() - 1)].0
    }

    /// All shards, to add them up.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }

    /// The sum of one number over all shards.
    pub fn sum(&self, number: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(number).fold(0, u64::wrapping_add)
    }
}

/// A number that only grows; in one shard.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`. An atomic addition costs a worker more than most of what it counts, and it needs none: nobody else
    /// writes to its shard, but for a reset, which is lost if it comes between the two halves of this.
    pub fn add(&self, n: u64) {
        if ALONE.get() {
            self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
        } else {
            self.0.fetch_add(n, Relaxed);
        }
    }

    /// Takes one away; for a gauge whose rise and fall may happen in different shards (sums wrap to the truth).
    pub fn dec(&self) {
        self.add(1_u64.wrapping_neg());
    }

    /// This shard's number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Back to zero (`/reset_counters`).
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// Something that is counted in shards and added up over them.
pub trait Tally {
    /// What all shards come to.
    type Total: Default;
    /// Adds this shard's part.
    fn add_to(&self, total: &mut Self::Total);
    /// Back to zero (`/reset_counters`), but for gauges.
    fn reset(&self);
}

impl Tally for Counter {
    type Total = u64;

    fn add_to(&self, total: &mut u64) {
        *total = total.wrapping_add(self.get());
    }

    fn reset(&self) {
        Counter::reset(self);
    }
}

/// Counters that few need: made at their first use, and nothing but a pointer before.
#[derive(Debug)]
pub struct OnUse<T>(OnceLock<Box<T>>);

impl<T> Default for OnUse<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Default> OnUse<T> {
    /// The counters.
    pub fn get(&self) -> &T {
        self.0.get_or_init(Box::default)
    }
}

impl<T: Tally> Tally for OnUse<T> {
    type Total = T::Total;

    fn add_to(&self, total: &mut T::Total) {
        if let Some(counted) = self.0.get() {
            counted.add_to(total);
        }
    }

    fn reset(&self) {
        if let Some(counted) = self.0.get() {
            counted.reset();
        }
    }
}

impl<T: Tally> Sharded<T> {
    /// What all shards come to.
    pub fn total(&self) -> T::Total {
        let mut total = T::Total::default();
        self.add_to(&mut total);
        total
    }

    /// Adds what all shards come to.
    pub fn add_to(&self, total: &mut T::Total) {
        self.iter().for_each(|shard| shard.add_to(total));
    }

    /// Sets every shard's counters back to zero; gauges stay.
    pub fn reset(&self) {
        self.iter().for_each(T::reset);
    }
}

/// Declares a struct of what one shard counts, and the struct of what all shards come to, with the same fields.
/// What stands under `gauges` also falls, and keeps its number when counters are reset.
macro_rules! tally {
    (
        $(#[$meta:meta])*
        pub struct $shard:ident => $total:ident {
            $($(#[$doc:meta])* $field:ident: $kind:ty,)*
        }
        gauges {
            $($(#[$gauge_doc:meta])* $gauge:ident,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $shard {
            $($(#[$doc])* pub $field: $kind,)*
            $($(#[$gauge_doc])* pub $gauge: $crate::stats::Counter,)*
        }

        #[doc = concat!("All shards of a `", stringify!($shard), "`, added up.")]
        #[derive(Debug, Default, Clone)]
        pub struct $total {
            $($(#[$doc])* pub $field: <$kind as $crate::stats::Tally>::Total,)*
            $($(#[$gauge_doc])* pub $gauge: u64,)*
        }

        impl $crate::stats::Tally for $shard {
            type Total = $total;

            fn add_to(&self, total: &mut $total) {
                $($crate::stats::Tally::add_to(&self.$field, &mut total.$field);)*
                $($crate::stats::Tally::add_to(&self.$gauge, &mut total.$gauge);)*
            }

            fn reset(&self) {
                $($crate::stats::Tally::reset(&self.$field);)*
            }
        }
    };
}

pub(crate) use tally;

/// How many buckets a histogram has, the unbounded one included.
pub const BUCKETS: usize = 20;

/// The upper bounds of Envoy's default histogram buckets in microseconds (Envoy prints milliseconds, from 0.5 to
/// an hour); one more bucket is unbounded.
pub const BUCKETS_US: [u64; BUCKETS - 1] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// Durations in Envoy's buckets; in one shard.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl Histogram {
    /// Counts one duration, given in microseconds.
    pub fn record_us(&self, us: u64) {
        let bucket = BUCKETS_US.iter().position(|&bound| us <= bound).unwrap_or(BUCKETS - 1);
        self.buckets[bucket].inc();
        self.sum_us.add(us);
    }

    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        self.record_us(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }
}

/// How many responses had which status, in one shard. Codes that are registered with IANA, or that nginx and
/// Cloudflare send, have a place of their own; the rest of a class shares one, so that no upstream can make the
/// metrics grow.
#[derive(Debug)]
pub struct Statuses([Counter; PLACES]);

/// The status codes that have a place of their own.
const CODES: [u16; 88] = [
    100, 101, 102, 103, 104, 200, 201, 202, 203, 204, 205, 206, 207, 208, 218, 226, 300, 301, 302, 303, 304,
    305, 306, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416,
    417, 418, 420, 421, 422, 423, 424, 425, 426, 428, 429, 431, 444, 449, 451, 460, 463, 464, 494, 495, 496,
    497, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 509, 510, 511, 520, 521, 522, 523, 524, 525, 526,
    527, 529, 530, 599,
];
/// The rest of each class, from 1xx to 5xx, and then what is no status at all.
const CLASSES: usize = 5;
const NONE: usize = CODES.len() + CLASSES;
const PLACES: usize = NONE + 1;

/// The place of every code from 100 to 599.
const PLACE: [u8; 500] = {
    let mut places = [0; 500];
    let mut code = 0;
    while code < places.len() {
        places[code] = (CODES.len() + code / 100) as u8;
        code += 1;
    }
    let mut i = 0;
    while i < CODES.len() {
        places[CODES[i] as usize - 100] = i as u8;
        i += 1;
    }
    places
};

impl Default for Statuses {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Statuses {
    /// Counts a response, or that there was none.
    pub fn count(&self, status: Option<u16>) {
        let place = status.and_then(|code| PLACE.get(usize::from(code).checked_sub(100)?));
        self.0[place.map_or(NONE, |&place| usize::from(place))].inc();
    }
}

/// The statuses of all shards, added up.
#[derive(Debug, Clone)]
pub struct StatusesTotal([u64; PLACES]);

impl Default for StatusesTotal {
    fn default() -> Self {
        Self([0; PLACES])
    }
}

impl StatusesTotal {
    /// How many responses there were of each class, from 1xx to 5xx.
    pub fn classes(&self) -> [u64; CLASSES] {
        let mut classes: [u64; CLASSES] = std::array::from_fn(|class| self.0[CODES.len() + class]);
        for (code, count) in CODES.iter().zip(&self.0) {
            classes[usize::from(code / 100 - 1)] += count;
        }
        classes
    }

    /// Every code that was seen, with its number. Codes without a place of their own come as `4xx`.
    pub fn codes(&self) -> impl Iterator<Item = (Code, u64)> {
        let known = CODES.iter().map(|&code| Code::Known(code));
        let rest = (1..=CLASSES as u8).map(Code::Rest);
        known.chain(rest).zip(self.0).filter(|&(_, count)| count > 0)
    }

    /// All responses.
    pub fn answered(&self) -> u64 {
        self.0[..NONE].iter().sum()
    }

    /// How many exchanges ended without a response.
    pub fn unanswered(&self) -> u64 {
        self.0[NONE]
    }
}

/// What the responses of one number have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// This code.
    Known(u16),
    /// A rare code of this class, 1 to 5.
    Rest(u8),
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(code) => write!(f, "{code}"),
            Self::Rest(class) => write!(f, "{class}xx"),
        }
    }
}

impl Tally for Statuses {
    type Total = StatusesTotal;

    fn add_to(&self, total: &mut StatusesTotal) {
        self.0.iter().zip(&mut total.0).for_each(|(counter, total)| counter.add_to(total));
    }

    fn reset(&self) {
        self.0.iter().for_each(Counter::reset);
    }
}

/// A histogram's shards, added up.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HistogramTotal {
    /// How many durations fell into each bucket (not cumulative).
    pub buckets: [u64; BUCKETS],
    pub sum_us: u64,
}

impl HistogramTotal {
    /// How many durations there were. Taken from the buckets, so that the two never disagree in a page.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Tally for Histogram {
    type Total = HistogramTotal;

    fn add_to(&self, total: &mut HistogramTotal) {
        for (counter, total) in self.buckets.iter().zip(&mut total.buckets) {
            counter.add_to(total);
        }
        self.sum_us.add_to(&mut total.sum_us);
    }

    fn reset(&self) {
        self.buckets.iter().for_each(Counter::reset);
        self.sum_us.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        for (us, bucket) in [(0, 0), (500, 0), (501, 1), (1_000, 1), (3_600_000_000, 18), (u64::MAX, 19)] {
            let histogram = Histogram::default();
            histogram.record_us(us);
            let mut total = HistogramTotal::default();
            histogram.add_to(&mut total);
            let hit = total.buckets.iter().position(|&n| n == 1);
            assert_eq!((hit, total.count(), total.sum_us), (Some(bucket), 1, us), "{us} us");
        }
    }

    #[test]
    fn a_status_is_counted_under_its_code_and_its_class() {
        let statuses = Statuses::default();
        for status in [Some(200), Some(200), Some(404), Some(299), Some(418), None, Some(99), Some(600)] {
            statuses.count(status);
        }
        let mut total = StatusesTotal::default();
        statuses.add_to(&mut total);
        assert_eq!(total.classes(), [0, 3, 0, 2, 0]);
        assert_eq!((total.answered(), total.unanswered()), (5, 3));
        let codes: Vec<_> = total.codes().map(|(code, count)| (code.to_string(), count)).collect();
        let want = [("200", 2), ("404", 1), ("418", 1), ("2xx", 1)];
        assert_eq!(codes, want.map(|(code, count)| (code.to_owned(), count)));
    }

    #[test]
    fn no_code_makes_more_than_one_place() {
        let statuses = Statuses::default();
        (0..=u16::MAX).for_each(|code| statuses.count(Some(code)));
        let mut total = StatusesTotal::default();
        statuses.add_to(&mut total);
        assert_eq!(total.classes(), [100; CLASSES]);
        assert_eq!(total.codes().count(), PLACES - 1);
    }

    #[test]
    fn a_gauge_may_fall_in_another_shard_than_it_rose_in() {
        set_workers(2);
        let sharded = std::sync::Arc::new(Sharded::<Counter>::default());
        sharded.mine().inc();
        let other = std::sync::Arc::clone(&sharded);
        let worker = std::thread::spawn(move || {
            enter_worker(0, 2);
            other.mine().dec();
            other.mine().inc();
            other.mine().dec();
        });
        worker.join().expect("the worker ends");
        assert_eq!(sharded.total(), 0);
        sharded.reset();
        assert!(sharded.iter().all(|shard| shard.get() == 0));
    }
}
