//! What was used and will be needed again.

use std::cell::RefCell;

/// Things of one thread that wait to be used again, at most `MOST` of them. The one that came last goes first: it is
/// the likeliest to be in a cache still.
#[derive(Debug)]
pub struct Spare<T, const MOST: usize>(RefCell<Vec<T>>);

impl<T, const MOST: usize> Spare<T, MOST> {
    /// None yet.
    pub const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// One, if there is any.
    pub fn take(&self) -> Option<T> {
        self.0.borrow_mut().pop()
    }

    /// Keeps one, if there is room.
    pub fn keep(&self, one: T) {
        let mut spare = self.0.borrow_mut();
        if spare.len() < MOST {
            spare.push(one);
        }
    }
}

impl<T, const MOST: usize> Default for Spare<T, MOST> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let spare = Spare::<_, 2>::new();
        (1..=3).for_each(|number| spare.keep(number));
        assert_eq!([spare.take(), spare.take(), spare.take()], [Some(2), Some(1), None]);
    }
}
