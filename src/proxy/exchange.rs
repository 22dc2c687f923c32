//! One request, from its head to the last byte of its response.

use super::downstream::{Downstream, Gone, Piece};
use super::forwarded::{self, Hop};
use super::pump::{self, Clock, Reading, Step};
use super::{Connection, Worker, answer, outgoing, target};
use crate::filter::{Filters, Origin};
use crate::live::Revision;
use crate::reply::Reply;
use crate::routing::{Backend, Found, Request, Rule};
use crate::upstream::{Active, Cluster, ConnectError, Event, Protocol, Upstream, UpstreamError};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use http::{Method, StatusCode, request, response};
use std::sync::Arc;
use tokio::time::Instant;

/// How an exchange ended before its response was through.
#[derive(Debug)]
pub enum Ended {
    /// The gateway answers itself.
    Reply(Reply),
    /// The gateway answers with another location.
    Redirect(StatusCode, String),
    /// The client went away; there is nobody to answer.
    Gone,
    /// The response had begun and broke off; it can only be cut.
    BrokenOff,
}

impl From<Reply> for Ended {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// What of the request is needed after its head has become the upstream's.
struct Asked {
    /// As it stood in the request.
    host: HeaderValue,
    /// Lower case, without port.
    name: String,
    path: String,
    /// With its `?`, or empty.
    query: String,
    upgrade: Option<HeaderValue>,
    /// Whether the request may be sent twice without harm (RFC 9110 9.2.2).
    idempotent: bool,
}

/// Serves one request. Whatever happens, the client has its answer, or the exchange is cut, when this returns.
pub async fn serve(worker: &Worker, connection: &Connection, head: request::Parts, down: &mut Downstream) {
    let started = Instant::now();
    connection.stats.request_began();
    let grpc = answer::is_grpc(&head.headers);
    let result = match forward(worker, connection, head, down, started).await {
        Ok(status) => Ok(status),
        Err(Ended::Reply(reply)) => {
            connection.stats.replied(reply);
            worker.close_if_due(down);
            answer::reply(down, reply, grpc).await
        }
        Err(Ended::Redirect(status, location)) => {
            worker.close_if_due(down);
            answer::redirect(down, status, &location).await
        }
        Err(Ended::Gone) => Err(Gone),
        Err(Ended::BrokenOff) => {
            down.abort();
            Err(Gone)
        }
    };
    if result.is_err() {
        down.abort();
    }
    connection.stats.request_ended(result.ok(), started.elapsed());
}

/// Finds who serves the request and passes it on.
async fn forward(
    worker: &Worker,
    connection: &Connection,
    mut head: request::Parts,
    down: &mut Downstream,
    started: Instant,
) -> Result<StatusCode, Ended> {
    let revision = worker.live.load().ok_or(Reply::NoRoute)?;
    let asked = asked(&head)?;
    let found = revision.table.find(
        connection.socket,
        &Request {
            host: &asked.name,
            server_name: connection.server_name.as_deref(),
            path: &asked.path,
            query: asked.query.trim_start_matches('?'),
            method: &head.method,
            headers: &head.headers,
        },
    )?;
    let rule = Arc::clone(found.rule);
    let origin = origin(connection, &asked, found);
    early_answers(&rule.filters, &origin)?;
    let backend = rule.backends.choose(|| fastrand::u32(..)).ok_or(Reply::NoBackend)?;
    early_answers(&backend.filters, &origin)?;
    let (cluster, index) = destination(&revision, &rule, backend)?;

    let hop = Hop { peer: connection.peer.ip(), tls: connection.server_name.is_some(), host: &asked.host };
    forwarded::prepare_request(&mut head.headers, &connection.gateway, hop);
    let limit = rule.timeouts.shortest().or(connection.gateway.limits.request_timeout);
    let mut exchange = Exchange {
        worker,
        cluster,
        backend: index,
        filters: [&rule.filters, &backend.filters],
        asked: &asked,
        matched: found.matched,
        clock: Clock::new(started, limit, connection.gateway.limits.stream_idle_timeout),
    };
    cluster.stats().request_began();
    let result = exchange.run(head, down).await;
    cluster.stats().request_ended(result.as_ref().ok().map(|status| status.as_u16()), started.elapsed());
    result
}

/// Reads from the head who and what is asked for, and refuses what is ambiguous.
fn asked(head: &request::Parts) -> Result<Asked, Ended> {
    if head.method == Method::CONNECT {
        return Err(Reply::MethodNotServed.into());
    }
    // A target with an authority counts more than `Host` (RFC 9112 3.2.2, RFC 9113 8.3.1).
    let host = match head.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(|_| Reply::BadRequest)?,
        None => head.headers.get(HOST).cloned().unwrap_or(HeaderValue::from_static("")),
    };
    let name = target::host(host.to_str().map_err(|_| Reply::BadRequest)?)?.into_owned();
    let whole = head.uri.path_and_query().map_or("/", |whole| whole.as_str());
    let (path, query) = whole.find('?').map_or((whole, ""), |at| whole.split_at(at));
    let path = match target::normalise(path) {
        Ok(path) => path.into_owned(),
        Err(Reply::EscapedSlash) => {
            return Err(Ended::Redirect(Reply::EscapedSlash.status(), target::unescape_slashes(whole)));
        }
        Err(reply) => return Err(reply.into()),
    };
    Ok(Asked {
        name,
        path,
        query: query.to_owned(),
        upgrade: outgoing::wanted_upgrade(head),
        idempotent: head.method.is_idempotent(),
        host,
    })
}

