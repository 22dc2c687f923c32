//! Collectors: batches of log records and spans, and the task that sends them over OTLP.

use super::Counters;
use super::connection::{Connection, SendError};
use super::messages::{
    ExportLogs, ExportTraces, KeyValue, LogRecord, Resource, ResourceLogs, ResourceSpans, Scope, ScopeLogs,
    ScopeSpans, Span,
};
use bytes::Bytes;
use http::Uri;
use prost::Message;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

/// So many records make a batch.
const BATCH: usize = 512;
/// Or what came within this time.
const EVERY: Duration = Duration::from_secs(1);
/// Batches that wait for a collector; more are dropped.
const WAITING: usize = 16;
/// A collector that does not answer in time has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the last batch.
const LAST: Duration = Duration::from_secs(2);

/// A collector that speaks OTLP.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Collector {
    /// `http://collector:4317`; over HTTP `/v1/logs` or `/v1/traces` is appended.
    pub endpoint: Endpoint,
    pub protocol: Protocol,
    /// Sent with every batch; tokens, for the most part, so they are not printed.
    pub headers: BTreeMap<String, String>,
    /// What the records are said to be of: `service.name` and others.
    pub resource: BTreeMap<String, String>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, protocol, headers: _, resource } = self;
        let mut shown = f.debug_struct("Collector");
        shown.field("endpoint", endpoint).field("protocol", protocol).field("resource", resource);
        shown.field("headers", &"[redacted]").finish()
    }
}

/// How OTLP travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Grpc,
    Http,
}

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub secure: bool,
    pub host: String,
    pub port: u16,
    /// Without a slash at its end.
    pub path: String,
}

impl Endpoint {
    /// Reads `http://host:port/path` or `https://…`.
    ///
    /// # Errors
    /// What is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("`{text}` is no URL: {error}"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("`{text}` begins with neither http:// nor https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("`{text}` names no host"))?;
        Ok(Self {
            secure,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// Something to send.
struct Batch {
    kind: Kind,
    records: u64,
    message: Bytes,
}

/// What a batch is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Logs,
    Traces,
}

/// The thread's side of a collector.
pub(super) struct Exporter {
    collector: Collector,
    logs: Vec<LogRecord>,
    spans: Vec<Span>,
    /// When the first of them came.
    since: Option<Instant>,
    batches: mpsc::Sender<Batch>,
    counters: Counters,
    /// Closed when the task has ended.
    ended: std_mpsc::Receiver<()>,
}

impl Exporter {
    /// Starts the task that sends.
    pub fn start(collector: Collector, runtime: &Handle, counters: Counters) -> Self {
        let (batches, waiting) = mpsc::channel(WAITING);
        let (end, ended) = std_mpsc::channel();
        let (to, counted) = (collector.clone(), counters.clone());
        runtime.spawn(async move {
            send_all(to, waiting, counted).await;
            drop(end);
        });
        Self { collector, logs: Vec::new(), spans: Vec::new(), since: None, batches, counters, ended }
    }

    /// Takes a log record.
    pub fn log(&mut self, record: LogRecord) {
        self.logs.push(record);
        self.took();
    }

    /// Takes a span.
    pub fn span(&mut self, span: Span) {
        self.spans.push(span);
        self.took();
    }

    fn took(&mut self) {
        self.since.get_or_insert_with(Instant::now);
        self.flush(false);
    }

    /// Whether something waits for its time.
    pub fn has_more(&self) -> bool {
        self.since.is_some()
    }

    /// Hands over what is due, or all of it.
    pub fn flush(&mut self, now: bool) {
        let due = now || self.since.is_some_and(|since| since.elapsed() >= EVERY);
        if !self.logs.is_empty() && (due || self.logs.len() >= BATCH) {
            let logs = std::mem::take(&mut self.logs);
            let records = logs.len() as u64;
            let message = self.logs_message(logs).encode_to_vec().into();
            self.hand_over(Batch { kind: Kind::Logs, records, message });
        }
        if !self.spans.is_empty() && (due || self.spans.len() >= BATCH) {
            let spans = std::mem::take(&mut self.spans);
            let records = spans.len() as u64;
            let message = self.traces_message(spans).encode_to_vec().into();
            self.hand_over(Batch { kind: Kind::Traces, records, message });
        }
        if self.logs.is_empty() && self.spans.is_empty() {
            self.since = None;
        }
    }

    fn hand_over(&self, batch: Batch) {
        if let Err(mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch)) =
            self.batches.try_send(batch)
        {
            batch.dropped(&self.counters);
        }
    }

    fn resource(&self) -> Resource {
        let attributes = self.collector.resource.iter().map(|(key, value)| KeyValue::text(key, value));
        Resource { attributes: attributes.collect() }
    }

    fn logs_message(&self, log_records: Vec<LogRecord>) -> ExportLogs {
        let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records }];
        ExportLogs { resource_logs: vec![ResourceLogs { resource: Some(self.resource()), scope_logs }] }
    }

    fn traces_message(&self, spans: Vec<Span>) -> ExportTraces {
        let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans }];
        ExportTraces { resource_spans: vec![ResourceSpans { resource: Some(self.resource()), scope_spans }] }
    }

    /// Sends what is left, and waits a moment until it is sent.
    pub fn finish(mut self) {
        self.flush(true);
        let Self { batches, ended, .. } = self;
        drop(batches);
        let _ = ended.recv_timeout(LAST);
    }
}

