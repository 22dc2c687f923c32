//! Access logs and traces: what workers know of an exchange that is over goes to one thread, which writes it down.
//!
//! ```text
//! worker ─ tell ─▶ lane (bounded, one for each worker) ─┐
//! worker ─ tell ─▶ lane ────────────────────────────────┴▶ thread ─ format ─▶ stdout, files
//!                                                             └─ encode ─▶ exporter tasks ─ OTLP ─▶ collector
//! ```
//!
//! A worker never waits: where a lane is full, or a collector too slow, what comes is dropped and counted. Nothing is
//! formatted on a worker, and nothing runs where no gateway has a log or a tracer.

mod connection;
mod envoy;
mod exporter;
mod messages;
mod propagation;
mod sinks;
mod spans;
mod writer;

pub use envoy::{Read, logs_of_envoy, tracing_of_envoy};
pub use exporter::{Collector, Endpoint, Protocol};
pub use propagation::Heading;
pub use sinks::SinkSpec;
pub use spans::{Names as SpanNames, Tag, Tracing};

use crate::access_log::{Filter, Format, Record};
use crate::stats::Sharded;
use http::HeaderName;
use prometheus::IntCounter;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};
use writer::Writer;

/// All of a share.
pub const WHOLE: u32 = 1_000_000;

/// One access log: of which exchanges it tells, how and where.
#[derive(Debug, Clone)]
pub struct AccessLog {
    pub format: Format,
    pub filter: Filter,
    /// Of a million exchanges, so many.
    pub share: u32,
    pub sinks: Vec<SinkSpec>,
}

/// What somebody wants to know of the exchanges of a gateway.
#[derive(Debug)]
pub struct Observing {
    pub logs: Vec<AccessLog>,
    pub tracing: Option<Tracing>,
    /// The fields that a record has to keep.
    pub request: Vec<HeaderName>,
    pub response: Vec<HeaderName>,
    pub trailers: Vec<HeaderName>,
    /// The largest share of all logs.
    share: u32,
    observer: Observer,
}

/// What is observed, by gateway.
#[derive(Debug, Clone, Default)]
pub struct Observers {
    /// By the numbers of gateways.
    pub gateways: Vec<Option<Arc<Observing>>>,
    /// Gateways that have no number among them.
    pub others: Option<Arc<Observing>>,
}

impl Observers {
    /// What is to be known of a gateway's exchanges.
    pub fn of(&self, gateway: u16) -> Option<&Arc<Observing>> {
        self.gateways.get(usize::from(gateway)).unwrap_or(&self.others).as_ref()
    }
}

/// The way to the thread that writes.
#[derive(Debug, Clone)]
pub struct Observer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lanes: Sharded<SyncSender<Told>>,
    /// Whether the thread sleeps until it is woken.
    asleep: AtomicBool,
    reopen: AtomicBool,
    stopping: AtomicBool,
    thread: Thread,
    counters: Counters,
}

/// What became of lines and spans, as metrics.
#[derive(Debug, Clone)]
pub struct Counters {
    pub lines_written: IntCounter,
    pub lines_dropped: IntCounter,
    pub spans_exported: IntCounter,
    pub spans_dropped: IntCounter,
}

/// A record on its way.
#[derive(Debug)]
struct Told {
    record: Box<Record>,
    observing: Arc<Observing>,
}

/// The thread that writes, to be ended in order.
#[derive(Debug)]
pub struct Observation {
    observer: Observer,
    thread: JoinHandle<()>,
}

impl Observing {
    /// What these logs and this tracer want to know, told to this observer. `None` when there is neither.
    pub fn new(logs: Vec<AccessLog>, tracing: Option<Tracing>, observer: &Observer) -> Option<Arc<Self>> {
        if logs.is_empty() && tracing.is_none() {
            return None;
        }
        let mut wanted = [Vec::new(), Vec::new(), Vec::new()];
        for log in &logs {
            for read in [log.format.reads(), log.filter.reads()] {
                wanted.iter_mut().zip(read).for_each(|(all, more)| all.extend(more));
            }
        }
        if let Some(tracing) = &tracing {
            wanted.iter_mut().zip(tracing.reads()).for_each(|(all, more)| all.extend(more));
        }
        let [request, response, trailers] = wanted.map(|mut names| {
            names.sort_by(|a: &HeaderName, b| a.as_str().cmp(b.as_str()));
            names.dedup();
            names
        });
        let share = logs.iter().map(|log| log.share).max().unwrap_or(0);
        Some(Arc::new(Self { logs, tracing, request, response, trailers, share, observer: observer.clone() }))
    }

