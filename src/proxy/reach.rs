//! A connection to one of a backend's endpoints; another endpoint is tried when one cannot be reached.

use crate::reply::Reply;
use crate::upstream::{Active, Address, Backend, Cluster, ConnectError, Pool, Upstream};
use std::rc::Rc;

/// So many endpoints are tried before the client is told.
const MOST_TRIES: usize = 3;

/// Which endpoint it should be.
#[derive(Debug, Default)]
pub struct Choice {
    /// This one, if it can be reached.
    pub kept: Option<Active>,
    /// Not this one while there is another: it failed.
    pub failed: Option<Address>,
    /// Not over a connection that served before: it may be stale.
    pub fresh: bool,
    /// Why the last connection could not be opened.
    pub failure: Option<Box<str>>,
}

/// An exchange that can begin.
pub struct Reached {
    pub up: Upstream,
    pub active: Active,
    pub tls: bool,
}

/// Connects.
///
/// # Errors
/// What is to be answered when no endpoint can be reached.
pub async fn reach(
    pool: &Rc<Pool>,
    cluster: &Cluster,
    backend: &Backend,
    choice: &mut Choice,
) -> Result<Reached, Reply> {
    let mut reply = Reply::NoEndpoint;
    for _ in 0..backend.endpoints.len().clamp(1, MOST_TRIES) {
        let kept = choice.kept.take();
        let picked = kept.or_else(|| backend.endpoints.pick(|| fastrand::u32(..), choice.failed.as_ref()));
        let active = picked.ok_or_else(|| {
            cluster.stats().mine().no_endpoint.inc();
            Reply::NoEndpoint
        })?;
        match pool.get(cluster, backend, active.endpoint(), choice.fresh).await {
            Ok(up) => return Ok(Reached { up, active, tls: backend.channel.is_tls() }),
            Err(error) => {
                cluster.stats().connect_failed();
                tracing::debug!("{}: {:?}: {error}", cluster.name(), active.endpoint().address);
                reply = match error {
                    ConnectError::Timeout(_) => {
                        cluster.stats().connect_timed_out();
                        Reply::ConnectTimeout
                    }
                    ConnectError::Tls(_) => Reply::UpstreamUntrusted,
                    ConnectError::Io(_) | ConnectError::Http2(_) => Reply::ConnectFailed,
                };
                choice.failed = Some(active.endpoint().address.clone());
                choice.failure = Some(failure(&error));
            }
        }
    }
    Err(reply)
}

/// Why a connection could not be opened, in Envoy's words where it has some, and with its underscores.
fn failure(error: &ConnectError) -> Box<str> {
    let text = match error {
        ConnectError::Io(error) => {
            let text = error.to_string();
            format!("delayed connect error: {}", text.split(" (os error").next().unwrap_or_default())
        }
        ConnectError::Timeout(_) => "connection timeout".to_owned(),
        ConnectError::Tls(text) => format!("TLS error: {text}"),
        ConnectError::Http2(error) => format!("HTTP/2 error: {error}"),
    };
    text.replace(char::is_whitespace, "_").into()
}
