//! Copies of requests for mirrors, each in a task of its own that the request never waits for.
//!
//! ```text
//! client ─ piece ─▶ upstream
//!            └────▶ Feed ─ bounded ─▶ copy ─▶ mirror     (responses are read and dropped)
//! ```

use super::Worker;
use super::attempt::pass_on;
use super::downstream::{Downstream, Piece};
use super::outgoing::{self, Address};
use super::passage::Passage;
use super::reach::{Choice, reach};
use crate::filter::{Filters, Mirror};
use crate::upstream::{Cluster, Event, Pool, Protocol, Upstream, UpstreamError};
use http::request;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, timeout, timeout_at};

/// So much of a body may wait for a mirror that is slower than the client; a mirror that falls behind loses its copy.
const MOST_WAITING: usize = 256 * 1024;
/// What a piece counts beside its bytes.
const PIECE: usize = 64;
/// So many copies may be on their way from one worker; beyond that requests are not copied.
const MOST_COPIES: usize = 1024;
/// How long a mirror may do nothing once it is its turn, and how long its response is listened to.
const PATIENCE: Duration = Duration::from_secs(15);

/// What gives a mirror the body as it comes.
pub struct Feed {
    sender: Option<UnboundedSender<Piece>>,
    waiting: Rc<Cell<usize>>,
}

impl Feed {
    /// Gives a piece, or, when too much waits already, cuts the copy off.
    pub fn give(&mut self, piece: &Piece) {
        let Some(sender) = &self.sender else { return };
        let waiting = self.waiting.get() + piece.len() + PIECE;
        if waiting > MOST_WAITING || sender.send(piece.clone()).is_err() {
            self.sender = None;
            return;
        }
        self.waiting.set(waiting);
    }
}

/// The other end of a feed.
struct Pieces {
    receiver: UnboundedReceiver<Piece>,
    waiting: Rc<Cell<usize>>,
}

impl Pieces {
    /// Whether the next one is still to come from the client.
    fn are_awaited(&self) -> bool {
        self.waiting.get() == 0 && !self.receiver.is_closed()
    }

    /// The next piece; `None` when the copy was cut off.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let polled = self.receiver.poll_recv(cx);
        if let Poll::Ready(Some(piece)) = &polled {
            self.waiting.set(self.waiting.get() - piece.len() - PIECE);
        }
        polled
    }
}

/// Starts the copies that the filters ask for. Upgrades are not copied: a mirror cannot take part in a conversation.
pub fn start(
    worker: &Worker,
    passage: &Passage<'_>,
    filters: [Option<&Filters>; 2],
    address: &Address,
    down: &mut Downstream,
) -> Vec<Feed> {
    let [of_rule, of_backend] = filters.map(|filters| filters.map_or(&[][..], |filters| &filters.mirrors));
    if (of_rule.is_empty() && of_backend.is_empty()) || passage.asked.upgrade.is_some() {
        return Vec::new();
    }
    let end = passage.recording.is_empty() && down.is_body_done();
    let mut feeds = Vec::new();
    for mirror in of_rule.iter().chain(of_backend).filter(|mirror| mirror.share.takes(fastrand::u32(..))) {
        let Some(cluster) = passage.revision.clusters.get(mirror.to.cluster.0 as usize) else { continue };
        let Some(slot) = Slot::take(&worker.mirroring) else { break };
        let waiting = Rc::new(Cell::new(0));
        let (sender, receiver) = mpsc::unbounded_channel();
        let copy = Copy {
            pool: Rc::clone(&worker.pool),
            cluster: Arc::clone(cluster),
            mirror: *mirror,
            gateway: passage.gateway,
            head: passage.head.clone(),
            address: address.clone(),
            pieces: (!end).then(|| Pieces { receiver, waiting: Rc::clone(&waiting) }),
            slot,
        };
        tokio::task::spawn_local(copy.send());
        let mut feed = Feed { sender: Some(sender), waiting };
        passage.recording.peek().iter().for_each(|piece| feed.give(piece));
        feeds.push(feed);
    }
    feeds
}

