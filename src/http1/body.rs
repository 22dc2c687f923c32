//! How a body is read: by its length, in chunks, or until the connection closes (RFC 9112 6 and 7).

use super::fields;
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use memchr::memmem;
use thiserror::Error;

/// A line with a chunk's size may be so long, extensions included.
const MOST_SIZE_LINE: usize = 1024;
/// The trailers may be so large, in bytes.
const MOST_TRAILERS: usize = 16 * 1024;
/// There may be so many.
const MOST_TRAILER_FIELDS: usize = 100;
/// What is asked for at once of a body whose length is not known.
const SOME: usize = 32 * 1024;

/// A piece of a message's body, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Body(Bytes),
    /// The body's end, with trailers.
    Trailers(HeaderMap),
    /// The body's end.
    End,
}

impl Piece {
    /// How many bytes of the body it is.
    pub fn len(&self) -> usize {
        match self {
            Self::Body(bytes) => bytes.len(),
            Self::Trailers(_) | Self::End => 0,
        }
    }

    /// Whether it is no byte of the body.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing of the body follows it.
    pub fn is_end(&self) -> bool {
        !matches!(self, Self::Body(_))
    }
}

/// Chunks that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("its chunks are malformed")]
pub struct BadBody;

/// What is still to be read of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    /// Nothing.
    Done,
    /// So many bytes, at least one.
    Length(u64),
    Chunked(Chunked),
    /// Everything.
    UntilClose,
}

/// Where in the chunks the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunked {
    /// Before a size.
    Size,
    /// In a chunk; so many bytes are to come.
    Data(u64),
    /// Before the CRLF that ends a chunk.
    DataEnd,
    /// After the last chunk.
    Trailers,
}

impl Decoder {
    /// A body of so many bytes.
    pub fn length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    /// A chunked body.
    pub fn chunked() -> Self {
        Self::Chunked(Chunked::Size)
    }

    /// Whether there is nothing more.
    pub fn is_done(self) -> bool {
        self == Self::Done
    }

    /// How many bytes are worth asking for.
    pub fn expected(self) -> usize {
        match self {
            Self::Length(left) | Self::Chunked(Chunked::Data(left)) => {
                usize::try_from(left).unwrap_or(usize::MAX)
            }
            Self::UntilClose => SOME,
            Self::Done | Self::Chunked(_) => 1,
        }
    }

    /// Takes the next piece out of what was read. `None` when more must be read first.
    ///
    /// # Errors
    /// [`BadBody`]; what follows cannot be understood any more.
    pub fn decode(&mut self, read: &mut BytesMut) -> Result<Option<Piece>, BadBody> {
        match self {
            Self::Done => Ok(Some(Piece::End)),
            Self::Length(left) => {
                let piece = take(read, left);
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(piece)
            }
            Self::UntilClose => Ok((!read.is_empty()).then(|| Piece::Body(read.split().freeze()))),
            Self::Chunked(chunked) => {
                let piece = chunked.decode(read)?;
                if piece.as_ref().is_some_and(Piece::is_end) {
                    *self = Self::Done;
                }
                Ok(piece)
            }
        }
    }
}

impl Chunked {
    fn decode(&mut self, read: &mut BytesMut) -> Result<Option<Piece>, BadBody> {
        loop {
            match self {
                Self::Size => {
                    let Some(line) = size_line(read)? else { return Ok(None) };
                    let size = chunk_size(&line)?;
                    *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                }
                Self::Data(left) => {
                    let piece = take(read, left);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(piece);
                }
                Self::DataEnd => match read.get(..2) {
                    Some(b"\r\n") => {
                        read.advance(2);
                        *self = Self::Size;
                    }
                    None if matches!(read[..], [] | [b'\r']) => return Ok(None),
                    _ => return Err(BadBody),
                },
                Self::Trailers => return trailers(read),
            }
        }
    }
}

/// What is there, at most `left`, which becomes less.
fn take(read: &mut BytesMut, left: &mut u64) -> Option<Piece> {
    let n = read.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= n as u64;
    (n > 0).then(|| Piece::Body(read.split_to(n).freeze()))
}

