//! How a body is written: by its length, in chunks, or until the connection closes (RFC 9112 6 and 7).

use super::fields::put_field;
use super::request::length;
use crate::wire::Wire;
use bytes::{BufMut, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

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
    pub fn of_response(head: &mut Parts, method: &Method, version: Version, bodiless: bool) -> Self {
        let status = head.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Self::UntilClose;
        }
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            head.headers.remove(CONTENT_LENGTH);
            return Self::None;
        }
        if method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return Self::None;
        }
        let promised = head.headers.get(CONTENT_LENGTH).and_then(|value| length(value.as_bytes()));
        match (promised, version) {
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
    pub fn write_body(&mut self, wire: &mut Wire, piece: &[u8], end: bool) {
        match self {
            Self::None => {}
            Self::UntilClose => wire.push(piece),
            Self::Length(left) => {
                // What comes beyond the promised length would begin the next message.
                let piece = &piece[..piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX))];
                *left -= piece.len() as u64;
                wire.push(piece);
            }
            Self::Chunked => {
                if !piece.is_empty() {
                    put_size(wire.outbox(), piece.len());
                    wire.push(piece);
                    wire.outbox().put_slice(b"\r\n");
                }
                if end {
                    wire.outbox().put_slice(b"0\r\n\r\n");
                    *self = Self::None;
                }
            }
        }
    }

    /// Ends the body with trailers; only a chunked one can have them.
    pub fn write_trailers(&mut self, wire: &mut Wire, trailers: &HeaderMap) {
        if *self != Self::Chunked {
            return;
        }
        let out = wire.outbox();
        out.put_slice(b"0\r\n");
        for (name, value) in trailers {
            put_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
        out.put_slice(b"\r\n");
        *self = Self::None;
    }

    /// Whether everything that the head promised was written.
    pub fn is_done(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    /// Whether the body ended before the length that its head promised.
    pub fn is_cut_short(self, end: bool) -> bool {
        end && matches!(self, Self::Length(1..))
    }
}

/// A chunk's size line.
fn put_size(out: &mut BytesMut, size: usize) {
    let digits = (size.max(1).ilog2() / 4) as usize;
    for digit in (0..=digits).rev() {
        out.put_u8(b"0123456789abcdef"[(size >> (4 * digit)) & 0xf]);
    }
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
            let got = Framing::of_response(&mut response, method, version, bodiless);
            assert_eq!(got, want, "{status} {length:?} {method} {version:?}");
            assert_eq!(response.headers.contains_key(TRANSFER_ENCODING), want == Chunked);
        }
    }

    #[test]
    fn a_chunk_begins_with_its_size_in_hexadecimal() {
        for size in [1, 15, 16, 255, 256, 4096, 65_535, 1 << 20] {
            let mut out = BytesMut::new();
            put_size(&mut out, size);
            assert_eq!(out, format!("{size:x}\r\n"));
        }
    }
}
