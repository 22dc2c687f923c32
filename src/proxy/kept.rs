//! Sessions that are kept at one endpoint: which one a request belongs to, and how the client learns it.

use crate::live::Revision;
use crate::routing::{Backend, Rule, Session};
use crate::upstream::{Active, Address};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::{self, Display};
use std::time::{SystemTime, UNIX_EPOCH};

/// The backend and the endpoint that the request's session is with: also when the backend gets no new requests any
/// more, and not when the endpoint is gone.
pub fn find<'r>(
    session: &Session,
    revision: &Revision,
    rule: &'r Rule,
    request: &HeaderMap,
) -> Option<(&'r Backend, Active)> {
    let token = session.token(request, now())?;
    let cluster = revision.clusters.get(rule.backends.cluster()?.0 as usize)?;
    rule.backends.entries().iter().find_map(|backend| {
        let endpoints = &cluster.backend(backend.index?)?.endpoints;
        let active = endpoints.find(|address| session.names(&token, &Named(address)))?;
        Some((backend, active))
    })
}

/// The field that keeps a client's session with the endpoint.
pub fn field(session: &Session, endpoint: &Address, secure: bool) -> Option<(HeaderName, HeaderValue)> {
    session.field(&Named(endpoint), now(), secure).ok()
}

fn now() -> u64 {
    // Before 1970 there are no sessions to keep.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

struct Named<'a>(&'a Address);

impl Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}
