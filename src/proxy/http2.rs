//! An HTTP/2 connection of a client: many requests at once, each in a task of its own.

use super::downstream::Downstream;
use super::notes::Notes;
use super::{Connection, Worker, drained, exchange};
use crate::config::Limits;
use crate::moment;
use crate::reply::{Outcome, Reply};
use crate::telemetry::HttpStats;
use crate::wire::{Shared, Wire};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version, response};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// So many requests that are no HTTP, and the connection is closed: answering them is work for nothing.
const MOST_MALFORMED: usize = 32;
/// What one response may have buffered before the client takes it.
const SEND_BUFFER: usize = 256 * 1024;

type Server = h2::server::Connection<Shared, Bytes>;
type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves requests until one side ends the connection.
pub async fn serve(wire: Wire, connection: Connection, worker: Rc<Worker>) {
    let limits = connection.gateway.limits;
    let wire = Shared::from(wire);
    let hello = settings(&limits).handshake::<_, Bytes>(wire.clone());
    let Ok(Ok(server)) = timeout(limits.head_timeout, hello).await else { return };
    let stats = connection.stats.clone();
    let _speaking = stats.speaks_http2();
    let accepting = Accepting {
        server,
        wire,
        told: Some(Box::pin(drained(worker.announced.clone()))),
        idle: limits.idle_timeout.map(|idle| (idle, Box::pin(sleep(idle)))),
        active: Rc::new(Cell::new(0)),
        served: moment::now(),
        stats: stats.clone(),
    };
    accept_all(accepting, Rc::new(connection), worker).await;
}

fn settings(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.http2_streams)
        .initial_window_size(limits.http2_stream_window)
        .initial_connection_window_size(limits.http2_connection_window)
        .max_header_list_size(limits.head_bytes)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

struct Accepting {
    server: Server,
    wire: Shared,
    /// Ready when the connection is to be drained; `None` once it is.
    told: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// How long the connection may be without a request, and the wait for it.
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    active: Rc<Cell<usize>>,
    /// When the last request came.
    served: Instant,
    stats: Arc<HttpStats>,
}

/// A request that is going on, counted while it lasts.
struct Active(Rc<Cell<usize>>);

impl Active {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn accept_all(mut accepting: Accepting, connection: Rc<Connection>, worker: Rc<Worker>) {
    let mut malformed = 0;
    while let Some(accepted) = accepting.next().await {
        let (request, respond) = *accepted;
        let (received, sent) = accepting.wire.wire().take_traffic();
        connection.stats.traffic(received, sent);
        let (parts, body) = request.into_parts();
        if !is_well_formed(&parts, connection.gateway.limits.head_fields as usize) {
            let head = refuse(respond, &connection.stats);
            let revision = worker.live().load();
            Notes::refused(revision.as_deref(), &connection, (&head, 0), Outcome::MALFORMED_HTTP2);
            malformed += 1;
            if malformed >= MOST_MALFORMED {
                accepting.server.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
            continue;
        }
        connection.stats.mine().http2_requests.inc();
        let active = Active::new(&accepting.active);
        let (connection, worker) = (Rc::clone(&connection), Rc::clone(&worker));
        tokio::task::spawn_local(async move {
            let mut down = Downstream::http2(body, respond);
            // On the heap, for the runtime moves a task when it begins and when it ends.
            Box::pin(exchange::serve(&worker, &connection, parts, &mut down)).await;
            drop(active);
        });
    }
    let (received, sent) = accepting.wire.wire().take_traffic();
    connection.stats.traffic(received, sent);
}

impl Accepting {
    /// The next request; `None` when the connection is over. Drives the connection meanwhile.
    async fn next(&mut self) -> Option<Box<Accepted>> {
        loop {
            match poll_fn(|cx| self.poll_next(cx)).await {
                Next::Request(request) => {
                    self.served = moment::now();
                    return request;
                }
                Next::Drain(why) => {
                    match (self.told.take(), why) {
                        (None, _) => {}
                        (Some(_), Drained::Told) => self.stats.drained(),
                        (Some(_), Drained::Idle) => {
                            self.stats.closed_by_us();
                            self.stats.mine().cx_idle_timeout.inc();
                        }
                    }
                    self.server.graceful_shutdown();
                }
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let accepted = self.server.poll_accept(cx);
        // The wire gathers what the codec writes; it leaves when the codec has nothing more to do.
        if let Poll::Ready(Err(_)) = self.wire.wire().poll_drain(cx) {
            return Poll::Ready(Next::Request(None));
        }
        if let Poll::Ready(accepted) = accepted {
            let accepted = accepted.and_then(|accepted| accepted.inspect_err(|error| self.count(error)).ok());
            return Poll::Ready(Next::Request(accepted.map(Box::new)));
        }
        let Some(told) = &mut self.told else { return Poll::Pending };
        if told.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Next::Drain(Drained::Told));
        }
        while let Some((limit, sleep)) = &mut self.idle
            && sleep.as_mut().poll(cx).is_ready()
        {
            let over = self.served + *limit;
            let now = Instant::now();
            if now >= over && self.active.get() == 0 {
                return Poll::Ready(Next::Drain(Drained::Idle));
            }
            // Requests came meanwhile, or a long one is still going on.
            sleep.as_mut().reset(if over > now { over } else { now + *limit });
        }
        Poll::Pending
    }

