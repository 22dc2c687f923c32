//! One exchange with an upstream, over HTTP/1 or HTTP/2.

use super::connect::Pool;
use super::http1::Http1;
use super::http2::Http2;
use bytes::Bytes;
use http::{HeaderMap, request, response};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use thiserror::Error;

/// What an upstream sends.
#[derive(Debug)]
pub enum Event {
    /// 1xx, but not 101.
    Informational(response::Parts),
    /// The response's head, and whether nothing follows it.
    Head(response::Parts, bool),
    /// A piece of the body, and whether it is known to be the last one.
    Body(Bytes, bool),
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
    /// The exchange was reset, and its connection goes on (HTTP/2).
    #[error("the upstream reset the stream: {0}")]
    Reset(String),
    /// The same before anybody looked at the request (RFC 9113 8.7).
    #[error("the upstream refused the stream: {0}")]
    Refused(String),
    /// What it sent is no HTTP.
    #[error("the upstream broke the protocol: {0}")]
    Protocol(String),
}

impl From<h2::Error> for UpstreamError {
    fn from(error: h2::Error) -> Self {
        let text = error.to_string();
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) if error.is_reset() => Self::Refused(text),
            // A reset that the codec thought of is for what the upstream sent.
            _ if error.is_reset() && error.is_remote() => Self::Reset(text),
            _ if error.is_io() || error.is_go_away() => Self::Closed(text),
            _ => Self::Protocol(text),
        }
    }
}

impl From<io::Error> for UpstreamError {
    fn from(error: io::Error) -> Self {
        Self::Closed(error.to_string())
    }
}

/// One exchange.
pub enum Upstream {
    Http1(Box<Http1>),
    Http2(Http2),
}

impl Upstream {
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

    /// The connection's end that is ours; a Unix socket has none.
    pub fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Http1(http1) => http1.local,
            Self::Http2(http2) => http2.local(),
        }
    }

    /// Sends the request's head; `end` says that no body follows.
    pub async fn send_head(&mut self, head: &request::Parts, end: bool) -> Result<(), UpstreamError> {
        match self {
            Self::Http1(http1) => {
                http1.send_head(head, end);
                Ok(())
            }
            Self::Http2(http2) => http2.send_head(head, end).await,
        }
    }

    /// Sends a piece of the request's body, and its end with the last one.
    pub fn send_body(&mut self, piece: Bytes, end: bool) -> Result<(), UpstreamError> {
        match self {
            Self::Http1(http1) => {
                http1.send_body(&piece, end);
                Ok(())
            }
            Self::Http2(http2) => http2.send_body(piece, end),
        }
    }

    /// Ends the request's body with trailers; a body whose length was promised has none.
    pub fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), UpstreamError> {
        match self {
            Self::Http1(http1) => {
                http1.send_trailers(&trailers);
                Ok(())
            }
            Self::Http2(http2) => http2.send_trailers(trailers),
        }
    }

    /// Ready when a piece of the request's body may be sent.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        match self {
            Self::Http1(http1) => http1.poll_writable(cx),
            Self::Http2(http2) => http2.poll_writable(cx),
        }
    }

    /// Sends what was written, as far as the connection takes it.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        match self {
            Self::Http1(http1) => http1.poll_drain(cx),
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
        matches!(self, Self::Http1(http1) if http1.is_upgraded())
    }

    /// Whether the upstream said that the connection ends with this response. HTTP/2's codec does not tell.
    pub fn is_closing(&self) -> bool {
        matches!(self, Self::Http1(http1) if http1.is_closing())
    }

    /// Ends an exchange whose response was read to its end: the connection serves again if it can.
    pub fn finish(self, pool: &Pool) {
        if let Self::Http1(http1) = self
            && http1.is_reusable()
        {
            pool.put(http1);
        }
    }
}
