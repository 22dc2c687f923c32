//! Counting without contention: each worker thread has its own shard, a scrape adds the shards up.
//!
//! A leaf that `upstream`, `telemetry` and `listener` share. A counter is a relaxed atomic in a cache line that
//! only its own worker writes, so a request pays an uncontended add and no look-up.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static WORKERS: OnceLock<usize> = OnceLock::new();

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Says how many workers there will be, before the first [`Sharded`] is made. Shard 0 belongs to every thread
/// that is no worker.
pub fn set_workers(count: usize) {
    // A second call (tests start several gateways in one process) keeps the first count: shards are shared
    // by remainder then, which is slower and still right.
    let _ = WORKERS.set(count);
}

/// Makes the calling thread the worker with this index, counted from 0.
pub fn enter_worker(index: usize) {
    SHARD.set(1 + index % shards().saturating_sub(1).max(1));
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

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Takes one away; for a gauge whose rise and fall may happen in different shards (sums wrap to the truth).
    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
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

/// The upper bounds of Envoy's default histogram buckets, in milliseconds; one more bucket is unbounded.
pub const BUCKETS_MS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6,
    3.6e6,
];

/// Durations in Envoy's buckets; in one shard.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS_MS.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Counts one duration, given in microseconds.
    pub fn record_us(&self, us: u64) {
        let ms = us as f64 / 1e3;
        let bucket = BUCKETS_MS.iter().position(|&bound| ms <= bound).unwrap_or(BUCKETS_MS.len());
        self.buckets[bucket].inc();
        self.sum_us.add(us);
    }

    /// How many durations fell into each bucket (not cumulative).
    pub fn counts(&self) -> [u64; BUCKETS_MS.len() + 1] {
        std::array::from_fn(|i| self.buckets[i].get())
    }

    /// The sum of all durations in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }

    /// Back to zero.
    pub fn reset(&self) {
        self.buckets.iter().for_each(Counter::reset);
        self.sum_us.reset();
    }
}
