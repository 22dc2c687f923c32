//! A request head, taken from an HTTP/1 connection within bounds and refused where it is ambiguous.
//!
//! The parser behind this is lenient (it escapes spaces in targets, takes bare LF, folds lines). What two parsers
//! may read differently is how requests are smuggled, so it is answered here, before anything interprets it:
//! RFC 9112 2.2, 3, 5 and 6.1, and Envoy Gateway's refusal of underscores in names.

use crate::config::Limits;
use crate::reply::Reply;
use crate::wire::Wire;
use bytes::BytesMut;
use memchr::memmem;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

const END: &[u8] = b"\r\n\r\n";

/// Why there is no request head.
#[derive(Debug, PartialEq, Eq)]
pub enum NoHead {
    /// The client closed, or was idle for too long: there is nobody to answer.
    Closed,
    /// Answer this and close.
    Refused(Reply),
}

impl From<Reply> for NoHead {
    fn from(reply: Reply) -> Self {
        Self::Refused(reply)
    }
}

/// Reads until `read` holds a whole request head, which is then known to be unambiguous.
///
/// # Errors
/// See [`NoHead`].
pub async fn read(wire: &mut Wire, read: &mut BytesMut, limits: &Limits) -> Result<(), NoHead> {
    if read.is_empty() {
        let first = fill(wire, read);
        match limits.idle_timeout {
            Some(idle) => timeout(idle, first).await.map_err(|_| NoHead::Closed)??,
            None => first.await?,
        }
    }
    let end = match find_end(read, 0) {
        Some(end) => end,
        None => rest(wire, read, limits).await?,
    };
    check(&read[..end], limits.head_fields as usize)?;
    Ok(())
}

/// Reads on until the head is whole, in bounded time and space.
async fn rest(wire: &mut Wire, read: &mut BytesMut, limits: &Limits) -> Result<usize, NoHead> {
    let whole = async {
        let mut looked_at = 0;
        loop {
            if read.len() > limits.head_bytes as usize {
                return Err(Reply::HeadTooLarge.into());
            }
            if has_bare_lf(read, looked_at) {
                return Err(Reply::BadRequest.into());
            }
            looked_at = read.len();
            let searched = read.len().saturating_sub(END.len() - 1);
            fill(wire, read).await?;
            if let Some(end) = find_end(read, searched) {
                return Ok(end);
            }
        }
    };
    let limit: Duration = limits.head_timeout;
    timeout(limit, whole).await.map_err(|_| NoHead::Refused(Reply::RequestTimeout))?
}

/// Whether a line from `from` on ends without its CR. Such a head is refused once it is whole; one of nothing but
/// such lines never would be.
fn has_bare_lf(read: &[u8], from: usize) -> bool {
    memchr::memchr_iter(b'\n', &read[from.min(read.len())..])
        .any(|at| !matches!((from + at).checked_sub(1), Some(before) if read[before] == b'\r'))
}

async fn fill(wire: &mut Wire, read: &mut BytesMut) -> Result<(), NoHead> {
    if read.capacity() - read.len() < 1024 {
        read.reserve(4096);
    }
    match wire.read_buf(read).await {
        Ok(0) | Err(_) => Err(NoHead::Closed),
        Ok(_) => Ok(()),
    }
}

/// Where the head ends, looked for from `from`. Empty lines before the request line are skipped (RFC 9112 2.2).
fn find_end(read: &mut BytesMut, from: usize) -> Option<usize> {
    if from == 0 {
        while read.starts_with(b"\r\n") {
            let _ = read.split_to(2);
        }
    }
    memmem::find(&read[from.min(read.len())..], END).map(|at| from + at + END.len())
}

/// What of the header section decides how the message is framed and who it is for.
#[derive(Default)]
struct Seen {
    fields: usize,
    host: bool,
    length: bool,
    coding: bool,
}