fn scope() -> Scope {
    Scope { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

impl Batch {
    fn dropped(&self, counters: &Counters) {
        match self.kind {
            Kind::Logs => counters.lines_dropped.inc_by(self.records),
            Kind::Traces => counters.spans_dropped.inc_by(self.records),
        }
    }

    fn sent(&self, counters: &Counters) {
        match self.kind {
            Kind::Logs => counters.lines_written.inc_by(self.records),
            Kind::Traces => counters.spans_exported.inc_by(self.records),
        }
    }
}

/// Sends batches until nobody has more. A batch that fails is tried once more over a new connection, and then dropped:
/// a collector that is away must not fill the memory.
async fn send_all(collector: Collector, mut batches: mpsc::Receiver<Batch>, counters: Counters) {
    let mut connection = None;
    let mut failing = false;
    while let Some(batch) = batches.recv().await {
        let mut sent = send(&collector, &mut connection, &batch).await;
        if sent.is_err() {
            connection = None;
            sent = send(&collector, &mut connection, &batch).await;
        }
        match sent {
            Ok(()) => {
                batch.sent(&counters);
                if std::mem::replace(&mut failing, false) {
                    info!("the collector {} takes records again", collector.endpoint);
                }
            }
            Err(error) => {
                batch.dropped(&counters);
                connection = None;
                if !std::mem::replace(&mut failing, true) {
                    warn!("the collector {} takes no records, which are lost: {error}", collector.endpoint);
                }
            }
        }
    }
}

async fn send(
    collector: &Collector,
    connection: &mut Option<Connection>,
    batch: &Batch,
) -> Result<(), SendError> {
    let sending = async {
        let open = match connection.take() {
            Some(open) => open,
            None => Connection::open(collector).await?,
        };
        let open = connection.insert(open);
        open.send(collector, batch.kind, batch.message.clone()).await
    };
    timeout(PATIENCE, sending).await.map_err(|_| SendError::TimedOut)?
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secure, host, port, path } = self;
        let scheme = if *secure { "https" } else { "http" };
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{host}{close}:{port}{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_and_shown() {
        for (text, want) in [
            ("http://collector.monitoring:4317", "http://collector.monitoring:4317"),
            ("https://otlp.example.test/base/", "https://otlp.example.test:443/base"),
            ("http://[::1]:4318", "http://[::1]:4318"),
        ] {
            assert_eq!(Endpoint::parse(text).expect(text).to_string(), want);
        }
        for text in ["collector:4317", "ftp://a", "http://", "a b"] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn headers_of_a_collector_are_not_printed() {
        let collector = Collector {
            endpoint: Endpoint::parse("http://a:1").expect("valid"),
            protocol: Protocol::Grpc,
            headers: BTreeMap::from([("authorization".into(), "Bearer secret".into())]),
            resource: BTreeMap::new(),
        };
        assert!(!format!("{collector:?}").contains("secret"));
    }
}
