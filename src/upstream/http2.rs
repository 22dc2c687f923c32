//! HTTP/2 to an upstream: a connection of a worker, and one exchange on it.

use super::session::{Event, UpstreamError};
use crate::wire::{Shared, Wire};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Request};
use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// What one exchange may have under way towards us; the connection has room for several such.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// How much of a request body is asked room for at a time.
const PIECE: usize = 64 * 1024;

/// A connection, shared by the exchanges of a worker.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Bytes>,
    /// The connection's end that is ours.
    local: Option<SocketAddr>,
    open: Rc<Cell<bool>>,
    streams: Cell<usize>,
}

impl Connection {
    /// Says hello, and drives the connection from then on in a local task.
    pub(super) async fn open(wire: Wire, local: Option<SocketAddr>) -> Result<Self, h2::Error> {
        let wire = Shared::from(wire);
        let (sender, mut driver) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(wire.clone())
            .await?;
        let open = Rc::new(Cell::new(true));
        let still_open = Rc::clone(&open);
        tokio::task::spawn_local(async move {
            // The wire gathers what the codec writes; it is sent whenever the codec has nothing more to do.
            let ended = poll_fn(|cx| {
                let ended = Pin::new(&mut driver).poll(cx);
                match wire.wire().poll_drain(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(Ok(())),
                    _ => ended,
                }
            });
            if let Err(error) = ended.await {
                tracing::debug!("an upstream HTTP/2 connection ended: {error}");
            }
            still_open.set(false);
        });
        Ok(Self { sender, local, open, streams: Cell::new(0) })
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.get()
    }

    /// Whether one more exchange can begin at once.
    pub(super) fn has_room(&self) -> bool {
        self.open.get() && self.streams.get() < self.sender.current_max_send_streams()
    }
}

/// One exchange.
#[derive(Debug)]
pub struct Http2 {
    connection: Rc<Connection>,
    pub reused: bool,
    state: State,
    body: Option<SendStream<Bytes>>,
}

#[derive(Debug)]
enum State {
    Unsent,
    Head(ResponseFuture),
    Body(RecvStream),
    Trailers(RecvStream),
    Done,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.connection.streams.set(self.connection.streams.get() - 1);
    }
}

impl Http2 {
    pub(super) fn new(connection: Rc<Connection>, reused: bool) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self { connection, reused, state: State::Unsent, body: None }
    }

    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.connection.local
    }

    /// Sends the request's head. Its URI must be absolute.
    pub async fn send_head(&mut self, head: &Parts, end: bool) -> Result<(), UpstreamError> {
        let mut sender = self.connection.sender.clone().ready().await?;
        let (response, body) = sender.send_request(Request::from_parts(head.clone(), ()), end)?;
        self.state = State::Head(response);
        self.body = (!end).then_some(body);
        Ok(())
    }

    /// Sends a piece of the body.
    pub fn send_body(&mut self, piece: Bytes, end: bool) -> Result<(), UpstreamError> {
        if let Some(body) = &mut self.body {
            body.send_data(piece, end)?;
        }
        if end {
            self.body = None;
        }
        Ok(())
    }

    /// Ends the body with trailers.
    pub fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), UpstreamError> {
        if let Some(mut body) = self.body.take() {
            body.send_trailers(trailers)?;
        }
        Ok(())
    }

    /// Ready when a piece of the body may be sent.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        body.reserve_capacity(PIECE);
        if body.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(body.poll_capacity(cx)) {
            Some(Ok(_)) => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(error.into())),
            // The upstream has ended the stream and wants no more of the body.
            None => {
                self.body = None;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// What the upstream sends next.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, UpstreamError>> {
        match &mut self.state {
            State::Unsent | State::Done => Poll::Ready(Ok(Event::End)),
            State::Head(response) => {
                if let Poll::Ready(Some(informational)) = response.poll_informational(cx) {
                    let (parts, ()) = informational?.into_parts();
                    return Poll::Ready(Ok(Event::Informational(parts)));
                }
                let (parts, body) = ready!(Pin::new(response).poll(cx))?.into_parts();
                let end = body.is_end_stream();
                self.state = if end { State::Done } else { State::Body(body) };
                Poll::Ready(Ok(Event::Head(parts, end)))
            }
            State::Body(body) => match ready!(body.poll_data(cx)) {
                Some(piece) => {
                    let piece = piece?;
                    // The pump asks only while the client's side has room, so this is backpressure enough.
                    body.flow_control().release_capacity(piece.len())?;
                    let end = body.is_end_stream();
                    if end {
                        self.state = State::Done;
                    }
                    Poll::Ready(Ok(Event::Body(piece, end)))
                }
                None => {
                    let State::Body(body) = std::mem::replace(&mut self.state, State::Done) else {
                        return Poll::Ready(Ok(Event::End));
                    };
                    self.state = State::Trailers(body);
                    self.poll_event(cx)
                }
            },
            State::Trailers(body) => {
                let trailers = ready!(body.poll_trailers(cx))?;
                self.state = State::Done;
                Poll::Ready(Ok(trailers.map_or(Event::End, Event::Trailers)))
            }
        }
    }
}
