//! HTTP/1 to an upstream: a connection, and the exchanges on it, one after the other.

use super::session::{Event, UpstreamError};
use crate::http1::{Decoder, Framing, Piece, ResponseHead, write_request};
use crate::wire::Wire;
use http::{HeaderMap, Method, StatusCode, request};
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// More written than this, and the upstream is given no more of the body until it has taken some.
const HIGH_WATER: usize = 64 * 1024;
/// 1xx responses before the one that counts; more of them are no answer.
const MOST_INFORMATIONAL: u32 = 100;

/// A connection, and the exchange on it.
#[derive(Debug)]
pub struct Http1 {
    wire: Wire,
    /// The connection's end that is ours.
    pub(super) local: Option<SocketAddr>,
    /// The endpoint and the channel that it leads to.
    pub(super) key: (u64, u64),
    /// A response's head may be so large, in bytes.
    head_bytes: usize,
    pub(super) reused: bool,
    method: Method,
    framing: Framing,
    /// Whether the request was sent to its end: the end is written once, whoever asks for it again.
    sent: bool,
    answer: Answer,
    keep: bool,
    closes: bool,
    /// How long the upstream says that it keeps the connection.
    pub(super) kept_for: Option<Duration>,
}

/// How far the response is.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// Its head is awaited; so many 1xx came, and so much was looked through for the end of a head.
    Awaited {
        informational: u32,
        looked_at: usize,
    },
    Body(Decoder),
    Upgraded,
}

impl Answer {
    const NONE: Self = Self::Awaited { informational: 0, looked_at: 0 };
}

impl Http1 {
    pub(super) fn new(wire: Wire, local: Option<SocketAddr>, key: (u64, u64), head_bytes: usize) -> Self {
        Self {
            wire,
            local,
            key,
            head_bytes,
            reused: false,
            method: Method::GET,
            framing: Framing::None,
            sent: false,
            answer: Answer::NONE,
            keep: true,
            closes: false,
            kept_for: None,
        }
    }

    /// Begins another exchange, on a connection that waited.
    pub(super) fn begin_again(&mut self) {
        (self.reused, self.sent, self.keep, self.answer) = (true, false, true, Answer::NONE);
    }

    /// Whether a waiting connection can serve again.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet()
    }

    /// Gives back what a waiting connection needs not.
    pub(super) fn shrink(&mut self) {
        self.wire.shrink();
    }

    pub(super) fn send_head(&mut self, head: &request::Parts, end: bool) {
        self.method = head.method.clone();
        self.framing = write_request(self.wire.outbox(), head);
        if end {
            self.send_body(&[], true);
        }
    }

    pub(super) fn send_body(&mut self, piece: &[u8], end: bool) {
        if self.sent {
            return;
        }
        self.framing.write_body(&mut self.wire, piece, end);
        self.sent = end;
    }

    pub(super) fn send_trailers(&mut self, trailers: &HeaderMap) {
        if !self.sent {
            self.framing.write_trailers(&mut self.wire, trailers);
            self.sent = true;
        }
    }

    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        if self.wire.pending() > HIGH_WATER {
            ready!(self.wire.poll_drain(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        self.wire.poll_drain(cx).map_err(UpstreamError::from)
    }

    /// What the upstream sends next.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, UpstreamError>> {
        loop {
            if let Some(event) = self.next_event()? {
                return Poll::Ready(Ok(event));
            }
            let (expected, ends) = match self.answer {
                Answer::Awaited { .. } => (1, false),
                Answer::Body(decoder) => (decoder.expected(), decoder == Decoder::UntilClose),
                Answer::Upgraded => (1, true),
            };
            match ready!(self.wire.poll_fill(cx, expected))? {
                0 if ends => return Poll::Ready(Ok(Event::End)),
                0 => return Poll::Ready(Err(UpstreamError::Closed(self.broken_off().into()))),
                _ => {}
            }
        }
    }

    fn broken_off(&mut self) -> &'static str {
        match (&self.answer, self.wire.inbox().is_empty()) {
            (Answer::Awaited { .. }, true) => "it sent no response",
            (Answer::Awaited { .. }, false) => "it sent half a response head",
            (Answer::Body(_) | Answer::Upgraded, _) => "it sent half a response body",
        }
    }

    /// The next of what was read; `None` when more must be read.
    fn next_event(&mut self) -> Result<Option<Event>, UpstreamError> {
        match &mut self.answer {
            Answer::Awaited { informational, looked_at } => {
                let (informational, from) = (*informational, *looked_at);
                self.next_head(informational, from)
            }
            Answer::Body(decoder) => {
                let piece = decoder.decode(self.wire.inbox());
                let piece = piece.map_err(|error| UpstreamError::Protocol(error.to_string()))?;
                Ok(piece.map(|piece| match piece {
                    Piece::Body(piece) => Event::Body(piece, decoder.is_done()),
                    Piece::Trailers(trailers) => Event::Trailers(trailers),
                    Piece::End => Event::End,
                }))
            }
            Answer::Upgraded => {
                let read = self.wire.inbox();
                Ok((!read.is_empty()).then(|| Event::Body(read.split().freeze(), false)))
            }
        }
    }

    fn next_head(&mut self, informational: u32, from: usize) -> Result<Option<Event>, UpstreamError> {
        let read = self.wire.inbox();
        let end = ResponseHead::end(read, from);
        if end.unwrap_or(read.len()) > self.head_bytes {
            let most = self.head_bytes;
            return Err(UpstreamError::Protocol(format!("its response head is larger than {most} bytes")));
        }
        let Some(end) = end else {
            // The end may be cut in two.
            self.answer = Answer::Awaited { informational, looked_at: read.len().saturating_sub(2) };
            return Ok(None);
        };
        let head = read.split_to(end).freeze();
        let head = ResponseHead::parse(&head, &self.method)
            .map_err(|what| UpstreamError::Protocol(what.to_owned()))?;
        let status = head.parts.status;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            if informational >= MOST_INFORMATIONAL {
                return Err(UpstreamError::Protocol(format!("it sent {informational} responses of 1xx")));
            }
            self.answer = Answer::Awaited { informational: informational + 1, looked_at: 0 };
            return Ok(Some(Event::Informational(head.parts)));
        }
        (self.keep, self.closes, self.kept_for) = (head.keep, head.closes, head.kept_for);
        if status == StatusCode::SWITCHING_PROTOCOLS {
            (self.answer, self.framing) = (Answer::Upgraded, Framing::UntilClose);
            self.sent = false;
            return Ok(Some(Event::Head(head.parts, false)));
        }
        self.answer = Answer::Body(head.body);
        Ok(Some(Event::Head(head.parts, head.body.is_done())))
    }

    pub(super) fn is_upgraded(&self) -> bool {
        matches!(self.answer, Answer::Upgraded)
    }

    /// Whether the upstream said that it closes the connection after this response.
    pub(super) fn is_closing(&self) -> bool {
        self.closes && !self.is_upgraded()
    }

    /// Whether the exchange left the connection as it was: everything sent, everything read, nothing too much.
    pub(super) fn is_reusable(&self) -> bool {
        let read = matches!(self.answer, Answer::Body(Decoder::Done)) && self.wire.is_empty();
        self.keep && self.sent && self.framing.is_done() && read
    }
}
