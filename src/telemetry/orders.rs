//! Certificates that the process orders itself: what it is doing about each, for `/certs` and for metrics.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What becomes of a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OrderState {
    /// It is good until it is time to renew it.
    #[default]
    Waiting,
    Ordering,
    /// The last order failed, and the next one is due later. What was there before is still served.
    Failed,
    /// Another replica orders.
    Elsewhere,
}

impl OrderState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ordering => "ordering",
            Self::Failed => "failed",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// A certificate that is ordered here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ordered {
    pub names: Vec<String>,
    pub state: OrderState,
    /// When the next order is due, in seconds since 1970.
    pub due: Option<i64>,
    pub succeeded: u64,
    pub failed: u64,
    /// Why the last order failed; `None` after one that did not.
    pub error: Option<String>,
}

/// All of them, by `namespace/secret`.
#[derive(Debug, Clone, Default)]
pub struct Orders(Arc<Mutex<BTreeMap<String, Ordered>>>);

impl Orders {
    /// Changes what is known of a certificate.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut Ordered)) {
        change(self.lock().entry(name.to_owned()).or_default());
    }

    /// Forgets all others.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| wanted(name));
    }

    /// What is known of each.
    pub fn all(&self) -> BTreeMap<String, Ordered> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Ordered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The families of [`Orders`].
pub(super) struct OrderMetrics {
    orders: Orders,
    descriptions: Vec<Desc>,
}

const TOTAL: (&str, &str) =
    ("trigate_certificate_orders_total", "Orders of certificates that ended, by their end.");
const DUE: (&str, &str) =
    ("trigate_certificate_renewal_timestamp_seconds", "When a certificate is ordered next.");
const FAILING: (&str, &str) =
    ("trigate_certificate_order_failing", "Whether the last order of a certificate failed: 1 or 0.");

impl OrderMetrics {
    /// Shows these.
    pub fn new(orders: Orders) -> Self {
        let description = |(name, help): (&str, &str), labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new()).expect("the names are valid")
        };
        let descriptions = vec![
            description(TOTAL, &["certificate", "result"]),
            description(DUE, &["certificate"]),
            description(FAILING, &["certificate"]),
        ];
        Self { orders, descriptions }
    }
}

impl Collector for OrderMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.orders.all();
        let total = all.iter().flat_map(|(name, one)| {
            [("success", one.succeeded), ("failure", one.failed)].map(|(result, count)| {
                let mut counter = Counter::default();
                counter.set_value(count as f64);
                let mut metric = labelled(&[("certificate", name), ("result", result)]);
                metric.set_counter(counter);
                metric
            })
        });
        let gauge = |name: &str, value: f64| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = labelled(&[("certificate", name)]);
            metric.set_gauge(gauge);
            metric
        };
        let due = all.iter().filter_map(|(name, one)| Some(gauge(name, one.due? as f64)));
        let failing = all.iter().map(|(name, one)| gauge(name, f64::from(u8::from(one.error.is_some()))));
        let families = [
            family(TOTAL, MetricType::COUNTER, total.collect()),
            family(DUE, MetricType::GAUGE, due.collect()),
            family(FAILING, MetricType::GAUGE, failing.collect()),
        ];
        // The encoder refuses families without samples.
        families.into_iter().filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn family((name, help): (&str, &str), kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |&(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    let mut metric = Metric::default();
    metric.set_label(labels.iter().map(pair).collect());
    metric
}
