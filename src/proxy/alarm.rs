//! One timer for all that a connection waits for, one wait after the other.
//!
//! Nearly every wait ends before its limit. So a timer that is set stays set when the limit moves further away: it
//! is looked at again when it goes off, which costs nothing per request.

use crate::wire::Spare;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is made when it is first needed.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when this moment has come.
    pub fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

/// So many timers of a worker wait to be used again.
const MOST_SPARE: usize = 64;

/// Timers for exchanges that come and go, one beside the other (HTTP/2's). One that was used is still set, so that it
/// costs its next user nothing either.
#[derive(Debug, Default)]
pub struct Alarms(Spare<Alarm, MOST_SPARE>);

impl Alarms {
    pub fn take(&self) -> Alarm {
        self.0.take().unwrap_or_default()
    }

    pub fn keep(&self, alarm: Alarm) {
        if alarm.0.is_some() {
            self.0.keep(alarm);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_when_asked_whatever_was_asked_before() {
        let mut alarm = Alarm::default();
        let started = Instant::now();
        for seconds in [300, 5, 60, 301] {
            let at = started + Duration::from_secs(seconds);
            let pending = poll_fn(|cx| Poll::Ready(alarm.poll(at, cx).is_pending())).await;
            assert!(pending, "{seconds}");
        }
        for (seconds, want) in [(5, 5), (60, 60), (7, 60), (301, 301)] {
            poll_fn(|cx| alarm.poll(started + Duration::from_secs(seconds), cx)).await;
            assert_eq!(started.elapsed().as_secs(), want);
        }
    }
}
