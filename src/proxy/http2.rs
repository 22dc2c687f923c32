//! An HTTP/2 connection of a client: many requests at once, each in a task of its own.

use super::downstream::Downstream;
use super::{Connection, Worker, exchange};
use crate::config::Limits;
use crate::wire::Wire;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::header::{CONTENT_LENGTH, HOST};
use http::{Request, Response, StatusCode};
use pingora::http::RequestHeader;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// So many requests that are no HTTP, and the connection is closed: answering them is work for nothing.
const MOST_MALFORMED: usize = 32;
/// What one response may have buffered before the client takes it.
const SEND_BUFFER: usize = 256 * 1024;

type Server = h2::server::Connection<Wire, Bytes>;
type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves requests until one side ends the connection.
pub async fn serve(wire: Wire, connection: Connection, worker: Rc<Worker>, shutdown: watch::Receiver<bool>) {
    let limits = connection.gateway.limits;
    let hello = settings(&limits).handshake::<_, Bytes>(wire.clone());
    let Ok(Ok(server)) = timeout(limits.head_timeout, hello).await else { return };
    let accepting = Accepting {
        server,
        wire,
        shutdown,
        draining: false,
        idle: limits.idle_timeout,
        active: Rc::new(Cell::new(0)),
        idle_since: Instant::now(),
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
    wire: Wire,
    shutdown: watch::Receiver<bool>,
    draining: bool,
    idle: Option<std::time::Duration>,
    active: Rc<Cell<usize>>,
    idle_since: Instant,
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
        let (received, sent) = accepting.wire.take_traffic();
        connection.stats.traffic(received, sent);
        let (parts, body) = request.into_parts();
        let head = RequestHeader::from(parts);
        if !is_well_formed(&head, connection.gateway.limits.head_fields as usize) {
            refuse(respond);
            malformed += 1;
            if malformed >= MOST_MALFORMED {
                accepting.server.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
            continue;
        }
        let active = Active::new(&accepting.active);
        let (connection, worker) = (Rc::clone(&connection), Rc::clone(&worker));
        tokio::task::spawn_local(async move {
            let mut down = Downstream::http2(body, respond);
            exchange::serve(&worker, &connection, head, &mut down).await;
            drop(active);
        });
    }
    let (received, sent) = accepting.wire.take_traffic();
    connection.stats.traffic(received, sent);
}

impl Accepting {
    /// The next request; `None` when the connection is over. Drives the connection meanwhile.
    async fn next(&mut self) -> Option<Box<Accepted>> {
        loop {
            let idle = self.idle;
            let wake = self.idle_since + idle.unwrap_or_default();
            let accepted = {
                let mut sleep = pin!(sleep_until(wake));
                let mut told = pin!(self.shutdown.changed());
                let (server, wire, draining) = (&mut self.server, &self.wire, self.draining);
                poll_fn(|cx| {
                    let accepted = server.poll_accept(cx);
                    // The wire gathers what the codec writes; it leaves when the codec has nothing more to do.
                    if let Poll::Ready(Err(_)) = wire.poll_drain(cx) {
                        return Poll::Ready(Next::Request(None));
                    }
                    if let Poll::Ready(accepted) = accepted {
                        return Poll::Ready(Next::Request(accepted.and_then(Result::ok).map(Box::new)));
                    }
                    if !draining && told.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Next::Drain);
                    }
                    if idle.is_some() && sleep.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Next::Idle);
                    }
                    Poll::Pending
                })
                .await
            };
            match accepted {
                Next::Request(request) => {
                    self.idle_since = Instant::now();
                    return request;
                }
                Next::Drain => self.drain(),
                Next::Idle if self.active.get() == 0 && !self.draining => self.drain(),
                // Long exchanges are not idleness; look again after another while.
                Next::Idle => self.idle_since = Instant::now(),
            }
        }
    }

    /// Says GOAWAY: requests that are going on are finished, new ones belong on another connection.
    fn drain(&mut self) {
        self.server.graceful_shutdown();
        self.draining = true;
    }
}

enum Next {
    Request(Option<Box<Accepted>>),
    Drain,
    Idle,
}

/// RFC 9113 8.2.2 and 8.3.1 beyond what the codec checks, and what is refused over HTTP/1, too.
fn is_well_formed(head: &RequestHeader, most_fields: usize) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let one_host = match (host, authority) {
        (Some(host), Some(authority)) => host.as_bytes().eq_ignore_ascii_case(authority),
        (None, None) => false,
        _ => true,
    };
    let lengths = head.headers.get_all(CONTENT_LENGTH).iter().count();
    let path = head.raw_path().iter().all(|&byte| byte > b' ' && byte != 0x7f && byte != b'#');
    let names = head.headers.keys().all(|name| !name.as_str().contains('_'));
    one_host && second.is_none() && lengths <= 1 && path && names && head.headers.len() <= most_fields
}

fn refuse(mut respond: SendResponse<Bytes>) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    // A client that has gone meanwhile needs no answer.
    let _ = respond.send_response(response, true);
}
