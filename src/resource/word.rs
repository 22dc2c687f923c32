//! Text that many objects have in common, kept once.
//!
//! A hundred thousand routes name a few namespaces, kinds and Gateways. What was read lately is found again by its hash
//! and shared. What is forgotten meanwhile is kept twice, which costs memory and nothing else.

use foldhash::fast::FixedState;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::Deref;
use std::sync::Arc;

/// A namespace, a kind, a type: a text in one word of memory, where an `Arc<str>` takes two. An object has room for many of
/// these, most of them absent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(Arc<Box<str>>);

impl Word {
    fn new(text: &str) -> Self {
        thread_local! {
            static LATELY: Lately<Word> = Lately::new(256);
        }
        LATELY.with(|lately| lately.find(&text, |word| **word == *text, || Self(Arc::new(text.into()))))
    }
}

impl Deref for Word {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl Default for Word {
    fn default() -> Self {
        Self::new("")
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        Ok(Self::new(&Box::<str>::deserialize(source)?))
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        target.serialize_str(self)
    }
}

/// Values that were used lately, each in the one place that its hash gives it.
pub(super) struct Lately<T>(RefCell<Vec<Option<T>>>);

impl<T: Clone> Lately<T> {
    /// Remembers up to so many values, a power of two.
    pub fn new(most: usize) -> Self {
        Self(RefCell::new(vec![None; most]))
    }

    /// The value with this hash that `is_it`, or else a new one, which takes the place of another.
    pub fn find(&self, hashed: &impl Hash, is_it: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> T {
        let mut known = self.0.borrow_mut();
        let place = FixedState::default().hash_one(hashed) as usize & (known.len() - 1);
        match &known[place] {
            Some(value) if is_it(value) => value.clone(),
            _ => known[place].insert(make()).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_kept_once_however_often_it_is_read() {
        let read = |text| serde_json::from_str::<Word>(text).expect("a text");
        let (one, two, other) = (read("\"bench\""), read("\"bench\""), read("\"other\""));
        assert!(Arc::ptr_eq(&one.0, &two.0));
        assert_eq!((&*one, &*other), ("bench", "other"));
        assert_eq!(size_of::<Option<Word>>(), size_of::<usize>());
        for number in 0..10_000 {
            assert_eq!(*Word::from(number.to_string().as_str()), *number.to_string());
        }
        assert_eq!(*one, *"bench");
    }
}
