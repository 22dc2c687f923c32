//! Whether and when a request is tried again.

use crate::reply::Reply;
use crate::routing::Retry;
use http::StatusCode;
use std::time::Duration;

/// Why a try gave nothing that the client should get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A connection that served before was closed meanwhile: most probably nobody has seen the request.
    Stale,
    /// The connection could not be opened, or broke.
    Broke(Reply),
    /// It took longer than one try may.
    TimedOut,
    /// A response with a code that the rule lists.
    Code,
}

impl Cause {
    /// What the client is told when it is not tried again.
    pub fn reply(self) -> Reply {
        match self {
            Self::Stale | Self::Code => Reply::UpstreamReset,
            Self::Broke(reply) => reply,
            Self::TimedOut => Reply::UpstreamTimeout,
        }
    }
}

/// What is left to try.
#[derive(Debug)]
pub struct Retries<'a> {
    policy: Option<&'a Retry>,
    made: u32,
    /// Whether a stale connection was met already: the new one that follows cannot be.
    stale: bool,
}

impl<'a> Retries<'a> {
    /// Nothing was tried yet.
    pub fn new(policy: Option<&'a Retry>) -> Self {
        Self { policy, made: 0, stale: false }
    }

    /// Whether the rule asks for more tries.
    pub fn are_left(&self) -> bool {
        self.policy.is_some_and(|policy| self.made < policy.attempts())
    }

    /// Whether the rule's tries were used up.
    pub fn were_made(&self) -> bool {
        self.policy.is_some_and(|policy| self.made > 0 && self.made >= policy.attempts())
    }

    /// Whether a response with this code is given only because nothing is left to try.
    pub fn are_exhausted_by(&self, code: StatusCode) -> bool {
        self.were_made() && self.policy.is_some_and(|policy| policy.codes().contains(&code))
    }

    /// How many of the rule's tries were made beyond the first.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Whether a response with this code is not given to the client.
    pub fn replace(&self, code: StatusCode) -> bool {
        self.are_left() && self.policy.is_some_and(|policy| policy.codes().contains(&code))
    }

    /// How long to wait before the next try; `None` when there is none.
    pub fn next(&mut self, cause: Cause) -> Option<Duration> {
        if cause == Cause::Stale && !std::mem::replace(&mut self.stale, true) {
            return Some(Duration::ZERO);
        }
        let policy = self.policy.filter(|policy| self.made < policy.attempts())?;
        let pause = policy.pause(self.made, fastrand::u32(..));
        self.made += 1;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_connection_is_replaced_once_without_a_policy() {
        let mut retries = Retries::new(None);
        assert_eq!(retries.next(Cause::Stale), Some(Duration::ZERO));
        assert_eq!(retries.next(Cause::Stale), None);
        assert_eq!(Retries::new(None).next(Cause::Broke(Reply::ConnectFailed)), None);
    }

    #[test]
    fn attempts_count_the_retries_and_not_the_tries() {
        let policy = Retry::new(Some(2), vec![StatusCode::BAD_GATEWAY], None);
        let mut retries = Retries::new(Some(&policy));
        assert!(retries.replace(StatusCode::BAD_GATEWAY) && !retries.replace(StatusCode::NOT_FOUND));
        let pause = retries.next(Cause::Code).expect("a first retry");
        assert!(pause >= Duration::from_millis(25), "{pause:?}");
        assert!(retries.next(Cause::TimedOut).is_some());
        assert_eq!(retries.next(Cause::Broke(Reply::ConnectFailed)), None);
        assert!(!retries.replace(StatusCode::BAD_GATEWAY), "the last response is given");
    }
}
