//! A real Prometheus as a child process, which scrapes one target every second.

use crate::harness::bound::Bound;
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use serde_json::Value;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A running Prometheus; it ends when this is dropped.
pub struct Prometheus {
    _child: Bound,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes the target at this path, as the pod `pod` of the namespace `network`; `None` when no `prometheus` is
    /// installed.
    pub async fn scraping(target: SocketAddr, path: &str, pod: &str) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("prometheus-").tempdir().expect("a temporary folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a loopback address can be bound");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
             scrape_configs:\n\
             - job_name: proxy\n  \
               metrics_path: {path}\n  \
               static_configs: [{{ targets: ['{target}'], labels: {{ namespace: network, pod: {pod} }} }}]\n"
        );
        std::fs::write(&config, text).expect("the folder is ours");
        let log = File::create(folder.path().join("log")).expect("the folder is ours");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file of ours"))
            .stderr(log)
            .spawn()
            .ok()?;
        let prometheus = Self { _child: Bound(child), address, _folder: folder };
        let scraped = || async {
            let up = prometheus.try_query("up").await?;
            (up.len() == 1 && up[0].1 == 1.0).then_some(())
        };
        eventually("the first scrape", scraped).await;
        Some(prometheus)
    }

    /// The samples that a query gives at this moment, but for those that are no number: each with its labels.
    pub async fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        self.try_query(expression).await.expect("Prometheus answers")
    }

    /// Whether a query gives a number.
    pub async fn answers(&self, expression: &str) -> bool {
        !self.query(expression).await.is_empty()
    }

    async fn try_query(&self, expression: &str) -> Option<Vec<(Value, f64)>> {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", expression).finish();
        let mut client = Client::try_http1(self.address).await.ok()?;
        let answer = client.try_send(Ask::get("prometheus", &format!("/api/v1/query?{query}"))).await.ok()?;
        let json: Value = serde_json::from_str(&answer.text()).ok()?;
        assert_eq!(json["status"], "success", "{expression}: {json}");
        let result = &json["data"]["result"];
        let samples = match json["data"]["resultType"].as_str() {
            Some("vector") => result.as_array().cloned().unwrap_or_default(),
            _ => vec![serde_json::json!({ "metric": {}, "value": result })],
        };
        let number = |sample: Value| {
            let value: f64 = sample["value"][1].as_str()?.parse().ok()?;
            (!value.is_nan()).then(|| (sample["metric"].clone(), value))
        };
        Some(samples.into_iter().filter_map(number).collect())
    }
}
