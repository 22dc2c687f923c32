//! HTTP/1 as bytes (RFC 9112): heads and bodies, read strictly and written plainly. Nothing here waits.
//!
//! A leaf that `proxy` (clients) and `upstream` share. What two parsers may read differently is how requests are
//! smuggled, so it is refused here, before anything interprets it.

mod body;
mod fields;
mod framing;
mod request;
mod response;

pub use body::{BadBody, Decoder, Piece};
pub use fields::give_back;
pub use framing::Framing;
pub use request::{BadRequest, Head as RequestHead, has_token, write as write_request};
pub use response::{Head as ResponseHead, write as write_response};

use bytes::{Buf, BytesMut};
use memchr::memmem::Finder;
use std::sync::LazyLock;

static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// Where a request's head ends, looked for from `from`. Empty lines before it are dropped (RFC 9112 2.2).
pub fn request_end(read: &mut BytesMut, from: usize) -> Option<usize> {
    if from == 0 {
        while read.starts_with(b"\r\n") {
            read.advance(2);
        }
    }
    END.find(read.get(from..)?).map(|at| from + at + 4)
}
