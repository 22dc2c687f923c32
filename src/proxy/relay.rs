//! Moves the request and the response of one try, and decides whether the response is the client's.

use super::attempt::{Tries, pass_on};
use super::downstream::{Downstream, Gone, Piece};
use super::exchange::Ended;
use super::notes::Notes;
use super::pump::{self, Over, Reading, Step};
use super::retries::Cause;
use crate::reply::{Flag, Outcome, Reply};
use crate::upstream::{Active, Closed, Event, Upstream, UpstreamError};
use bytes::Bytes;
use http::{StatusCode, response};

/// So many 1xx responses may precede a response: a client gains nothing from more, and an upstream that sends them
/// for ever would keep an exchange alive that nothing ends.
const MOST_INTERIM: u32 = 32;

/// How relaying ended without a whole response.
pub enum Broken {
    /// The upstream failed before its response began.
    Before(UpstreamError),
    /// The client has seen nothing yet, and may get something better.
    Again(Cause),
    Ended(Ended),
}

impl<T: Into<Ended>> From<T> for Broken {
    fn from(ended: T) -> Self {
        Self::Ended(ended.into())
    }
}

impl Tries<'_> {
    /// Moves request and response until the response is through.
    pub(super) async fn relay(
        &mut self,
        up: &mut Upstream,
        down: &mut Downstream,
        endpoint: &Active,
        mut reading: Reading,
    ) -> Result<StatusCode, Broken> {
        let mut status = None;
        let http = self.http;
        let mut _tunnel = None;
        let mut interim = 0;
        loop {
            match pump::step(down, up, &mut reading, self.clock).await {
                Step::Piece(piece) => {
                    if piece.is_end() {
                        reading = Reading::Ended;
                    }
                    let tunnel_ended = up.is_upgraded() && reading == Reading::Ended;
                    self.notes.received(piece.len(), piece.is_end());
                    self.note(&piece, status.is_none());
                    // An upstream that stops taking the body may still answer: its answer is read on.
                    if pass_on(up, piece).is_err() {
                        reading = Reading::Ended;
                    }
                    if let (true, Some(status)) = (tunnel_ended, status) {
                        return Ok(status);
                    }
                }
                Step::Event(Event::Informational(head)) => {
                    interim = one_more(interim)?;
                    down.send_informational(head).await?;
                }
                Step::Event(Event::Head(head, end)) => {
                    self.notes.answered();
                    self.accept(&head, reading)?;
                    let upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
                    status = Some(head.status);
                    _tunnel = upgraded.then(|| http.upgraded());
                    self.send_head(down, head, endpoint, end && !upgraded).await?;
                    if reading == Reading::Held {
                        reading = Reading::Open;
                    }
                    if end && !upgraded {
                        return finish(down, status).await;
                    }
                }
                Step::Event(event) => {
                    if give(down, event, self.notes).await? {
                        return finish(down, status).await;
                    }
                }
                Step::Gone => {
                    self.cluster.stats().broke_off(Closed::Local, up.is_http2());
                    return Err(Broken::Ended(Ended::Gone));
                }
                Step::Failed(error) => return Err(self.failed(up, error, status.is_some())),
                Step::TimedOut(over) => return Err(self.timed_out(up, over, status)),
            }
        }
    }

    /// Takes note of what the client sent: for another try while there may be one, and for mirrors.
    fn note(&mut self, piece: &Piece, again: bool) {
        if again {
            let whole = self.recording.is_whole();
            self.recording.note(piece);
            if whole && !self.recording.is_whole() && self.retries.are_left() {
                self.cluster.stats().mine().retry_abandoned.inc();
            }
        }
        for feed in &mut self.feeds {
            feed.give(piece);
        }
    }

    /// Takes the response for the client, unless the rule says to try again or it is none that was asked for.
    fn accept(&mut self, head: &response::Parts, reading: Reading) -> Result<(), Broken> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            if reading != Reading::Held {
                return Err(Broken::Before(UpstreamError::Protocol("101 was not asked for".into())));
            }
            self.clock.forget_limits();
        }
        if self.retries.replace(head.status) && self.recording.is_whole() {
            self.cluster.stats().mine().retry_statuses.get().count(Some(head.status.as_u16()));
            return Err(Broken::Again(Cause::Code));
        }
        if self.retries.are_exhausted_by(head.status) {
            self.notes.flag(Flag::UpstreamRetryLimitExceeded);
        }
        self.recording.forget();
        Ok(())
    }

    async fn send_head(
        &mut self,
        down: &mut Downstream,
        mut head: response::Parts,
        endpoint: &Active,
        end: bool,
    ) -> Result<(), Ended> {
        self.responding.prepare(&mut head, &endpoint.endpoint().address);
        self.notes.responds(&head);
        self.worker.close_if_due(down);
        Ok(down.send_head(head, end).await?)
    }

    /// Counts what took too long.
    pub(super) fn count(&mut self, over: Over) {
        self.notes.say(match over {
            Over::Attempt => Outcome::TRY_TIMED_OUT,
            Over::Request => Outcome::TIMED_OUT,
            Over::Idle => Outcome::IDLE,
        });
        match over {
            Over::Attempt => self.cluster.stats().try_timed_out(),
            Over::Request => self.cluster.stats().timed_out(),
            Over::Idle => {
                self.cluster.stats().timed_out();
                self.http.mine().rq_idle_timeout.inc();
            }
        }
    }

    /// Counts how the upstream failed.
    fn count_broken(&self, up: &Upstream, error: &UpstreamError) {
        self.cluster.stats().broke_off(Closed::Remote, up.is_http2());
        if matches!(error, UpstreamError::Protocol(_)) {
            self.cluster.stats().mine().cx_protocol_error.inc();
        }
    }

    /// What it means that the upstream failed, by whether the client has a response's head already.
    pub(super) fn failed(&mut self, up: &Upstream, error: UpstreamError, begun: bool) -> Broken {
        self.count_broken(up, &error);
        if !begun {
            return Broken::Before(error);
        }
        tracing::debug!("{}: {error}", self.cluster.name());
        self.notes.cut_short(&error, up.is_http2());
        Broken::Ended(Ended::BrokenOff)
    }

    /// What it means that something took too long, by whether the client has a response's head already.
    pub(super) fn timed_out(&mut self, up: &Upstream, over: Over, status: Option<StatusCode>) -> Broken {
        self.count(over);
        self.cluster.stats().broke_off(Closed::Local, up.is_http2());
        match (status, over) {
            (Some(_), _) => Broken::Ended(Ended::BrokenOff),
            (None, Over::Attempt) => Broken::Again(Cause::TimedOut),
            (None, Over::Request | Over::Idle) => Reply::UpstreamTimeout.into(),
        }
    }
}

/// Gives the client what follows the response's head. Returns whether it was the end.
async fn give(down: &mut Downstream, event: Event, notes: &mut Notes) -> Result<bool, Gone> {
    match event {
        Event::Informational(_) | Event::Head(..) => Ok(false),
        Event::Body(piece, end) => {
            notes.sent(piece.len());
            down.send_body(piece, end).await.map(|()| end)
        }
        Event::Trailers(trailers) => {
            notes.trailers(&trailers);
            down.send_trailers(trailers).await.map(|()| true)
        }
        Event::End => down.send_body(Bytes::new(), true).await.map(|()| true),
    }
}

fn one_more(interim: u32) -> Result<u32, Broken> {
    if interim == MOST_INTERIM {
        return Err(Broken::Before(UpstreamError::Protocol("too many 1xx responses".into())));
    }
    Ok(interim + 1)
}

async fn finish(down: &mut Downstream, status: Option<StatusCode>) -> Result<StatusCode, Broken> {
    pump::drain(down).await?;
    status.ok_or_else(|| Broken::Before(UpstreamError::Closed("it ended without a response".into())))
}