fn origin<'a>(connection: &Connection, asked: &'a Asked, found: Found<'_>) -> Origin<'a> {
    Origin {
        tls: connection.server_name.is_some(),
        port: connection.socket.port,
        host: &asked.name,
        path: &asked.path,
        query: &asked.query,
        matched: found.matched,
    }
}

/// Filters that answer instead of the upstream.
fn early_answers(filters: &Filters, origin: &Origin<'_>) -> Result<(), Ended> {
    if let Some(reply) = filters.broken {
        return Err(reply.into());
    }
    match &filters.redirect {
        Some(redirect) => Err(Ended::Redirect(redirect.status, redirect.location(origin))),
        None => Ok(()),
    }
}

fn destination<'a>(
    revision: &'a Revision,
    rule: &Rule,
    backend: &Backend,
) -> Result<(&'a Cluster, u16), Reply> {
    let index = backend.index.ok_or(Reply::NoBackend)?;
    let id = rule.backends.cluster().ok_or(Reply::NoBackend)?;
    let cluster = revision.clusters.get(id.0 as usize).ok_or(Reply::NoBackend)?;
    Ok((cluster, index))
}

/// An exchange whose destination is known.
struct Exchange<'a> {
    worker: &'a Worker,
    cluster: &'a Cluster,
    backend: u16,
    /// The rule's, then the backend's.
    filters: [&'a Filters; 2],
    asked: &'a Asked,
    matched: usize,
    clock: Clock,
}

/// How a try ended without a response.
enum Failed {
    /// It may be tried once more, on a new connection.
    Stale(Box<request::Parts>),
    Ended(Ended),
}

impl<T: Into<Ended>> From<T> for Failed {
    fn from(ended: T) -> Self {
        Self::Ended(ended.into())
    }
}

