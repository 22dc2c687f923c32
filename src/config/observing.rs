//! `[access_log]` and `[tracing]`: what is told of each exchange, and to whom.

use super::fault::{Fault, Text};
use super::{Config, units};
use crate::access_log::{Expression, Filter, Format, HeaderCondition};
use crate::reply::{Flag, Flags};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// One line for each exchange.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// Without it: true where objects come from Kubernetes, as with Envoy Gateway.
    pub enabled: Option<bool>,
    /// A file, opened again on SIGHUP, or `/dev/stdout` or `/dev/stderr`; an empty one writes none.
    pub path: PathBuf,
    /// A line of text with Envoy's operators.
    pub text: Option<String>,
    /// The fields of a JSON object with Envoy's operators. Without either, those of Envoy Gateway.
    pub json: BTreeMap<String, String>,
    /// How many percent of the exchanges are told of.
    pub sampling: Percent,
    /// Lines of each worker that wait to be written; more are dropped and counted.
    pub queue: u32,
    pub only: Only,
    pub otlp: Option<Otlp>,
}

/// Which exchanges are told of; all conditions have to hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Only {
    /// From this status on; 0 is no response.
    pub status_from: u16,
    /// What took at least this long.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub duration_from: Duration,
    /// What has one of these response flags.
    pub flags: Vec<String>,
    /// `name`, `name=value`, or either after a `!`: fields of the request.
    pub headers: Vec<String>,
    /// Conditions in CEL over Envoy's attributes: `response.code >= 500 || 'x-debug' in request.headers`.
    pub expressions: Vec<String>,
    /// False leaves out what health checkers ask.
    pub health_checks: bool,
}

/// A collector that speaks OTLP.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// `http://collector:4317`; over HTTP `/v1/logs` or `/v1/traces` is appended.
    pub endpoint: String,
    #[serde(default)]
    pub protocol: OtlpProtocol,
    /// Sent with every batch, such as a token.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Attributes of the resource, beside `service.name`.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
}

impl std::fmt::Debug for Otlp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, protocol, headers: _, resource } = self;
        let mut shown = f.debug_struct("Otlp");
        shown.field("endpoint", endpoint).field("protocol", protocol).field("resource", resource);
        shown.field("headers", &"[redacted]").finish()
    }
}

/// How OTLP travels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    #[default]
    Grpc,
    Http,
}

/// Spans for exchanges. Without a collector there are none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    pub otlp: Option<Otlp>,
    /// How many percent of the requests are sampled that come without a decision.
    pub sampling: Percent,
    /// Whether `x-client-trace-id` has a request sampled.
    pub client_sampling: bool,
    /// The headers in which backends are told. All are understood.
    pub propagation: Vec<Propagation>,
    /// Whether a backend's side has a span of its own.
    pub upstream_spans: bool,
    /// Tags: texts with operators, as in access logs.
    pub tags: BTreeMap<String, String>,
}

/// The headers in which a trace travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// `traceparent`, `tracestate`
    W3c,
    /// `b3`
    B3,
    /// `x-b3-traceid` and its kin
    #[serde(rename = "b3multi")]
    B3Multi,
}

/// What EnvoyProxies may have of this process: who writes one need not be who runs trigate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EnvoyProxies {
    /// The variables of the environment that their formats and tags may read; any other is as if it were not set.
    pub environment: BTreeSet<String>,
}

impl Default for EnvoyProxies {
    fn default() -> Self {
        let names = [
            "ENVOY_POD_NAME",
            "ENVOY_POD_NAMESPACE",
            "ENVOY_SERVICE_ZONE",
            "HOSTNAME",
            "NODE_NAME",
            "NODE_ZONE",
            "POD_NAME",
            "POD_NAMESPACE",
        ];
        Self { environment: names.map(str::to_owned).into() }
    }
}

/// A share, kept in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "f64")]
pub struct Percent(pub u32);

