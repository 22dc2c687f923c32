//! Envoy's list of stats, as `/stats` gives it: a line or a JSON object for each, sorted by name.

use super::families::Kind;
use super::section::{Names, Part, Selection, Sink};
use crate::stats::{BUCKETS, BUCKETS_US, HistogramTotal};
use serde::Serialize;
use std::fmt::Write;

/// The quantiles that Envoy shows of a histogram.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// The list while it is made.
pub struct StatList<'a> {
    selection: &'a Selection,
    family: &'static str,
    /// Whether the family is of a kind that is asked for.
    chosen: bool,
    numbers: Vec<(String, u64)>,
    histograms: Vec<(String, HistogramTotal)>,
    scratch: String,
}

impl<'a> StatList<'a> {
    /// An empty list.
    pub fn new(selection: &'a Selection) -> Self {
        Self {
            selection,
            family: "",
            chosen: true,
            numbers: Vec::new(),
            histograms: Vec::new(),
            scratch: String::new(),
        }
    }

    fn sort(&mut self) {
        self.numbers.sort_unstable();
        self.histograms.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    }

    /// `name: value` lines, then histograms.
    pub fn into_text(mut self) -> String {
        self.sort();
        let mut text = String::new();
        for (name, value) in &self.numbers {
            let _ = writeln!(text, "{name}: {value}");
        }
        for (name, total) in &self.histograms {
            let _ = write!(text, "{name}:");
            if total.count() == 0 {
                text.push_str(" No recorded values");
            } else {
                for quantile in QUANTILES {
                    let _ = write!(text, " P{quantile}(nan,{})", milliseconds(total, quantile));
                }
            }
            text.push('\n');
        }
        text
    }

    /// The object that Envoy Gateway's shutdown manager reads.
    pub fn into_json(mut self) -> String {
        self.sort();
        let numbers = self.numbers.iter().map(|(name, value)| Stat::Number { name, value: *value });
        let computed: Vec<_> = self.histograms.iter().map(quantiles).collect();
        let histograms = (!computed.is_empty()).then_some(Stat::Histograms {
            histograms: Histograms { supported_quantiles: QUANTILES, computed_quantiles: computed },
        });
        let list = Stats { stats: numbers.chain(histograms).collect() };
        serde_json::to_string(&list).expect("strings and numbers are JSON")
    }
}

#[derive(Serialize)]
struct Stats<'a> {
    stats: Vec<Stat<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Stat<'a> {
    Number { name: &'a str, value: u64 },
    Histograms { histograms: Histograms<'a> },
}

#[derive(Serialize)]
struct Histograms<'a> {
    supported_quantiles: [f64; 10],
    computed_quantiles: Vec<Quantiles<'a>>,
}

#[derive(Serialize)]
struct Quantiles<'a> {
    name: &'a str,
    values: [Quantile; 10],
}

/// Envoy has one more number, of the last interval; this process keeps none.
#[derive(Serialize)]
struct Quantile {
    interval: Option<f64>,
    cumulative: Option<f64>,
}

fn quantiles((name, total): &(String, HistogramTotal)) -> Quantiles<'_> {
    let known = total.count() > 0;
    let value =
        |quantile| Quantile { interval: None, cumulative: known.then(|| milliseconds(total, quantile)) };
    Quantiles { name, values: QUANTILES.map(value) }
}

/// A quantile in milliseconds, as if values were spread evenly over their bucket.
fn milliseconds(total: &HistogramTotal, quantile: f64) -> f64 {
    let mut rank = quantile / 100.0 * total.count() as f64;
    let last = total.buckets.iter().rposition(|&count| count > 0).unwrap_or(0);
    for (i, &count) in total.buckets.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && (rank <= count || i == last) {
            let lower = if i == 0 { 0 } else { BUCKETS_US[i - 1] } as f64;
            let upper = BUCKETS_US[i.min(BUCKETS - 2)] as f64;
            return (lower + (upper - lower) * (rank / count).clamp(0.0, 1.0)) / 1e3;
        }
        rank -= count;
    }
    0.0
}

impl Sink for StatList<'_> {
    fn family(&mut self, _: &'static str, name: &'static str, kind: Kind) {
        (self.family, self.chosen) = (name, self.selection.shows_kind(kind));
    }

    fn number(&mut self, row: &Names, part: Part, value: u64) {
        row.stat_name(self.family, part, &mut self.scratch);
        if self.chosen && self.selection.shows(&self.scratch, value != 0) {
            self.numbers.push((self.scratch.clone(), value));
        }
    }

    fn histogram(&mut self, row: &Names, total: &HistogramTotal) {
        row.stat_name(self.family, Part::Whole, &mut self.scratch);
        if self.chosen && self.selection.shows(&self.scratch, total.count() != 0) {
            self.histograms.push((self.scratch.clone(), total.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;

    fn list(selection: &Selection) -> StatList<'_> {
        let mut list = StatList::new(selection);
        for address in ["0.0.0.0_10443", "0.0.0.0_10080"] {
            let row = Names::new(&[("envoy_listener_address", address)], format!("listener.{address}."));
            list.family("envoy_listener_", "downstream_cx_active", Kind::Gauge);
            list.number(&row, Part::Whole, 4);
            list.family("envoy_listener_", "downstream_cx_total", Kind::Counter);
            list.number(&row, Part::Whole, 0);
        }
        list
    }

    #[test]
    fn the_shutdown_manager_gets_the_numbers_that_it_asks_for() {
        let filter = Regex::new(r"^listener\..*\.downstream_cx_active$").expect("a regex");
        let selection = Selection { filter: Some(filter), ..Selection::default() };
        let want = r#"{"stats":[{"name":"listener.0.0.0.0_10080.downstream_cx_active","value":4},"#;
        let json = list(&selection).into_json();
        assert!(json.starts_with(want), "{json}");
        assert_eq!(json.matches("\"name\"").count(), 2);
    }

    #[test]
    fn lines_are_sorted_and_what_is_zero_can_be_left_out() {
        let selection = Selection { used_only: true, ..Selection::default() };
        let want = "listener.0.0.0.0_10080.downstream_cx_active: 4\n\
                    listener.0.0.0.0_10443.downstream_cx_active: 4\n";
        assert_eq!(list(&selection).into_text(), want);
    }

    #[test]
    fn quantiles_lie_in_the_bucket_that_holds_them() {
        let mut total = HistogramTotal::default();
        (total.buckets[0], total.buckets[2], total.buckets[BUCKETS - 1]) = (50, 49, 1);
        for (quantile, range) in [
            (0.0, 0.0..=0.0),
            (25.0, 0.25..=0.25),
            (50.0, 0.5..=0.5),
            (90.0, 1.0..=5.0),
            (100.0, 3.6e6..=3.6e6),
        ] {
            let value = milliseconds(&total, quantile);
            assert!(range.contains(&value), "P{quantile}: {value}");
        }
    }

    #[test]
    fn a_histogram_without_values_says_so() {
        let selection = Selection::default();
        let mut list = StatList::new(&selection);
        list.family("envoy_http_", "downstream_rq_time", Kind::Histogram);
        list.histogram(&Names::new(&[], "http.a.".into()), &HistogramTotal::default());
        assert_eq!(list.into_text(), "http.a.downstream_rq_time: No recorded values\n");
    }
}
