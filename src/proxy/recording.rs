//! What was read of a request's body, kept so that it can be sent later, or again.

use super::downstream::{Downstream, Piece};
use super::exchange::Ended;
use super::pump::{Clock, Over};
use crate::reply::Reply;
use bytes::BytesMut;
use http::{Response, StatusCode};
use std::future::poll_fn;

/// A request with a larger body is not sent again.
const MOST_KEPT: usize = 64 * 1024;

/// The beginning of a request's body, or all of it.
#[derive(Debug, Default)]
pub struct Recording {
    pieces: Vec<Piece>,
    size: usize,
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing was read yet, and nothing is to be kept.
    #[default]
    Off,
    On,
    /// Something was read and is not here: the request cannot be sent again.
    Lost,
}

impl Recording {
    /// Keeps what is read from now on.
    pub fn start(&mut self) {
        if self.state == State::Off {
            self.state = State::On;
        }
    }

    /// Takes note of a piece that was read.
    pub fn note(&mut self, piece: &Piece) {
        match self.state {
            State::Lost => {}
            State::Off => self.state = State::Lost,
            State::On if self.size + piece.len() > MOST_KEPT => self.forget(),
            State::On => self.push(piece.clone()),
        }
    }

    /// Whether all that was read is here.
    pub fn is_whole(&self) -> bool {
        self.state != State::Lost
    }

    /// How many bytes of the body are here.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether the request's end is here.
    pub fn has_end(&self) -> bool {
        matches!(self.pieces.last(), Some(Piece::End | Piece::Trailers(_)))
    }

    /// What is here, in the order in which it was read. Without `again` it is given away.
    pub fn pieces(&mut self, again: bool) -> Vec<Piece> {
        if again || self.pieces.is_empty() {
            return self.pieces.clone();
        }
        self.state = State::Lost;
        std::mem::take(&mut self.pieces)
    }

    /// What is here, to look at.
    pub fn peek(&self) -> &[Piece] {
        &self.pieces
    }

    /// The bytes that are here.
    pub fn bytes(&self) -> bytes::Bytes {
        let mut bodies = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Body(bytes) => Some(bytes),
            Piece::Trailers(_) | Piece::End => None,
        });
        match (bodies.next(), bodies.next()) {
            (None, _) => bytes::Bytes::new(),
            (Some(only), None) => only.clone(),
            (Some(first), Some(second)) => {
                let mut all = BytesMut::with_capacity(self.size);
                for piece in [first, second].into_iter().chain(bodies) {
                    all.extend_from_slice(piece);
                }
                all.freeze()
            }
        }
    }

    /// Reads the whole body, before anything of the request goes on.
    ///
    /// # Errors
    /// [`Reply::BodyTooLarge`] for more than `most` bytes, [`Reply::RequestTimeout`] when it takes too long.
    pub async fn read_all(
        &mut self,
        down: &mut Downstream,
        clock: &mut Clock,
        most: usize,
    ) -> Result<(), Ended> {
        self.start();
        while !self.has_end() && !down.is_body_done() {
            let reading = poll_fn(|cx| down.poll_piece(cx));
            let piece = clock.within(reading).await.map_err(|_: Over| Reply::RequestTimeout)??;
            clock.moved();
            if self.size + piece.len() > most {
                return Err(Reply::BodyTooLarge.into());
            }
            self.push(piece);
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece) {
        self.size += piece.len();
        self.pieces.push(piece);
    }

    /// Keeps nothing any more: the request is not sent again.
    pub fn forget(&mut self) {
        self.pieces = Vec::new();
        self.state = State::Lost;
    }
}

/// Tells a client that waits for it to send its body (RFC 9110 10.1.1): the gateway reads it before any upstream.
pub async fn invite(down: &mut Downstream) -> Result<(), Ended> {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::CONTINUE;
    Ok(down.send_informational(head).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn body(size: usize) -> Piece {
        Piece::Body(Bytes::from(vec![b'x'; size]))
    }

    #[test]
    fn a_body_within_the_limit_can_be_sent_again() {
        let mut recording = Recording::default();
        recording.start();
        for piece in [body(10), body(MOST_KEPT - 10), Piece::End] {
            recording.note(&piece);
        }
        assert!(recording.is_whole() && recording.has_end());
        assert_eq!(recording.pieces(true).len(), 3);
        assert_eq!(recording.pieces(true).len(), 3, "again and again");
        assert_eq!(recording.bytes().len(), MOST_KEPT);
    }

    #[test]
    fn a_body_beyond_the_limit_is_forgotten() {
        let mut recording = Recording::default();
        recording.start();
        recording.note(&body(MOST_KEPT));
        recording.note(&body(1));
        assert!(!recording.is_whole() && recording.is_empty());
    }

    #[test]
    fn what_is_not_kept_is_lost_once_it_was_read() {
        let mut recording = Recording::default();
        assert!(recording.is_whole());
        recording.note(&body(1));
        assert!(!recording.is_whole());
        let mut recording = Recording::default();
        recording.start();
        recording.note(&body(1));
        assert_eq!(recording.pieces(false).len(), 1);
        assert!(!recording.is_whole(), "it was given away");
    }
}
