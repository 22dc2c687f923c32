//! Durations as the Gateway API writes them (GEP-2257), and the timeouts made of them.

use crate::resource;
use crate::routing::{TimeLimit, Timeouts};
use std::time::Duration;

/// Reads `1h30m5s100ms`: up to four numbers of at most five digits, each with a unit. `None` when it is none.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits).filter(|_| (1..=5).contains(&digits))?.parse().ok()?;
        rest = &rest[digits..];
        let (unit, milliseconds) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += Duration::from_millis(number * milliseconds);
        parts += 1;
    }
    (1..=4).contains(&parts).then_some(total)
}

/// The timeouts of a rule, with what is wrong with them: a field and a sentence each.
pub(super) fn timeouts(written: Option<&resource::Timeouts>) -> (Timeouts, Vec<(&'static str, String)>) {
    let mut faults = Vec::new();
    let Some(resource::Timeouts { request, backend_request }) = written else {
        return (Timeouts::default(), faults);
    };
    let mut limit = |field, text: &Option<Box<str>>| {
        let Some(text) = text.as_deref() else { return TimeLimit::Unset };
        let duration = parse(text);
        if duration.is_none() {
            faults
                .push((field, format!("`{text}` is no duration like `1h30m` or `500ms`; there is no limit")));
        }
        duration.map_or(TimeLimit::Unset, TimeLimit::new)
    };
    let timeouts = Timeouts {
        request: limit("timeouts.request", request),
        backend_request: limit("timeouts.backendRequest", backend_request),
    };
    if let (Some(request), Some(one_try)) = (timeouts.request.said(), timeouts.backend_request.said())
        && one_try > request
    {
        faults.push((
            "timeouts.backendRequest",
            "one try may not take longer than the whole request, whose limit ends it earlier".to_owned(),
        ));
    }
    (timeouts, faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_gep_2257_writes_them() {
        for (text, want) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("1h30m5s100ms", Some(5_405_100)),
            ("10s30m1h", Some(5_410_000)),
            ("99999s", Some(99_999_000)),
            ("100000s", None),
            ("1h1h1h1h1h", None),
            ("1d", None),
            ("1.5s", None),
            ("-1s", None),
            ("1", None),
            ("s", None),
            ("", None),
            ("1 s", None),
        ] {
            assert_eq!(parse(text), want.map(Duration::from_millis), "{text}");
        }
    }
}
