//! An HTTP/1 connection of a client: one request after the other.

use super::downstream::{Downstream, Http1};
use super::notes::Notes;
use super::{Connection, Gateway, Worker, answer, drained, exchange, http2};
use crate::config::Limits;
use crate::http1::{BadRequest, RequestHead, request_end, write_response};
use crate::moment;
use crate::reply::Reply;
use crate::wire::Wire;
use http::{Version, request};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout};

/// What an HTTP/2 client with prior knowledge begins with (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// How long a connection without a request is kept when the process ends.
const LAST_REQUEST: Duration = Duration::from_millis(500);
/// How long a client whose connection is closed may go on sending what nobody reads.
const LINGER: Duration = Duration::from_secs(1);
/// How much of it is taken.
const MOST_LINGERING: usize = 256 * 1024;

impl From<BadRequest> for Reply {
    fn from(bad: BadRequest) -> Self {
        match bad {
            BadRequest::Malformed => Self::BadRequest,
            BadRequest::Underscore => Self::Underscore,
            BadRequest::FramedTwice => Self::FramedTwice,
            BadRequest::NoHost => Self::NoHost,
            BadRequest::Fragment => Self::BadPath,
            BadRequest::TooManyFields => Self::TooManyFields,
            BadRequest::Version => Self::UnsupportedVersion,
            BadRequest::Coding => Self::UnknownTransferCoding,
        }
    }
}

/// Why there is no request head.
enum NoHead {
    /// The client closed: there is nobody to answer.
    Closed,
    /// Nothing came for too long.
    Idle,
    /// Nothing came while the process ends.
    Drained,
    /// The client speaks HTTP/2.
    Http2,
    /// Answer this and close.
    Refused(Reply),
}

impl<T: Into<Reply>> From<T> for NoHead {
    fn from(reply: T) -> Self {
        Self::Refused(reply.into())
    }
}

/// Serves requests until one side ends the connection, or until `shutdown` and no request is there.
pub async fn serve(wire: Wire, connection: Connection, worker: Rc<Worker>, shutdown: watch::Receiver<bool>) {
    let mut down = Downstream::http1(wire);
    let news = shutdown.clone();
    let mut ending =
        Ending { told: pin!(unconstrained(drained(shutdown))), news, awaited: false, over: false };
    let mut first = true;
    loop {
        let Downstream::Http1(http1) = &mut down else { return };
        let head = match next_head(http1, &connection, &mut ending, first).await {
            Ok(head) => head,
            Err(NoHead::Closed) => break,
            Err(NoHead::Idle) => {
                connection.stats.closed_by_us();
                connection.stats.mine().cx_idle_timeout.inc();
                break;
            }
            Err(NoHead::Drained) => {
                connection.stats.drained();
                break;
            }
            Err(NoHead::Http2) => {
                let Downstream::Http1(http1) = down else { return };
                return http2::serve(http1.wire, connection, worker).await;
            }
            Err(NoHead::Refused(reply)) => {
                connection.stats.closed_by_us();
                refuse(&mut http1.wire, &connection, &worker, reply).await;
                break;
            }
        };
        first = false;
        let gone = exchange::serve(&worker, &connection, head, &mut down).await;
        let Downstream::Http1(http1) = &mut down else { return };
        let (received, sent) = http1.wire.take_traffic();
        connection.stats.traffic(received, sent);
        let draining = worker.draining.get();
        if !http1.can_go_on() || (http1.wire.inbox().is_empty() && draining) {
            match (gone, draining) {
                (true, _) => {}
                (false, true) => connection.stats.drained(),
                (false, false) => connection.stats.closed_by_us(),
            }
            break;
        }
        http1.wire.shrink();
    }
    if let Downstream::Http1(http1) = &mut down {
        if !linger(&mut http1.wire).await {
            connection.stats.mine().cx_delayed_close_timeout.inc();
        }
        let (received, sent) = http1.wire.take_traffic();
        connection.stats.traffic(received, sent);
    }
}

/// The end of the process, as a connection learns of it.
struct Ending<'a, F> {
    told: Pin<&'a mut F>,
    news: watch::Receiver<bool>,
    /// Whether the news wakes this task.
    awaited: bool,
    over: bool,
}

impl<F: Future<Output = ()>> Ending<'_, F> {
    /// Whether it has come since the last time.
    fn has_come(&mut self, cx: &mut Context<'_>) -> bool {
        // To wait once more takes a lock; a look for news takes none, and what was waited for still wakes this task.
        if self.over || (self.awaited && matches!(self.news.has_changed(), Ok(false))) {
            return false;
        }
        // It waits from now on, for no budget of the task can put the first look off.
        self.awaited = true;
        self.over = self.told.as_mut().poll(cx).is_ready();
        self.over
    }
}

/// How a wait for bytes ended.
enum Waited {
    /// So many came.
    Read(usize),
    TooLong,
    /// The process ends.
    Told,
}

