//! A response's head: read from upstreams, written to clients.
//!
//! Upstreams are old and odd, so more is taken from them than from clients: lines that end with a bare LF, blanks
//! before a colon. What would let two messages be told apart in two ways is refused all the same.

use super::body::Decoder;
use super::fields::{self, lenient_field, lenient_lines, put_field};
use super::request::{has_token, length};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode, Version, response};
use memchr::memmem::Finder;
use std::sync::LazyLock;
use std::time::Duration;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\r\n"));
static BARE_EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\n"));
/// An upstream has no more fields than this.
const MOST_FIELDS: usize = 256;

/// A response's head.
#[derive(Debug)]
pub struct Head {
    pub parts: response::Parts,
    /// How its body is read.
    pub body: Decoder,
    /// Whether the connection may serve another request (RFC 9112 9.3).
    pub keep: bool,
    /// Whether the upstream says that it closes the connection.
    pub closes: bool,
    /// How long the upstream says that it keeps the connection.
    pub kept_for: Option<Duration>,
}

impl Head {
    /// Where a head ends, looked for from `from`.
    pub fn end(read: &[u8], from: usize) -> Option<usize> {
        let read = read.get(from..)?;
        let end = EMPTY_LINE.find(read).map(|at| at + 3);
        let bare = BARE_EMPTY_LINE.find(&read[..end.unwrap_or(read.len())]).map(|at| at + 2);
        Some(from + bare.or(end)?)
    }

    /// Reads the head of the response to a request with this method.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(head: &Bytes, method: &Method) -> Result<Self, &'static str> {
        let mut lines = lenient_lines(head);
        let (version, status) = status_line(lines.next().unwrap_or_default())?;
        let mut seen = Seen::default();
        let mut headers = fields::map(head);
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) =
                lenient_field(head, line).map_err(|_| "a header line of its response is none")?;
            if !seen.note(&name, &value)? {
                continue;
            }
            if headers.len() >= MOST_FIELDS || headers.try_append(name, value).is_err() {
                return Err("its response has too many header fields");
            }
        }
        let body = seen.body(method, status)?;
        // A 204 has no body; one that promises it may send it all the same, before the next response.
        let odd = status == StatusCode::NO_CONTENT && seen.length.is_some_and(|length| length > 0);
        let keep = body != Decoder::UntilClose && !odd && seen.keeps(version);
        let (mut parts, ()) = Response::new(()).into_parts();
        (parts.status, parts.version, parts.headers) = (status, version, headers);
        Ok(Self { parts, body, keep, closes: seen.close, kept_for: seen.kept_for })
    }
}

/// What the fields say of framing and connection.
#[derive(Default)]
struct Seen {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    kept_for: Option<Duration>,
}

impl Seen {
    /// Takes note of a field. Returns whether it is of interest beyond this.
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<bool, &'static str> {
        if *name == CONTENT_LENGTH {
            let one = length(value.as_bytes()).ok_or("its content-length is no number")?;
            if self.length.is_some_and(|other| other != one) {
                return Err("its response has two different lengths");
            }
            // Told once to the client, who may refuse what says it twice (RFC 9110 8.6).
            return Ok(self.length.replace(one).is_none());
        }
        if *name == TRANSFER_ENCODING {
            if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err("its response has a transfer coding other than chunked");
            }
            self.chunked = true;
        } else if *name == CONNECTION {
            self.close |= has_token(value, b"close");
            self.keep_alive |= has_token(value, b"keep-alive");
            // The usual values name no other field, so that this connection is all that they are about.
            return Ok(value != "keep-alive" && value != "close");
        } else if *name == KEEP_ALIVE {
            self.kept_for = value.to_str().ok().and_then(kept_for);
        }
        Ok(true)
    }

    /// RFC 9112 6.3.
    fn body(&self, method: &Method, status: StatusCode) -> Result<Decoder, &'static str> {
        if self.chunked && self.length.is_some() {
            return Err("its response has a length and a transfer coding");
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Decoder::UntilClose);
        }
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if status.is_informational() || bodiless || *method == Method::HEAD {
            return Ok(Decoder::Done);
        }
        Ok(match (self.chunked, self.length) {
            (true, _) => Decoder::chunked(),
            (false, Some(length)) => Decoder::length(length),
            (false, None) => Decoder::UntilClose,
        })
    }

    fn keeps(&self, version: Version) -> bool {
        !self.close && (version != Version::HTTP_10 || self.keep_alive)
    }
}

