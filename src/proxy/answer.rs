//! Answers of the gateway itself, as bytes: plain for browsers, in trailers-only form for gRPC.

use super::asked::Manner;
use super::downstream::{Downstream, Gone};
use super::notes::Notes;
use super::pump;
use crate::filter::{DirectResponse, Told};
use crate::reply::{self, Outcome, Reply};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, LOCATION, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::fmt::Write;
use std::time::SystemTime;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How much of a body a gRPC client is told in `grpc-message`: headers are no place for pages.
const MOST_MESSAGE: usize = 1024;

/// Whether a request is a gRPC call, whose errors travel in `grpc-status` under a 200. The content type alone tells
/// it: what calls itself gRPC over HTTP/1 gets the same answer, as from Envoy.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/grpc") && matches!(kind.get(16), None | Some(b'+' | b';'))
    })
}

/// An answer that is at hand.
#[derive(Debug)]
pub struct Answer {
    pub head: Parts,
    body: Bytes,
    /// What went wrong, where something did.
    cause: Option<Reply>,
    outcome: Outcome,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        let answer = Self::new(reply.status(), Bytes::from_static(reply.body().as_bytes()));
        answer.because(reply)
    }
}

impl Answer {
    /// An answer with this status; a body is plain text.
    pub fn new(status: StatusCode, body: Bytes) -> Self {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = status;
        if !body.is_empty() {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        Self { head, body, cause: None, outcome: Outcome::DIRECT }
    }

    /// Another location.
    ///
    /// # Errors
    /// A location is made of parts that were parsed; what is no header value names no place to go to.
    pub fn redirect(status: StatusCode, location: &str) -> Result<Self, Reply> {
        let location = HeaderValue::from_str(location).map_err(|_| Reply::BadRequest)?;
        let mut answer = Self::new(status, Bytes::new());
        answer.head.headers.insert(LOCATION, location);
        Ok(answer)
    }

    /// What a rule answers instead of a backend.
    pub fn direct(response: &DirectResponse, told: &Told<'_>) -> Self {
        let filled = response.template.as_deref().map(|template| template.fill(told).into());
        let mut answer = Self::new(response.status(), filled.unwrap_or_else(|| response.body().clone()));
        if let Some(kind) = response.content_type() {
            answer.head.headers.insert(CONTENT_TYPE, kind.clone());
        }
        response.headers.apply(&mut answer.head.headers);
        answer
    }

    /// The answer to a preflight; without a grant it is refused.
    pub fn preflight(grant: Option<HeaderMap>) -> Self {
        let status = if grant.is_some() { StatusCode::OK } else { StatusCode::FORBIDDEN };
        let mut answer = Self::new(status, Bytes::new());
        answer.head.headers.extend(grant.unwrap_or_default());
        answer.outcome = Outcome::PREFLIGHT;
        answer
    }

    /// What an authorizer answers instead of letting a request pass.
    pub fn denied(status: StatusCode, headers: HeaderMap, body: Bytes) -> Self {
        let mut answer = Self::new(status, body).because(Reply::Denied);
        answer.head.headers.extend(headers);
        answer
    }

    /// The same, given because of this.
    pub fn because(mut self, cause: Reply) -> Self {
        self.cause = Some(cause);
        self.outcome = cause.into();
        self
    }

    /// What became of the exchange that it ends.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The same after more than one try, which its body tells where it gives the reason of a reset.
    pub fn retried(mut self) -> Self {
        if let Some(body) = self.cause.and_then(Reply::body_after_retries) {
            self.head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            self.body = body.into();
        }
        self
    }

    /// What went wrong, where something did.
    pub fn cause(&self) -> Option<Reply> {
        self.cause
    }

    /// Sends it as the client wants it. Returns the status that was sent.
    pub async fn send(
        mut self,
        down: &mut Downstream,
        manner: Manner,
        notes: &mut Notes,
    ) -> Result<StatusCode, Gone> {
        if manner.grpc && !self.head.status.is_success() {
            self.turn_into_grpc();
        }
        let Self { mut head, body, cause, outcome: _ } = self;
        let status = head.status;
        head.headers.remove(TRANSFER_ENCODING);
        date(&mut head.headers);
        if cause.is_some_and(Reply::closes) && matches!(down, Downstream::Http1(_)) {
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let end = body.is_empty() || manner.head;
        notes.responds(&head);
        down.send_head(head, end).await?;
        if !end {
            notes.sent(body.len());
            down.send_body(body, true).await?;
        }
        pump::drain(down).await?;
        Ok(status)
    }

    fn turn_into_grpc(&mut self) {
        let Self { head, body, cause, outcome: _ } = self;
        let code = cause.map_or_else(|| reply::grpc_status(head.status), Reply::grpc_status);
        head.status = StatusCode::OK;
        head.headers.remove(CONTENT_LENGTH);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        head.headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(code)));
        let body = std::mem::take(body);
        if !body.is_empty()
            && let Ok(message) = HeaderValue::try_from(escaped(&body[..body.len().min(MOST_MESSAGE)]))
        {
            head.headers.insert(GRPC_MESSAGE, message);
        }
    }
}

/// The answer to an HTTP/1 request whose head could not be taken.
pub fn refusal(reply: Reply) -> (Parts, Bytes) {
    let Answer { mut head, body, cause: _, outcome: _ } = Answer::from(reply);
    date(&mut head.headers);
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    (head, body)
}

/// A `grpc-message`: percent-encoded but for printable ASCII (gRPC over HTTP/2, `Status-Message`).
fn escaped(text: &[u8]) -> String {
    text.iter().fold(String::with_capacity(text.len()), |mut out, &byte| {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// Says when a response was made, where it does not say that itself (RFC 9110 6.6.1). A header section that is full
/// stays as it is.
pub fn date(headers: &mut HeaderMap) {
    if !headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        let _ = headers.try_insert(DATE, date);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_call_is_known_by_its_content_type() {
        for (kind, want) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_grpc(&headers), want, "{kind}");
        }
    }

    #[test]
    fn a_grpc_client_gets_a_status_and_a_message_it_can_read() {
        let mut answer = Answer::denied(StatusCode::UNAUTHORIZED, HeaderMap::new(), "100% \u{e9}\n".into());
        answer.cause = None;
        answer.turn_into_grpc();
        assert_eq!(answer.head.status, StatusCode::OK);
        assert_eq!(answer.head.headers[GRPC_STATUS], "16");
        assert_eq!(answer.head.headers[GRPC_MESSAGE], "100%25 %C3%A9%0A");
        assert!(answer.body.is_empty());
        let mut answer = Answer::from(Reply::UpstreamTimeout);
        answer.turn_into_grpc();
        assert_eq!(answer.head.headers[GRPC_STATUS], "4");
        assert_eq!(answer.head.headers[GRPC_MESSAGE], "upstream request timeout");
    }
}
