//! Metrics that Envoy does not have, `trigate_*`: what the configuration came to.

use super::registry::{Observed, unix_seconds};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Reads them off what is observed when somebody asks.
pub struct Own {
    observed: Arc<Observed>,
    descriptions: Vec<Desc>,
}

/// Every name, its help and its label.
const NAMES: [(&str, &str, &str); 7] = [
    ("trigate_build_info", "The version that runs; always 1.", "version"),
    ("trigate_certificate_expiry_seconds", "Seconds until a served certificate expires.", "certificate"),
    ("trigate_compile_seconds", "How long it took to compile the revision that serves.", ""),
    ("trigate_diagnostics", "Findings in the objects that the revision is made of.", "severity"),
    ("trigate_revision", "The number of the revision that serves; 0 before the first.", ""),
    ("trigate_revision_age_seconds", "For how long the revision has been serving.", ""),
    ("trigate_routes", "Routes that the revision is made of.", ""),
];

impl Own {
    /// Metrics of what is observed.
    pub fn new(observed: Arc<Observed>) -> Self {
        let descriptions = NAMES
            .iter()
            .map(|(name, help, label)| {
                let labels = if label.is_empty() { Vec::new() } else { vec![(*label).to_owned()] };
                Desc::new((*name).to_owned(), (*help).to_owned(), labels, HashMap::new())
                    .expect("the names above are valid")
            })
            .collect();
        Self { observed, descriptions }
    }

    /// The samples of one name, each with the value of its label.
    fn samples(&self, name: &str) -> Vec<(String, f64)> {
        let revised = self.observed.revised.load();
        let one = |value: f64| vec![(String::new(), value)];
        match name {
            "trigate_build_info" => vec![(env!("CARGO_PKG_VERSION").to_owned(), 1.0)],
            "trigate_certificate_expiry_seconds" => self.certificates(),
            "trigate_compile_seconds" => one(revised.compile.as_secs_f64()),
            "trigate_diagnostics" => vec![
                ("error".to_owned(), revised.errors as f64),
                ("warning".to_owned(), revised.warnings as f64),
            ],
            "trigate_revision" => one(revised.number as f64),
            "trigate_revision_age_seconds" => one(revised.installed.elapsed().as_secs_f64()),
            "trigate_routes" => one(revised.routes as f64),
            _ => Vec::new(),
        }
    }

    /// Every certificate once, whichever sockets serve it; of two with one name the one that expires first.
    fn certificates(&self) -> Vec<(String, f64)> {
        let now = unix_seconds();
        let mut expiry = BTreeMap::<String, i64>::new();
        for socket in self.observed.sockets.load().iter() {
            for certificate in &socket.certificates {
                let known = expiry.entry(certificate.name.clone()).or_insert(i64::MAX);
                *known = certificate.validity.1.min(*known);
            }
        }
        expiry.into_iter().map(|(name, end)| (name, end.saturating_sub(now) as f64)).collect()
    }
}

impl Collector for Own {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let family = |&(name, help, label): &(&str, &str, &str)| {
            let samples = self.samples(name);
            let metrics = samples.into_iter().map(|(value, number)| metric(label, value, number)).collect();
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(MetricType::GAUGE);
            family.set_metric(metrics);
            family
        };
        // The encoder refuses families without samples.
        NAMES.iter().map(family).filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn metric(label: &str, value: String, number: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(number);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    if !label.is_empty() {
        let mut pair = LabelPair::default();
        pair.set_name(label.to_owned());
        pair.set_value(value);
        metric.set_label(vec![pair]);
    }
    metric
}
