//! How a response is written to an HTTP/1 client: its head, and its body by length, in chunks, or until close.
//!
//! Written here and not by the codec, which would replace the upstream's `Date`, answer HTTP/1.0 clients in chunks
//! and drop trailers.

use crate::wire::Wire;
use bytes::{BufMut, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use std::io::Write;

/// How the end of a body is told (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    /// Chooses for this response to this request, and says so in the head. `bodiless` says that the response is
    /// known to end with its head.
    pub fn of(head: &mut Parts, method: &Method, version: Version, bodiless: bool) -> Self {
        let status = head.status;
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            head.headers.remove(CONTENT_LENGTH);
            return Self::None;
        }
        if method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return Self::None;
        }
        let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        match (length, version) {
            (Some(length), _) => Self::Length(length),
            (None, _) if bodiless => {
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                Self::Length(0)
            }
            (None, Version::HTTP_11) => {
                head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                Self::Chunked
            }
            (None, _) => Self::UntilClose,
        }
    }

    /// Writes a piece of the body, and its end with the last one.
    pub fn write_body(&mut self, wire: &Wire, piece: &[u8], end: bool) {
        match self {
            Self::None => {}
            Self::UntilClose => wire.push(piece),
            Self::Length(left) => {
                // What an upstream sends beyond the length that it promised would begin the next response.
                let piece = &piece[..piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX))];
                *left -= piece.len() as u64;
                wire.push(piece);
            }
            Self::Chunked => {
                if !piece.is_empty() {
                    let mut size = [0; 18];
                    let mut rest = &mut size[..];
                    // 16 digits and CRLF fit.
                    let _ = write!(rest, "{:x}\r\n", piece.len());
                    let unused = rest.len();
                    wire.push(&size[..size.len() - unused]);
                    wire.push(piece);
                    wire.push(b"\r\n");
                }
                if end {
                    wire.push(b"0\r\n\r\n");
                    *self = Self::None;
                }
            }
        }
    }

    /// Ends the body with trailers; only a chunked one can have them.
    pub fn write_trailers(&mut self, wire: &Wire, trailers: &HeaderMap) {
        if *self != Self::Chunked {
            return;
        }
        let mut out = BytesMut::from(&b"0\r\n"[..]);
        for (name, value) in trailers {
            put_field(&mut out, name.as_str().as_bytes(), value.as_bytes());
        }
        out.put_slice(b"\r\n");
        wire.push(&out);
        *self = Self::None;
    }

    /// Whether the body ended before the length that its head promised.
    pub fn is_cut_short(self, end: bool) -> bool {
        end && matches!(self, Self::Length(1..))
    }
}

/// Writes a status line and a header section.
pub fn write_head(out: &mut BytesMut, head: &Parts) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(head.status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    for (name, value) in &head.headers {
        put_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.put_slice(b"\r\n");
}

fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_body_is_told_as_the_client_understands_it() {
        use Framing::{Chunked, Length, None as Empty, UntilClose};
        let (get, head) = (Method::GET, Method::HEAD);
        for (status, length, method, version, bodiless, want) in [
            (200, Some("5"), &get, Version::HTTP_11, false, Length(5)),
            (200, Some("5"), &head, Version::HTTP_11, false, Empty),
            (304, Some("5"), &get, Version::HTTP_11, false, Empty),
            (204, Some("0"), &get, Version::HTTP_11, true, Empty),
            (200, None, &get, Version::HTTP_11, false, Chunked),
            (200, None, &get, Version::HTTP_11, true, Length(0)),
            (200, None, &get, Version::HTTP_10, false, UntilClose),
        ] {
            let response = http::Response::builder().status(status);
            let response = length.map_or(http::Response::builder().status(status), |length| {
                response.header(CONTENT_LENGTH, length)
            });
            let (mut response, ()) = response.body(()).unwrap().into_parts();
            let got = Framing::of(&mut response, method, version, bodiless);
            assert_eq!(got, want, "{status} {length:?} {method} {version:?}");
            assert_eq!(response.headers.contains_key(TRANSFER_ENCODING), want == Chunked);
        }
    }
}