impl Percent {
    /// All of them.
    pub const ALL: Self = Self(1_000_000);
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(de::Error::custom(format!("{percent} is no percentage from 0 to 100")));
        }
        Ok(Self((percent * 10_000.0).round() as u32))
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            enabled: None,
            path: "/dev/stdout".into(),
            text: None,
            json: BTreeMap::new(),
            sampling: Percent::ALL,
            queue: 8192,
            only: Only::default(),
            otlp: None,
        }
    }
}

impl Default for Only {
    fn default() -> Self {
        Self {
            status_from: 0,
            duration_from: Duration::ZERO,
            flags: Vec::new(),
            headers: Vec::new(),
            expressions: Vec::new(),
            health_checks: true,
        }
    }
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            otlp: None,
            sampling: Percent::ALL,
            client_sampling: true,
            propagation: vec![Propagation::W3c],
            upstream_spans: true,
            tags: BTreeMap::new(),
        }
    }
}

impl AccessLog {
    /// How lines are written.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn format(&self) -> Result<Format, (Vec<String>, String)> {
        match &self.text {
            Some(text) => Format::text(text).map_err(|error| (vec!["text".to_owned()], error)),
            None if self.json.is_empty() => Ok(Format::envoy_gateway()),
            None => {
                Format::json(&self.json).map_err(|(field, error)| (vec!["json".to_owned(), field], error))
            }
        }
    }

    /// Which exchanges are told of.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn filter(&self) -> Result<Filter, (Vec<String>, String)> {
        let Only { status_from, duration_from, flags, headers, expressions, health_checks } = &self.only;
        let at = |key: &str| vec!["only".to_owned(), key.to_owned()];
        let mut wanted = Flags::NONE;
        for name in flags {
            let unknown = || (at("flags"), format!("`{name}` is no response flag such as \"UF\" or \"NR\""));
            wanted = wanted.with(Flag::named(name).ok_or_else(unknown)?);
        }
        let conditions = headers.iter().map(|text| HeaderCondition::parse(text));
        let expressions = expressions.iter().map(|text| Expression::parse(text));
        Ok(Filter {
            status_from: Some(*status_from).filter(|status| *status > 0),
            duration_from: Some(*duration_from).filter(|least| !least.is_zero()),
            flags: Some(wanted).filter(|flags| !flags.is_empty()),
            headers: conditions.collect::<Result<_, _>>().map_err(|error| (at("headers"), error))?,
            expressions: expressions.collect::<Result<_, _>>().map_err(|error| (at("expressions"), error))?,
            no_health_checks: !health_checks,
        })
    }
}

/// What is wrong with either table.
pub(super) fn faults(text: &Text<'_>, config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |path: &[&str], message: String, hint: &str| {
        faults.push(text.fault_at(path, message, Some(hint.to_owned())));
    };
    let log = &config.access_log;
    for (key, error) in [log.format().err(), log.filter().err()].into_iter().flatten() {
        let path: Vec<&str> = std::iter::once("access_log").chain(key.iter().map(String::as_str)).collect();
        fault(&path, error, "the operators and conditions are in README.md and in Envoy's documentation");
    }
    if log.text.is_some() && !log.json.is_empty() {
        let message = "text and json are two answers to one question".to_owned();
        fault(&["access_log", "text"], message, "keep one of them");
    }
    for (table, otlp) in [("access_log", &log.otlp), ("tracing", &config.tracing.otlp)] {
        let Some(error) = otlp.as_ref().and_then(|otlp| endpoint_fault(&otlp.endpoint)) else { continue };
        let hint = "write it as \"http://collector:4317\", or https://";
        fault(&[table, "otlp", "endpoint"], error, hint);
    }
    for (name, text) in &config.tracing.tags {
        if let Err(error) = Format::of_value(text) {
            fault(
                &["tracing", "tags", name],
                error,
                "a tag is a text with operators as in access logs: \"%REQ(x-tenant)%\"",
            );
        }
    }
    faults
}

fn endpoint_fault(endpoint: &str) -> Option<String> {
    let uri: Result<http::Uri, _> = endpoint.parse();
    let fits = uri.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    (!fits).then(|| format!("`{endpoint}` is no URL of a collector"))
}
