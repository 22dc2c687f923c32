//! Tries: the request goes to an endpoint, and to another one where that is asked for, until there is a response.

use super::Worker;
use super::asked::Asked;
use super::downstream::{Downstream, Piece};
use super::exchange::Ended;
use super::forwarded;
use super::mirror::Feed;
use super::notes::Notes;
use super::outgoing;
use super::pump::{Clock, Over, Reading};
use super::reach::{Choice, Reached, reach};
use super::recording::Recording;
use super::relay::Broken;
use super::responding::Responding;
use super::retries::{Cause, Retries};
use crate::reply::{Flag, Reply};
use crate::telemetry::HttpStats;
use crate::upstream::{Backend, Cluster, Protocol, Upstream, UpstreamError};
use bytes::Bytes;
use http::{StatusCode, request};
use std::time::Duration;
use tokio::time::sleep;

/// An exchange whose destination is known.
pub struct Tries<'a> {
    pub worker: &'a Worker,
    pub http: &'a HttpStats,
    pub cluster: &'a Cluster,
    pub backend: &'a Backend,
    pub asked: &'a Asked,
    pub address: outgoing::Address,
    pub responding: Responding<'a>,
    pub clock: &'a mut Clock,
    /// How long one try may take.
    pub limit: Option<Duration>,
    pub recording: Recording,
    pub feeds: Vec<Feed>,
    pub retries: Retries<'a>,
    pub choice: Choice,
    pub notes: &'a mut Notes,
}

/// How a try ended without a response for the client.
enum Failed {
    /// The client has seen nothing yet, and the request can be sent again.
    Again(Cause),
    Ended(Ended),
}

impl<T: Into<Ended>> From<T> for Failed {
    fn from(ended: T) -> Self {
        Self::Ended(ended.into())
    }
}

impl Tries<'_> {
    /// Tries until there is a response, or nothing left to try.
    pub async fn run(
        &mut self,
        head: &mut request::Parts,
        down: &mut Downstream,
    ) -> Result<StatusCode, Ended> {
        self.cluster.stats().request_began();
        let mut again = false;
        loop {
            let cause = match self.attempt(head, down).await {
                Ok(status) => {
                    if again {
                        self.cluster.stats().retry_succeeded();
                    }
                    return Ok(status);
                }
                Err(Failed::Ended(ended)) => return Err(self.told_of_retries(ended)),
                Err(Failed::Again(cause)) => cause,
            };
            let Some(pause) = self.retries.next(cause) else {
                if self.retries.were_made() {
                    self.cluster.stats().mine().retry_limit.inc();
                    self.notes.flag(Flag::UpstreamRetryLimitExceeded);
                }
                return Err(self.told_of_retries(cause.reply().into()));
            };
            self.notes.unsay();
            if !pause.is_zero() {
                self.cluster.stats().mine().retry_backoff.inc();
                self.clock.begin_attempt(None);
                self.clock.within(Box::pin(sleep(pause))).await.map_err(|_: Over| Reply::UpstreamTimeout)?;
            }
            self.cluster.stats().retried();
            again = true;
            self.choice.fresh = cause == Cause::Stale;
        }
    }

    fn told_of_retries(&self, ended: Ended) -> Ended {
        match ended {
            Ended::Answer(answer) if self.retries.made() > 0 => answer.retried().into(),
            ended => ended,
        }
    }

    /// One try: a connection, the request, the response.
    async fn attempt(
        &mut self,
        head: &mut request::Parts,
        down: &mut Downstream,
    ) -> Result<StatusCode, Failed> {
        self.clock.begin_attempt(self.limit);
        self.notes.tried();
        let reaching = reach(&self.worker.pool, self.cluster, self.backend, &mut self.choice);
        let Reached { mut up, active, tls } = match self.clock.within(reaching).await {
            Ok(Ok(reached)) => reached,
            // Waiting makes no endpoints.
            Ok(Err(Reply::NoEndpoint)) => return Err(Reply::NoEndpoint.into()),
            Ok(Err(reply)) => {
                self.notes.not_reached(self.choice.failed.as_ref(), self.choice.failure.take());
                return Err(Failed::Again(Cause::Broke(reply)));
            }
            Err(over) => {
                self.count(over);
                return Err(match over {
                    Over::Attempt => Failed::Again(Cause::TimedOut),
                    Over::Request | Over::Idle => Reply::UpstreamTimeout.into(),
                });
            }
        };
        self.notes.reached(&active, &up);
        let protocol = if up.is_http2() { Protocol::Http2 } else { Protocol::Http1 };
        let upgrade = self.asked.upgrade.as_ref().filter(|_| protocol == Protocol::Http1);
        let end = upgrade.is_none() && self.recording.is_empty() && down.is_body_done();
        // Only a connection that served before can be found closed, and only then a second try is safe unasked.
        let stale = up.is_reused() && self.asked.idempotent && end;
        let again = stale || self.retries.are_left();
        let target = outgoing::Target { address: &self.address, tls, protocol, end, upgrade };
        outgoing::address(head, &target).map_err(|_| Reply::BadRequest)?;
        let reading = match (upgrade, end) {
            (Some(_), _) => Reading::Held,
            (None, true) => Reading::Ended,
            (None, false) if self.recording.has_end() => Reading::Ended,
            (None, false) => Reading::Open,
        };
        let pieces = self.recording.pieces(self.retries.are_left());
        let result = match self.clock.within(send(&mut up, head, end, pieces)).await {
            Ok(Ok(())) => self.relay(&mut up, down, &active, reading).await,
            Ok(Err(error)) => Err(self.failed(&up, error, false)),
            Err(over) => Err(self.timed_out(&up, over, None)),
        };
        let cause = match result {
            Ok(status) => {
                self.finish(up);
                return Ok(status);
            }
            Err(Broken::Ended(ended)) => return Err(ended.into()),
            Err(Broken::Before(error)) => self.cause(&error, stale),
            Err(Broken::Again(cause)) => cause,
        };
        self.choice.failed = Some(active.endpoint().address.clone());
        if (again || self.retries.were_made()) && self.recording.is_whole() {
            return Err(Failed::Again(cause));
        }
        Err(cause.reply().into())
    }

    /// Ends a try whose response was read to its end.
    fn finish(&self, up: Upstream) {
        if up.is_closing() {
            self.cluster.stats().mine().cx_close_notify.inc();
        }
        up.finish(&self.worker.pool);
    }

    fn cause(&self, error: &UpstreamError, stale: bool) -> Cause {
        tracing::debug!("{}: {error}", self.cluster.name());
        match error {
            UpstreamError::Closed(_) | UpstreamError::Refused(_) if stale => Cause::Stale,
            UpstreamError::Closed(_) => Cause::Broke(Reply::UpstreamReset),
            UpstreamError::Reset(_) => Cause::Broke(Reply::StreamReset),
            UpstreamError::Refused(_) => Cause::Broke(Reply::StreamRefused),
            UpstreamError::Protocol(_) => Cause::Broke(Reply::UpstreamProtocol),
        }
    }
}

