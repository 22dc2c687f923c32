//! The page for Prometheus, in the text format 0.0.4 as Envoy writes it: a `# TYPE` line for each family, no help,
//! braces also where there is no label. And the same series as OpenMetrics, for those who take nothing else.
//!
//! Written straight into the text: 1,000 clusters have more than 100,000 lines, and a `MetricFamily` of the
//! `prometheus` crate for each takes several times as long (`benches/scrape.rs` has both).

use super::families::Kind;
use super::section::{Names, Part, Selection, Sink};
use crate::stats::{BUCKETS, HistogramTotal};

/// The upper bounds of all histograms, in milliseconds.
const BOUNDS: [&str; BUCKETS] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000",
    "60000", "300000", "600000", "1800000", "3600000", "+Inf",
];

/// The same as OpenMetrics writes numbers.
const OPEN_BOUNDS: [&str; BUCKETS] = [
    "0.5", "1.0", "5.0", "10.0", "25.0", "50.0", "100.0", "250.0", "500.0", "1000.0", "2500.0", "5000.0",
    "10000.0", "30000.0", "60000.0", "300000.0", "600000.0", "1.8e+06", "3.6e+06", "+Inf",
];

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0. There a counter's name has to end in `_total`; Envoy's others keep their names, for those are
    /// what dashboards know, and are of unknown type instead.
    OpenMetrics,
}

/// The name of a counter's family in OpenMetrics, where it can be one: not if Envoy has another family of that name.
pub fn open_counter(name: &str) -> Option<&str> {
    name.strip_suffix("_total").filter(|base| *base != "envoy_cluster_upstream_rq")
}

/// The page while it is written.
pub struct Page<'a> {
    pub text: String,
    format: Format,
    selection: &'a Selection,
    /// The family's name in the page and in Envoy's stats.
    name: String,
    family: &'static str,
    kind: Kind,
    /// Whether the family has its `# TYPE` line.
    announced: bool,
    /// Whether the family's name alone is what the filter asks for.
    chosen: bool,
    scratch: String,
}

impl<'a> Page<'a> {
    /// An empty page, with room for `capacity` bytes.
    pub fn new(selection: &'a Selection, format: Format, capacity: usize) -> Self {
        Self {
            text: String::with_capacity(capacity),
            format,
            selection,
            name: String::new(),
            family: "",
            kind: Kind::Gauge,
            announced: false,
            chosen: true,
            scratch: String::new(),
        }
    }

    fn shows(&mut self, row: &Names, part: Part, used: bool) -> bool {
        let Selection { filter, used_only, kind: _ } = self.selection;
        if *used_only && !used || !self.selection.shows_kind(self.kind) {
            return false;
        }
        let Some(filter) = filter else { return true };
        self.chosen || {
            row.stat_name(self.family, part, &mut self.scratch);
            filter.is_match(&self.scratch)
        }
    }

    fn announce(&mut self) {
        if !self.announced {
            self.announced = true;
            let (name, kind) = match (self.kind, self.format) {
                (Kind::Counter, Format::Text) => (self.name.as_str(), "counter"),
                (Kind::Counter, Format::OpenMetrics) => match open_counter(&self.name) {
                    Some(name) => (name, "counter"),
                    None => (self.name.as_str(), "unknown"),
                },
                (Kind::Gauge, _) => (self.name.as_str(), "gauge"),
                (Kind::Histogram, _) => (self.name.as_str(), "histogram"),
            };
            for part in ["# TYPE ", name, " ", kind, "\n"] {
                self.text.push_str(part);
            }
        }
    }

    /// One line: the family's name with a suffix, a row's labels between others, the value.
    fn line(&mut self, suffix: &str, labels: [&str; 5], value: &str) {
        let text = &mut self.text;
        text.push_str(&self.name);
        text.push_str(suffix);
        text.push('{');
        labels.iter().for_each(|part| text.push_str(part));
        text.push_str("} ");
        text.push_str(value);
        text.push('\n');
    }
}

