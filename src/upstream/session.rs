//! One exchange with an upstream, over HTTP/1 or HTTP/2.

use super::connect::Pool;
use super::http2::Http2;
use crate::wire::Wire;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, request, response};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::{ErrorType, ImmutStr};
use std::pin::pin;
use std::task::{Context, Poll, ready};
use thiserror::Error;

/// More written than this, and the upstream is given no more of the body until it has taken some.
const HIGH_WATER: usize = 64 * 1024;

/// What an upstream sends.
#[derive(Debug)]
pub enum Event {
    /// 1xx, but not 101.
    Informational(response::Parts),
    /// The response's head, and whether nothing follows it.
    Head(response::Parts, bool),
    Body(Bytes),
    /// The body's end, with trailers.
    Trailers(HeaderMap),
    /// The body's end.
    End,
}

/// How an exchange failed.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// Closed or reset, before or within the response.
    #[error("the upstream closed the connection: {0}")]
    Closed(String),
    /// What it sent is no HTTP.
    #[error("the upstream broke the protocol: {0}")]
    Protocol(String),
}

impl From<h2::Error> for UpstreamError {
    fn from(error: h2::Error) -> Self {
        let text = error.to_string();
        if error.is_io() || error.is_reset() || error.is_go_away() {
            Self::Closed(text)
        } else {
            Self::Protocol(text)
        }
    }
}

impl From<Box<pingora::Error>> for UpstreamError {
    fn from(error: Box<pingora::Error>) -> Self {
        let text = error.context.as_ref().map_or_else(|| error.to_string(), ImmutStr::to_string);
        match error.etype() {
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => Self::Closed(text),
            _ => Self::Protocol(text),
        }
    }
}

/// One exchange.
pub enum Upstream {
    Http1(Box<Http1>),
    Http2(Http2),
}

/// One exchange over HTTP/1.
pub struct Http1 {
    session: HttpSession,
    wire: Wire,
    key: (u64, u64),
    head_bytes: usize,
    pub reused: bool,
    /// Whether the request was sent to its end: the end is written once, whoever asks for it again.
    sent: bool,
    /// Bytes that a request body with a `Content-Length` still owes.
    owed: Option<u64>,
    head_read: bool,
}

impl Upstream {
    pub(super) fn http1(wire: Wire, key: (u64, u64), head_bytes: usize, reused: bool) -> Self {
        let session = HttpSession::new(Box::new(wire.clone()));
        Self::Http1(Box::new(Http1 {
            session,
            wire,
            key,
            head_bytes,
            reused,
            sent: false,
            owed: None,
            head_read: false,
        }))
    }

    /// Whether the connection served before: it may have been closed in the meantime.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.reused,
            Self::Http2(http2) => http2.reused,
        }
    }

    /// Whether the exchange is over HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Sends the request's head; `end` says that no body follows.
    pub async fn send_head(&mut self, head: request::Parts, end: bool) -> Result<(), UpstreamError> {
        match self {
            Self::Http1(http1) => http1.send_head(head, end).await,
            Self::Http2(http2) => http2.send_head(head, end).await,
        }
    }

    /// Sends a piece of the request's body, and its end with the last one.
    pub async fn send_body(&mut self, piece: Bytes, end: bool) -> Result<(), UpstreamError> {
        match self {
            Self::Http1(http1) => http1.send_body(&piece, end).await,
            Self::Http2(http2) => http2.send_body(piece, end),
        }
    }

    /// Ends the request's body with trailers; HTTP/1 upstreams get the end alone (pingora writes no trailers).
    pub async fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), UpstreamError> {
        match self {
            Self::Http1(http1) => http1.send_body(&[], true).await,
            Self::Http2(http2) => http2.send_trailers(trailers),
        }
    }

    /// Ready when a piece of the request's body may be sent.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        match self {
            Self::Http1(http1) => {
                if http1.wire.pending() > HIGH_WATER {
                    ready!(http1.wire.poll_drain(cx))
                        .map_err(|error| UpstreamError::Closed(error.to_string()))?;
                }
                Poll::Ready(Ok(()))
            }
            Self::Http2(http2) => http2.poll_writable(cx),
        }
    }

    /// Sends what was written, as far as the connection takes it.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        match self {
            Self::Http1(http1) => {
                http1.wire.poll_drain(cx).map_err(|error| UpstreamError::Closed(error.to_string()))
            }
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    /// What the upstream sends next. Nothing is lost when the caller stops polling.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, UpstreamError>> {
        match self {
            Self::Http1(http1) => http1.poll_event(cx),
            Self::Http2(http2) => http2.poll_event(cx),
        }
    }

    /// Whether the connection became a tunnel (101).
    pub fn is_upgraded(&self) -> bool {
        matches!(self, Self::Http1(http1) if http1.session.was_upgraded())
    }

    /// Ends an exchange whose response was read to its end: the connection serves again if it can.
    pub fn finish(self, pool: &Pool) {
        if let Self::Http1(http1) = self
            && let Some((key, wire)) = http1.reusable()
        {
            pool.put(key, wire);
        }
    }
}

impl Http1 {
    async fn send_head(&mut self, head: request::Parts, end: bool) -> Result<(), UpstreamError> {
        self.owed = head
            .headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.trim().parse().ok());
        self.session.write_request_header(Box::new(RequestHeader::from(head))).await?;
        if end {
            self.send_body(&[], true).await?;
        }
        Ok(())
    }

    async fn send_body(&mut self, piece: &[u8], end: bool) -> Result<(), UpstreamError> {
        if self.sent {
            return Ok(());
        }
        if !piece.is_empty() {
            self.session.maybe_upgrade_body_writer();
            self.session.write_body(piece).await?;
            self.owed = self.owed.map(|owed| owed.saturating_sub(piece.len() as u64));
        }
        if end {
            self.sent = true;
            self.session.finish_body().await?;
        }
        Ok(())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, UpstreamError>> {
        let task = {
            // Recreated at each poll: the session keeps what it has read (its own proxy drops this future too).
            let reading = pin!(self.session.read_response_task());
            ready!(reading.poll(cx))
        };
        Poll::Ready(match task? {
            HttpTask::Header(head, end) => self.head(head, end),
            HttpTask::Body(piece, end) | HttpTask::UpgradedBody(piece, end) => {
                // The end is reported by the next call, which finds the body done.
                match piece {
                    Some(piece) => Ok(Event::Body(piece)),
                    None if end => Ok(Event::End),
                    None => Ok(Event::Body(Bytes::new())),
                }
            }
            HttpTask::Trailer(trailers) => {
                Ok(trailers.map_or(Event::End, |trailers| Event::Trailers(*trailers)))
            }
            HttpTask::Done => Ok(Event::End),
            HttpTask::Failed(error) => Err(error.into()),
        })
    }

    fn head(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<Event, UpstreamError> {
        if self.session.get_headers_raw_bytes().len() > self.head_bytes {
            return Err(UpstreamError::Protocol(format!(
                "its response head is larger than {} bytes",
                self.head_bytes
            )));
        }
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Event::Informational((*head).into()));
        }
        self.head_read = true;
        Ok(Event::Head((*head).into(), end))
    }

    fn reusable(mut self: Box<Self>) -> Option<((u64, u64), Wire)> {
        let whole = self.sent && self.owed.unwrap_or(0) == 0 && self.head_read && self.wire.pending() == 0;
        if !whole || !self.session.is_body_done() {
            return None;
        }
        self.session.respect_keepalive();
        if !self.session.will_keepalive() {
            return None;
        }
        Some((self.key, self.wire))
    }
}
