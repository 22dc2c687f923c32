//! A request's head, refused where it is ambiguous: RFC 9112 2.2, 3, 5 and 6.1, and Envoy Gateway's refusal of
//! underscores in names.

use super::body::Decoder;
use super::fields::{self, field, lines, put_field};
use super::framing::Framing;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri, Version, request};

/// A request's head.
#[derive(Debug)]
pub struct Head {
    pub parts: request::Parts,
    /// How its body is read.
    pub body: Decoder,
    /// Whether the connection may serve another request (RFC 9112 9.3).
    pub keep: bool,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRequest {
    /// It is no head, or two parsers may read it differently.
    Malformed,
    /// A name has an underscore, which some take for a hyphen.
    Underscore,
    /// It has a length and is chunked: two parsers may see two bodies (RFC 9112 6.1).
    FramedTwice,
    /// Nobody is asked.
    NoHost,
    /// The target has a fragment, which is not for servers (RFC 9110 4.2.5).
    Fragment,
    /// It has more fields than it may have.
    TooManyFields,
    /// HTTP, but neither 1.0 nor 1.1.
    Version,
    /// A transfer coding other than `chunked`.
    Coding,
}

/// What the fields say of framing and connection.
#[derive(Default)]
struct Seen {
    host: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Head {
    /// Reads a head, with the empty line that ends it.
    ///
    /// # Errors
    /// See [`BadRequest`].
    pub fn parse(head: &Bytes, most_fields: usize) -> Result<Self, BadRequest> {
        let mut lines = lines(head);
        let start = lines.next().flatten().ok_or(BadRequest::Malformed)?;
        let (method, uri, version) = start_line(head, start)?;
        let mut seen = Seen::default();
        let mut headers = fields::map(head);
        for line in lines {
            let line = line.ok_or(BadRequest::Malformed)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = field(head, line).map_err(|_| BadRequest::Malformed)?;
            if name.as_str().contains('_') {
                return Err(BadRequest::Underscore);
            }
            seen.note(&name, &value)?;
            if headers.len() >= most_fields || headers.try_append(name, value).is_err() {
                return Err(BadRequest::TooManyFields);
            }
        }
        let (body, keep) = seen.conclude(version)?;
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.method, parts.uri, parts.version, parts.headers) = (method, uri, version, headers);
        Ok(Self { parts, body, keep })
    }
}

impl Seen {
    fn note(&mut self, name: &http::HeaderName, value: &HeaderValue) -> Result<(), BadRequest> {
        if *name == HOST {
            once(self.host)?;
            self.host = true;
        } else if *name == CONTENT_LENGTH {
            once(self.length.is_some())?;
            self.length = Some(length(value.as_bytes()).ok_or(BadRequest::Malformed)?);
        } else if *name == TRANSFER_ENCODING {
            once(self.chunked)?;
            if !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(BadRequest::Coding);
            }
            self.chunked = true;
        } else if *name == CONNECTION {
            self.close |= has_token(value, b"close");
            self.keep_alive |= has_token(value, b"keep-alive");
        }
        Ok(())
    }

    fn conclude(self, version: Version) -> Result<(Decoder, bool), BadRequest> {
        let old = version == Version::HTTP_10;
        if self.length.is_some() && self.chunked {
            return Err(BadRequest::FramedTwice);
        }
        if self.chunked && old {
            return Err(BadRequest::Malformed);
        }
        if !(self.host || old) {
            return Err(BadRequest::NoHost);
        }
        let body = match (self.chunked, self.length) {
            (true, _) => Decoder::chunked(),
            (false, Some(length)) => Decoder::length(length),
            (false, None) => Decoder::Done,
        };
        Ok((body, !self.close && (!old || self.keep_alive)))
    }
}

fn once(seen: bool) -> Result<(), BadRequest> {
    if seen { Err(BadRequest::Malformed) } else { Ok(()) }
}

