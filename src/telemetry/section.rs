//! Families and rows of one kind of thing, and the walk over them that every output shares.

use super::families::{Column, Family, Kind};
use crate::stats::{Code, HistogramTotal};
use regex::Regex;
use std::fmt::Write;

/// All series of one kind of thing: every family for every row.
pub struct Section<T: 'static> {
    /// What the families' names begin with in the page: `envoy_cluster_`.
    pub prefix: &'static str,
    pub families: &'static [Family<T>],
    pub rows: Vec<(Names, T)>,
}

/// Which thing a row is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Names {
    /// In the page: `envoy_cluster_name="httproute/…"`; empty for the process.
    pub labels: String,
    /// In the list of stats: `cluster.httproute/….`.
    pub stat: String,
}

/// Which part of a family a number is.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    Whole,
    /// From 1 to 5.
    Class(u8),
    Code(Code),
    Priority(&'static str),
    /// A name of a list of ours, and the label that has it.
    Named(&'static str, &'static str),
}

/// Where series go, in the order of families.
pub trait Sink {
    /// The numbers that follow belong to this family.
    fn family(&mut self, prefix: &'static str, name: &'static str, kind: Kind);
    fn number(&mut self, row: &Names, part: Part, value: u64);
    fn histogram(&mut self, row: &Names, total: &HistogramTotal);
}

impl<T> Section<T> {
    /// Hands every series to `sink`.
    pub fn write(&self, sink: &mut impl Sink) {
        for (name, column) in self.families {
            sink.family(self.prefix, name, column.kind());
            for (names, row) in &self.rows {
                write_row(column, names, row, sink);
            }
        }
    }
}

fn write_row<T>(column: &Column<T>, names: &Names, row: &T, sink: &mut impl Sink) {
    match column {
        Column::Counter(number) => sink.number(names, Part::Whole, number(row)),
        Column::Gauge(number) => sink.number(names, Part::Whole, level(number(row))),
        Column::Classes(classes) => {
            for (class, count) in (1..).zip(classes(row)) {
                sink.number(names, Part::Class(class), count);
            }
        }
        Column::Codes(statuses) => {
            for (code, count) in statuses(row).codes() {
                sink.number(names, Part::Code(code), count);
            }
        }
        Column::Histogram(total) => sink.histogram(names, total(row)),
        Column::Named(label, counts) => {
            for (name, count) in counts(row) {
                sink.number(names, Part::Named(label, name), count);
            }
        }
        Column::Priorities(number) => {
            sink.number(names, Part::Priority("default"), level(number(row)));
            sink.number(names, Part::Priority("high"), 0);
        }
    }
}

/// A gauge that was added up while something moved from shard to shard may be below zero for a moment.
fn level(sum: u64) -> u64 {
    if sum.cast_signed() < 0 { 0 } else { sum }
}

impl Names {
    /// The process itself.
    pub fn process(stat: &str) -> Self {
        Self { labels: String::new(), stat: stat.to_owned() }
    }

    /// Labels in their order, and the name of the stat up to the family.
    pub fn new(labels: &[(&str, &str)], stat: String) -> Self {
        let mut text = String::new();
        for (name, value) in labels {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{name}=\"");
            escape(value, &mut text);
            text.push('"');
        }
        Self { labels: text, stat }
    }

    /// Envoy's name of a stat: `cluster.….upstream_rq_2xx`.
    pub fn stat_name(&self, family: &str, part: Part, out: &mut String) {
        out.clear();
        out.push_str(&self.stat);
        let written = match part {
            Part::Whole => write!(out, "{family}"),
            Part::Class(class) => write!(out, "{}{class}xx", family.trim_end_matches("xx")),
            Part::Code(code) => write!(out, "{family}_{code}"),
            Part::Named(_, name) => write!(out, "{family}.{name}"),
            Part::Priority(priority) => {
                let breaker = family.trim_start_matches("circuit_breakers_");
                write!(out, "circuit_breakers.{priority}.{breaker}")
            }
        };
        written.expect("a string takes everything");
    }
}

/// A label's value in the exposition format: backslash, quote and line feed are escaped.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Which series somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// What the name has to contain: Envoy's name of the stat, or that of the family in the page.
    pub filter: Option<Regex>,
    /// Whether what is zero is left out.
    pub used_only: bool,
    /// Only what is of this kind.
    pub kind: Option<Kind>,
}

impl Selection {
    /// Whether anything of this kind is to be shown.
    pub fn shows_kind(&self, kind: Kind) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
    }

    /// Whether a stat is to be shown.
    pub fn shows(&self, name: &str, used: bool) -> bool {
        (used || !self.used_only) && self.filter.as_ref().is_none_or(|filter| filter.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_has_the_name_that_envoy_gives_it() {
        let names = Names::new(&[("envoy_cluster_name", "a")], "cluster.a.".into());
        let mut name = String::new();
        for (family, part, want) in [
            ("upstream_rq_total", Part::Whole, "cluster.a.upstream_rq_total"),
            ("upstream_rq_xx", Part::Class(5), "cluster.a.upstream_rq_5xx"),
            ("upstream_rq", Part::Code(Code::Known(200)), "cluster.a.upstream_rq_200"),
            (
                "circuit_breakers_cx_open",
                Part::Priority("default"),
                "cluster.a.circuit_breakers.default.cx_open",
            ),
            ("versions", Part::Named("envoy_ssl_version", "TLSv1.3"), "cluster.a.versions.TLSv1.3"),
        ] {
            names.stat_name(family, part, &mut name);
            assert_eq!(name, want);
        }
    }

    #[test]
    fn a_label_cannot_end_its_quotes() {
        let names = Names::new(&[("a", "x\"} 1\nb\\"), ("c", "d")], String::new());
        assert_eq!(names.labels, r#"a="x\"} 1\nb\\",c="d""#);
    }

    #[test]
    fn a_gauge_is_never_below_zero() {
        for (sum, shown) in [(0, 0), (3, 3), (u64::MAX, 0), (2u64.wrapping_sub(5), 0)] {
            assert_eq!(level(sum), shown);
        }
    }
}
