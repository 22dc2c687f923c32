//! One request, from its head to the last byte of its response.

use super::answer::Answer;
use super::asked::{Asked, Manner};
use super::attempt::Tries;
use super::downstream::{Downstream, Gone};
use super::forwarded::{self, Hop};
use super::outgoing::Address;
use super::passage::Passage;
use super::pump::Clock;
use super::reach::Choice;
use super::recording::Recording;
use super::responding::Responding;
use super::retries::Retries;
use super::{Connection, Worker, kept, mirror};
use crate::filter::Grant;
use crate::live::Revision;
use crate::reply::Reply;
use crate::routing::{Backend, Rule};
use crate::upstream::{self, Active, Cluster};
use http::{StatusCode, request};
use std::time::Duration;
use tokio::time::Instant;

/// How an exchange ended before its response was through.
#[derive(Debug)]
pub enum Ended {
    /// The gateway answers itself.
    Answer(Box<Answer>),
    /// The client went away; there is nobody to answer.
    Gone,
    /// The response had begun and broke off; it can only be cut.
    BrokenOff,
}

impl From<Reply> for Ended {
    fn from(reply: Reply) -> Self {
        Answer::from(reply).into()
    }
}

impl From<Answer> for Ended {
    fn from(answer: Answer) -> Self {
        Self::Answer(Box::new(answer))
    }
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// One request and its response.
pub struct Exchange<'a> {
    pub worker: &'a Worker,
    pub connection: &'a Connection,
    started: Instant,
    /// What browsers are told of the response, whoever gives it.
    pub grant: Option<Grant>,
}

/// Serves one request. Whatever happens, the client has its answer, or the exchange is cut, when this returns.
pub async fn serve(worker: &Worker, connection: &Connection, head: request::Parts, down: &mut Downstream) {
    let started = Instant::now();
    connection.stats.request_began();
    let manner = Manner::of(&head);
    let idle = connection.gateway.limits.stream_idle_timeout;
    let mut clock = Clock::new(started, idle, down.take_alarm());
    let mut exchange = Exchange { worker, connection, started, grant: None };
    let result = match exchange.forward(head, &mut clock, down).await {
        Ok(status) => Ok(status),
        Err(Ended::Answer(answer)) => exchange.answer(*answer, down, manner).await,
        Err(Ended::Gone) => Err(Gone),
        Err(Ended::BrokenOff) => {
            connection.stats.broke_off();
            Err(Gone)
        }
    };
    if result.is_err() {
        down.abort();
    }
    down.keep_alarm(clock.into_alarm());
    connection.stats.request_ended(result.ok(), started.elapsed());
}

