//! One question of the gateway's own to a backend, and the whole answer: how authorizers are asked.

use super::outgoing::{self, Address};
use super::reach::{Choice, reach};
use crate::filter::Destination;
use crate::live::Revision;
use crate::reply::Reply;
use crate::upstream::{Event, Pool, Protocol, Upstream, UpstreamError};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, request, response};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use thiserror::Error;

/// What of an answer's body is read.
const MOST_BODY: usize = 256 * 1024;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    pub to: Destination,
    /// The number of the gateway, whose certificate is shown.
    pub gateway: u16,
    pub head: request::Parts,
    pub address: Address,
    pub body: Bytes,
}

/// What is answered.
#[derive(Debug)]
pub struct Called {
    pub head: response::Parts,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum CallError {
    #[error("it is not in the revision")]
    Unknown,
    #[error("it cannot be reached: {0:?}")]
    Unreachable(Reply),
    #[error("what to ask cannot be written: {0}")]
    Unspeakable(#[from] http::Error),
    #[error("{0}")]
    Failed(#[from] UpstreamError),
    #[error("its answer has more than {MOST_BODY} bytes")]
    TooLong,
    #[error("it ended without an answer")]
    Silent,
}

/// Asks, and once more when a connection that served before was closed meanwhile.
pub async fn call(pool: &Rc<Pool>, revision: &Revision, question: Question) -> Result<Called, CallError> {
    let cluster = revision.clusters.get(question.to.cluster.0 as usize).ok_or(CallError::Unknown)?;
    let backend = cluster.backend_of(question.gateway, question.to.backend).ok_or(CallError::Unknown)?;
    let mut choice = Choice::default();
    loop {
        let reached = reach(pool, cluster, backend, &mut choice).await.map_err(CallError::Unreachable)?;
        let (mut up, active) = (reached.up, reached.active);
        let reused = up.is_reused();
        match ask(&mut up, reached.tls, question.clone()).await {
            Ok(called) => {
                up.finish(pool);
                return Ok(called);
            }
            Err(CallError::Failed(UpstreamError::Closed(_) | UpstreamError::Refused(_)))
                if reused && !choice.fresh =>
            {
                choice.kept = Some(active);
                choice.fresh = true;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn ask(up: &mut Upstream, tls: bool, question: Question) -> Result<Called, CallError> {
    let Question { to: _, gateway: _, mut head, address, body } = question;
    let protocol = if up.is_http2() { Protocol::Http2 } else { Protocol::Http1 };
    let end = body.is_empty();
    outgoing::address(&mut head, &outgoing::Target { address: &address, tls, protocol, end, upgrade: None })?;
    up.send_head(&head, end).await?;
    if !end {
        up.send_body(body, true)?;
    }
    let mut head = None;
    let mut all = BytesMut::new();
    loop {
        let trailers = match event(up).await? {
            Event::Informational(_) => continue,
            Event::Body(piece, _) if all.len() + piece.len() > MOST_BODY => return Err(CallError::TooLong),
            Event::Body(piece, end) => {
                all.extend_from_slice(&piece);
                if !end {
                    continue;
                }
                HeaderMap::new()
            }
            Event::Head(received, end) => {
                head = Some(received);
                if !end {
                    continue;
                }
                HeaderMap::new()
            }
            Event::Trailers(trailers) => trailers,
            Event::End => HeaderMap::new(),
        };
        let head = head.ok_or(CallError::Silent)?;
        return Ok(Called { head, body: all.freeze(), trailers });
    }
}

async fn event(up: &mut Upstream) -> Result<Event, UpstreamError> {
    poll_fn(|cx| {
        if let Poll::Ready(event) = up.poll_event(cx) {
            return Poll::Ready(event);
        }
        let _ = up.poll_drain(cx);
        Poll::Pending
    })
    .await
}