impl Exchange<'_> {
    async fn run(&mut self, mut head: request::Parts, down: &mut Downstream) -> Result<StatusCode, Ended> {
        for filters in self.filters {
            if let Some(edits) = &filters.request_headers {
                edits.apply(&mut head.headers);
            }
        }
        match self.attempt(head, down, false).await {
            Ok(status) => Ok(status),
            Err(Failed::Ended(ended)) => Err(ended),
            Err(Failed::Stale(head)) => {
                self.cluster.stats().retried();
                match self.attempt(*head, down, true).await {
                    Ok(status) => Ok(status),
                    Err(Failed::Ended(ended)) => Err(ended),
                    Err(Failed::Stale(_)) => Err(Reply::UpstreamReset.into()),
                }
            }
        }
    }

    /// The target towards the upstream: as asked, or as a rewrite says.
    fn address(
        &self,
        head: &mut request::Parts,
        protocol: Protocol,
        tls: bool,
        end: bool,
    ) -> Result<(), Reply> {
        let mut host = &self.asked.host;
        let mut path = std::borrow::Cow::Borrowed(self.asked.path.as_str());
        for filters in self.filters {
            let Some(rewrite) = &filters.rewrite else { continue };
            host = rewrite.hostname.as_ref().unwrap_or(host);
            if let Some(edit) = &rewrite.path {
                path = edit.apply(&path, self.matched).into_owned().into();
            }
        }
        let upgrade = self.asked.upgrade.as_ref();
        let target =
            outgoing::Target { path: &path, query: &self.asked.query, host, tls, protocol, end, upgrade };
        outgoing::address(head, &target).map_err(|_| Reply::BadRequest)
    }

    /// One try: a connection, the request, the response.
    async fn attempt(
        &mut self,
        mut head: request::Parts,
        down: &mut Downstream,
        fresh: bool,
    ) -> Result<StatusCode, Failed> {
        let (mut up, _active, tls) = self.reach(fresh).await?;
        let protocol = if up.is_http2() { Protocol::Http2 } else { Protocol::Http1 };
        let upgrading = self.asked.upgrade.is_some() && protocol == Protocol::Http1;
        let end = !upgrading && down.is_body_done();
        // Only a connection that served before can be found closed, and only then a second try is safe.
        let spare = (up.is_reused() && self.asked.idempotent && end).then(|| Box::new(head.clone()));
        self.address(&mut head, protocol, tls, end)?;
        let reading = match (upgrading, end) {
            (true, _) => Reading::Held,
            (false, true) => Reading::Ended,
            (false, false) => Reading::Open,
        };
        let sent = up.send_head(head, end).await;
        let result = match sent {
            Ok(()) => self.relay(&mut up, down, reading).await,
            Err(error) => Err(Broken::Before(error)),
        };
        let (received, sent) = up.take_traffic();
        self.cluster.stats().traffic(received, sent);
        match (result, spare) {
            (Ok(status), _) => {
                up.finish(&self.worker.pool);
                Ok(status)
            }
            (Err(Broken::Before(UpstreamError::Closed(_))), Some(head)) => Err(Failed::Stale(head)),
            (Err(Broken::Before(error)), _) => {
                tracing::debug!("{}: {error}", self.cluster.name());
                Err(match error {
                    UpstreamError::Closed(_) => Reply::UpstreamReset.into(),
                    UpstreamError::Protocol(_) => Reply::UpstreamProtocol.into(),
                })
            }
            (Err(Broken::Ended(ended)), _) => Err(ended.into()),
        }
    }

    /// A connection to one of the backend's endpoints; another endpoint is tried when one cannot be reached.
    async fn reach(&self, fresh: bool) -> Result<(Upstream, Active, bool), Reply> {
        const MOST_TRIES: usize = 3;
        let backend = self.cluster.backend(self.backend).ok_or(Reply::NoBackend)?;
        let mut failed = None;
        let mut reply = Reply::NoEndpoint;
        for _ in 0..backend.endpoints.len().clamp(1, MOST_TRIES) {
            let picked = backend.endpoints.pick(|| fastrand::u32(..), failed.as_ref());
            let active = picked.ok_or(Reply::NoEndpoint)?;
            match self.worker.pool.get(self.cluster, backend, active.endpoint(), fresh).await {
                Ok(up) => return Ok((up, active, backend.channel.is_tls())),
                Err(error) => {
                    self.cluster.stats().connect_failed();
                    tracing::debug!("{}: {:?}: {error}", self.cluster.name(), active.endpoint().address);
                    reply = match error {
                        ConnectError::Timeout(_) => Reply::ConnectTimeout,
                        ConnectError::Io(_) | ConnectError::Tls(_) | ConnectError::Http2(_) => {
                            Reply::ConnectFailed
                        }
                    };
                    failed = Some(active.endpoint().address.clone());
                }
            }
        }
        Err(reply)
    }

    /// Moves request and response until the response is through.
    async fn relay(
        &mut self,
        up: &mut Upstream,
        down: &mut Downstream,
        mut reading: Reading,
    ) -> Result<StatusCode, Broken> {
        let mut status = None;
        loop {
            match pump::step(down, up, &mut reading, &mut self.clock).await {
                Step::Piece(piece) => {
                    if matches!(piece, Piece::End | Piece::Trailers(_)) {
                        reading = Reading::Ended;
                    }
                    let tunnel_ended = up.is_upgraded() && reading == Reading::Ended;
                    // An upstream that stops taking the body may still answer: its answer is read on.
                    if pass_on(up, piece).await.is_err() {
                        reading = Reading::Ended;
                    }
                    if let (true, Some(status)) = (tunnel_ended, status) {
                        return Ok(status);
                    }
                }
                Step::Event(Event::Informational(head)) => down.send_informational(head).await?,
                Step::Event(Event::Head(head, end)) => {
                    let upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
                    if upgraded && reading != Reading::Held {
                        return Err(Broken::Before(UpstreamError::Protocol("101 was not asked for".into())));
                    }
                    if upgraded {
                        self.clock.forget_deadline();
                    }
                    status = Some(head.status);
                    self.send_head(down, head, end && !upgraded).await?;
                    if reading == Reading::Held {
                        reading = Reading::Open;
                    }
                    if end && !upgraded {
                        return self.finish(down, status).await;
                    }
                }
                Step::Event(Event::Body(piece)) => down.send_body(piece, false).await?,
                Step::Event(Event::Trailers(trailers)) => {
                    down.send_trailers(trailers).await?;
                    return self.finish(down, status).await;
                }
                Step::Event(Event::End) => {
                    down.send_body(Bytes::new(), true).await?;
                    return self.finish(down, status).await;
                }
                Step::Gone => return Err(Broken::Ended(Ended::Gone)),
                Step::Failed(error) if status.is_none() => return Err(Broken::Before(error)),
                Step::Failed(error) => {
                    tracing::debug!("{}: {error}", self.cluster.name());
                    return Err(Broken::Ended(Ended::BrokenOff));
                }
                Step::TimedOut => {
                    self.cluster.stats().timed_out();
                    return Err(Broken::Ended(match status {
                        None => Reply::UpstreamTimeout.into(),
                        Some(_) => Ended::BrokenOff,
                    }));
                }
            }
        }
    }

    async fn finish(&self, down: &mut Downstream, status: Option<StatusCode>) -> Result<StatusCode, Broken> {
        pump::drain(down).await?;
        status.ok_or(Broken::Before(UpstreamError::Closed("it ended without a response".into())))
    }

    async fn send_head(
        &self,
        down: &mut Downstream,
        mut head: response::Parts,
        end: bool,
    ) -> Result<(), Ended> {
        let upgrade =
            (head.status == StatusCode::SWITCHING_PROTOCOLS).then(|| head.headers.get(UPGRADE).cloned());
        forwarded::remove_hop_by_hop_response(&mut head.headers);
        for filters in self.filters {
            if let Some(edits) = &filters.response_headers {
                edits.apply(&mut head.headers);
            }
        }
        if let Some(Some(upgrade)) = upgrade {
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(UPGRADE, upgrade);
        }
        self.worker.close_if_due(down);
        Ok(down.send_head(head, end).await?)
    }
}

/// How relaying ended without a whole response.
enum Broken {
    /// The upstream failed before its response began.
    Before(UpstreamError),
    Ended(Ended),
}

impl<T: Into<Ended>> From<T> for Broken {
    fn from(ended: T) -> Self {
        Self::Ended(ended.into())
    }
}

async fn pass_on(up: &mut Upstream, piece: Piece) -> Result<(), UpstreamError> {
    match piece {
        Piece::Body(bytes) => up.send_body(bytes, false).await,
        Piece::Trailers(trailers) => up.send_trailers(trailers).await,
        Piece::End => up.send_body(Bytes::new(), true).await,
    }
}
