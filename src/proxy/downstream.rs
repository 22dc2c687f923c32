//! The client's side of one exchange, over HTTP/1 or HTTP/2.

use super::alarm::{Alarm, Alarms};
use crate::http1::{self, BadBody, Decoder, Framing, RequestHead, write_response};
use crate::wire::Wire;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, request, response};
use std::task::{Context, Poll, ready};

pub use crate::http1::Piece;

/// More written than this, and no more is read from the upstream until the client has taken some.
const HIGH_WATER: usize = 64 * 1024;
/// How much of a response body an HTTP/2 client is asked room for at a time.
const PIECE: usize = 64 * 1024;

/// The client is gone, or sent what cannot be understood; there is nobody to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The client's side of one exchange.
pub enum Downstream {
    Http1(Box<Http1>),
    Http2(Box<Http2>),
}

/// Over HTTP/1: one for all requests of a connection, one after the other.
pub struct Http1 {
    pub(super) wire: Wire,
    pub(super) alarm: Alarm,
    version: Version,
    method: Method,
    /// What of the request is still to be read.
    body: Decoder,
    framing: Framing,
    /// Whether the connection may serve another request.
    pub(super) keep: bool,
    /// Whether the request's body cannot be understood.
    malformed: bool,
    /// Whether the response has begun.
    answered: bool,
}

/// Over HTTP/2.
pub struct Http2 {
    body: RecvStream,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    data_read: bool,
    head_sent: bool,
}

impl Downstream {
    pub(super) fn http1(wire: Wire) -> Self {
        Self::Http1(Box::new(Http1 {
            wire,
            alarm: Alarm::default(),
            version: Version::HTTP_11,
            method: Method::GET,
            body: Decoder::Done,
            framing: Framing::None,
            keep: true,
            malformed: false,
            answered: false,
        }))
    }

    pub(super) fn http2(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self::Http2(Box::new(Http2 { body, respond, send: None, data_read: false, head_sent: false }))
    }

    /// A timer for the time of an exchange: the connection's, or, where many exchanges share that, one of these.
    pub(super) fn take_alarm(&mut self, spare: &Alarms) -> Alarm {
        match self {
            Self::Http1(http1) => std::mem::take(&mut http1.alarm),
            Self::Http2(_) => spare.take(),
        }
    }

    /// Gives it back.
    pub(super) fn keep_alarm(&mut self, alarm: Alarm, spare: &Alarms) {
        match self {
            Self::Http1(http1) => http1.alarm = alarm,
            Self::Http2(_) => spare.keep(alarm),
        }
    }

    /// Whether there is no (more) request body.
    pub fn is_body_done(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.body.is_done(),
            Self::Http2(http2) => http2.body.is_end_stream(),
        }
    }

    /// The next piece of the request. Nothing is lost when the caller stops polling.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Gone>> {
        match self {
            Self::Http1(http1) => http1.poll_piece(cx),
            Self::Http2(http2) => http2.poll_piece(cx).map_err(|_| Gone),
        }
    }

    /// Ready when the client goes away after it has sent its whole request.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match self {
            Self::Http1(http1) => http1.poll_gone(cx),
            Self::Http2(http2) => match &mut http2.send {
                Some(send) => send.poll_reset(cx).map(|_| Gone),
                None if http2.head_sent => Poll::Pending,
                None => http2.respond.poll_reset(cx).map(|_| Gone),
            },
        }
    }

    /// Ready when a piece of the response's body may be sent.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Self::Http1(http1) => {
                if http1.wire.pending() > HIGH_WATER {
                    ready!(http1.wire.poll_drain(cx)).map_err(|_| Gone)?;
                }
                Poll::Ready(Ok(()))
            }
            Self::Http2(http2) => http2.poll_writable(cx),
        }
    }

    /// Sends what was written, as far as the client takes it.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Self::Http1(http1) => http1.wire.poll_drain(cx).map_err(|_| Gone),
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Sends a 1xx response (not 101). HTTP/1.0 clients do not know them (RFC 9110 15.2).
    pub async fn send_informational(&mut self, head: response::Parts) -> Result<(), Gone> {
        match self {
            Self::Http1(http1) if http1.version == Version::HTTP_10 => Ok(()),
            Self::Http1(http1) => {
                write_response(http1.wire.outbox(), &head);
                Ok(())
            }
            Self::Http2(http2) => {
                http2.respond.send_informational(Response::from_parts(head, ())).map_err(|_| Gone)
            }
        }
    }

    /// Sends the response's head, framed for this client; `end` says that no body follows.
    pub async fn send_head(&mut self, head: response::Parts, end: bool) -> Result<(), Gone> {
        match self {
            Self::Http1(http1) => {
                http1.send_head(head, end);
                Ok(())
            }
            Self::Http2(http2) => http2.send_head(head, end).map_err(|_| Gone),
        }
    }

    /// Sends a piece of the response's body, and its end with the last one.
    pub async fn send_body(&mut self, piece: Bytes, end: bool) -> Result<(), Gone> {
        match self {
            Self::Http1(http1) => {
                http1.framing.write_body(&mut http1.wire, &piece, end);
                http1.keep &= !http1.framing.is_cut_short(end);
                Ok(())
            }
            Self::Http2(http2) => http2.send_body(piece, end).map_err(|_| Gone),
        }
    }

    /// Ends the response's body with trailers.
    pub async fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        match self {
            Self::Http1(http1) => {
                http1.framing.write_trailers(&mut http1.wire, &trailers);
                Ok(())
            }
            Self::Http2(http2) => match http2.send.take() {
                Some(mut send) => send.send_trailers(trailers).map_err(|_| Gone),
                None => Ok(()),
            },
        }
    }

    /// Tells the client that the response is broken off: it must not take it for a whole one.
    pub fn abort(&mut self) {
        match self {
            Self::Http1(http1) => http1.keep = false,
            Self::Http2(http2) => match &mut http2.send {
                Some(send) => send.send_reset(h2::Reason::INTERNAL_ERROR),
                None => http2.respond.send_reset(h2::Reason::INTERNAL_ERROR),
            },
        }
    }

    /// Whether the client can be told that its request's body cannot be understood.
    pub fn can_be_refused(&self) -> bool {
        matches!(self, Self::Http1(http1) if http1.malformed && !http1.answered)
    }

    /// Says that the connection ends after this exchange.
    pub fn close_after(&mut self) {
        if let Self::Http1(http1) = self {
            http1.keep = false;
        }
    }
}