impl Sink for Page<'_> {
    fn family(&mut self, prefix: &'static str, name: &'static str, kind: Kind) {
        self.name.clear();
        self.name.push_str(prefix);
        self.name.extend(name.chars().map(|letter| if letter == '.' { '_' } else { letter }));
        (self.family, self.kind, self.announced) = (name, kind, false);
        self.chosen = self.selection.filter.as_ref().is_some_and(|filter| filter.is_match(&self.name));
    }

    fn number(&mut self, row: &Names, part: Part, value: u64) {
        if !self.shows(row, part, value != 0) {
            return;
        }
        self.announce();
        let mut buffer = itoa::Buffer::new();
        let value = buffer.format(value);
        let labels = row.labels.as_str();
        let comma = if labels.is_empty() { "" } else { "," };
        match part {
            Part::Whole => self.line("", [labels, "", "", "", ""], value),
            Part::Class(class) => {
                let class = ["0", "1", "2", "3", "4", "5"][usize::from(class.min(5))];
                self.line("", ["envoy_response_code_class=\"", class, "\"", comma, labels], value);
            }
            Part::Code(code) => {
                let code = code.to_string();
                self.line("", ["envoy_response_code=\"", &code, "\"", comma, labels], value);
            }
            Part::Named(label, name) => {
                let pair = format!("{label}=\"{name}\"");
                self.line("", [&pair, comma, labels, "", ""], value);
            }
            Part::Priority(priority) => {
                self.line("", ["priority=\"", priority, "\"", comma, labels], value);
            }
        }
    }

    fn histogram(&mut self, row: &Names, total: &HistogramTotal) {
        if !self.shows(row, Part::Whole, total.count() != 0) {
            return;
        }
        self.announce();
        let labels = row.labels.as_str();
        let comma = if labels.is_empty() { "" } else { "," };
        let mut buffer = itoa::Buffer::new();
        let mut sum = 0;
        let bounds = match self.format {
            Format::Text => BOUNDS,
            Format::OpenMetrics => OPEN_BOUNDS,
        };
        for (bound, count) in bounds.iter().zip(&total.buckets) {
            sum += count;
            self.line("_bucket", [labels, comma, "le=\"", bound, "\""], buffer.format(sum));
        }
        let milliseconds = (total.sum_us as f64 / 1e3).to_string();
        self.line("_sum", [labels, "", "", "", ""], &milliseconds);
        self.line("_count", [labels, "", "", "", ""], buffer.format(sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Code;
    use regex::Regex;

    fn cluster() -> Names {
        Names::new(&[("envoy_cluster_name", "httproute/default/echo/rule/0")], "cluster.echo.".into())
    }

    #[test]
    fn openmetrics_has_the_same_names_and_its_own_types() {
        let selection = Selection::default();
        let mut page = Page::new(&selection, Format::OpenMetrics, 0);
        for name in ["upstream_cx_total", "upstream_rq_total", "upstream_rq_retry"] {
            page.family("envoy_cluster_", name, Kind::Counter);
            page.number(&Names::process("cluster."), Part::Whole, 1);
        }
        page.family("envoy_http_", "downstream_rq_time", Kind::Histogram);
        page.histogram(&Names::process("http."), &HistogramTotal::default());
        let lines = [
            "# TYPE envoy_cluster_upstream_cx counter",
            "envoy_cluster_upstream_cx_total{} 1",
            "# TYPE envoy_cluster_upstream_rq_total unknown",
            "envoy_cluster_upstream_rq_total{} 1",
            "# TYPE envoy_cluster_upstream_rq_retry unknown",
            "envoy_cluster_upstream_rq_retry{} 1",
            "# TYPE envoy_http_downstream_rq_time histogram",
            r#"envoy_http_downstream_rq_time_bucket{le="0.5"} 0"#,
            r#"envoy_http_downstream_rq_time_bucket{le="1.0"} 0"#,
        ];
        assert_eq!(page.text.lines().take(lines.len()).collect::<Vec<_>>(), lines);
    }

    #[test]
    fn numbers_are_written_as_envoy_writes_them() {
        let selection = Selection::default();
        let mut page = Page::new(&selection, Format::Text, 0);
        page.family("envoy_cluster_", "upstream_rq_xx", Kind::Counter);
        page.number(&cluster(), Part::Class(2), 7);
        page.family("envoy_cluster_", "upstream_rq", Kind::Counter);
        page.number(&cluster(), Part::Code(Code::Known(204)), 1);
        page.family("envoy_cluster_", "circuit_breakers_cx_open", Kind::Gauge);
        page.number(&cluster(), Part::Priority("high"), 0);
        page.family("envoy_server_", "live", Kind::Gauge);
        page.number(&Names::process("server."), Part::Whole, 1);
        page.family("envoy_server_", "nothing", Kind::Gauge);
        let lines = [
            "# TYPE envoy_cluster_upstream_rq_xx counter",
            r#"envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="httproute/default/echo/rule/0"} 7"#,
            "# TYPE envoy_cluster_upstream_rq counter",
            r#"envoy_cluster_upstream_rq{envoy_response_code="204",envoy_cluster_name="httproute/default/echo/rule/0"} 1"#,
            "# TYPE envoy_cluster_circuit_breakers_cx_open gauge",
            r#"envoy_cluster_circuit_breakers_cx_open{priority="high",envoy_cluster_name="httproute/default/echo/rule/0"} 0"#,
            "# TYPE envoy_server_live gauge",
            "envoy_server_live{} 1",
        ];
        assert_eq!(page.text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn buckets_are_cumulative_and_their_bounds_are_milliseconds() {
        let selection = Selection::default();
        let mut page = Page::new(&selection, Format::Text, 0);
        let mut total = HistogramTotal::default();
        (total.buckets[0], total.buckets[2], total.sum_us) = (3, 1, 5_250);
        page.family("envoy_http_", "downstream_rq_time", Kind::Histogram);
        page.histogram(&Names::new(&[("p", "http-80")], String::new()), &total);
        for line in [
            r#"envoy_http_downstream_rq_time_bucket{p="http-80",le="0.5"} 3"#,
            r#"envoy_http_downstream_rq_time_bucket{p="http-80",le="1"} 3"#,
            r#"envoy_http_downstream_rq_time_bucket{p="http-80",le="5"} 4"#,
            r#"envoy_http_downstream_rq_time_bucket{p="http-80",le="3600000"} 4"#,
            r#"envoy_http_downstream_rq_time_bucket{p="http-80",le="+Inf"} 4"#,
            r#"envoy_http_downstream_rq_time_sum{p="http-80"} 5.25"#,
            r#"envoy_http_downstream_rq_time_count{p="http-80"} 4"#,
        ] {
            assert!(page.text.lines().any(|have| have == line), "{line}\n{}", page.text);
        }
    }

    #[test]
    fn a_selection_leaves_out_series_and_families() {
        for (filter, used_only, want) in [
            (None, true, "# TYPE envoy_cluster_a counter\nenvoy_cluster_a{x=\"1\"} 1\n"),
            (Some(r"^cluster\.1\.b$"), false, "# TYPE envoy_cluster_b counter\nenvoy_cluster_b{x=\"1\"} 0\n"),
            (
                Some("^envoy_cluster_a$"),
                false,
                "# TYPE envoy_cluster_a counter\nenvoy_cluster_a{x=\"1\"} 1\n",
            ),
            (Some("nothing"), false, ""),
        ] {
            let filter = filter.map(|filter| Regex::new(filter).expect("a regex"));
            let selection = Selection { filter, used_only, kind: None };
            let mut page = Page::new(&selection, Format::Text, 0);
            let row = Names::new(&[("x", "1")], "cluster.1.".into());
            for (name, value) in [("a", 1), ("b", 0)] {
                page.family("envoy_cluster_", name, Kind::Counter);
                page.number(&row, Part::Whole, value);
            }
            assert_eq!(page.text, want);
        }
    }
}