/// `1*DIGIT` that a body can have.
pub fn length(value: &[u8]) -> Option<u64> {
    let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    if !digits {
        return None;
    }
    Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Whether a list names this token.
pub fn has_token(value: &HeaderValue, token: &[u8]) -> bool {
    value.as_bytes().split(|&byte| byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
}

fn start_line(head: &Bytes, line: &[u8]) -> Result<(Method, Uri, Version), BadRequest> {
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let method = Method::from_bytes(method).map_err(|_| BadRequest::Malformed)?;
    let version = match (words.next(), words.next()) {
        (Some(b"HTTP/1.1"), None) => Version::HTTP_11,
        (Some(b"HTTP/1.0"), None) => Version::HTTP_10,
        // A line without a version is HTTP/0.9.
        (None, _) if !target.is_empty() => return Err(BadRequest::Version),
        (Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']), None) => {
            return Err(BadRequest::Version);
        }
        _ => return Err(BadRequest::Malformed),
    };
    if target.contains(&b'#') {
        return Err(BadRequest::Fragment);
    }
    let uri = target_uri(head, &method, target).ok_or(BadRequest::Malformed)?;
    Ok((method, uri, version))
}

/// The target in one of the forms that RFC 9112 3.2 knows.
fn target_uri(head: &Bytes, method: &Method, target: &[u8]) -> Option<Uri> {
    if target.is_empty() || !target.iter().all(|&byte| byte > b' ' && byte != 0x7f) {
        return None;
    }
    std::str::from_utf8(target).ok()?;
    let bytes = head.slice_ref(target);
    if target[0] == b'/' || target == b"*" {
        return PathAndQuery::from_maybe_shared(bytes).ok().map(Uri::from);
    }
    let uri = Uri::from_maybe_shared(bytes).ok()?;
    let absolute = matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some();
    let authority = *method == Method::CONNECT && uri.authority().is_some();
    (absolute || authority).then_some(uri)
}

/// Writes a request line in origin form and a header section. Returns how the section says that the body is framed.
pub fn write(out: &mut BytesMut, head: &request::Parts) -> Framing {
    let mut framing = Framing::None;
    out.reserve(512);
    out.put_slice(head.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(head.uri.path_and_query().map_or("/", PathAndQuery::as_str).as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    for (name, value) in &head.headers {
        if *name == CONTENT_LENGTH {
            framing = length(value.as_bytes()).map_or(framing, Framing::Length);
        } else if *name == TRANSFER_ENCODING && framing == Framing::None {
            framing = Framing::Chunked;
        }
        put_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.put_slice(b"\r\n");
    framing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Head, BadRequest> {
        Head::parse(&Bytes::copy_from_slice(head.as_bytes()), 100)
    }

    #[test]
    fn what_can_be_read_in_one_way_only_is_taken() {
        for (head, body, keep) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Decoder::Done, true),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", Decoder::Done, false),
            ("GET / HTTP/1.0\r\n\r\n", Decoder::Done, false),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Decoder::Done, true),
            ("POST /a?b=c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", Decoder::length(5), true),
            ("POST / HTTP/1.1\r\nhost:a\r\nTransfer-Encoding: chunked\r\n\r\n", Decoder::chunked(), true),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nX: \t spaced \t\r\n\r\n", Decoder::Done, true),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", Decoder::Done, true),
        ] {
            let got = parse(head).unwrap_or_else(|error| panic!("{head}: {error:?}"));
            assert_eq!((got.body, got.keep), (body, keep), "{head}");
        }
    }

    #[test]
    fn what_two_parsers_may_read_differently_is_refused() {
        use BadRequest::{Coding, Fragment, FramedTwice, Malformed, NoHost, Underscore, Version};
        for (head, want) in [
            ("GET / HTTP/1.1\r\n\r\n", NoHost),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
            ("GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Fragment),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nX_Y: b\r\n\r\n", Underscore),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", Malformed),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", Malformed),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", Malformed),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Malformed),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n", Malformed),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Malformed),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                FramedTwice,
            ),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Coding),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Version),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Version),
            ("GET /\r\nHost: a\r\n\r\n", Version),
            ("GET / HTTX/1.1\r\nHost: a\r\n\r\n", Malformed),
        ] {
            assert_eq!(parse(head).err(), Some(want), "{head:?}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
        assert_eq!(parse(&many).err(), Some(BadRequest::TooManyFields));
    }

    #[test]
    fn a_target_has_one_of_the_known_forms() {
        for (target, want) in [
            ("/a?b", Some("/a?b")),
            ("*", Some("*")),
            ("http://a.test/b", Some("http://a.test/b")),
            ("HTTP://a.test", Some("http://a.test/")),
            ("/\u{e4}", Some("/\u{e4}")),
            ("ftp://a.test/b", None),
            ("a.test:80", None),
            ("a/b", None),
            ("http:///b", None),
        ] {
            let got = parse(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).ok();
            assert_eq!(got.map(|head| head.parts.uri.to_string()).as_deref(), want, "{target}");
        }
    }
}
