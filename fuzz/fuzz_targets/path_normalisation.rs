//! Any path: what rules and upstream see is in one spelling, and means what it meant.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trigate::proxy::normalise;

fuzz_target!(|path: &str| {
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return;
    }
    let Ok(once) = normalise(path) else { return };
    assert!(once.starts_with('/'), "{once:?} is no path");
    assert!(!once.contains('\\'), "{once:?} has a slash that some take for one");
    let mut segments = once.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        assert!(segment != "." && segment != "..", "{once:?} has dot segments");
        assert!(!segment.is_empty() || segments.peek().is_none(), "{once:?} has doubled slashes");
    }
    let lower = once.to_ascii_lowercase();
    for escape in ["%2f", "%5c", "%00", "%2e", "%61"] {
        assert!(!lower.contains(escape), "{once:?} still has {escape}");
    }
    assert_eq!(normalise(&once).as_deref(), Ok(&*once), "what is normalised stays as it is");
});
