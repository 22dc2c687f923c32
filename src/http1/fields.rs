//! Field lines: what stands between a start line, or a last chunk, and the empty line.

use crate::wire::Spare;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// A field line that is none: a name with forbidden characters, a value with control characters, no colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadField;

/// A map that grew beyond so many fields is not used again.
const LARGEST_SPARE: usize = 64;
/// So many maps of a thread wait for the next head.
const MOST_SPARE: usize = 64;

thread_local! {
    /// Maps whose messages are through. Making one costs as much as reading a few fields into it.
    static SPARE: Spare<HeaderMap, MOST_SPARE> = const { Spare::new() };
}

/// An empty map with room for about as many fields as a section of this size has, and for those that a gateway adds.
pub fn map(section: &[u8]) -> HeaderMap {
    let spare = SPARE.with(Spare::take);
    spare.unwrap_or_else(|| HeaderMap::with_capacity((section.len() / 32 + 6).min(128)))
}

/// Gives back the map of a message that is through, for the next one.
pub fn give_back(mut map: HeaderMap) {
    if (1..=LARGEST_SPARE).contains(&map.capacity()) {
        map.clear();
        SPARE.with(|spare| spare.keep(map));
    }
}

/// The lines of a section, without their CRLF. `None` stands for a line that does not end so.
pub fn lines(section: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    raw_lines(section).map(|line| line.strip_suffix(b"\r\n"))
}

/// The same where a bare LF may end a line, and where the last one may have no end.
pub fn lenient_lines(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    raw_lines(section).map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}

fn raw_lines(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = section;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, after) = rest.split_at(memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1));
        rest = after;
        Some(line)
    })
}

/// A field line as name and value. The value shares the section's memory.
pub fn field(section: &Bytes, line: &[u8]) -> Result<(HeaderName, HeaderValue), BadField> {
    let (name, value) = split(line)?;
    assemble(section, name, value)
}

/// The same where blanks may stand before the colon: RFC 9112 5.1 has a proxy remove them from responses.
pub fn lenient_field(section: &Bytes, line: &[u8]) -> Result<(HeaderName, HeaderValue), BadField> {
    let (name, value) = split(line)?;
    assemble(section, name.trim_ascii_end(), value)
}

fn split(line: &[u8]) -> Result<(&[u8], &[u8]), BadField> {
    // Names are short: a search made for long texts costs more than it saves.
    let colon = line.iter().position(|&byte| byte == b':').ok_or(BadField)?;
    Ok((&line[..colon], trim(&line[colon + 1..])))
}

fn assemble(section: &Bytes, name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), BadField> {
    let name = HeaderName::from_bytes(name).map_err(|_| BadField)?;
    // An empty slice need not lie in the section.
    let value = if value.is_empty() { Bytes::new() } else { section.slice_ref(value) };
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| BadField)?;
    Ok((name, value))
}

/// Without the whitespace around it (RFC 9110 5.5).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A whole section of trailers, of at most `most` fields.
pub fn trailers(section: &Bytes, most: usize) -> Result<HeaderMap, BadField> {
    let mut trailers = HeaderMap::new();
    for line in lines(section) {
        let (name, value) = field(section, line.ok_or(BadField)?)?;
        if trailers.len() >= most || trailers.try_append(name, value).is_err() {
            return Err(BadField);
        }
    }
    Ok(trailers)
}

/// Writes a field line.
pub fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &'static str) -> Option<(String, String)> {
        let section = Bytes::from_static(line.as_bytes());
        let (name, value) = field(&section, &section).ok()?;
        Some((name.to_string(), value.to_str().expect("ASCII").to_owned()))
    }

    #[test]
    fn a_field_line_is_a_token_a_colon_and_printable_text() {
        let field = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(parsed("A: b c \t"), field("a", "b c"));
        assert_eq!(parsed("x-y:z"), field("x-y", "z"));
        assert_eq!(parsed("x-y: \t "), field("x-y", ""));
        for bad in ["a b: c", "a : b", ": b", "nocolon", "a: b\rc", "a: \0", "a\u{e9}: b", " a: b", ""] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_line_without_its_cr_is_told_apart() {
        let lines: Vec<_> = lines(b"a\r\nb\nc\r\n\r\nd").collect();
        assert_eq!(lines, [Some(&b"a"[..]), None, Some(b"c"), Some(b""), None]);
    }
}
