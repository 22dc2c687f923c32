//! Any query against any wanted parameter: no panic, and what is not encoded is compared as it stands.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trigate::routing::{QueryMatch, TextMatch};

fuzz_target!(|texts: (&str, &str, &str)| {
    let (name, value, query) = texts;
    let wanted = QueryMatch { name: name.to_owned(), value: TextMatch::Exact(value.to_owned()) };
    let _ = wanted.holds(query);

    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain(name) && plain(value) {
        assert!(wanted.holds(&format!("{name}={value}&{query}")), "the first parameter of a name counts");
        assert!(!wanted.holds(&format!("{name}={value}x&{query}")), "a later one does not");
    }
});
