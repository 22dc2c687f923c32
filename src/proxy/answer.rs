//! Answers of the gateway itself, as bytes: plain for browsers, in trailers-only form for gRPC.

use super::downstream::{Downstream, Gone};
use super::framing::write_head;
use super::pump;
use crate::reply::Reply;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, LOCATION};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::time::SystemTime;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a request is a gRPC call, whose errors travel in `grpc-status` under a 200.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/grpc") && matches!(kind.get(16), None | Some(b'+' | b';'))
    })
}

/// Sends a reply. Returns the status that was sent.
pub async fn reply(down: &mut Downstream, reply: Reply, grpc: bool) -> Result<StatusCode, Gone> {
    let head = if grpc { grpc_head(reply) } else { plain_head(reply) };
    if reply.closes() {
        down.close_after();
    }
    let status = head.status;
    let body = if grpc { "" } else { reply.body() };
    send(down, head, body).await?;
    Ok(status)
}

/// Writes the answer to an HTTP/1 request whose head could not be taken.
pub fn write_refusal(out: &mut BytesMut, reply: Reply) {
    let mut head = plain_head(reply);
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    write_head(out, &head);
    out.extend_from_slice(reply.body().as_bytes());
}

/// Sends a redirect.
pub async fn redirect(down: &mut Downstream, status: StatusCode, location: &str) -> Result<StatusCode, Gone> {
    let mut head = head(status);
    // A location is made of parts that were parsed; what is no header value names no place to go to.
    let location = HeaderValue::from_str(location).map_err(|_| Gone)?;
    head.headers.insert(LOCATION, location);
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    send(down, head, "").await?;
    Ok(status)
}

/// Sends a head with a body that is at hand.
async fn send(down: &mut Downstream, head: Parts, body: &'static str) -> Result<(), Gone> {
    down.send_head(head, body.is_empty()).await?;
    if !body.is_empty() {
        down.send_body(Bytes::from_static(body.as_bytes()), true).await?;
    }
    pump::drain(down).await
}

fn plain_head(reply: Reply) -> Parts {
    let mut head = head(reply.status());
    let body = reply.body();
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if !body.is_empty() {
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    head
}

fn grpc_head(reply: Reply) -> Parts {
    let mut head = head(StatusCode::OK);
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(reply.grpc_status())));
    if !reply.body().is_empty() {
        head.headers.insert(GRPC_MESSAGE, HeaderValue::from_static(reply.body()));
    }
    head
}

/// A head of this moment (RFC 9110 6.6.1).
fn head(status: StatusCode) -> Parts {
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = status;
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        head.headers.insert(DATE, date);
    }
    head
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
}
