//! Any bytes on an HTTP/1 connection, however they are cut: a head is taken whole or refused, and a body is the same
//! whatever blocks it came in.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use trigate::http1::{BadBody, Decoder, Piece, RequestHead, ResponseHead, request_end};

/// The body, and how many bytes were left over; `None` when its end did not come.
fn decode(mut decoder: Decoder, bytes: &[u8], block: usize) -> Result<Option<(Vec<u8>, usize)>, BadBody> {
    let (mut read, mut body, mut taken) = (BytesMut::new(), Vec::new(), 0);
    loop {
        match decoder.decode(&mut read)? {
            Some(Piece::Body(piece)) => body.extend_from_slice(&piece),
            Some(Piece::Trailers(_) | Piece::End) => {
                return Ok(Some((body, bytes.len() - taken + read.len())));
            }
            None if taken == bytes.len() => return Ok(None),
            None => {
                let next = bytes.len().min(taken.saturating_add(block));
                read.extend_from_slice(&bytes[taken..next]);
                taken = next;
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut read = BytesMut::from(bytes);
    let rest = match request_end(&mut read, 0) {
        Some(end) => {
            let head = read.split_to(end).freeze();
            match RequestHead::parse(&head, 100) {
                Ok(head) => {
                    assert!(head.parts.headers.len() <= 100);
                    assert!(
                        head.parts.uri.path_and_query().is_none_or(|target| !target.as_str().contains(' '))
                    );
                    let at_once = decode(head.body, &read, usize::MAX);
                    for block in [1, 3] {
                        assert_eq!(decode(head.body, &read, block), at_once, "in blocks of {block}");
                    }
                    &read[..]
                }
                Err(_) => bytes,
            }
        }
        None => bytes,
    };
    if let Some(end) = ResponseHead::end(rest, 0) {
        let head = bytes::Bytes::copy_from_slice(&rest[..end]);
        let _ = ResponseHead::parse(&head, &http::Method::GET);
    }
});
