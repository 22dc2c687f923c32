//! What a rule or a backend does to a request or a response; one file per filter.
//!
//! Filters are a struct, not a list of `dyn`: the fields run in their order, and full destructuring makes the
//! compiler ask where a new one goes. A rule without filters pays one comparison with `None` for all of them.

mod cors;
mod credential;
mod destination;
mod direct_response;
mod external_auth;
mod headers;
mod mirror;
mod origin_pattern;
mod path;
mod redirect;
mod regex_edit;
mod rewrite;
mod template;

pub use cors::{Allowed, Cors, Grant};
pub use credential::Credential;
pub use destination::{ClusterId, Destination};
pub use direct_response::{DirectResponse, DirectResponseError};
pub use external_auth::{AuthPath, AuthProtocol, ExternalAuth, Fields, OnFailure};
pub use headers::HeaderEdits;
pub use mirror::{Mirror, Share};
pub use origin_pattern::{OriginError, OriginPattern};
pub use path::PathEdit;
pub use redirect::{Origin, Redirect, Scheme};
pub use regex_edit::{RegexEdit, RegexEditError};
pub use rewrite::{HostEdit, Rewrite};
pub use template::{Template, Told};

use crate::reply::Reply;
use std::sync::Arc;

/// The filters of a rule or of a backend, in the order in which they run (Envoy's: CORS before authorization, both
/// before anything the route itself does).
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// A filter that cannot be applied was asked for: the rule answers this instead of going on without it.
    pub broken: Option<Reply>,
    /// Answers preflights, and tells browsers who may read any other answer.
    pub cors: Option<Arc<Cors>>,
    /// Asks somebody else whether the request may pass.
    pub external_auth: Option<Box<ExternalAuth>>,
    /// Answers with another location.
    pub redirect: Option<Box<Redirect>>,
    /// Answers with a fixed response.
    pub direct_response: Option<Box<DirectResponse>>,
    /// Changes the request's headers.
    pub request_headers: Option<Box<HeaderEdits>>,
    /// Adds a secret to the request.
    pub credential: Option<Box<Credential>>,
    /// Changes the request's host and path.
    pub rewrite: Option<Box<Rewrite>>,
    /// Whether the backend is not told, in `X-Forwarded-Host`, what host was asked for.
    pub hides_host: bool,
    /// Sends copies of what the backend gets.
    pub mirrors: Box<[Mirror]>,
    /// Changes the response's headers.
    pub response_headers: Option<Box<HeaderEdits>>,
}

impl Filters {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        let Self {
            broken,
            cors,
            external_auth,
            redirect,
            direct_response,
            request_headers,
            credential,
            rewrite,
            hides_host,
            mirrors,
            response_headers,
        } = self;
        let answers = broken.is_some()
            || cors.is_some()
            || external_auth.is_some()
            || redirect.is_some()
            || direct_response.is_some();
        let changes = request_headers.is_some()
            || credential.is_some()
            || rewrite.is_some()
            || *hides_host
            || response_headers.is_some();
        !answers && !changes && mirrors.is_empty()
    }
}