fn status_line(line: &[u8]) -> Result<(Version, StatusCode), &'static str> {
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::HTTP_11,
        Some(b"HTTP/1.0 ") => Version::HTTP_10,
        _ => return Err("its response is no HTTP/1"),
    };
    let code = line.get(9..12).filter(|_| matches!(line.get(12), None | Some(b' ')));
    let status =
        code.and_then(|code| StatusCode::from_bytes(code).ok()).ok_or("its response has no status")?;
    Ok((version, status))
}

/// `timeout=5, max=100` as many servers say.
fn kept_for(value: &str) -> Option<Duration> {
    let mut parameters = value.split(',').filter_map(|one| one.trim().split_once('='));
    let (_, seconds) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))?;
    Some(Duration::from_secs(seconds.trim().parse().ok()?))
}

/// Writes a status line and a header section.
pub fn write(out: &mut BytesMut, head: &response::Parts) {
    out.reserve(512);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str, method: &Method) -> Result<Head, &'static str> {
        let head = Bytes::copy_from_slice(head.as_bytes());
        assert_eq!(Head::end(&head, 0), Some(head.len()), "{head:?}");
        Head::parse(&head, method)
    }

    #[test]
    fn a_body_is_framed_as_its_head_says() {
        let (get, head) = (Method::GET, Method::HEAD);
        for (text, method, body, keep) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", &get, Decoder::length(5), true),
            ("HTTP/1.1 200\r\ncontent-length: 5\r\n\r\n", &head, Decoder::Done, true),
            ("HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n", &get, Decoder::chunked(), true),
            ("HTTP/1.1 200 OK\r\n\r\n", &get, Decoder::UntilClose, false),
            ("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n", &get, Decoder::Done, false),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", &get, Decoder::Done, true),
            // What it promises would stand before the next response.
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", &get, Decoder::Done, false),
            ("HTTP/1.0 304 Not Modified\r\ncontent-length: 7\r\n\r\n", &get, Decoder::Done, false),
            (
                "HTTP/1.0 200 OK\nconnection: keep-alive\ncontent-length: 0\n\n",
                &get,
                Decoder::length(0),
                true,
            ),
            ("HTTP/1.1 200 OK\r\nX-Old : y\r\ncontent-length: 1\r\n\r\n", &get, Decoder::length(1), true),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
                &get,
                Decoder::length(1),
                true,
            ),
            ("HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", &get, Decoder::UntilClose, false),
        ] {
            let got = parse(text, method).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((got.body, got.keep), (body, keep), "{text}");
        }
        let twice =
            parse("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", &get).expect("valid");
        assert_eq!(twice.parts.headers.get_all(CONTENT_LENGTH).iter().count(), 1);
        let old = parse("HTTP/1.1 200 OK\r\nX-Old : y\r\n\r\n", &get).expect("valid");
        assert_eq!(old.parts.headers["x-old"], "y");
    }

    #[test]
    fn a_response_that_could_be_two_is_refused() {
        for text in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "garbage\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: y\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: \0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
        ] {
            assert!(parse(text, &Method::GET).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_upstream_says_how_long_it_keeps_a_connection() {
        for (value, want) in [
            ("timeout=5, max=100", Some(5)),
            ("max=1, Timeout = 75", Some(75)),
            ("", None),
            ("timeout=x", None),
        ] {
            assert_eq!(kept_for(value), want.map(Duration::from_secs), "{value}");
        }
    }
}
