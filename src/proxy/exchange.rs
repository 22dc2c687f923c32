//! One request, from its head to the last byte of its response.

use super::answer::Answer;
use super::asked::{Asked, Manner};
use super::attempt::Tries;
use super::downstream::{Downstream, Gone};
use super::forwarded::{self, Hop};
use super::notes::Notes;
use super::outgoing::Address;
use super::passage::Passage;
use super::pump::Clock;
use super::reach::Choice;
use super::recording::Recording;
use super::responding::Responding;
use super::retries::Retries;
use super::{Connection, Worker, kept, mirror};
use crate::challenge::Challenges;
use crate::filter::{Filters, Grant};
use crate::http1;
use crate::live::Revision;
use crate::moment;
use crate::reply::{Flag, Outcome, Reply};
use crate::routing::{Backend, ClusterId, Found, Rule};
use crate::upstream::{self, Active, Cluster};
use http::{StatusCode, request};
use std::net::IpAddr;
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
    /// The client's address, once it is known.
    pub client: IpAddr,
    /// What browsers are told of the response, whoever gives it.
    pub grant: Option<Grant>,
    pub notes: Notes,
}

/// Serves one request. Whatever happens, the client has its answer, or the exchange is cut, when this returns.
/// Returns whether the client went away.
pub async fn serve(
    worker: &Worker,
    connection: &Connection,
    mut head: request::Parts,
    down: &mut Downstream,
) -> bool {
    let started = moment::now();
    connection.stats.request_began();
    let manner = Manner::of(&head);
    let idle = connection.gateway.limits.stream_idle_timeout;
    let mut clock = Clock::new(started, idle, down.take_alarm(&worker.alarms));
    let revision = worker.live.load();
    let mut notes = Notes::begin(revision.as_deref(), connection, started);
    notes.asked(&head, &connection.gateway);
    let mut exchange =
        Exchange { worker, connection, started, client: connection.peer.ip(), grant: None, notes };
    let mut outcome = Outcome::VIA_UPSTREAM;
    let mut by_us = false;
    let result = match exchange.forward(revision.as_deref(), &mut head, &mut clock, down).await {
        Ok(status) => Ok(status),
        Err(Ended::Answer(answer)) => {
            outcome = answer.outcome();
            exchange.answer(*answer, down, manner).await
        }
        Err(Ended::Gone) if down.can_be_refused() => {
            outcome = Reply::BadRequest.into();
            exchange.answer(Reply::BadRequest.into(), down, manner).await
        }
        Err(Ended::Gone) => {
            outcome = Outcome::CLIENT_GONE;
            Err(Gone)
        }
        Err(Ended::BrokenOff) => {
            connection.stats.broke_off();
            outcome = Outcome::CUT_SHORT;
            by_us = true;
            Err(Gone)
        }
    };
    if result.is_err() {
        if matches!(down, Downstream::Http1(_)) {
            connection.stats.cut(by_us);
        }
        down.abort();
    }
    down.keep_alarm(clock.into_alarm(), &worker.alarms);
    let took = moment::now() - started;
    connection.stats.request_ended(result.ok(), took);
    exchange.notes.end(outcome, took);
    http1::give_back(head.headers);
    result.is_err() && !by_us
}