/// The next request's head, in bounded time and space. A connection that is to be drained is closed between
/// requests only.
async fn next_head(
    http1: &mut Http1,
    connection: &Connection,
    ending: &mut Ending<'_, impl Future<Output = ()>>,
    first: bool,
) -> Result<request::Parts, NoHead> {
    let limits = &connection.gateway.limits;
    let mut looked_at = 0;
    let mut deadline = None;
    loop {
        let read = http1.wire.inbox();
        if let Some(end) = request_end(read, looked_at) {
            if first && connection.server_name.is_none() && read.starts_with(PREFACE) {
                return Err(NoHead::Http2);
            }
            return take_head(http1, end, &connection.gateway);
        }
        check_so_far(read, looked_at, limits)?;
        // The end may be cut in two.
        looked_at = read.len().saturating_sub(3);
        let begun = !read.is_empty();
        if deadline.is_none_or(|(of_begun, _)| of_begun != begun) {
            let limit = match (begun, ending.over) {
                (true, _) => Some(limits.head_timeout),
                // A request may be on its way already: of a client that has just connected, or could not know.
                (false, true) => Some(LAST_REQUEST),
                (false, false) => limits.idle_timeout,
            };
            deadline = Some((begun, limit.map(|limit| moment::now() + limit)));
        }
        let at = deadline.and_then(|(_, at)| at);
        match poll_fn(|cx| poll_bytes(http1, at, ending, cx)).await {
            Waited::Read(0) => return Err(NoHead::Closed),
            Waited::Read(_) => {}
            Waited::Told => deadline = deadline.filter(|(begun, _)| *begun),
            Waited::TooLong if begun => return Err(Reply::RequestTimeout.into()),
            Waited::TooLong if ending.over => return Err(NoHead::Drained),
            Waited::TooLong => return Err(NoHead::Idle),
        }
    }
}

fn poll_bytes(
    http1: &mut Http1,
    at: Option<Instant>,
    ending: &mut Ending<'_, impl Future<Output = ()>>,
    cx: &mut Context<'_>,
) -> Poll<Waited> {
    if let Poll::Ready(read) = http1.wire.poll_fill(cx, 1) {
        return Poll::Ready(Waited::Read(read.unwrap_or(0)));
    }
    if ending.has_come(cx) {
        return Poll::Ready(Waited::Told);
    }
    match at {
        Some(at) => http1.alarm.poll(at, cx).map(|()| Waited::TooLong),
        None => Poll::Pending,
    }
}

/// Refuses a head that is too large, or never would be whole: one whose lines end with a bare LF.
fn check_so_far(read: &[u8], from: usize, limits: &Limits) -> Result<(), Reply> {
    if read.len() > limits.head_bytes as usize {
        return Err(Reply::HeadTooLarge);
    }
    if has_bare_lf(read, from) { Err(Reply::BadRequest) } else { Ok(()) }
}

fn has_bare_lf(read: &[u8], from: usize) -> bool {
    memchr::memchr_iter(b'\n', &read[from.min(read.len())..])
        .any(|at| !matches!((from + at).checked_sub(1), Some(before) if read[before] == b'\r'))
}

fn take_head(http1: &mut Http1, end: usize, gateway: &Gateway) -> Result<request::Parts, NoHead> {
    let Gateway { limits, habits, .. } = gateway;
    if end > limits.head_bytes as usize {
        return Err(Reply::HeadTooLarge.into());
    }
    let head = http1.wire.inbox().split_to(end).freeze();
    let head = RequestHead::parse(&head, limits.head_fields as usize)?;
    if head.parts.version == Version::HTTP_10 && !habits.http10 {
        return Err(Reply::UnsupportedVersion.into());
    }
    Ok(http1.begin(head))
}

/// Answers a head that could not be taken.
async fn refuse(wire: &mut Wire, connection: &Connection, worker: &Worker, reply: Reply) {
    connection.stats.request_began();
    connection.stats.replied(reply);
    if reply == Reply::RequestTimeout {
        connection.stats.mine().rq_header_timeout.inc();
    }
    let (head, body) = answer::refusal(reply);
    write_response(wire.outbox(), &head);
    wire.push(&body);
    let _ = poll_fn(|cx| wire.poll_drain(cx)).await;
    connection.stats.request_ended(Some(reply.status()), Duration::ZERO);
    Notes::refused(worker.live().load().as_deref(), connection, (&head, body.len()), reply.into());
}

/// Closes so that the client reads the last answer: closing a socket with unread bytes would reset it, and the
/// answer could be lost on the way (RFC 9112 9.6). Returns whether the client was done in time.
async fn linger(wire: &mut Wire) -> bool {
    if wire.shutdown().await.is_err() {
        return true;
    }
    // On the heap: nearly all connections of a process wait, and none of them needs it.
    let mut scrap = vec![0; 4096];
    let mut taken = 0;
    let reading = async {
        while taken < MOST_LINGERING {
            match wire.read(&mut scrap).await {
                Ok(0) | Err(_) => return,
                Ok(n) => taken += n,
            }
        }
    };
    timeout(LINGER, reading).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::has_bare_lf;

    #[test]
    fn a_bare_lf_is_seen_wherever_the_bytes_were_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n";
        for from in 0..24 {
            assert!(has_bare_lf(text, from), "{from}");
        }
        for from in 24..=text.len() {
            assert!(!has_bare_lf(text, from), "{from}");
        }
        assert!(has_bare_lf(b"\n", 0) && !has_bare_lf(b"\r\n\r\n", 0) && !has_bare_lf(b"\r\n", 1));
    }
}
