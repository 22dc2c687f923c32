//! The client's side of one exchange, over HTTP/1 or HTTP/2.

use super::framing::{Framing, write_head};
use crate::wire::Wire;
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, response};
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::server::HttpSession;
use std::pin::pin;
use std::task::{Context, Poll, ready};

/// More written than this, and no more is read from the upstream until the client has taken some.
const HIGH_WATER: usize = 64 * 1024;
/// How much of a response body an HTTP/2 client is asked room for at a time.
const PIECE: usize = 64 * 1024;

/// What a client sends after the request's head.
#[derive(Debug, Clone)]
pub enum Piece {
    Body(Bytes),
    /// The body's end, with trailers.
    Trailers(HeaderMap),
    /// The body's end.
    End,
}

impl Piece {
    /// How many bytes of the body it is.
    pub fn len(&self) -> usize {
        match self {
            Self::Body(bytes) => bytes.len(),
            Self::Trailers(_) | Self::End => 0,
        }
    }

    /// Whether nothing of the body follows it.
    pub fn is_end(&self) -> bool {
        !matches!(self, Self::Body(_))
    }
}

/// The client is gone, or sent what cannot be understood; there is nobody to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The client's side of one exchange.
pub enum Downstream {
    Http1(Box<Http1>),
    Http2(Box<Http2>),
}

/// Over HTTP/1.
pub struct Http1 {
    pub(super) session: HttpSession,
    pub(super) wire: Wire,
    version: Version,
    method: Method,
    framing: Framing,
    /// Whether the connection may serve another request.
    pub(super) keep: bool,
    upgraded: bool,
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
    pub(super) fn http1(session: HttpSession, wire: Wire) -> Self {
        let (version, method) = (session.req_header().version, session.req_header().method.clone());
        let keep = session.will_keepalive();
        let framing = Framing::None;
        Self::Http1(Box::new(Http1 { session, wire, version, method, framing, keep, upgraded: false }))
    }

    pub(super) fn http2(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self::Http2(Box::new(Http2 { body, respond, send: None, data_read: false, head_sent: false }))
    }

    /// Takes the request's head out; what is left behind is enough for the codec.
    pub(super) fn take_head(session: &mut HttpSession) -> pingora::Result<RequestHeader> {
        // The body's framing is settled before the head goes.
        let _ = session.is_body_done();
        let head = session.req_header();
        let mut rest = RequestHeader::build_no_case(head.method.clone(), b"/", Some(0))?;
        rest.set_version(head.version);
        for name in [http::header::UPGRADE, http::header::EXPECT] {
            if let Some(value) = head.headers.get(&name) {
                rest.insert_header(name, value.clone())?;
            }
        }
        Ok(std::mem::replace(session.req_header_mut(), rest))
    }

    /// Whether there is no (more) request body.
    pub fn is_body_done(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.session.is_body_done(),
            Self::Http2(http2) => http2.body.is_end_stream(),
        }
    }

    /// The next piece of the request. Nothing is lost when the caller stops polling.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Gone>> {
        match self {
            Self::Http1(http1) => {
                if http1.session.is_body_done() {
                    return Poll::Ready(Ok(Piece::End));
                }
                let read = {
                    let reading = pin!(http1.session.read_body_bytes());
                    ready!(reading.poll(cx))
                };
                Poll::Ready(match read {
                    Ok(piece) => Ok(piece.map_or(Piece::End, Piece::Body)),
                    Err(_) => Err(Gone),
                })
            }
            Self::Http2(http2) => http2.poll_piece(cx).map_err(|_| Gone),
        }
    }

    /// Ready when the client goes away after it has sent its whole request.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match self {
            Self::Http1(http1) => {
                let waiting = pin!(http1.session.read_body_or_idle(true));
                waiting.poll(cx).map(|_| Gone)
            }
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
                let mut out = BytesMut::with_capacity(128);
                write_head(&mut out, &head);
                http1.wire.push(&out);
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
                if head.status == StatusCode::SWITCHING_PROTOCOLS {
                    // Only the codec can turn its connection into a tunnel.
                    http1.upgraded = true;
                    http1.keep = false;
                    return http1
                        .session
                        .write_response_header(Box::new(head.into()))
                        .await
                        .map_err(|_| Gone);
                }
                http1.send_head(head, end);
                Ok(())
            }
            Self::Http2(http2) => http2.send_head(head, end).map_err(|_| Gone),
        }
    }

    /// Sends a piece of the response's body, and its end with the last one.
    pub async fn send_body(&mut self, piece: Bytes, end: bool) -> Result<(), Gone> {
        match self {
            Self::Http1(http1) if http1.upgraded => {
                http1.session.write_body(&piece).await.map_err(|_| Gone)?;
                if end {
                    http1.session.finish_body().await.map_err(|_| Gone)?;
                }
                Ok(())
            }
            Self::Http1(http1) => {
                http1.framing.write_body(&http1.wire, &piece, end);
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
                http1.framing.write_trailers(&http1.wire, &trailers);
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

    /// Says that the connection ends after this exchange.
    pub fn close_after(&mut self) {
        if let Self::Http1(http1) = self {
            http1.keep = false;
        }
    }
}

impl Http1 {
    fn send_head(&mut self, mut head: response::Parts, end: bool) {
        let bodiless = end && self.method != Method::HEAD;
        self.framing = Framing::of(&mut head, &self.method, self.version, bodiless);
        if self.framing == Framing::UntilClose {
            self.keep = false;
        }
        let connection = match (self.keep, self.version) {
            (false, _) => Some("close"),
            (true, Version::HTTP_10) => Some("keep-alive"),
            (true, _) => None,
        };
        if let Some(connection) = connection {
            head.headers.insert(http::header::CONNECTION, HeaderValue::from_static(connection));
        }
        let mut out = BytesMut::with_capacity(512);
        write_head(&mut out, &head);
        self.wire.push(&out);
        if end {
            self.framing.write_body(&self.wire, &[], true);
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
