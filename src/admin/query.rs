//! The parts of a request's target.

use crate::telemetry::{Kind, Selection};
use regex::RegexBuilder;

/// The memory that a filter may take when it is compiled, in bytes.
const FILTER_BYTES: usize = 1 << 20;

/// The path with one slash in front: Envoy Gateway's shutdown manager sends two.
pub fn single_slash(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

/// The value of a parameter; empty when it stands alone.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Which stats are asked for, by `filter`, `usedonly` and `type`.
///
/// # Errors
/// The filter is no regular expression, or too large a one; the type is none.
pub fn selection(query: &str) -> Result<Selection, String> {
    let filter = match parameter(query, "filter") {
        Some(filter) => {
            let read = RegexBuilder::new(&filter).size_limit(FILTER_BYTES).build();
            Some(read.map_err(|error| format!("Invalid re2 regex: {error}"))?)
        }
        None => None,
    };
    let kind = match parameter(query, "type").as_deref() {
        None | Some("All") => None,
        Some("Counters") => Some(Kind::Counter),
        Some("Gauges") => Some(Kind::Gauge),
        Some("Histograms") => Some(Kind::Histogram),
        Some(_) => return Err("invalid &type= param; it is All, Counters, Gauges or Histograms".to_owned()),
    };
    Ok(Selection { filter, used_only: parameter(query, "usedonly").is_some(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_with_one_slash() {
        for (path, want) in [("//stats", "/stats"), ("/stats", "/stats"), ("", "/"), ("///", "/")] {
            assert_eq!(single_slash(path), want);
        }
    }

    #[test]
    fn a_selection_is_read_from_the_query() {
        let selected = selection("usedonly&filter=%5Ehttp%5C.a&format=json").expect("a regex");
        assert!(selected.used_only);
        assert!(
            selected.filter.is_some_and(|filter| filter.is_match("http.a") && !filter.is_match("xhttp.a"))
        );
        let raw = selection(r"filter=^listener\..*\.downstream_cx_active$&format=json").expect("a regex");
        assert!(raw.filter.is_some_and(|filter| filter.is_match("listener.0.0.0.0_1.downstream_cx_active")));
        let all = selection("").expect("nothing");
        assert!(!all.used_only && all.filter.is_none());
    }

    #[test]
    fn a_filter_that_would_grow_and_a_type_that_is_none_are_refused() {
        assert!(selection("type=Texts").is_err());
        assert!(selection("filter=(").is_err());
        assert!(selection("filter=((a{100}){100}){100}").is_err());
    }
}
