//! What operators and their tools ask the process: metrics, readiness, and what it is doing.
//!
//! Three sockets, which differ in what they answer ([`Surface`]). They run on the control runtime, away from the
//! workers; pages are rendered on a blocking thread, one at a time. Everything is bounded: the size of a head, the
//! time for it, the number of connections, their age. Bodies of requests are not read.

mod accept;
mod answer;
mod commands;
mod config_dump;
mod config_routes;
mod guard;
mod orders;
mod query;
mod views;

pub use orders::{LogLevel, Operations, Order};

use crate::telemetry::{Registry, State};
use answer::Answer;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Connections of one socket at a time; more wait to be accepted.
const CONNECTIONS: usize = 128;
/// The bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// How long a connection may be without a request, and a head may take.
const HEAD_TIME: Duration = Duration::from_secs(90);
/// How long a connection is kept for another request, and then for the end of the last answer.
const AGE: Duration = Duration::from_secs(30 * 60);
const LAST_ANSWER: Duration = Duration::from_secs(60);

/// What a socket answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// Everything, to callers on this machine.
    Admin,
    /// `/stats/prometheus` and `/ready`.
    Stats,
    /// `/ready`.
    Ready,
}

/// What the sockets answer from.
pub struct Admin {
    registry: Arc<Registry>,
    operations: Operations,
    /// A page is rendered by one request at a time: ten scrapers cost the memory of one.
    rendering: Arc<Semaphore>,
}

impl Admin {
    /// Answers from this registry, and orders from this process.
    pub fn new(registry: Arc<Registry>, operations: Operations) -> Self {
        Self { registry, operations, rendering: Arc::new(Semaphore::new(1)) }
    }

    /// Whether the process wants new connections: 200 `LIVE`, or 503 and why not.
    fn ready(&self) -> Answer {
        let state = self.registry.server().state();
        let status = if state == State::Live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Answer::text(status, format!("{state}\n"))
    }

    /// Renders on a thread that may be busy for a while.
    async fn rendered(self: &Arc<Self>, render: impl FnOnce(&Self) -> Answer + Send + 'static) -> Answer {
        let turn = Arc::clone(&self.rendering).acquire_owned().await;
        let admin = Arc::clone(self);
        let render = move || {
            // The turn ends with the work, also when nobody waits for the page any more.
            let _turn = turn;
            render(&admin)
        };
        tokio::task::spawn_blocking(render).await.unwrap_or_else(|error| {
            warn!("a page could not be rendered: {error}");
            Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be rendered\n")
        })
    }
}

/// A request, as far as it matters.
struct Asked {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    /// The address of this process that was connected to.
    local: IpAddr,
}

/// Answers on this socket for as long as the process runs.
pub async fn serve(listener: TcpListener, surface: Surface, admin: Arc<Admin>) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Arc::clone(&admin);
                tokio::spawn(async move {
                    connection(stream, surface, admin).await;
                    drop(place);
                });
            }
            Err(error) => {
                debug!("{surface:?}: no connection can be accepted: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, surface: Surface, admin: Arc<Admin>) {
    let Ok(local) = stream.local_addr() else { return };
    let answer = service_fn(|request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move {
            let (parts, _) = request.into_parts();
            let asked = Asked {
                path: query::single_slash(parts.uri.path()),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                method: parts.method,
                headers: parts.headers,
                local: local.ip(),
            };
            Ok::<_, Infallible>(commands::answer(&admin, surface, asked).await.into_response())
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    // A client that went away, or sent what is no HTTP, is nobody's concern.
    if timeout(AGE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER, connection).await;
    }
}
