//! Real Envoy as a child process, for tests that compare it with trigate.

use super::PATIENCE;
use super::bound::Bound;
use serde_json::Value;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running Envoy, in a folder of its own; it ends when this is dropped.
pub struct Envoy {
    child: Bound,
    folder: TempDir,
}

impl Envoy {
    /// Starts one with the bootstrap that is made for its folder, and waits until it listens on all of these
    /// addresses; `None` when no `envoy` is installed.
    pub async fn start(bootstrap: impl FnOnce(&Path) -> Value, listens: &[SocketAddr]) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("envoy-").tempdir().expect("a temporary folder");
        let config = folder.path().join("envoy.json");
        std::fs::write(&config, bootstrap(folder.path()).to_string()).expect("the folder is ours");
        let log = File::create(folder.path().join("log")).expect("the folder is ours");
        let child = Command::new("envoy")
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
            .args(["--file-flush-interval-msec", "20", "--config-path"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file of ours"))
            .stderr(log)
            .spawn()
            .ok()?;
        let mut envoy = Self { child: Bound(child), folder };
        for address in listens {
            envoy.listens(*address).await;
        }
        Some(envoy)
    }

    async fn listens(&mut self, address: SocketAddr) {
        let start = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            let ended = self.child.try_wait().expect("a child can be asked");
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(ended.is_none(), "envoy ended at its start: {}", log());
            assert!(start.elapsed() < PATIENCE, "envoy does not listen: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// An address that nobody listens on.
pub fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a loopback address can be bound");
    free.local_addr().expect("it is bound")
}