impl Exchange<'_> {
    /// Finds who serves the request and passes it on.
    async fn forward(
        &mut self,
        revision: Option<&Revision>,
        head: &mut request::Parts,
        clock: &mut Clock,
        down: &mut Downstream,
    ) -> Result<StatusCode, Ended> {
        let revision = revision.ok_or(Reply::NoRoute)?;
        let asked = self.asked(head).await?;
        let found = self.find(revision, &asked, head)?;
        let rule: &Rule = found.rule;
        clock.limit_request(self.started, self.limit(rule));
        let mut passage = Passage {
            revision,
            asked: &asked,
            gateway: self.connection.gateway.id.0,
            matched: found.matched,
            head,
            clock,
            recording: Recording::default(),
            additions: None,
        };
        passage.admit(self, &[rule.filters()], down).await?;
        let (backend, kept) = choose(revision, rule, &passage)?;
        let filters = [rule.filters(), backend.filters.as_deref()];
        passage.admit(self, &filters, down).await?;
        let (id, cluster, endpoints) = destination(revision, rule, backend, self.connection)?;
        let address = self.leaving(&mut passage, filters, id)?;
        let feeds = mirror::start(self.worker, &passage, filters, &address, down);
        if rule.retry().is_some() {
            passage.recording.start();
        }
        let Passage { head, clock, recording, additions, .. } = passage;
        let mut tries = Tries {
            worker: self.worker,
            http: &self.connection.stats,
            cluster,
            backend: endpoints,
            asked: &asked,
            address,
            responding: Responding {
                filters,
                grant: self.grant.as_ref(),
                additions,
                session: rule.session(),
                kept: kept.as_ref().map(|active| active.endpoint().address.clone()),
                secure: self.connection.server_name.is_some(),
                since: self.connection.gateway.habits.envoy_headers.then_some(self.started),
            },
            clock,
            limit: rule.timeouts().backend_request.or(None),
            recording,
            feeds,
            retries: Retries::new(rule.retry()),
            choice: Choice { kept, ..Choice::default() },
            notes: &mut self.notes,
        };
        let result = tries.run(head, down).await;
        self.counted(cluster, result)
    }

    /// Changes the request as the filters say. Returns where it goes.
    fn leaving(
        &mut self,
        passage: &mut Passage<'_>,
        filters: [Option<&Filters>; 2],
        to: ClusterId,
    ) -> Result<Address, Reply> {
        passage.edit(filters);
        self.notes.received(passage.recording.size(), passage.recording.has_end());
        let address = Address::new(passage.asked, filters, passage.matched, &passage.head.headers)?;
        self.notes.leaving(passage.head, &address, passage.revision, to);
        Ok(address)
    }

    /// How long the request may take, all tries together.
    fn limit(&self, rule: &Rule) -> Option<Duration> {
        rule.timeouts().request.or(self.connection.gateway.limits.request_timeout)
    }

    /// Counts how a cluster's request ended.
    fn counted(&self, cluster: &Cluster, result: Result<StatusCode, Ended>) -> Result<StatusCode, Ended> {
        let took = moment::now() - self.started;
        match &result {
            Ok(status) => cluster.stats().request_ended(Some(status.as_u16()), took),
            Err(Ended::Answer(answer)) => cluster.stats().request_replied(answer.head.status.as_u16()),
            Err(Ended::Gone | Ended::BrokenOff) => cluster.stats().request_ended(None, took),
        }
        result
    }

    /// What is asked for. A certificate authority that wants to see whether a name is ours is answered here, before
    /// any route is asked.
    async fn asked(&self, head: &request::Parts) -> Result<Asked, Ended> {
        let asked = Asked::read(head)?;
        let Some(challenges) = self.worker.live.challenges() else { return Ok(asked) };
        let Some(challenge) = Challenges::asked(asked.path()) else { return Ok(asked) };
        match Box::pin(challenges.text(&challenge)).await {
            Some(text) => Err(Answer::new(StatusCode::OK, text).into()),
            None => Ok(asked),
        }
    }

    /// The rule that serves the request, which becomes what filters and backend get.
    fn find<'r>(
        &mut self,
        revision: &'r Revision,
        asked: &Asked,
        head: &mut request::Parts,
    ) -> Result<Found<'r>, Reply> {
        let found = revision.table.find(self.connection.socket, &asked.request(self.connection, head));
        match &found {
            Ok(found) => self.notes.routed(found, asked),
            Err(_) if !self.notes.are_wanted() => {}
            // Whoever reads of it wants to know who it was, and by which name it was answered.
            Err(_) => self.introduce(head, asked),
        }
        let found = found?;
        self.introduce(head, asked);
        if self.connection.gateway.habits.envoy_headers {
            let (Connection { peer, gateway, .. }, rule) = (self.connection, found.rule);
            let stranger = gateway.trusted_hops == 0 && !gateway.trusts(peer.ip());
            let timeout = rule.timeouts().backend_request.or(self.limit(rule));
            forwarded::tell_upstream(&mut head.headers, timeout, stranger.then_some(peer.ip()));
        }
        Ok(found)
    }

    /// Tells in the request what is known of its client.
    fn introduce(&mut self, head: &mut request::Parts, asked: &Asked) {
        let Connection { peer, server_name, gateway, client_certificate: certificate, .. } = self.connection;
        let hop = Hop {
            peer: peer.ip(),
            address: self.connection.address(),
            tls: server_name.is_some(),
            host: &asked.host,
            certificate,
        };
        self.client = forwarded::prepare_request(&mut head.headers, gateway, hop);
        self.notes.introduced(asked, &head.headers, self.client);
    }

    /// Gives the client an answer that no upstream gave.
    async fn answer(
        &mut self,
        mut answer: Answer,
        down: &mut Downstream,
        manner: Manner,
    ) -> Result<StatusCode, Gone> {
        if let Some(reply) = answer.cause() {
            self.connection.stats.replied(reply);
            if reply.closes() {
                down.close_after();
            }
            if reply == Reply::Overflow && self.connection.gateway.habits.envoy_headers {
                forwarded::tell_overload(&mut answer.head.headers);
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
        let sent = answer.send(down, manner, &mut self.notes).await;
        if sent.is_err() {
            self.notes.flag(Flag::DownstreamConnectionTermination);
        }
        sent
    }
}

/// The backend for the request: that of its session, or one by weight.
fn choose<'r>(
    revision: &Revision,
    rule: &'r Rule,
    passage: &Passage<'_>,
) -> Result<(&'r Backend, Option<Active>), Reply> {
    if let Some(session) = rule.session()
        && let Some((backend, active)) = kept::find(session, revision, rule, &passage.head.headers)
    {
        return Ok((backend, Some(active)));
    }
    let backend = rule.backends.next().ok_or(Reply::NoBackend)?;
    Ok((backend, None))
}

fn destination<'a>(
    revision: &'a Revision,
    rule: &Rule,
    backend: &Backend,
    connection: &Connection,
) -> Result<(ClusterId, &'a Cluster, &'a upstream::Backend), Reply> {
    let index = backend.index.ok_or(Reply::NoBackend)?;
    let id = rule.backends.cluster().ok_or(Reply::NoBackend)?;
    let cluster = revision.clusters.get(id.0 as usize).ok_or(Reply::NoBackend)?;
    let gateway = connection.gateway.id.0;
    Ok((id, cluster, cluster.backend_of(gateway, index).ok_or(Reply::NoBackend)?))
}