    /// Counts why the codec ended the connection: most of it is what the peer did.
    fn count(&self, error: &h2::Error) {
        if error.is_io() || error.is_remote() {
            return;
        }
        let mine = self.stats.mine();
        self.stats.closed_by_us();
        mine.cx_protocol_error.inc();
        // The codec tells its reasons apart in words only.
        let words = error.to_string();
        if words.contains("too_many_data_frames") || words.contains("too_many_continuations") {
            mine.http2_empty_frames_flood.inc();
        } else if words.contains("too_many_resets") || words.contains("too_many_internal_resets") {
            mine.http2_premature_resets.inc();
        }
    }
}

enum Next {
    Request(Option<Box<Accepted>>),
    /// Requests that are going on are finished, new ones belong on another connection (GOAWAY).
    Drain(Drained),
}

/// Why a connection takes no more requests.
enum Drained {
    Idle,
    /// The process ends.
    Told,
}

/// RFC 9113 8.2.2 and 8.3.1 beyond what the codec checks, and what is refused over HTTP/1, too.
fn is_well_formed(head: &Parts, most_fields: usize) -> bool {
    let mut host = None;
    let mut lengths = 0;
    for (name, value) in &head.headers {
        let doubled = *name == HOST && host.replace(value).is_some();
        lengths += u8::from(*name == CONTENT_LENGTH);
        if doubled || lengths > 1 || name.as_str().contains('_') || !is_trimmed(value.as_bytes()) {
            return false;
        }
    }
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let one_host = match (host, authority) {
        (Some(host), Some(authority)) => host.as_bytes().eq_ignore_ascii_case(authority),
        (None, None) => false,
        _ => true,
    };
    let path = head
        .uri
        .path_and_query()
        .is_none_or(|target| target.as_str().bytes().all(|byte| byte > b' ' && byte != 0x7f && byte != b'#'));
    one_host && path && head.headers.len() <= most_fields
}

/// RFC 9113 8.2.1: no blank at either end. Over HTTP/1 it would be gone, and another value.
fn is_trimmed(value: &[u8]) -> bool {
    !matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

fn refuse(mut respond: SendResponse<Bytes>, stats: &HttpStats) -> response::Parts {
    stats.mine().http2_requests.inc();
    stats.request_began();
    stats.replied(Reply::BadRequest);
    stats.request_ended(Some(Reply::BadRequest.status()), Duration::ZERO);
    let (mut head, ()) = Response::new(()).into_parts();
    (head.status, head.version) = (StatusCode::BAD_REQUEST, Version::HTTP_2);
    // A client that has gone meanwhile needs no answer.
    let _ = respond.send_response(Response::from_parts(head.clone(), ()), true);
    head
}