impl Http1 {
    /// Begins with a request. What is returned of its head is what routes and upstreams need.
    pub(super) fn begin(&mut self, head: RequestHead) -> request::Parts {
        let RequestHead { parts, body, keep } = head;
        (self.version, self.method, self.body, self.keep) = (parts.version, parts.method.clone(), body, keep);
        self.framing = Framing::None;
        (self.malformed, self.answered) = (false, false);
        parts
    }

    /// Whether another request may follow the one that ended.
    pub(super) fn can_go_on(&self) -> bool {
        self.keep && self.body.is_done() && self.framing.is_done()
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Gone>> {
        loop {
            match self.body.decode(self.wire.inbox()) {
                Ok(Some(piece)) => return Poll::Ready(Ok(piece)),
                Ok(None) => {}
                Err(BadBody) => {
                    self.malformed = true;
                    return Poll::Ready(Err(Gone));
                }
            }
            match ready!(self.wire.poll_fill(cx, self.body.expected())) {
                Ok(0) if self.body == Decoder::UntilClose => return Poll::Ready(Ok(Piece::End)),
                Ok(0) | Err(_) => return Poll::Ready(Err(Gone)),
                Ok(_) => {}
            }
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        // The next request may be here already; that the client has gone shows when it is its turn.
        if !self.wire.inbox().is_empty() {
            return Poll::Pending;
        }
        match ready!(self.wire.poll_fill(cx, 1)) {
            Ok(0) | Err(_) => Poll::Ready(Gone),
            Ok(_) => Poll::Pending,
        }
    }

    fn send_head(&mut self, mut head: response::Parts, end: bool) {
        self.answered = true;
        let bodiless = end && self.method != Method::HEAD;
        self.framing = Framing::of_response(&mut head, &self.method, self.version, bodiless);
        self.keep &= self.framing != Framing::UntilClose;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            self.body = Decoder::UntilClose;
        } else {
            let connection = match (self.keep, self.version) {
                (false, _) => Some("close"),
                (true, Version::HTTP_10) => Some("keep-alive"),
                (true, _) => None,
            };
            if let Some(connection) = connection {
                head.headers.insert(http::header::CONNECTION, HeaderValue::from_static(connection));
            }
        }
        write_response(self.wire.outbox(), &head);
        http1::give_back(head.headers);
        if end {
            self.framing.write_body(&mut self.wire, &[], true);
        }
    }
}

impl Http2 {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, h2::Error>> {
        if !self.data_read {
            if let Some(piece) = ready!(self.body.poll_data(cx)) {
                let piece = piece?;
                // The pump asks only while the upstream's side has room, so this is backpressure enough.
                self.body.flow_control().release_capacity(piece.len())?;
                return Poll::Ready(Ok(Piece::Body(piece)));
            }
            self.data_read = true;
        }
        let trailers = ready!(self.body.poll_trailers(cx))?;
        Poll::Ready(Ok(trailers.map_or(Piece::End, Piece::Trailers)))
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Ok(())) };
        if send.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        send.reserve_capacity(PIECE);
        loop {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(0)) => {}
                Some(Ok(_)) => return Poll::Ready(Ok(())),
                Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
            }
        }
    }

    fn send_head(&mut self, mut head: response::Parts, end: bool) -> Result<(), h2::Error> {
        head.version = Version::HTTP_2;
        let response = Response::from_parts(head, ());
        self.head_sent = true;
        let send = self.respond.send_response(response, end)?;
        self.send = (!end).then_some(send);
        Ok(())
    }

    fn send_body(&mut self, piece: Bytes, end: bool) -> Result<(), h2::Error> {
        if let Some(send) = &mut self.send
            && (end || !piece.is_empty())
        {
            send.send_data(piece, end)?;
        }
        if end {
            self.send = None;
        }
        Ok(())
    }
}
