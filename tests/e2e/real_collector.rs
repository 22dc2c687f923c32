//! OpenTelemetry's own collector takes log records and spans, over both protocols, and prints them.

use super::HOST;
use crate::harness::bound::Bound;
use crate::harness::client::{Ask, Client};
use crate::harness::envoy::free_address;
use crate::harness::eventually;
use crate::harness::manifest::{route, service};
use crate::harness::trigate::Builder;
use crate::harness::upstream::{Seen, Upstream};
use serde_json::json;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A running collector; it ends when this is dropped.
struct Collector {
    _child: Bound,
    folder: TempDir,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Collector {
    /// `None` where it cannot be built.
    async fn start() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/otelcol/build");
        let built = Command::new(script).output().expect("bash is there");
        if !built.status.success() {
            eprintln!("skipped: {}", String::from_utf8_lossy(&built.stderr));
            return None;
        }
        let (grpc, http) = (free_address(), free_address());
        let folder = tempfile::tempdir().expect("a folder for the test");
        let pipeline = json!({ "receivers": ["otlp"], "exporters": ["debug"] });
        let config = json!({
            "receivers": { "otlp": { "protocols": { "grpc": { "endpoint": grpc }, "http": { "endpoint": http } } } },
            "exporters": { "debug": { "verbosity": "detailed", "use_internal_logger": false } },
            "service": {
                "telemetry": { "metrics": { "level": "none" } },
                "pipelines": { "logs": pipeline, "traces": pipeline },
            },
        });
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, config.to_string()).expect("the folder is ours");
        let output = File::create(folder.path().join("told")).expect("the folder is ours");
        let log = File::create(folder.path().join("log")).expect("the folder is ours");
        let child = Command::new(String::from_utf8_lossy(&built.stdout).trim())
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .spawn()
            .expect("it was built");
        let collector = Self { _child: Bound(child), folder, grpc, http };
        for address in [grpc, http] {
            eventually("the collector listens", || async move {
                tokio::net::TcpStream::connect(address).await.ok()
            })
            .await;
        }
        Some(collector)
    }

    /// What it printed, once all of these are in it.
    async fn told(&self, all: &[&str]) -> String {
        let file = self.folder.path().join("told");
        let whole = || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            async move { all.iter().all(|one| text.contains(one)).then_some(text) }
        };
        eventually(&format!("the collector prints {all:?}"), whole).await.0
    }
}

#[tokio::test]
async fn opentelemetrys_collector_takes_log_records_and_spans() {
    let Some(collector) = Collector::start().await else { return };
    let upstream = Upstream::echo("app").await;
    for (protocol, address) in [("grpc", collector.grpc), ("http", collector.http)] {
        let mut builder = Builder::new().set("access_log.enabled", true).set("access_log.path", "");
        for table in ["access_log", "tracing"] {
            builder = builder
                .set(&format!("{table}.otlp.endpoint"), format!("http://{address}"))
                .set(&format!("{table}.otlp.protocol"), protocol)
                .set(&format!("{table}.otlp.resource.over"), protocol);
        }
        let route = route("app").on("external").host(HOST).to("app");
        let trigate =
            builder.with_all(service("app", &[upstream.address])).with(route.object()).start().await;
        let ask = Ask::get(HOST, &format!("/{protocol}?a=b")).header("user-agent", "probe");
        let seen: Seen = Client::http1(trigate.external.http).await.send(ask).await.seen();
        let parent = seen.header("traceparent").expect("the backend is told of the trace").to_owned();
        let [_, trace, span, _] = parent.split('-').collect::<Vec<_>>()[..] else { panic!("{parent}") };
        collector
            .told(&[
                &format!("-> over: Str({protocol})"),
                &format!("-> x-envoy-origin-path: Str(/{protocol}?a=b)"),
                "-> response_code: Int(200)",
                &format!("Trace ID: {trace}"),
                &format!("Trace ID       : {trace}"),
                &format!("ID             : {span}"),
                &format!("-> http.url: Str(http://{HOST}/{protocol}?a=b)"),
                "Kind           : Server",
                "Kind           : Client",
                "Name           : router httproute/apps/app/rule/0 egress",
            ])
            .await;
        assert_eq!(trigate.metric("trigate_access_log_dropped_total", &[]).await, 0.0, "{protocol}");
        assert_eq!(trigate.metric("trigate_spans_dropped_total", &[]).await, 0.0, "{protocol}");
    }
}
