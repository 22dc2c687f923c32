//! DirectResponse of Envoy Gateway's HTTPRouteFilter: an answer that no backend gives.

use super::{HeaderEdits, Template};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use thiserror::Error;

/// What a body may have: as much as a ConfigMap can hold.
const MOST_BODY: usize = 1 << 20;

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
    /// What the filter's `header` changes in the answer.
    pub headers: HeaderEdits,
    /// The body where each request has its own.
    pub template: Option<Box<Template>>,
}

/// Why an answer cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DirectResponseError {
    #[error("{0} is no status of an answer; use one from 200 to 599")]
    Status(u16),
    #[error("an answer with status {0} has no body; remove the body or choose another status")]
    Bodiless(u16),
    #[error("a body of {0} bytes is too large; at most {MOST_BODY} are kept for each answer")]
    TooLarge(usize),
}

impl DirectResponse {
    /// An answer with this status, and, unless `content_type` says what the body is, a plain text.
    ///
    /// # Errors
    /// When HTTP knows no such answer, or its body is too large.
    pub fn new(
        status: u16,
        content_type: Option<HeaderValue>,
        body: Bytes,
    ) -> Result<Self, DirectResponseError> {
        let known = StatusCode::from_u16(status).ok().filter(|_| (200..600).contains(&status));
        let code = known.ok_or(DirectResponseError::Status(status))?;
        if matches!(status, 204 | 205 | 304) && !body.is_empty() {
            return Err(DirectResponseError::Bodiless(status));
        }
        if body.len() > MOST_BODY {
            return Err(DirectResponseError::TooLarge(body.len()));
        }
        let text = (!body.is_empty()).then(|| HeaderValue::from_static("text/plain"));
        let content_type = content_type.or(text);
        Ok(Self { status: code, content_type, body, headers: HeaderEdits::default(), template: None })
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the body is; `None` where there is none and nobody said.
    pub fn content_type(&self) -> Option<&HeaderValue> {
        self.content_type.as_ref()
    }

    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_http_can_carry_is_an_answer() {
        for (status, body, want) in [
            (200, "ok", None),
            (503, "", None),
            (204, "", None),
            (204, "x", Some(DirectResponseError::Bodiless(204))),
            (304, "x", Some(DirectResponseError::Bodiless(304))),
            (100, "", Some(DirectResponseError::Status(100))),
            (600, "", Some(DirectResponseError::Status(600))),
        ] {
            assert_eq!(DirectResponse::new(status, None, body.into()).err(), want, "{status} {body}");
        }
        let large = Bytes::from(vec![0; MOST_BODY + 1]);
        assert!(DirectResponse::new(200, None, large).is_err());
    }

    #[test]
    fn a_body_is_plain_text_unless_it_is_said_what_it_is() {
        let html = HeaderValue::from_static("text/html");
        for (content_type, body, want) in
            [(None, "x", Some("text/plain")), (None, "", None), (Some(html), "x", Some("text/html"))]
        {
            let answer = DirectResponse::new(200, content_type, body.into()).expect("valid");
            assert_eq!(answer.content_type().and_then(|kind| kind.to_str().ok()), want);
        }
    }
}