/// Refuses a head that two parsers could read differently.
fn check(head: &[u8], most_fields: usize) -> Result<(), Reply> {
    let mut lines = head[..head.len() - END.len()].split(|&byte| byte == b'\n');
    let mut next = || {
        let line = lines.next()?;
        // Every line but the last still has its CR; a missing one means a bare LF.
        Some(line.strip_suffix(b"\r").or_else(|| lines.clone().next().is_none().then_some(line)))
    };
    let minor = check_request_line(next().flatten().ok_or(Reply::BadRequest)?)?;
    let mut seen = Seen::default();
    while let Some(line) = next() {
        check_field(line.ok_or(Reply::BadRequest)?, &mut seen)?;
        if seen.fields > most_fields {
            return Err(Reply::HeadTooLarge);
        }
    }
    let framed_twice = seen.length && seen.coding;
    let unframed_coding = seen.coding && minor == 0;
    let hostless = !seen.host && minor == 1;
    if framed_twice || unframed_coding || hostless { Err(Reply::BadRequest) } else { Ok(()) }
}

/// Returns the minor version.
fn check_request_line(line: &[u8]) -> Result<u8, Reply> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        // A line without a version is HTTP/0.9.
        let words = line.split(|&byte| byte == b' ').count();
        return Err(if words == 2 && is_token(line.split(|&b| b == b' ').next().unwrap_or_default()) {
            Reply::UnsupportedVersion
        } else {
            Reply::BadRequest
        });
    };
    if !is_token(method) || target.is_empty() || !target.iter().all(|&b| b > b' ' && b != 0x7f && b != b'#') {
        return Err(Reply::BadRequest);
    }
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Reply::UnsupportedVersion),
        _ => Err(Reply::BadRequest),
    }
}

fn check_field(line: &[u8], seen: &mut Seen) -> Result<(), Reply> {
    let colon = memchr::memchr(b':', line).ok_or(Reply::BadRequest)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let printable = value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    if !is_token(name) || name.contains(&b'_') || !printable {
        return Err(Reply::BadRequest);
    }
    seen.fields += 1;
    // The length tells most names apart from these three.
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"host") => once(&mut seen.host),
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            once(&mut seen.length)?;
            let number = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
            if number { Ok(()) } else { Err(Reply::BadRequest) }
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            once(&mut seen.coding)?;
            if value.eq_ignore_ascii_case(b"chunked") { Ok(()) } else { Err(Reply::UnknownTransferCoding) }
        }
        _ => Ok(()),
    }
}

fn once(seen: &mut bool) -> Result<(), Reply> {
    if std::mem::replace(seen, true) { Err(Reply::BadRequest) } else { Ok(()) }
}

/// RFC 9110 5.6.2.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_lf_is_seen_wherever_the_bytes_were_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n";
        for from in 0..24 {
            assert!(has_bare_lf(text, from), "{from}");
        }
        for from in 24..=text.len() {
            assert!(!has_bare_lf(text, from), "{from}");
        }
        assert!(has_bare_lf(b"\n", 0) && !has_bare_lf(b"\r\n\r\n", 0) && !has_bare_lf(b"\r\n", 1));
    }

    fn verdict(head: &str) -> Result<(), Reply> {
        check(head.as_bytes(), 100)
    }

    #[test]
    fn what_can_be_read_in_one_way_only_is_taken() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "POST /a?b=c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nhost:a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\nX: \t spaced \t\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n",
        ] {
            assert_eq!(verdict(head), Ok(()), "{head}");
        }
    }

    #[test]
    fn what_two_parsers_may_read_differently_is_refused() {
        for (head, reply) in [
            ("GET / HTTP/1.1\r\n\r\n", Reply::BadRequest),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Reply::BadRequest),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Reply::BadRequest),
            ("GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n", Reply::BadRequest),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Reply::BadRequest),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Reply::BadRequest),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Reply::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", Reply::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n", Reply::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", Reply::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX_Y: b\r\n\r\n", Reply::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", Reply::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Reply::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", Reply::BadRequest),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", Reply::BadRequest),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", Reply::BadRequest),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                Reply::BadRequest,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Reply::BadRequest,
            ),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Reply::BadRequest),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                Reply::UnknownTransferCoding,
            ),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Reply::UnsupportedVersion),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Reply::UnsupportedVersion),
            ("GET /\r\nHost: a\r\n\r\n", Reply::UnsupportedVersion),
            ("GET / HTTX/1.1\r\nHost: a\r\n\r\n", Reply::BadRequest),
        ] {
            assert_eq!(verdict(head), Err(reply), "{head:?}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
        assert_eq!(verdict(&many), Err(Reply::HeadTooLarge));
    }
}
