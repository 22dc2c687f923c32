//! What the tests over real sockets share: the gateway as a process, manifests, upstreams and clients.
//!
//! ```text
//! client ──▶ Trigate (the real binary, in a folder and on a loopback address of its own) ──▶ upstream
//!               ▲ manifests, proxy.toml                                        (in this process)
//! ```
//!
//! Every test starts all it needs and nothing is shared, so tests run side by side.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod bound;
pub mod certificate;
pub mod client;
pub mod envoy;
pub mod manifest;
pub mod openssl;
pub mod raw;
pub mod trigate;
pub mod upstream;

use std::future::Future;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Asks again until the answer is `Some`, and tells how long that took.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return (answer, start.elapsed());
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Fails instead of waiting for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} took longer than {PATIENCE:?}"))
}
