//! Any two texts as hostnames: reading them does not panic, and intersection means what coverage says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trigate::host::{HostIndex, HostPattern};

fuzz_target!(|texts: (&str, &str, &str)| {
    let (a, b, host) = texts;
    let host = host.to_ascii_lowercase();
    let (Some(a), Some(b)) = (HostPattern::parse(a), HostPattern::parse(b)) else { return };
    assert_eq!(HostPattern::parse(&a.to_string()).as_ref(), Some(&a), "what is printed can be read again");
    let common = a.intersect(&b);
    assert_eq!(common, b.intersect(&a), "the order does not matter");
    let covered = common.as_ref().is_some_and(|common| common.covers(&host));
    assert_eq!(covered, a.covers(&host) && b.covers(&host), "an intersection covers what both cover");

    let mut index = HostIndex::default();
    index.entry(&HostPattern::Any, || 0);
    index.entry(&a, || 1);
    let want = if a.covers(&host) { 1 } else { 0 };
    assert_eq!(index.best(&host), Some(&want), "the index finds what covers");
});
