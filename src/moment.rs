//! What time it is, asked of the system once for many readers.
//!
//! A leaf that `listener`, `upstream` and `proxy` share. A request needs the time at its beginning, at its end, and
//! when its connections begin to wait; reading the clock costs as much as looking up its route. So what a worker
//! does between two sleeps happens at one moment, as in other proxies' event loops. That moment is as old as the
//! worker's last sleep, or as 128 readings: well below a millisecond.

use std::cell::Cell;
use tokio::time::Instant;

/// So many may read one moment: a worker that is never idle asks again.
const MOST_READERS: u32 = 128;

thread_local! {
    static MOMENT: Cell<Moment> = const { Cell::new(Moment::Unknown) };
}

/// What a thread knows of the time.
#[derive(Clone, Copy)]
enum Moment {
    /// Nothing: it does not tell when it sleeps.
    Unknown,
    /// It has slept since it was read.
    Past,
    /// It was read, and so many may still take it for now.
    Read(Instant, u32),
}

/// The calling thread has slept: what happens from here on is later.
pub fn wake() {
    MOMENT.set(Moment::Past);
}

/// Now.
pub fn now() -> Instant {
    let (moment, readers) = match MOMENT.get() {
        Moment::Unknown => return Instant::now(),
        Moment::Read(moment, readers @ 1..) => (moment, readers),
        Moment::Past | Moment::Read(_, 0) => (Instant::now(), MOST_READERS),
    };
    MOMENT.set(Moment::Read(moment, readers - 1));
    moment
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn later() {
        std::thread::sleep(Duration::from_millis(1));
    }

    #[test]
    fn it_stands_still_until_the_thread_sleeps() {
        wake();
        let first = now();
        later();
        assert_eq!(now(), first);
        wake();
        assert!(now() > first);
    }

    #[test]
    fn it_goes_on_where_nobody_tells_of_sleep_and_for_those_who_never_sleep() {
        let first = now();
        later();
        assert!(now() > first, "no worker");
        wake();
        let first = now();
        later();
        for _ in 1..MOST_READERS {
            assert_eq!(now(), first);
        }
        assert!(now() > first, "busy");
    }
}
