//! Moves the bytes of one exchange, both ways at once, with backpressure both ways.
//!
//! ```text
//! client ─ poll_piece ─▶ upstream     while the upstream takes more
//! client ◀─ poll_event ─ upstream     while the client takes more
//! ```
//!
//! Everything is polled from one place, and nothing that is polled loses bytes when it is not polled again, so no
//! task and no channel stands between the two sides.

use super::downstream::{Downstream, Gone, Piece};
use crate::upstream::{Event, Upstream, UpstreamError};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

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
    /// The time for the exchange is over, or nothing moved for too long.
    TimedOut,
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
    deadline: Option<Instant>,
    idle: Option<Duration>,
    moved: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    /// A clock that is over at the deadline, or when nothing moved for `idle`.
    pub fn new(started: Instant, request: Option<Duration>, idle: Option<Duration>) -> Self {
        Self { deadline: request.map(|limit| started + limit), idle, moved: started, sleep: None }
    }

    /// A tunnel has no end that a request's limit could mean; only idleness ends it.
    pub fn forget_deadline(&mut self) {
        self.deadline = None;
        self.sleep = None;
    }

    fn over(&self) -> Option<Instant> {
        let idle = self.idle.map(|idle| self.moved + idle);
        match (self.deadline, idle) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(over) = self.over() else { return Poll::Pending };
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(over)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= over {
                return Poll::Ready(());
            }
            // Something moved while the sleep was on; it goes on until the new moment.
            sleep.as_mut().reset(over);
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
    if clock.idle.is_some() {
        clock.moved = Instant::now();
    }
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
    clock.poll(cx).map(|()| Step::TimedOut)
}

/// Sends the rest of a response.
pub async fn drain(down: &mut Downstream) -> Result<(), Gone> {
    poll_fn(|cx| down.poll_drain(cx)).await
}
