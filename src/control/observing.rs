//! Who wants to know of the exchanges of which gateway: from proxy.toml to what the data path asks.

use crate::access_log::{Filter, Format};
use crate::config::{Config, Otlp, OtlpProtocol, Propagation, tag_header};
use crate::telemetry::{
    AccessLog, Collector, Endpoint, Heading, Observer, Observers, Observing, Protocol, SinkSpec, Tag, Tracing,
};
use std::sync::Arc;

/// Observers of all gateways. Values that are no good were refused when the file was read.
pub(super) fn observers(config: &Config, observer: Option<&Observer>) -> Observers {
    let Some(observer) = observer else { return Observers::default() };
    let with_log = of_gateway(config, true, observer);
    let without = of_gateway(config, false, observer);
    let gateways = config.gateways.values();
    Observers {
        gateways: gateways
            .map(|one| if one.access_log { with_log.clone() } else { without.clone() })
            .collect(),
        others: with_log,
    }
}

fn of_gateway(config: &Config, logged: bool, observer: &Observer) -> Option<Arc<Observing>> {
    let logs = if logged { access_logs(config) } else { Vec::new() };
    Observing::new(logs, tracing(config), observer)
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
    let filter = log.filter().unwrap_or_else(|_| Filter::default());
    vec![AccessLog { format, filter, share: log.sampling.0, sinks }]
}

fn tracing(config: &Config) -> Option<Tracing> {
    let tracing = &config.tracing;
    let collector = collector(tracing.otlp.as_ref()?)?;
    let tag = |text: &str| match tag_header(text) {
        Ok(Some(name)) => Tag::Header(name, None),
        _ => Tag::Literal(text.to_owned()),
    };
    Some(Tracing {
        collector,
        share: tracing.sampling.0,
        by_client: tracing.client_sampling,
        upstream_spans: tracing.upstream_spans,
        headings: tracing.propagation.iter().map(|heading| heading_of(*heading)).collect(),
        node: std::env::var("HOSTNAME").unwrap_or_default(),
        tags: tracing.tags.iter().map(|(name, text)| (name.clone(), tag(text))).collect(),
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