impl Exchange<'_> {
    /// Finds who serves the request and passes it on.
    async fn forward(
        &mut self,
        head: request::Parts,
        clock: &mut Clock,
        down: &mut Downstream,
    ) -> Result<StatusCode, Ended> {
        let revision = self.worker.live.load().ok_or(Reply::NoRoute)?;
        let asked = Asked::read(&head)?;
        let found = revision.table.find(self.connection.socket, &asked.request(self.connection, &head))?;
        let rule: &Rule = found.rule;
        clock.limit_request(self.started, self.limit(rule));
        let mut passage = Passage {
            revision: &revision,
            asked: &asked,
            gateway: self.connection.gateway.id.0,
            matched: found.matched,
            head: self.introduced(head, &asked),
            clock,
            recording: Recording::default(),
            additions: None,
        };
        passage.admit(self, &[&rule.filters], down).await?;
        let (backend, kept) = choose(&revision, rule, &passage)?;
        passage.admit(self, &[&rule.filters, &backend.filters], down).await?;
        let (cluster, endpoints) = destination(&revision, rule, backend, self.connection)?;

        let filters = [&rule.filters, &backend.filters];
        passage.edit(filters);
        let address = Address::new(&asked, filters, found.matched, &passage.head.headers)?;
        let feeds = mirror::start(self.worker, &passage, filters, &address, down);
        if rule.retry.is_some() {
            passage.recording.start();
        }
        let Passage { head, clock, recording, additions, .. } = passage;
        let tries = Tries {
            worker: self.worker,
            cluster,
            backend: endpoints,
            asked: &asked,
            address,
            responding: Responding {
                filters,
                grant: self.grant.as_ref(),
                additions,
                session: rule.session.as_deref(),
                kept: kept.as_ref().map(|active| active.endpoint().address.clone()),
                secure: self.connection.server_name.is_some(),
            },
            clock,
            limit: rule.timeouts.backend_request.or(None),
            recording,
            feeds,
            retries: Retries::new(rule.retry.as_deref()),
            choice: Choice { kept, ..Choice::default() },
        };
        cluster.stats().request_began();
        let result = tries.run(head, down).await;
        self.count(cluster, &result);
        result
    }

    /// How long the request may take, all tries together.
    fn limit(&self, rule: &Rule) -> Option<Duration> {
        rule.timeouts.request.or(self.connection.gateway.limits.request_timeout)
    }

    /// Counts how a cluster's request ended.
    fn count(&self, cluster: &Cluster, result: &Result<StatusCode, Ended>) {
        match result {
            Ok(status) => cluster.stats().request_ended(Some(status.as_u16()), self.started.elapsed()),
            Err(Ended::Answer(answer)) => cluster.stats().request_replied(answer.head.status.as_u16()),
            Err(Ended::Gone | Ended::BrokenOff) => {
                cluster.stats().request_ended(None, self.started.elapsed());
            }
        }
    }

    /// The request as filters and backend get it: with what is known of its client.
    fn introduced(&self, mut head: request::Parts, asked: &Asked) -> request::Parts {
        let Connection { peer, server_name, gateway, client_certificate: certificate, .. } = self.connection;
        let hop = Hop { peer: peer.ip(), tls: server_name.is_some(), host: &asked.host, certificate };
        forwarded::prepare_request(&mut head.headers, gateway, hop);
        head
    }

    /// Gives the client an answer that no upstream gave.
    async fn answer(
        &self,
        mut answer: Answer,
        down: &mut Downstream,
        manner: Manner,
    ) -> Result<StatusCode, Gone> {
        if let Some(reply) = answer.cause() {
            self.connection.stats.replied(reply);
            if reply.closes() {
                down.close_after();
            }
        } else if answer.head.status.is_redirection() {
            self.connection.stats.mine().rq_redirect.inc();
        } else {
            self.connection.stats.mine().rq_direct_response.inc();
        }
        if let Some(grant) = &self.grant {
            grant.apply(&mut answer.head.headers);
        }
        self.worker.close_if_due(down);
        answer.send(down, manner).await
    }
}

/// The backend for the request: that of its session, or one by weight.
fn choose<'r>(
    revision: &Revision,
    rule: &'r Rule,
    passage: &Passage<'_>,
) -> Result<(&'r Backend, Option<Active>), Reply> {
    if let Some(session) = &rule.session
        && let Some((backend, active)) = kept::find(session, revision, rule, &passage.head.headers)
    {
        return Ok((backend, Some(active)));
    }
    let backend = rule.backends.choose(|| fastrand::u32(..)).ok_or(Reply::NoBackend)?;
    Ok((backend, None))
}

fn destination<'a>(
    revision: &'a Revision,
    rule: &Rule,
    backend: &Backend,
    connection: &Connection,
) -> Result<(&'a Cluster, &'a upstream::Backend), Reply> {
    let index = backend.index.ok_or(Reply::NoBackend)?;
    let id = rule.backends.cluster().ok_or(Reply::NoBackend)?;
    let cluster = revision.clusters.get(id.0 as usize).ok_or(Reply::NoBackend)?;
    let gateway = connection.gateway.id.0;
    Ok((cluster, cluster.backend_of(gateway, index).ok_or(Reply::NoBackend)?))
}