    /// Whether an exchange for which this number below [`WHOLE`] was drawn may be told of.
    pub fn wants(&self, drawn: u32) -> bool {
        self.tracing.is_some() || drawn < self.share
    }

    /// Tells of an exchange that is over. Never waits.
    pub fn tell(self: &Arc<Self>, record: Box<Record>) {
        let Observer(shared) = &self.observer;
        if shared.lanes.mine().try_send(Told { record, observing: Arc::clone(self) }).is_err() {
            if !self.logs.is_empty() {
                shared.counters.lines_dropped.inc();
            }
            if self.tracing.is_some() {
                shared.counters.spans_dropped.inc();
            }
            return;
        }
        if shared.asleep.load(Ordering::SeqCst) && shared.asleep.swap(false, Ordering::SeqCst) {
            shared.thread.unpark();
        }
    }
}

impl Counters {
    /// All at zero.
    pub fn new() -> Self {
        let counter = |name, help| IntCounter::new(name, help).expect("the names below are valid");
        Self {
            lines_written: counter(
                "trigate_access_log_written_total",
                "Lines of access logs that were written.",
            ),
            lines_dropped: counter(
                "trigate_access_log_dropped_total",
                "Lines of access logs that were lost: a queue was full, or a sink failed.",
            ),
            spans_exported: counter("trigate_spans_exported_total", "Spans that a collector took."),
            spans_dropped: counter(
                "trigate_spans_dropped_total",
                "Spans that were lost: a queue was full, or the collector failed.",
            ),
        }
    }

    /// All of them, to be shown.
    pub fn all(&self) -> [IntCounter; 4] {
        let Self { lines_written, lines_dropped, spans_exported, spans_dropped } = self.clone();
        [lines_written, lines_dropped, spans_exported, spans_dropped]
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl Observation {
    /// Starts the thread, with room for so many records of each worker. Must be called within the runtime that is to
    /// talk to collectors.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(room: usize, counters: Counters) -> io::Result<Self> {
        let mut receivers: Vec<Receiver<Told>> = Vec::new();
        let lanes = Sharded::made(|| {
            let (sender, receiver) = sync_channel(room.max(1));
            receivers.push(receiver);
            sender
        });
        let runtime = tokio::runtime::Handle::current();
        let (give, take) = std::sync::mpsc::channel::<Arc<Shared>>();
        let counted = counters.clone();
        let thread = std::thread::Builder::new().name("observer".to_owned()).spawn(move || {
            // Nobody is left to observe for when the sender is gone.
            if let Ok(shared) = take.recv() {
                Writer::new(receivers, shared, runtime, counted).run();
            }
        })?;
        let shared = Arc::new(Shared {
            lanes,
            asleep: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            thread: thread.thread().clone(),
            counters,
        });
        // It waits for just this.
        let _ = give.send(Arc::clone(&shared));
        Ok(Self { observer: Observer(shared), thread })
    }

    /// The way to it.
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Writes what was told so far, and ends. Waits no longer than this: a pipe that nobody reads may hold it up.
    pub fn stop(self, patience: Duration) {
        let Self { observer: Observer(shared), thread } = self;
        shared.stopping.store(true, Ordering::SeqCst);
        let end = Instant::now() + patience;
        while !thread.is_finished() && Instant::now() < end {
            shared.thread.unpark();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Observer {
    /// Opens log files again, because they were moved away (SIGHUP).
    pub fn reopen(&self) {
        self.0.reopen.store(true, Ordering::SeqCst);
        self.0.thread.unpark();
    }
}