/// Sends the head, and what was read of the body already.
async fn send(
    up: &mut Upstream,
    head: &request::Parts,
    end: bool,
    pieces: Vec<Piece>,
) -> Result<(), UpstreamError> {
    up.send_head(head, end).await?;
    for piece in pieces {
        pass_on(up, piece)?;
    }
    Ok(())
}

/// Sends what a client sent.
pub fn pass_on(up: &mut Upstream, piece: Piece) -> Result<(), UpstreamError> {
    match piece {
        Piece::Body(bytes) => up.send_body(bytes, false),
        Piece::Trailers(mut trailers) => {
            forwarded::retain_trailers(&mut trailers);
            up.send_trailers(trailers)
        }
        Piece::End => up.send_body(Bytes::new(), true),
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::rig::{Act, Rig, Upstream, answer, body, local, nobody, status};
    use crate::routing::{Retry, Rule, TimeLimit};
    use http::StatusCode;
    use std::time::{Duration, Instant};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::sleep;

    fn retrying(attempts: u32, codes: &[u16]) -> impl FnOnce(&mut Rule) + use<> {
        let codes = codes.iter().map(|code| StatusCode::from_u16(*code).expect("a status")).collect();
        let retry = Retry::new(Some(attempts), codes, Some(Duration::from_millis(5)));
        move |rule| rule.terms.get_or_insert_default().retry = Some(retry)
    }

    fn after(milliseconds: u64) -> TimeLimit {
        TimeLimit::new(Duration::from_millis(milliseconds))
    }

    #[tokio::test]
    async fn a_listed_code_is_tried_again_and_the_last_response_given() {
        local(async {
            for (failures, code, want, tries) in
                [(2, 503, 200, 3), (3, 503, 503, 3), (9, 502, 502, 1), (0, 503, 200, 1)]
            {
                let upstream = Upstream::new(move |number, _| {
                    let code = if number < failures { code } else { 200 };
                    answer(code, &format!("try {number}"))
                })
                .await;
                let rig = Rig::new(&[&[upstream.address]], retrying(2, &[500, 503]));
                let got = rig.get("/").await;
                assert_eq!((status(&got), upstream.requests().len()), (want, tries), "{failures} {code}");
                assert_eq!(body(&got), format!("try {}", tries - 1));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_broken_connection_is_tried_again_without_codes() {
        local(async {
            for (failures, want, tries) in [(2, 200, 3), (9, 503, 3)] {
                let upstream = Upstream::new(
                    move |number, _| {
                        if number < failures { Act::Close } else { answer(200, "") }
                    },
                )
                .await;
                let rig = Rig::new(&[&[upstream.address]], retrying(2, &[]));
                let got = rig.send("POST", "/", "", "body").await;
                assert_eq!((status(&got), upstream.requests().len()), (want, tries), "{failures}");
                for request in upstream.requests() {
                    assert!(request.ends_with("\r\n\r\nbody"), "the whole request again: {request}");
                }
            }
            let rig = Rig::new(&[&[nobody().await]], retrying(2, &[]));
            assert_eq!(status(&rig.get("/").await), 503);
        })
        .await;
    }

    #[tokio::test]
    async fn a_try_may_fail_while_the_body_still_comes() {
        local(async {
            let upstream = Upstream::new(|number, _| match number {
                0 => Act::Early("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n".into()),
                _ => answer(200, ""),
            })
            .await;
            let rig = Rig::new(&[&[upstream.address]], retrying(2, &[503]));
            let mut client = rig.open();
            let head = "POST / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\ncontent-length: 10\r\n\r\n";
            client.write_all(format!("{head}first").as_bytes()).await.expect("written");
            upstream.wait_for(1).await;
            sleep(Duration::from_millis(50)).await;
            client.write_all(b"later").await.expect("written");
            let mut got = String::new();
            client.read_to_string(&mut got).await.expect("it is closed");
            assert_eq!(status(&got), 200);
            assert!(upstream.requests()[1].ends_with("\r\n\r\nfirstlater"), "{:?}", upstream.requests());
        })
        .await;
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_to_keep_is_sent_once() {
        local(async {
            let upstream = Upstream::new(|_, _| answer(503, "busy")).await;
            let rig = Rig::new(&[&[upstream.address]], retrying(2, &[503]));
            for (size, tries) in [(64 * 1024, 3), (64 * 1024 + 1, 4)] {
                let got = rig.send("POST", "/", "", &"x".repeat(size)).await;
                assert_eq!((status(&got), body(&got)), (503, "busy"));
                assert_eq!(upstream.requests().len(), tries, "{size}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_try_that_takes_too_long_is_made_again() {
        local(async {
            for (hanging, want, tries) in [(1, 200, 2), (9, 504, 3)] {
                let upstream = Upstream::new(
                    move |number, _| {
                        if number < hanging { Act::Hang } else { answer(200, "") }
                    },
                )
                .await;
                let rig = Rig::new(&[&[upstream.address]], |rule| {
                    retrying(2, &[])(rule);
                    rule.terms.get_or_insert_default().timeouts.backend_request = after(100);
                });
                let got = rig.get("/").await;
                assert_eq!((status(&got), upstream.requests().len()), (want, tries), "{hanging}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn the_requests_limit_holds_for_all_tries_together() {
        local(async {
            let upstream = Upstream::new(|_, _| Act::Hang).await;
            let rig = Rig::new(&[&[upstream.address]], |rule| {
                retrying(100, &[])(rule);
                rule.terms.get_or_insert_default().timeouts.backend_request = after(100);
                rule.terms.get_or_insert_default().timeouts.request = after(350);
            });
            let started = Instant::now();
            assert_eq!(status(&rig.get("/").await), 504);
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
            assert!((2..=4).contains(&upstream.requests().len()), "{}", upstream.requests().len());
        })
        .await;
    }

    #[tokio::test]
    async fn without_retry_one_try_is_all_there_is() {
        local(async {
            let upstream = Upstream::new(|_, _| Act::Hang).await;
            let rig = Rig::new(&[&[upstream.address]], |rule| {
                rule.terms.get_or_insert_default().timeouts.backend_request = after(100)
            });
            assert_eq!((status(&rig.get("/").await), upstream.requests().len()), (504, 1));
        })
        .await;
    }

    #[tokio::test]
    async fn a_response_that_began_is_cut_and_never_begun_again() {
        local(async {
            let upstream =
                Upstream::new(|_, _| Act::Answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".into()))
                    .await;
            let rig = Rig::new(&[&[upstream.address]], |rule| {
                retrying(2, &[503])(rule);
                rule.terms.get_or_insert_default().timeouts.request = after(200);
            });
            let mut client = rig.open();
            client.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.expect("written");
            let mut got = String::new();
            client.read_to_string(&mut got).await.expect("it is closed");
            assert_eq!((status(&got), body(&got)), (200, "half"));
            assert_eq!(upstream.requests().len(), 1);
        })
        .await;
    }
}
