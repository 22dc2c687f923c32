//! What a rule or a backend does to a request or a response; one file per filter.
//!
//! Filters are a struct, not a list of `dyn`: the fields run in their order, and full destructuring makes the
//! compiler ask where a new one goes. A rule without filters pays one comparison with `None` for each.

mod headers;
mod path;
mod redirect;
mod rewrite;

pub use headers::HeaderEdits;
pub use path::PathEdit;
pub use redirect::{Origin, Redirect, Scheme};
pub use rewrite::Rewrite;

use crate::reply::Reply;

/// The filters of a rule or of a backend, in the order in which they run.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// A filter that cannot be applied was asked for: the rule answers this instead of going on without it.
    pub broken: Option<Reply>,
    /// Answers with another location.
    pub redirect: Option<Box<Redirect>>,
    /// Changes the request's headers.
    pub request_headers: Option<Box<HeaderEdits>>,
    /// Changes the request's host and path.
    pub rewrite: Option<Box<Rewrite>>,
    /// Changes the response's headers.
    pub response_headers: Option<Box<HeaderEdits>>,
}
