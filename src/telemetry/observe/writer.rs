//! The thread that writes: takes records from the lanes, and gives each to the sinks that want it.

use super::sinks::Sinks;
use super::spans;
use super::{Counters, Shared, Told};
use crate::access_log::Record;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread::park_timeout;
use std::time::Duration;
use tokio::runtime::Handle;

/// What comes within this time is written together.
const GATHERING: Duration = Duration::from_millis(20);
/// How long it sleeps when nothing comes; it is woken earlier when something does.
const SLEEP: Duration = Duration::from_secs(1);
/// So many records of one lane, and the others have their turn.
const TURN: usize = 1024;

pub(super) struct Writer {
    lanes: Vec<Receiver<Told>>,
    shared: Arc<Shared>,
    sinks: Sinks,
}

impl Writer {
    pub fn new(lanes: Vec<Receiver<Told>>, shared: Arc<Shared>, runtime: Handle, counters: Counters) -> Self {
        Self { lanes, shared, sinks: Sinks::new(runtime, counters) }
    }

    /// Writes until it is told to stop and nothing is left.
    pub fn run(mut self) {
        loop {
            let stopping = self.shared.stopping.load(Ordering::SeqCst);
            if self.shared.reopen.swap(false, Ordering::SeqCst) {
                self.sinks.reopen();
            }
            let some = self.turn();
            self.sinks.flush(stopping);
            match (some, stopping) {
                (false, true) => return self.sinks.finish(),
                (true, true) => {}
                (true, false) => park_timeout(GATHERING),
                (false, false) => self.sleep(),
            }
        }
    }

    /// Sleeps, unless something came after it was looked for.
    fn sleep(&mut self) {
        self.shared.asleep.store(true, Ordering::SeqCst);
        if self.turn() {
            self.sinks.flush(false);
        } else {
            park_timeout(if self.sinks.have_more() { GATHERING } else { SLEEP });
        }
        self.shared.asleep.store(false, Ordering::SeqCst);
    }

    /// Takes what is there. Returns whether anything was.
    fn turn(&mut self) -> bool {
        let mut some = false;
        for lane in &self.lanes {
            for Told { record, observing } in lane.try_iter().take(TURN) {
                some = true;
                for log in &observing.logs {
                    if record.drawn < log.share && log.filter.takes(&record) {
                        self.sinks.log(log, &record);
                    }
                }
                if let Some(tracing) = &observing.tracing
                    && is_sampled(&record)
                {
                    self.sinks.spans(&tracing.collector, spans::spans(tracing, &record));
                }
            }
        }
        some
    }
}

fn is_sampled(record: &Record) -> bool {
    record.trace.is_some_and(|trace| trace.sampled)
}
