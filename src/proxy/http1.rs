//! An HTTP/1 connection of a client: one request after the other.

use super::downstream::Downstream;
use super::head::{self, NoHead};
use super::{Connection, Worker, answer, drained, exchange, http2, target};
use crate::reply::Reply;
use crate::wire::Wire;
use bytes::BytesMut;
use pingora::protocols::http::v1::server::HttpSession;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

/// What an HTTP/2 client with prior knowledge begins with (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// How long a connection without a request is kept when the process ends.
const LAST_REQUEST: Duration = Duration::from_millis(500);
/// How long a client whose connection is closed may go on sending what nobody reads.
const LINGER: Duration = Duration::from_secs(1);
/// How much of it is taken.
const MOST_LINGERING: usize = 256 * 1024;

/// Serves requests until one side ends the connection, or until `shutdown` and no request is there.
pub async fn serve(
    mut wire: Wire,
    connection: Connection,
    worker: Rc<Worker>,
    shutdown: watch::Receiver<bool>,
) {
    let mut told = pin!(drained(shutdown));
    let mut over = false;
    let mut read = BytesMut::new();
    let mut first = true;
    loop {
        match next_head(&mut wire, &mut read, &connection, told.as_mut(), &mut over).await {
            Ok(()) => {}
            Err(NoHead::Refused(_)) if first && is_http2(&read, &connection) => {
                wire.unread(read);
                return http2::serve(wire, connection, worker).await;
            }
            Err(NoHead::Closed) => break,
            Err(NoHead::Refused(reply)) => {
                refuse(&wire, &connection, reply).await;
                break;
            }
        }
        first = false;
        match request(&mut wire, std::mem::take(&mut read), &connection, &worker).await {
            Some(rest) if !(rest.is_empty() && worker.draining.get()) => read = rest,
            _ => break,
        }
    }
    linger(&mut wire).await;
}

/// The next request's head. A connection that is to be drained is closed between requests only.
async fn next_head(
    wire: &mut Wire,
    read: &mut BytesMut,
    connection: &Connection,
    mut told: Pin<&mut impl Future<Output = ()>>,
    over: &mut bool,
) -> Result<(), NoHead> {
    {
        let mut head = pin!(head::read(wire, read, &connection.gateway.limits));
        tokio::select! {
            biased;
            head = &mut head => return head,
            () = &mut told, if !*over => *over = true,
        }
    }
    // A request may be on its way already: of a client that has just connected, or could not know.
    if let Ok(head) = timeout(LAST_REQUEST, head::read(wire, read, &connection.gateway.limits)).await {
        return head;
    }
    if read.is_empty() {
        return Err(NoHead::Closed);
    }
    head::read(wire, read, &connection.gateway.limits).await
}

fn is_http2(read: &BytesMut, connection: &Connection) -> bool {
    connection.server_name.is_none() && read.starts_with(PREFACE)
}

/// Serves one request. Returns what was read beyond it, or `None` when the connection is over.
async fn request(
    wire: &mut Wire,
    read: BytesMut,
    connection: &Connection,
    worker: &Worker,
) -> Option<BytesMut> {
    let mut session = HttpSession::new(Box::new(wire.clone()));
    session.set_read_timeout(None);
    session.set_pipelining_enabled(true);
    session.set_pipelined_prefix(read);
    if !matches!(session.read_request().await, Ok(Some(_))) {
        refuse(wire, connection, Reply::BadRequest).await;
        return None;
    }
    let head = Downstream::take_head(&mut session).map_err(|_| Reply::BadRequest).and_then(target::parts);
    let head = match head {
        Ok(head) => head,
        Err(reply) => {
            refuse(wire, connection, reply).await;
            return None;
        }
    };
    let mut down = Downstream::http1(session, wire.clone());
    exchange::serve(worker, connection, head, &mut down).await;
    let (received, sent) = wire.take_traffic();
    connection.stats.traffic(received, sent);
    let Downstream::Http1(http1) = down else { return None };
    let mut session = http1.session;
    if !http1.keep || !session.is_body_done() {
        return None;
    }
    wire.shrink();
    let (_, rest) = session.reuse().await.ok()??.into_parts();
    Some(rest.unwrap_or_default())
}

/// Answers a head that could not be taken.
async fn refuse(wire: &Wire, connection: &Connection, reply: Reply) {
    connection.stats.request_began();
    connection.stats.replied(reply);
    let mut out = BytesMut::new();
    answer::write_refusal(&mut out, reply);
    wire.push(&out);
    let _ = poll_fn(|cx| wire.poll_drain(cx)).await;
    connection.stats.request_ended(Some(reply.status()), Duration::ZERO);
}

/// Closes so that the client reads the last answer: closing a socket with unread bytes would reset it, and the
/// answer could be lost on the way (RFC 9112 9.6).
async fn linger(wire: &mut Wire) {
    if wire.shutdown().await.is_err() {
        return;
    }
    let mut scrap = [0; 4096];
    let mut taken = 0;
    let reading = async {
        while taken < MOST_LINGERING {
            match wire.read(&mut scrap).await {
                Ok(0) | Err(_) => return,
                Ok(n) => taken += n,
            }
        }
    };
    let _ = timeout(LINGER, reading).await;
}