fn size_line(read: &mut BytesMut) -> Result<Option<BytesMut>, BadBody> {
    let within = &read[..read.len().min(MOST_SIZE_LINE)];
    let Some(at) = memchr::memchr(b'\n', within) else {
        return if within.len() == MOST_SIZE_LINE { Err(BadBody) } else { Ok(None) };
    };
    let line = read.split_to(at + 1);
    if line.ends_with(b"\r\n") { Ok(Some(line)) } else { Err(BadBody) }
}

/// `1*HEXDIG [ chunk-ext ] CRLF`. Extensions mean nothing here, but they must be text.
fn chunk_size(line: &[u8]) -> Result<u64, BadBody> {
    let line = &line[..line.len() - 2];
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    let text = extension.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    let extension_begins = matches!(extension.trim_ascii_start(), [] | [b';', ..]);
    if !(1..=15).contains(&digits.len()) || !text || !extension_begins {
        return Err(BadBody);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| BadBody)?;
    u64::from_str_radix(digits, 16).map_err(|_| BadBody)
}

fn trailers(read: &mut BytesMut) -> Result<Option<Piece>, BadBody> {
    match read.get(..2) {
        Some(b"\r\n") => {
            read.advance(2);
            return Ok(Some(Piece::End));
        }
        None => return Ok(None),
        Some(_) => {}
    }
    let Some(at) = memmem::find(read, b"\r\n\r\n") else {
        return if read.len() > MOST_TRAILERS { Err(BadBody) } else { Ok(None) };
    };
    let section = read.split_to(at + 2).freeze();
    read.advance(2);
    let fields = fields::trailers(&section, MOST_TRAILER_FIELDS).map_err(|_| BadBody)?;
    Ok(Some(Piece::Trailers(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pieces, when the bytes come in blocks of this size; bodies are joined.
    fn decode(
        decoder: Decoder,
        bytes: &str,
        block: usize,
    ) -> Result<(String, Option<Piece>, String), BadBody> {
        let (mut decoder, mut read, mut body) = (decoder, BytesMut::new(), Vec::new());
        let mut blocks = bytes.as_bytes().chunks(block);
        loop {
            match decoder.decode(&mut read)? {
                Some(Piece::Body(piece)) => body.extend_from_slice(&piece),
                Some(end) => {
                    let rest: Vec<u8> = read.iter().copied().chain(blocks.flatten().copied()).collect();
                    let text = |bytes| String::from_utf8(bytes).expect("text");
                    return Ok((text(body), Some(end), text(rest)));
                }
                None => match blocks.next() {
                    Some(block) => read.extend_from_slice(block),
                    None => return Ok((String::from_utf8(body).expect("text"), None, String::new())),
                },
            }
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_says_however_it_comes() {
        let chunks = "5\r\nhello\r\n00A ;x=\"y\"\r\n, chunks!!\r\n0\r\n\r\n";
        for block in 1..40 {
            let ended = |body: &str, rest: &str| Ok((body.to_owned(), Some(Piece::End), rest.to_owned()));
            assert_eq!(decode(Decoder::length(5), "helloGET", block), ended("hello", "GET"));
            assert_eq!(decode(Decoder::length(0), "GET", block), ended("", "GET"));
            let got = decode(Decoder::chunked(), &format!("{chunks}GET"), block);
            assert_eq!(got, ended("hello, chunks!!", "GET"), "{block}");
            let trailers = HeaderMap::from_iter([(http::header::ETAG, "z".parse().expect("a value"))]);
            let got = decode(Decoder::chunked(), "1\r\na\r\n0\r\nETag: z\r\n\r\nGET", block);
            assert_eq!(got, Ok(("a".into(), Some(Piece::Trailers(trailers)), "GET".into())), "{block}");
            assert_eq!(decode(Decoder::UntilClose, "all", block), Ok(("all".into(), None, String::new())));
        }
    }

    #[test]
    fn chunks_that_two_parsers_may_read_differently_are_refused() {
        for bytes in [
            "\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "5;a\0b\r\nhello\r\n0\r\n\r\n",
            "ffffffffffffffff\r\n",
            "g\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\na: b\n\r\n\r\n",
        ] {
            for block in [1, 7, 100] {
                assert_eq!(decode(Decoder::chunked(), bytes, block), Err(BadBody), "{bytes:?} {block}");
            }
        }
        for endless in ["5;".to_owned() + &"x".repeat(4000), "0\r\na: ".to_owned() + &"x".repeat(40_000)] {
            assert_eq!(decode(Decoder::chunked(), &endless, 100), Err(BadBody));
        }
    }
}
