//! Who wants to know of the exchanges of which gateway: from proxy.toml to what the data path asks.

use crate::access_log::{Filter, Format};
use crate::compile::GatewayReport;
use crate::config::{Config, Otlp, OtlpProtocol, Propagation};
use crate::resource::{EnvoyProxy, Resource};
use crate::telemetry::{
    AccessLog, Collector, Endpoint, Heading, Observer, Observers, Observing, Protocol, SinkSpec, SpanNames,
    Tag, Tracing, WHOLE, logs_of_envoy, tracing_of_envoy,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tracing::warn;

/// What is observed, by gateway: what the EnvoyProxy of its Gateway asks for, else what proxy.toml does.
#[derive(Default)]
pub(super) struct Watching {
    observer: Option<Observer>,
    logs: Vec<AccessLog>,
    tracing: Option<Tracing>,
    configured: Observers,
    /// What EnvoyProxies may read of the environment.
    environment: BTreeSet<String>,
    /// Gateways that proxy.toml wants no log of, by number.
    unlogged: Vec<bool>,
    /// What EnvoyProxies asked for last time, by the numbers of their gateways.
    asked: HashMap<u16, Asked>,
}

struct Asked {
    by: Arc<EnvoyProxy>,
    observing: Option<Arc<Observing>>,
}

impl Watching {
    /// That of proxy.toml, whose values were found good when the file was read.
    pub fn new(config: &Config, observer: &Observer) -> Self {
        let (logs, tracing) = (access_logs(config), tracing(config));
        let with_log = Observing::new(logs.clone(), tracing.clone(), observer);
        let without = Observing::new(Vec::new(), tracing.clone(), observer);
        let gateways = config.gateways.values();
        let unlogged: Vec<bool> = gateways.map(|one| !one.access_log).collect();
        let of = |unlogged: &bool| if *unlogged { without.clone() } else { with_log.clone() };
        let configured = Observers { gateways: unlogged.iter().map(of).collect(), others: with_log };
        Self {
            observer: Some(observer.clone()),
            logs,
            tracing,
            configured,
            environment: config.envoy_proxy.environment.clone(),
            unlogged,
            asked: HashMap::new(),
        }
    }

    /// Observers of all gateways, now that these Gateways are served. What is wrong with an EnvoyProxy is told once.
    pub fn observers(&mut self, gateways: &[GatewayReport]) -> Observers {
        let mut observers = self.configured.clone();
        let mut asked = HashMap::new();
        for report in gateways {
            let proxy = report.parameters.as_ref().and_then(|parameters| parameters.proxy.as_ref());
            let Some(proxy) = proxy.filter(|proxy| proxy.spec.telemetry.is_some()) else { continue };
            let (number, place) = (report.id.0, usize::from(report.id.0));
            let one = match self.asked.remove(&number).filter(|before| Arc::ptr_eq(&before.by, proxy)) {
                Some(before) => before,
                None => Asked { by: Arc::clone(proxy), observing: self.of_envoy(proxy, number) },
            };
            if observers.gateways.len() <= place {
                observers.gateways.resize(place + 1, observers.others.clone());
            }
            observers.gateways[place] = one.observing.clone();
            asked.insert(number, one);
        }
        self.asked = asked;
        observers
    }

    fn of_envoy(&self, proxy: &EnvoyProxy, gateway: u16) -> Option<Arc<Observing>> {
        let (observer, telemetry) = (self.observer.as_ref()?, proxy.spec.telemetry.as_deref()?);
        let unlogged = self.unlogged.get(usize::from(gateway)).copied().unwrap_or_default();
        let mut problems = Vec::new();
        let logs = match &telemetry.access_log {
            _ if unlogged => Vec::new(),
            None => self.logs.clone(),
            Some(written) => {
                let read = logs_of_envoy(written, &self.environment);
                problems.extend(read.problems);
                read.value
            }
        };
        let tracing = match &telemetry.tracing {
            None => self.tracing.clone(),
            Some(written) => {
                let read = tracing_of_envoy(written, &node(), &self.environment);
                problems.extend(read.problems);
                read.value
            }
        };
        problems.iter().for_each(|problem| warn!("{}", told(proxy, problem)));
        Observing::new(logs, tracing, observer)
    }
}

/// What of the logs and traces that are asked for cannot be done, in proxy.toml and in the EnvoyProxies of these
/// Gateways, with the field that asks for it.
pub fn unheeded(config: &Config, gateways: &[GatewayReport]) -> Vec<String> {
    let own = config.access_log.format().ok().and_then(|format| format.remark());
    let mut unheeded: Vec<String> = own.map(|remark| format!("access_log: {remark}")).into_iter().collect();
    let environment = &config.envoy_proxy.environment;
    let proxies = gateways.iter().filter_map(|report| report.parameters.as_ref()?.proxy.as_ref());
    for proxy in proxies {
        let Some(telemetry) = proxy.spec.telemetry.as_deref() else { continue };
        let logs =
            telemetry.access_log.iter().flat_map(|written| logs_of_envoy(written, environment).problems);
        let traces =
            telemetry.tracing.iter().flat_map(|written| tracing_of_envoy(written, "", environment).problems);
        let problems = logs.chain(traces);
        unheeded.extend(problems.map(|problem| told(proxy, &problem)));
    }
    // Gateways may share one.
    unheeded.sort();
    unheeded.dedup();
    unheeded
}

fn told(proxy: &EnvoyProxy, (field, problem): &(String, String)) -> String {
    format!("{} spec.telemetry.{field}: {problem}", proxy.reference())
}

/// How this replica is called in traces.
fn node() -> String {
    std::env::var("HOSTNAME").unwrap_or_default()
}

fn access_logs(config: &Config) -> Vec<AccessLog> {
    let log = &config.access_log;
    if !config.logs_access() {
        return Vec::new();
    }
    let mut sinks = Vec::new();
    if !log.path.as_os_str().is_empty() {
        sinks.push(SinkSpec::at(&log.path));
    }
    sinks.extend(log.otlp.as_ref().and_then(collector).map(SinkSpec::Collector));
    if sinks.is_empty() {
        return Vec::new();
    }
    let format = log.format().unwrap_or_else(|_| Format::envoy_gateway());
    if let Some(remark) = format.remark() {
        warn!("access_log: {remark}");
    }
    let filter = log.filter().unwrap_or_else(|_| Filter::default());
    vec![AccessLog { format, filter, share: log.sampling.0, sinks }]
}

fn tracing(config: &Config) -> Option<Tracing> {
    let tracing = &config.tracing;
    let collector = collector(tracing.otlp.as_ref()?)?;
    let tag =
        |(name, text): (&String, &String)| Some((name.clone(), Tag::Text(Format::of_value(text).ok()?)));
    Some(Tracing {
        collector,
        share: tracing.sampling.0,
        by_client: if tracing.client_sampling { WHOLE } else { 0 },
        overall: WHOLE,
        upstream_spans: tracing.upstream_spans,
        headings: tracing.propagation.iter().map(|heading| heading_of(*heading)).collect(),
        node: node(),
        names: SpanNames::default(),
        tags: tracing.tags.iter().filter_map(tag).collect(),
    })
}

fn heading_of(propagation: Propagation) -> Heading {
    match propagation {
        Propagation::W3c => Heading::W3c,
        Propagation::B3 => Heading::B3,
        Propagation::B3Multi => Heading::B3Multi,
    }
}

fn collector(otlp: &Otlp) -> Option<Collector> {
    let Otlp { endpoint, protocol, headers, resource } = otlp;
    let mut resource = resource.clone();
    resource.entry("service.name".to_owned()).or_insert_with(|| "trigate".to_owned());
    Some(Collector {
        endpoint: Endpoint::parse(endpoint).ok()?,
        protocol: match protocol {
            OtlpProtocol::Grpc => Protocol::Grpc,
            OtlpProtocol::Http => Protocol::Http,
        },
        headers: headers.clone(),
        resource,
    })
}