/// A copy that is on its way.
struct Copy {
    pool: Rc<Pool>,
    cluster: Arc<Cluster>,
    mirror: Mirror,
    gateway: u16,
    head: request::Parts,
    address: Address,
    /// The body, where there is one.
    pieces: Option<Pieces>,
    slot: Slot,
}

/// A place among the copies of a worker.
struct Slot(Rc<Cell<usize>>);

impl Slot {
    fn take(count: &Rc<Cell<usize>>) -> Option<Self> {
        let free = count.get() < MOST_COPIES;
        free.then(|| {
            count.set(count.get() + 1);
            Self(Rc::clone(count))
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Copy {
    async fn send(mut self) {
        let (cluster, started) = (Arc::clone(&self.cluster), Instant::now());
        cluster.stats().request_began();
        let status = self.exchange().await;
        cluster.stats().request_ended(status, started.elapsed());
        drop(self.slot);
    }

    /// Sends the request and reads the response to its end. Returns its status.
    async fn exchange(&mut self) -> Option<u16> {
        let backend = self.cluster.backend_of(self.gateway, self.mirror.to.backend)?;
        let reached = reach(&self.pool, &self.cluster, backend, &mut Choice::default()).await.ok()?;
        let (mut up, _active) = (reached.up, reached.active);
        let protocol = if up.is_http2() { Protocol::Http2 } else { Protocol::Http1 };
        let end = self.pieces.is_none();
        let target =
            outgoing::Target { address: &self.address, tls: reached.tls, protocol, end, upgrade: None };
        outgoing::address(&mut self.head, &target).ok()?;
        timeout(PATIENCE, up.send_head(&self.head, end)).await.ok()?.ok()?;
        match converse(&mut up, self.pieces.as_mut()).await {
            Ok(status) => {
                up.finish(&self.pool);
                status
            }
            Err(error) => {
                tracing::debug!("{}: the mirror: {error}", self.cluster.name());
                None
            }
        }
    }
}

enum Step {
    Piece(Option<Piece>),
    Event(Result<Event, UpstreamError>),
}

/// Passes the body on, and drops the response.
async fn converse(up: &mut Upstream, mut pieces: Option<&mut Pieces>) -> Result<Option<u16>, UpstreamError> {
    let mut status = None;
    let mut patient_until = Instant::now() + PATIENCE;
    loop {
        let step = match timeout_at(patient_until, poll_fn(|cx| poll_step(up, &mut pieces, cx))).await {
            Ok(step) => step,
            // Only the client may take its time.
            Err(_) if pieces.as_ref().is_some_and(|pieces| pieces.are_awaited()) => {
                patient_until = Instant::now() + PATIENCE;
                continue;
            }
            Err(_) => return Err(UpstreamError::Closed("it did nothing for too long".into())),
        };
        match step {
            Step::Piece(None) => return Err(UpstreamError::Closed("the copy was cut off".into())),
            Step::Piece(Some(piece)) => {
                patient_until = Instant::now() + PATIENCE;
                if piece.is_end() {
                    pieces = None;
                }
                pass_on(up, piece)?;
            }
            Step::Event(event) => match event? {
                Event::Head(head, end) => {
                    status = Some(head.status.as_u16());
                    if end {
                        return Ok(status);
                    }
                }
                Event::Informational(_) | Event::Body(_, false) => {}
                Event::Body(_, true) | Event::Trailers(_) | Event::End => return Ok(status),
            },
        }
    }
}

fn poll_step(up: &mut Upstream, pieces: &mut Option<&mut Pieces>, cx: &mut Context<'_>) -> Poll<Step> {
    if let Poll::Ready(event) = up.poll_event(cx) {
        return Poll::Ready(Step::Event(event));
    }
    if let Some(pieces) = pieces
        && up.poll_writable(cx).is_ready()
        && let Poll::Ready(piece) = pieces.poll(cx)
    {
        return Poll::Ready(Step::Piece(piece));
    }
    let _ = up.poll_drain(cx);
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use crate::filter::{Filters, HostEdit, Mirror, PathEdit, Rewrite, Share};
    use crate::proxy::rig::{Act, Rig, Upstream, answer, backend, body, filters_of, local, nobody, status};
    use crate::routing::Rule;
    use http::HeaderValue;
    use std::time::{Duration, Instant};

    fn mirroring(shares: &[Share]) -> impl FnOnce(&mut Rule) + use<> {
        let mirrors =
            shares.iter().zip(1..).map(|(share, place)| Mirror { to: backend(place), share: *share });
        let filters = Filters { mirrors: mirrors.collect(), ..Filters::default() };
        move |rule| filters_of(rule, filters)
    }

    #[tokio::test]
    async fn mirrors_get_what_the_backend_gets() {
        local(async {
            let upstream = Upstream::named("app").await;
            let mirrors = [Upstream::new(|_, _| answer(500, "ignored")).await, Upstream::named("m").await];
            let rig =
                Rig::new(&[&[upstream.address], &[mirrors[0].address], &[mirrors[1].address]], |rule| {
                    mirroring(&[Share::ALL, Share::ALL])(rule);
                    rule.terms.get_or_insert_default().filters.rewrite = Some(Box::new(Rewrite {
                        hostname: Some(HostEdit::Literal(HeaderValue::from_static("b.test"))),
                        path: Some(PathEdit::Full("/other".into())),
                    }));
                });
            for (method, sent) in [("GET", ""), ("POST", "body")] {
                let got = rig.send(method, "/p?q", "x-a: 1\r\n", sent).await;
                assert_eq!((status(&got), body(&got)), (200, "app"));
            }
            let mut want = upstream.requests();
            want.sort_unstable();
            assert!(
                want[0].starts_with("GET /other?q HTTP/1.1\r\n") && want[0].contains("b.test"),
                "{want:?}"
            );
            for mirror in &mirrors {
                let mut got = mirror.wait_for(2).await;
                got.sort_unstable();
                assert_eq!(got, want);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_dead_or_silent_mirror_delays_nothing() {
        local(async {
            let upstream = Upstream::named("app").await;
            let silent = Upstream::new(|_, _| Act::Hang).await;
            let closing = Upstream::new(|_, _| Act::Close).await;
            let mirrors = [nobody().await, silent.address, closing.address];
            let rig = Rig::new(
                &[&[upstream.address], &[mirrors[0]], &[mirrors[1]], &[mirrors[2]]],
                mirroring(&[Share::ALL, Share::ALL, Share::ALL]),
            );
            let started = Instant::now();
            for _ in 0..5 {
                assert_eq!(body(&rig.send("POST", "/", "", "body").await), "app");
            }
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        })
        .await;
    }

    #[tokio::test]
    async fn a_mirror_that_reads_nothing_loses_its_copy_and_not_the_request() {
        local(async {
            let upstream = Upstream::named("app").await;
            let deaf = Upstream::new(|_, _| Act::Ignore).await;
            let rig = Rig::new(&[&[upstream.address], &[deaf.address]], mirroring(&[Share::ALL]));
            let large = "x".repeat(16 << 20);
            let got = rig.send("POST", "/", "", &large).await;
            assert_eq!(body(&got), "app");
            assert!(upstream.requests()[0].ends_with(&large));
        })
        .await;
    }

    #[tokio::test]
    async fn a_share_of_nothing_is_not_copied() {
        local(async {
            let upstream = Upstream::named("app").await;
            let mirror = Upstream::named("mirror").await;
            let none = Share::percent(0).expect("valid");
            let rig = Rig::new(&[&[upstream.address], &[mirror.address]], mirroring(&[none]));
            for _ in 0..20 {
                assert_eq!(status(&rig.get("/").await), 200);
            }
            assert!(mirror.requests().is_empty());
        })
        .await;
    }
}
