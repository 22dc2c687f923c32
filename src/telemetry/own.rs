//! Metrics that Envoy does not have, `trigate_*`: what the configuration came to, and what is exposed where.

use super::page::{Format, open_counter};
use super::registry::{Observed, unix_seconds};
use prometheus::TextEncoder;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;

/// So many hosts have a series of their own; `trigate_hosts` counts all of them.
const MOST_HOSTS: usize = 5_000;
/// So many rules that have a name.
const MOST_RULES: usize = 5_000;

/// Reads them off what is observed when somebody asks.
pub struct Own {
    observed: Arc<Observed>,
    descriptions: Vec<Desc>,
}

/// A name, its help and its labels.
type Description = (&'static str, &'static str, &'static [&'static str]);

const NAMES: [Description; 11] = [
    ("trigate_build_info", "The version that runs; always 1.", &["version"]),
    ("trigate_certificate_expiry_seconds", "Seconds until a served certificate expires.", &["certificate"]),
    ("trigate_compile_seconds", "How long it took to compile the revision that serves.", &[]),
    ("trigate_diagnostics", "Findings in the objects that the revision is made of.", &["severity"]),
    ("trigate_gateway_socket", "Which gateway an open socket belongs to; always 1.", &SOCKET),
    ("trigate_host_exposed", "A host that a gateway serves; always 1.", &["gateway", "host"]),
    ("trigate_hosts", "How many hosts a gateway serves.", &["gateway"]),
    ("trigate_revision", "The number of the revision that serves; 0 before the first.", &[]),
    ("trigate_revision_age_seconds", "For how long the revision has been serving.", &[]),
    ("trigate_routes", "Routes that the revision is made of.", &[]),
    ("trigate_rule_name", "The name of a rule, by its cluster; always 1.", &["envoy_cluster_name", "rule"]),
];
const SOCKET: [&str; 3] = ["gateway", "envoy_http_conn_manager_prefix", "envoy_listener_address"];

/// A sample: the values of its labels, and its own.
type Sample = (Vec<String>, f64);

impl Own {
    /// Metrics of what is observed.
    pub fn new(observed: Arc<Observed>) -> Self {
        let descriptions = NAMES.iter().map(|(name, help, labels)| {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            Desc::new((*name).to_owned(), (*help).to_owned(), labels, HashMap::new())
                .expect("the names above are valid")
        });
        Self { observed, descriptions: descriptions.collect() }
    }

    /// The samples of one name.
    fn samples(&self, name: &str) -> Vec<Sample> {
        let revised = self.observed.revised.load();
        let one = |value: f64| vec![(Vec::new(), value)];
        let labelled = |label: &str, value: f64| (vec![label.to_owned()], value);
        match name {
            "trigate_build_info" => vec![labelled(env!("CARGO_PKG_VERSION"), 1.0)],
            "trigate_certificate_expiry_seconds" => self.certificates(),
            "trigate_compile_seconds" => one(revised.compile.as_secs_f64()),
            "trigate_diagnostics" => {
                vec![labelled("error", revised.errors as f64), labelled("warning", revised.warnings as f64)]
            }
            "trigate_gateway_socket" => self.sockets(),
            "trigate_host_exposed" => {
                let shown = revised.exposed().into_iter().take(MOST_HOSTS);
                shown.map(|(gateway, host)| (vec![gateway.to_owned(), host], 1.0)).collect()
            }
            "trigate_hosts" => {
                let mut hosts = BTreeMap::<&str, u32>::new();
                revised.exposed().iter().for_each(|(gateway, _)| *hosts.entry(gateway).or_default() += 1);
                hosts.into_iter().map(|(gateway, count)| labelled(gateway, f64::from(count))).collect()
            }
            "trigate_revision" => one(revised.number as f64),
            "trigate_revision_age_seconds" => one(revised.installed.elapsed().as_secs_f64()),
            "trigate_routes" => one(revised.routes as f64),
            "trigate_rule_name" => {
                let shown = revised.named_rules().take(MOST_RULES);
                shown.map(|(rule, name)| (vec![rule.name.to_string(), name.to_owned()], 1.0)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Every certificate once, whichever sockets serve it; of two with one name the one that expires first.
    fn certificates(&self) -> Vec<Sample> {
        let now = unix_seconds();
        let mut expiry = BTreeMap::<String, i64>::new();
        for socket in self.observed.sockets.load().iter() {
            for certificate in &socket.certificates {
                let known = expiry.entry(certificate.name.clone()).or_insert(i64::MAX);
                *known = certificate.validity.1.min(*known);
            }
        }
        expiry.into_iter().map(|(name, end)| (vec![name], end.saturating_sub(now) as f64)).collect()
    }

    /// Which gateway the labels of Envoy's metrics belong to. A socket that speaks no HTTP has no prefix of HTTP.
    fn sockets(&self) -> Vec<Sample> {
        let mut sockets: Vec<Sample> = self
            .observed
            .sockets
            .load()
            .iter()
            .map(|socket| {
                let prefix = if socket.speaks_http { socket.http.prefix() } else { "" };
                let labels = [&socket.gateway, prefix, socket.listener.address()];
                (labels.map(str::to_owned).to_vec(), 1.0)
            })
            .collect();
        sockets.sort_by(|a, b| a.0.cmp(&b.0));
        // A TCP and a UDP socket may have one address.
        sockets.dedup_by(|a, b| a.0 == b.0);
        sockets
    }
}

impl Collector for Own {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let family = |&(name, help, labels): &Description| {
            let samples = self.samples(name).into_iter();
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(MetricType::GAUGE);
            family.set_metric(samples.map(|(values, number)| metric(labels, values, number)).collect());
            family
        };
        // The encoder refuses families without samples.
        NAMES.iter().map(family).filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn metric(labels: &[&str], values: Vec<String>, number: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(number);
    let pairs = labels.iter().zip(values).map(|(label, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*label).to_owned());
        pair.set_value(value);
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(pairs.collect());
    metric.set_gauge(gauge);
    metric
}

/// Writes families of counters and gauges to the end of a page.
pub fn write(families: &[MetricFamily], format: Format, text: &mut String) {
    let start = text.len();
    TextEncoder::new().encode_utf8(families, text).expect("families from collectors have names and samples");
    if format == Format::Text {
        return;
    }
    // Samples are the same; only the lines about a counter's family have its name without `_total`.
    let lines = text.split_off(start);
    for line in lines.lines() {
        let mut words = line.splitn(4, ' ');
        let about = match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) => {
                open_counter(name).map(|name| format!("# {what} {name} {rest}"))
            }
            _ => None,
        };
        let _ = writeln!(text, "{}", about.as_deref().unwrap_or(line));
    }
    text.push_str("# EOF\n");
}
