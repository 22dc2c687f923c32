//! Answers of the gateway itself, as bytes: plain for browsers, in trailers-only form for gRPC.

use super::downstream::{Downstream, Gone};
use super::framing::write_head;
use super::pump;
use crate::reply::Reply;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
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
    let mut head = if grpc { grpc_head(reply) } else { plain_head(reply) }.map_err(|_| Gone)?;
    if reply.closes() {
        down.close_after();
    }
    head.insert_header(DATE, date()).map_err(|_| Gone)?;
    let status = head.status;
    let body = if grpc { "" } else { reply.body() };
    send(down, head, body).await?;
    Ok(status)
}

/// Writes the answer to an HTTP/1 request whose head could not be taken.
pub fn write_refusal(out: &mut BytesMut, reply: Reply) {
    let head = plain_head(reply).and_then(|mut head| {
        head.insert_header(DATE, date())?;
        head.insert_header(CONNECTION, HeaderValue::from_static("close"))?;
        Ok(head)
    });
    if let Ok(head) = head {
        write_head(out, &head);
        out.extend_from_slice(reply.body().as_bytes());
    }
}

/// Sends a redirect.
pub async fn redirect(down: &mut Downstream, status: StatusCode, location: &str) -> Result<StatusCode, Gone> {
    send(down, redirect_head(status, location).map_err(|_| Gone)?, "").await?;
    Ok(status)
}

/// The head of a redirect.
pub fn redirect_head(status: StatusCode, location: &str) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(status, Some(4))?;
    head.insert_header(LOCATION, location)?;
    head.insert_header(DATE, date())?;
    head.insert_header(CONTENT_LENGTH, HeaderValue::from_static("0"))?;
    Ok(head)
}

/// Sends a head with a body that is at hand.
pub async fn send(down: &mut Downstream, head: ResponseHeader, body: &'static str) -> Result<(), Gone> {
    down.send_head(Box::new(head), body.is_empty()).await?;
    if !body.is_empty() {
        down.send_body(Bytes::from_static(body.as_bytes()), true).await?;
    }
    pump::drain(down).await
}

fn plain_head(reply: Reply) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(reply.status(), Some(4))?;
    let body = reply.body();
    head.insert_header(CONTENT_LENGTH, body.len())?;
    if !body.is_empty() {
        head.insert_header(CONTENT_TYPE, HeaderValue::from_static("text/plain"))?;
    }
    Ok(head)
}

fn grpc_head(reply: Reply) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(StatusCode::OK, Some(4))?;
    head.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))?;
    head.insert_header(GRPC_STATUS, u16::from(reply.grpc_status()))?;
    if !reply.body().is_empty() {
        head.insert_header(GRPC_MESSAGE, reply.body())?;
    }
    Ok(head)
}

/// The date of this moment as RFC 9110 5.6.7 writes it.
fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
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
