//! Moves the bytes of one exchange, both ways at once, with backpressure both ways.
//!
//! ```text
//! client ─ poll_piece ─▶ upstream     while the upstream takes more
//! client ◀─ poll_event ─ upstream     while the client takes more
//! ```
//!
//! Everything is polled from one place, and nothing that is polled loses bytes when it is not polled again, so no
//! task and no channel stands between the two sides.

use super::alarm::Alarm;
use super::downstream::{Downstream, Gone, Piece};
use crate::moment;
use crate::upstream::{Event, Upstream, UpstreamError};
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// What happens next in an exchange.
#[derive(Debug)]
pub enum Step {
    /// The client sent something.
    Piece(Piece),
    /// The upstream sent something.
    Event(Event),
    /// The client went away.
    Gone,
    /// The upstream failed.
    Failed(UpstreamError),
    /// It takes too long.
    TimedOut(Over),
}

/// Whether and how the request's body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Not before the upstream has said whether it changes the protocol.
    Held,
    Open,
    /// It was sent to its end.
    Ended,
}

/// When an exchange has taken too long.
#[derive(Debug)]
pub struct Clock {
    request: Option<Instant>,
    attempt: Option<Instant>,
    idle: Option<Duration>,
    /// When nothing had moved for how long, as far as it was looked at.
    still_since: Instant,
    /// Whether something moved since then. What moves says so at each step, and so without asking what time it is.
    moved: bool,
    alarm: Alarm,
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// All tries together.
    Request,
    /// This try.
    Attempt,
    /// Nothing moved.
    Idle,
}

impl Clock {
    /// A clock that is over when nothing moved for `idle`.
    pub fn new(started: Instant, idle: Option<Duration>, alarm: Alarm) -> Self {
        Self { request: None, attempt: None, idle, still_since: started, moved: false, alarm }
    }

    /// It is over, too, when the request is not through after so long.
    pub fn limit_request(&mut self, started: Instant, limit: Option<Duration>) {
        self.request = limit.map(|limit| started + limit);
    }

    /// The timer, for the next exchange.
    pub fn into_alarm(self) -> Alarm {
        self.alarm
    }

    /// From now on a try counts.
    pub fn begin_attempt(&mut self, limit: Option<Duration>) {
        self.moved();
        self.attempt = limit.map(|limit| moment::now() + limit);
    }

    /// A tunnel has no end that a request's limit could mean; only idleness ends it.
    pub fn forget_limits(&mut self) {
        self.request = None;
        self.attempt = None;
    }

    /// Something moved.
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// Waits for something that must not take longer than the clock has.
    pub async fn within<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Over> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx).map(Err),
        })
        .await
    }

    /// The next moment at which something is over, and what.
    fn over(&self) -> Option<(Instant, Over)> {
        let request = self.request.map(|at| (at, Over::Request));
        let attempt = self.attempt.map(|at| (at, Over::Attempt));
        // Looked at in quarters, so that idleness is found out at most a quarter late.
        let look = |idle: Duration| if self.moved { idle / 4 } else { idle };
        let idle = self.idle.map(|idle| (self.still_since + look(idle), Over::Idle));
        [request, attempt, idle].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Ready when something took too long.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        loop {
            let Some((at, over)) = self.over() else { return Poll::Pending };
            ready!(self.alarm.poll(at, cx));
            if over != Over::Idle || !std::mem::take(&mut self.moved) {
                return Poll::Ready(over);
            }
            self.still_since = moment::now();
        }
    }
}

/// The next step. What it carries has been taken from its side and must be handled.
pub async fn step(
    down: &mut Downstream,
    up: &mut Upstream,
    reading: &mut Reading,
    clock: &mut Clock,
) -> Step {
    let step = poll_fn(|cx| poll_step(down, up, reading, clock, cx)).await;
    clock.moved();
    step
}

fn poll_step(
    down: &mut Downstream,
    up: &mut Upstream,
    reading: &mut Reading,
    clock: &mut Clock,
    cx: &mut Context<'_>,
) -> Poll<Step> {
    match down.poll_writable(cx) {
        Poll::Ready(Ok(())) => {
            if let Poll::Ready(event) = up.poll_event(cx) {
                return Poll::Ready(event.map_or_else(Step::Failed, Step::Event));
            }
        }
        Poll::Ready(Err(Gone)) => return Poll::Ready(Step::Gone),
        Poll::Pending => {}
    }
    match *reading {
        Reading::Open => match up.poll_writable(cx) {
            Poll::Ready(Ok(())) => {
                if let Poll::Ready(piece) = down.poll_piece(cx) {
                    return Poll::Ready(piece.map_or(Step::Gone, Step::Piece));
                }
            }
            // It may have answered before it stopped taking the body: the answer is what counts.
            Poll::Ready(Err(_)) => *reading = Reading::Ended,
            Poll::Pending => {}
        },
        // What the client sends now belongs to the tunnel, or it is none: looking for its end would take it.
        Reading::Held => {}
        Reading::Ended => {
            if down.poll_gone(cx).is_ready() {
                return Poll::Ready(Step::Gone);
            }
        }
    }
    // Nothing more to gather: what was written leaves now.
    let _ = up.poll_drain(cx);
    if let Poll::Ready(Err(Gone)) = down.poll_drain(cx) {
        return Poll::Ready(Step::Gone);
    }
    clock.poll(cx).map(Step::TimedOut)
}

/// Sends the rest of a response.
pub async fn drain(down: &mut Downstream) -> Result<(), Gone> {
    poll_fn(|cx| down.poll_drain(cx)).await
}
