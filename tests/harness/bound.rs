//! A child process that is bound to the test that started it: it does not outlive it, however the test ends.

use std::ops::{Deref, DerefMut};
use std::process::Child;

/// A child process that is killed and reaped when this is dropped.
pub struct Bound(pub Child);

impl Bound {
    /// Kills and reaps it. That it has ended already is no fault.
    pub fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Deref for Bound {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Bound {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.end();
    }
}
