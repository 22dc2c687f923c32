//! ExternalAuth (GEP-1494, and Envoy Gateway's `extAuth`): somebody else decides whether a request may pass.

use super::Destination;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, DATE, HOST, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

/// Who is asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAuth {
    pub to: Destination,
    pub protocol: AuthProtocol,
    /// Which of the client's headers the authorizer sees, beside those that its protocol always tells.
    pub asks_with: Fields,
    /// Up to how many bytes of the request's body it sees, `forwardBody.maxSize`; a request with more is refused
    /// with 413. `None` (also for 0) shows it none.
    pub body: Option<usize>,
    /// How long it may take; Envoy Gateway's default is 10 s.
    pub timeout: Duration,
    pub on_failure: OnFailure,
}

/// What the authorizer speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthProtocol {
    /// It gets a request like the client's, with 200 it says yes, and with anything else what to answer.
    Http {
        path: AuthPath,
        /// Which headers of its answer the backend gets.
        to_backend: Fields,
    },
    /// Envoy's `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// What it is called, `auth.example:9001`.
        authority: HeaderValue,
        /// Told to it with every request.
        context: Vec<(String, String)>,
    },
}

/// The path that an HTTP authorizer is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthPath {
    /// The request's own, behind this prefix (without a slash at its end; may be empty).
    Prefix(String),
    /// This one, whatever was asked for.
    Full(String),
}

impl AuthPath {
    /// The request's own path behind this prefix.
    pub fn prefix(prefix: &str) -> Self {
        Self::Prefix(prefix.trim_end_matches('/').to_owned())
    }

    /// Path and query of the question about a request for these.
    pub fn of(&self, path: &str, query: &str) -> String {
        match self {
            Self::Prefix(prefix) => format!("{prefix}{path}{query}"),
            Self::Full(full) => full.clone(),
        }
    }
}

/// A choice of header fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fields {
    All,
    Only(Box<[HeaderName]>),
}

/// Fields that say where a message goes and where it ends.
const FRAMING: [HeaderName; 3] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];
/// Fields that describe the authorizer's message and not the request that it lets pass.
const OF_THE_MESSAGE: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, DATE];

impl Fields {
    fn has(&self, name: &HeaderName) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }

    /// The fields of a request that the question about it carries.
    pub fn pick(&self, headers: &HeaderMap) -> HeaderMap {
        let picked = headers.iter().filter(|(name, _)| self.has(name) && !FRAMING.contains(name));
        picked.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Takes the chosen fields of the authorizer's answer over into the request. Whatever a client sent under a
    /// chosen name is gone, also where the authorizer is silent about it: the backend believes these fields. The
    /// client's own credentials are no such belief, and stay unless they are replaced.
    pub fn take_over(&self, answer: &HeaderMap, request: &mut HeaderMap) {
        if let Self::Only(names) = self {
            for name in names.iter().filter(|name| ![AUTHORIZATION, COOKIE].contains(name)) {
                request.remove(name);
            }
        }
        for name in answer.keys() {
            if !self.has(name) || FRAMING.contains(name) || OF_THE_MESSAGE.contains(name) {
                continue;
            }
            request.remove(name);
            for value in answer.get_all(name) {
                // A section that is full stays as it is.
                let _ = request.try_append(name.clone(), value.clone());
            }
        }
    }
}

/// What happens when the authorizer gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The client gets this status; 403 where nothing else is asked for.
    Deny(StatusCode),
    /// The request passes (`failOpen`).
    Allow,
}

impl Default for OnFailure {
    fn default() -> Self {
        Self::Deny(StatusCode::FORBIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn only(names: &[&'static str]) -> Fields {
        Fields::Only(names.iter().map(|name| HeaderName::from_static(name)).collect())
    }

    #[test]
    fn the_question_has_a_path_of_its_own() {
        for (path, want) in [
            (AuthPath::prefix(""), "/a/b?c"),
            (AuthPath::prefix("/auth/"), "/auth/a/b?c"),
            (AuthPath::Full("/verify".into()), "/verify"),
        ] {
            assert_eq!(path.of("/a/b", "?c"), want);
        }
    }

    #[test]
    fn a_client_cannot_send_what_the_authorizer_is_to_say() {
        let mut request =
            headers(&[("remote-user", "admin"), ("remote-groups", "root"), ("authorization", "mine")]);
        let names = only(&["remote-user", "remote-groups", "authorization"]);
        names.take_over(&headers(&[("remote-user", "alice"), ("x-other", "1")]), &mut request);
        assert_eq!(request, headers(&[("remote-user", "alice"), ("authorization", "mine")]));
    }

    #[test]
    fn all_of_an_answer_is_not_its_framing() {
        let mut request = headers(&[("content-length", "3"), ("x-user", "admin")]);
        let answer = headers(&[("content-length", "0"), ("host", "auth"), ("x-user", "alice")]);
        Fields::All.take_over(&answer, &mut request);
        assert_eq!(request, headers(&[("content-length", "3"), ("x-user", "alice")]));
    }

    #[test]
    fn the_question_carries_the_chosen_fields_without_the_framing() {
        let request = headers(&[("host", "a"), ("cookie", "c"), ("accept", "*"), ("content-length", "3")]);
        assert_eq!(only(&["cookie", "x"]).pick(&request), headers(&[("cookie", "c")]));
        assert_eq!(Fields::All.pick(&request), headers(&[("cookie", "c"), ("accept", "*")]));
    }
}
