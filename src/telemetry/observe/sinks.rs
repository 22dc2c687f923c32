//! Where lines go: standard output, files that can be opened again, collectors. All belong to the thread that writes.

use super::exporter::{Collector, Exporter};
use super::messages::{LogRecord, Span};
use super::{AccessLog, Counters};
use crate::access_log::Record;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tracing::error;

/// What is gathered before it is written, whatever else comes.
const BUFFER: usize = 64 * 1024;
/// A file that could not be opened or written is tried again after so long.
const PAUSE: Duration = Duration::from_secs(5);

/// Where an access log is written to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SinkSpec {
    Stdout,
    Stderr,
    File(PathBuf),
    Collector(Collector),
}

impl SinkSpec {
    /// The sink with this path: `/dev/stdout`, `/dev/stderr` or a file.
    pub fn at(path: &Path) -> Self {
        match path.to_str() {
            Some("/dev/stdout" | "/proc/self/fd/1") => Self::Stdout,
            Some("/dev/stderr" | "/proc/self/fd/2") => Self::Stderr,
            _ => Self::File(path.to_owned()),
        }
    }
}

/// All sinks that were used so far.
pub(super) struct Sinks {
    streams: BTreeMap<SinkSpec, Stream>,
    exporters: BTreeMap<Collector, Exporter>,
    runtime: Handle,
    counters: Counters,
}

/// A file or a standard stream.
struct Stream {
    /// `None` while it cannot be opened.
    to: Option<Box<dyn Write>>,
    buffer: Vec<u8>,
    lines: u64,
    /// When it is tried again.
    rest: Option<Instant>,
}

impl Sinks {
    pub fn new(runtime: Handle, counters: Counters) -> Self {
        Self { streams: BTreeMap::new(), exporters: BTreeMap::new(), runtime, counters }
    }

    /// Writes the record to the log's sinks, or into their buffers.
    pub fn log(&mut self, log: &AccessLog, record: &Record) {
        for sink in &log.sinks {
            if let SinkSpec::Collector(collector) = sink {
                let record = LogRecord::new(&log.format, record);
                self.exporter(collector).log(record);
                continue;
            }
            let stream = self.streams.entry(sink.clone()).or_insert_with(|| Stream::open(sink));
            log.format.line(record, &mut stream.buffer);
            stream.lines += 1;
            if stream.buffer.len() >= BUFFER {
                stream.flush(sink, &self.counters);
            }
        }
    }

    /// Gives spans to a collector.
    pub fn spans(&mut self, collector: &Collector, spans: Vec<Span>) {
        let exporter = self.exporter(collector);
        spans.into_iter().for_each(|span| exporter.span(span));
    }

    fn exporter(&mut self, collector: &Collector) -> &mut Exporter {
        if !self.exporters.contains_key(collector) {
            let exporter = Exporter::start(collector.clone(), &self.runtime, self.counters.clone());
            self.exporters.insert(collector.clone(), exporter);
        }
        self.exporters.get_mut(collector).expect("it was inserted if it was not there")
    }

    /// Writes what is gathered. Collectors get theirs when a batch is full or its time has come, or `now`.
    pub fn flush(&mut self, now: bool) {
        for (sink, stream) in &mut self.streams {
            stream.flush(sink, &self.counters);
        }
        self.exporters.values_mut().for_each(|exporter| exporter.flush(now));
    }

    /// Whether a batch waits for its time.
    pub fn have_more(&self) -> bool {
        self.exporters.values().any(Exporter::has_more)
    }

    /// Opens files again: they were moved away.
    pub fn reopen(&mut self) {
        self.flush(false);
        self.streams.retain(|sink, _| !matches!(sink, SinkSpec::File(_)));
    }

    /// Sends what is left, and waits a moment for collectors to take it.
    pub fn finish(self) {
        self.exporters.into_values().for_each(Exporter::finish);
    }
}

impl Stream {
    fn open(sink: &SinkSpec) -> Self {
        let (to, rest): (Option<Box<dyn Write>>, _) = match sink {
            SinkSpec::Stdout => (Some(Box::new(io::stdout())), None),
            SinkSpec::Stderr => (Some(Box::new(io::stderr())), None),
            SinkSpec::File(path) => match append(path) {
                Ok(file) => (Some(Box::new(file)), None),
                Err(fault) => {
                    error!("cannot open the access log {}: {fault}; lines are lost", path.display());
                    (None, Some(Instant::now() + PAUSE))
                }
            },
            SinkSpec::Collector(_) => (None, None),
        };
        Self { to, buffer: Vec::new(), lines: 0, rest }
    }

    fn flush(&mut self, sink: &SinkSpec, counters: &Counters) {
        if self.buffer.is_empty() {
            return;
        }
        if self.rest.is_some_and(|rest| Instant::now() >= rest) {
            let again = Self::open(sink);
            (self.to, self.rest) = (again.to, again.rest);
        }
        let lines = std::mem::take(&mut self.lines);
        let written = match &mut self.to {
            Some(to) => to.write_all(&self.buffer).and_then(|()| to.flush()),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match written {
            Ok(()) => counters.lines_written.inc_by(lines),
            Err(fault) => {
                counters.lines_dropped.inc_by(lines);
                if self.to.take().is_some() {
                    error!("cannot write the access log {sink:?}: {fault}; lines are lost");
                    self.rest = Some(Instant::now() + PAUSE);
                }
            }
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER);
    }
}

fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}
