//! URLRewrite: another host or path towards the upstream.

use super::PathEdit;
use http::HeaderValue;

/// What changes; what is `None` stays as the request has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The `Host` that the upstream sees.
    pub hostname: Option<HeaderValue>,
    pub path: Option<PathEdit>,
}
