//! A request between its match and its backend: what the filters look at and change.

use super::answer::Answer;
use super::asked::Asked;
use super::authorize::authorize;
use super::downstream::Downstream;
use super::exchange::{Ended, Exchange};
use super::pump::Clock;
use super::recording::Recording;
use crate::filter::{Cors, Filters};
use crate::live::Revision;
use http::{HeaderMap, request};

/// A request on its way.
pub struct Passage<'a> {
    pub revision: &'a Revision,
    pub asked: &'a Asked,
    /// The length of the path prefix that the rule matched.
    pub matched: usize,
    pub head: request::Parts,
    pub clock: Clock,
    pub recording: Recording,
    /// What an authorizer adds to the response.
    pub additions: Option<Box<HeaderMap>>,
}

impl Passage<'_> {
    /// Runs the filters that may answer instead of a backend: those of the last level, after all levels before it
    /// have let the request pass.
    pub async fn admit(
        &mut self,
        exchange: &mut Exchange<'_>,
        levels: &[&Filters],
        down: &mut Downstream,
    ) -> Result<(), Ended> {
        let Some(filters) = levels.last() else { return Ok(()) };
        if let Some(reply) = filters.broken {
            return Err(reply.into());
        }
        if let Some(cors) = &filters.cors {
            if Cors::is_preflight(&self.head.method, &self.head.headers) {
                return Err(Answer::preflight(cors.preflight(&self.head.headers)).into());
            }
            exchange.grant = Some(cors.grant(&self.head.headers));
        }
        if let Some(auth) = &filters.external_auth {
            authorize(exchange, self, auth, down).await?;
        }
        let mut answer = match (&filters.redirect, &filters.direct_response) {
            (None, None) => return Ok(()),
            (Some(redirect), _) => {
                let origin = self.asked.origin(exchange.connection, self.matched);
                Answer::redirect(redirect.status, &redirect.location(&origin))?
            }
            (None, Some(direct)) => Answer::direct(direct),
        };
        for edits in levels.iter().filter_map(|filters| filters.response_headers.as_deref()) {
            edits.apply(&mut answer.head.headers);
        }
        Err(answer.into())
    }
}
