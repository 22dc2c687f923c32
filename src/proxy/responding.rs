//! The response's head as the client gets it: hop-by-hop fields gone, filters applied.

use super::{answer, forwarded, kept};
use crate::filter::{Filters, Grant};
use crate::moment;
use crate::routing::Session;
use crate::upstream::Address;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{StatusCode, response};
use tokio::time::Instant;

/// What is done to a response.
pub struct Responding<'a> {
    /// The rule's, then the backend's.
    pub filters: [Option<&'a Filters>; 2],
    pub grant: Option<&'a Grant>,
    /// What the authorizer adds.
    pub additions: Option<Box<HeaderMap>>,
    pub session: Option<&'a Session>,
    /// The endpoint that the client's session is with.
    pub kept: Option<Address>,
    /// Whether the client came over TLS.
    pub secure: bool,
    /// When the request came, where the client is to be told how long the upstream took.
    pub since: Option<Instant>,
}

impl Responding<'_> {
    /// Makes the head of a response from this endpoint the client's. A header section that is full stays as it is.
    pub fn prepare(&self, head: &mut response::Parts, endpoint: &Address) {
        let upgrade = match head.status {
            StatusCode::SWITCHING_PROTOCOLS => head.headers.get(UPGRADE).cloned(),
            _ => None,
        };
        forwarded::remove_hop_by_hop_response(&mut head.headers);
        if let Some(since) = self.since {
            forwarded::tell_service_time(&mut head.headers, moment::now() - since);
        }
        for filters in self.filters.into_iter().flatten() {
            if let Some(edits) = &filters.response_headers {
                edits.apply(&mut head.headers);
            }
        }
        if let Some(additions) = &self.additions {
            for (name, value) in additions.iter() {
                let _ = head.headers.try_append(name.clone(), value.clone());
            }
        }
        if let Some(session) = self.session
            && self.kept.as_ref() != Some(endpoint)
            && let Some((name, value)) = kept::field(session, endpoint, self.secure)
        {
            let _ = head.headers.try_append(name, value);
        }
        if let Some(grant) = self.grant {
            grant.apply(&mut head.headers);
        }
        answer::date(&mut head.headers);
        if let Some(upgrade) = upgrade {
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(UPGRADE, upgrade);
        }
    }
}
