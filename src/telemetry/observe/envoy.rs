//! EnvoyProxy's `telemetry`, read: what Envoy Gateway's users wrote for Envoy, as logs and tracing of ours.
//!
//! Pure but for variables of the environment, of which whoever writes an EnvoyProxy may read only those that the operator
//! allows: others are secrets. Lenient: what cannot be done is left out and named, with the field that it stands in.

use super::exporter::{Collector, Endpoint, Protocol};
use super::propagation::Heading;
use super::sinks::SinkSpec;
use super::spans::{Names, Tag, Tracing};
use super::{AccessLog, WHOLE};
use crate::access_log::{Expression, Filter, Format};
use http::HeaderName;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What was read, and what could not be.
#[derive(Debug, Clone)]
pub struct Read<T> {
    pub value: T,
    /// The field, below `telemetry`, and what is wrong with it.
    pub problems: Vec<(String, String)>,
}

struct Reading<'a> {
    /// The variables of the environment that may be read.
    environment: &'a BTreeSet<String>,
    problems: Vec<(String, String)>,
}

impl<'a> Reading<'a> {
    fn new(environment: &'a BTreeSet<String>) -> Self {
        Self { environment, problems: Vec::new() }
    }

    fn note(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.problems.push((field.into(), problem.into()));
    }

    /// A format, without what it may not read.
    fn format(&mut self, read: Result<Format, String>, at: &str) -> Option<Format> {
        let mut format = read.map_err(|error| self.note(at, error)).ok()?;
        format.withhold(self.environment).iter().for_each(|name| self.note_withheld(name, at));
        if let Some(remark) = format.remark() {
            self.note(at, remark);
        }
        Some(format)
    }

    /// A variable of the environment, if it is set and may be read.
    fn variable(&mut self, name: &str, at: &str) -> Option<String> {
        if self.environment.contains(name) {
            return std::env::var(name).ok();
        }
        self.note_withheld(name, at);
        None
    }

    fn note_withheld(&mut self, name: &str, at: &str) {
        let problem = format!(
            "the variable {name} may not be read and is as if it were not set; \
             whoever runs trigate can name it in proxy.toml, envoy_proxy.environment"
        );
        self.note(at, problem);
    }
}

/// The logs that `telemetry.accessLog` asks for. Without settings it is Envoy Gateway's default: JSON to standard
/// output.
pub fn logs_of_envoy(written: &Value, environment: &BTreeSet<String>) -> Read<Vec<AccessLog>> {
    let mut reading = Reading::new(environment);
    if written["disable"].as_bool() == Some(true) {
        return Read { value: Vec::new(), problems: reading.problems };
    }
    let settings = written["settings"].as_array().cloned().unwrap_or_default();
    let mut logs = Vec::new();
    for (place, setting) in settings.iter().enumerate() {
        let at = format!("accessLog.settings[{place}]");
        if setting["type"].as_str() == Some("Listener") {
            reading.note(format!("{at}.type"), "logs of listeners alone are not kept apart; it is left out");
            continue;
        }
        let Some(format) = format(&setting["format"], &format!("{at}.format"), &mut reading) else {
            continue;
        };
        let sinks = sinks(&setting["sinks"], &format!("{at}.sinks"), &mut reading);
        let Some(filter) = filter(&setting["matches"], &format!("{at}.matches"), &mut reading) else {
            continue;
        };
        if !sinks.is_empty() {
            logs.push(AccessLog { format, filter, share: WHOLE, sinks });
        }
    }
    if settings.is_empty() {
        let (format, filter) = (Format::envoy_gateway(), Filter::default());
        logs.push(AccessLog { format, filter, share: WHOLE, sinks: vec![SinkSpec::Stdout] });
    }
    Read { value: logs, problems: reading.problems }
}

fn format(written: &Value, at: &str, reading: &mut Reading<'_>) -> Option<Format> {
    let fields = written["json"].as_object();
    let read = match (written["type"].as_str(), written["text"].as_str(), fields) {
        (Some("Text") | None, Some(text), None) | (Some("Text"), Some(text), _) => Format::text(text),
        (_, _, Some(fields)) => {
            let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
            let fields: BTreeMap<String, String> = fields.iter().filter_map(text).collect();
            Format::json(&fields).map_err(|(field, error)| format!("{field}: {error}"))
        }
        _ => return Some(Format::envoy_gateway()),
    };
    reading.format(read, at)
}

fn sinks(written: &Value, at: &str, reading: &mut Reading<'_>) -> Vec<SinkSpec> {
    let Some(sinks) = written.as_array().filter(|sinks| !sinks.is_empty()) else {
        return vec![SinkSpec::Stdout];
    };
    let mut read = Vec::new();
    for (place, sink) in sinks.iter().enumerate() {
        let at = format!("{at}[{place}]");
        match sink["type"].as_str() {
            Some("File") => {
                let path = sink["file"]["path"].as_str().unwrap_or("/dev/stdout");
                read.push(SinkSpec::at(Path::new(path)));
            }
            Some("OpenTelemetry") => {
                let at = format!("{at}.openTelemetry");
                read.extend(collector(&sink["openTelemetry"], &at, reading).map(SinkSpec::Collector));
            }
            other => {
                let kind = other.unwrap_or("none");
                reading.note(at, format!("a sink of type {kind} is not served, only File and OpenTelemetry"));
            }
        }
    }
    read
}

/// A collector by `host` and `port`, or by the first of `backendRefs`, as the cluster's DNS names Services.
fn collector(written: &Value, at: &str, reading: &mut Reading<'_>) -> Option<Collector> {
    let reference =
        written["backendRefs"].as_array().and_then(|all| all.first()).unwrap_or(&written["backendRef"]);
    let port = |value: &Value| value["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let (host, port) = match (written["host"].as_str(), reference["name"].as_str()) {
        (Some(host), _) => (host.to_owned(), port(written).unwrap_or(4317)),
        (None, Some(name)) => {
            let namespace = reference["namespace"].as_str().unwrap_or("envoy-gateway-system");
            (format!("{name}.{namespace}.svc"), port(reference).unwrap_or(4317))
        }
        (None, None) => {
            reading.note(at, "it names neither a host nor a backend");
            return None;
        }
    };
    let texts = |value: &Value| -> BTreeMap<String, String> {
        let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        value.as_object().into_iter().flatten().filter_map(text).collect()
    };
    let mut resource = texts(&written["resources"]);
    resource.extend(texts(&written["resourceAttributes"]));
    resource.entry("service.name".to_owned()).or_insert_with(|| "trigate".to_owned());
    let header = |header: &Value| {
        Some((header["name"].as_str()?.to_ascii_lowercase(), header["value"].as_str()?.to_owned()))
    };
    let headers = written["headers"].as_array().into_iter().flatten().filter_map(header).collect();
    let endpoint = Endpoint { secure: false, host, port, path: String::new() };
    Some(Collector { endpoint, protocol: Protocol::Grpc, headers, resource })
}

/// Conditions, all of which have to hold. `None` when one cannot be read: a log that tells more, or less, than it was
/// asked for would be worse than none.
fn filter(written: &Value, at: &str, reading: &mut Reading<'_>) -> Option<Filter> {
    let mut expressions = Vec::new();
    for (place, text) in written.as_array().into_iter().flatten().enumerate() {
        match Expression::parse(text.as_str().unwrap_or_default()) {
            Ok(expression) => expressions.push(expression),
            Err(error) => {
                reading.note(format!("{at}[{place}]"), error);
                return None;
            }
        }
    }
    Some(Filter { expressions, ..Filter::default() })
}

/// What `telemetry.tracing` asks for; `None` when spans cannot be sent there.
pub fn tracing_of_envoy(
    written: &Value,
    node: &str,
    environment: &BTreeSet<String>,
) -> Read<Option<Tracing>> {
    let mut reading = Reading::new(environment);
    let provider = &written["provider"];
    if let Some(kind) = provider["type"].as_str().filter(|kind| *kind != "OpenTelemetry") {
        reading.note("tracing.provider.type", format!("{kind} is not served, only OpenTelemetry"));
        return Read { value: None, problems: reading.problems };
    }
    if !provider["openTelemetry"]["sampler"].is_null() {
        let problem =
            "it is not served: whoever sent a request decides, else samplingRate or samplingFraction";
        reading.note("tracing.provider.openTelemetry.sampler", problem);
    }
    let mut provided = provider.clone();
    for key in ["headers", "resourceAttributes"] {
        provided[key] = provider["openTelemetry"][key].clone();
    }
    let Some(mut collector) = collector(&provided, "tracing.provider", &mut reading) else {
        return Read { value: None, problems: reading.problems };
    };
    if let Some(name) = provider["serviceName"].as_str() {
        collector.resource.insert("service.name".to_owned(), name.to_owned());
    }
    let tracing = Tracing {
        collector,
        share: share(written),
        by_client: fraction(&written["clientSamplingFraction"]).map_or(WHOLE, millionths),
        overall: fraction(&written["overallSamplingFraction"]).map_or(WHOLE, millionths),
        upstream_spans: true,
        headings: vec![Heading::W3c],
        node: node.to_owned(),
        names: Names {
            server: span_name(written, "server", &mut reading),
            client: span_name(written, "client", &mut reading),
        },
        tags: tags(written, &mut reading),
    };
    Read { value: Some(tracing), problems: reading.problems }
}

/// `samplingRate` is a percentage, `samplingFraction` a fraction; without either all are sampled.
fn share(written: &Value) -> u32 {
    let percent = written["samplingRate"].as_f64().map(|rate| rate / 100.0);
    percent.or(fraction(&written["samplingFraction"])).map_or(WHOLE, millionths)
}

fn fraction(written: &Value) -> Option<f64> {
    Some(written["numerator"].as_f64()? / written["denominator"].as_f64().unwrap_or(100.0))
}

fn millionths(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * f64::from(WHOLE)).round() as u32
}

fn span_name(written: &Value, side: &str, reading: &mut Reading<'_>) -> Option<Format> {
    written_text(&written["spanName"][side], format!("tracing.spanName.{side}"), reading)
}

/// A text with operators.
fn written_text(written: &Value, at: String, reading: &mut Reading<'_>) -> Option<Format> {
    reading.format(Format::of_value(written.as_str()?), &at)
}

fn tags(written: &Value, reading: &mut Reading<'_>) -> Vec<(String, Tag)> {
    let mut tags = Vec::new();
    for (name, text) in written["tags"].as_object().into_iter().flatten() {
        let text = written_text(text, format!("tracing.tags.{name}"), reading);
        tags.extend(text.map(|text| (name.clone(), Tag::Text(text))));
    }
    for (name, tag) in written["customTags"].as_object().into_iter().flatten() {
        let at = format!("tracing.customTags.{name}");
        match tag["type"].as_str() {
            Some("Literal") => {
                let text = tag["literal"]["value"].as_str().unwrap_or_default();
                tags.push((name.clone(), Tag::Literal(text.to_owned())));
            }
            Some("Environment") => {
                let variable = tag["environment"]["name"].as_str().unwrap_or_default();
                let otherwise = tag["environment"]["defaultValue"].as_str().map(str::to_owned);
                let text = reading.variable(variable, &at).or(otherwise);
                tags.extend(text.map(|text| (name.clone(), Tag::Literal(text))));
            }
            Some("RequestHeader") => {
                let header = tag["requestHeader"]["name"].as_str().unwrap_or_default();
                let otherwise = tag["requestHeader"]["defaultValue"].as_str().map(str::to_owned);
                match HeaderName::from_bytes(header.as_bytes()) {
                    Ok(header) => tags.push((name.clone(), Tag::Header(header, otherwise))),
                    Err(_) => reading.note(at, format!("`{header}` is no name of a header field")),
                }
            }
            other => {
                let kind = other.unwrap_or("none");
                reading.note(
                    at,
                    format!(
                        "a tag of type {kind} is not served, only Literal, Environment and RequestHeader"
                    ),
                );
            }
        }
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::Record;
    use serde_json::json;
    use std::time::SystemTime;

    const NONE: BTreeSet<String> = BTreeSet::new();

    #[test]
    fn without_settings_it_is_the_default_and_it_can_be_disabled() {
        let read = logs_of_envoy(&json!({}), &NONE);
        assert_eq!(read.value.len(), 1);
        assert_eq!(
            (&read.value[0].format, &read.value[0].sinks[..]),
            (&Format::envoy_gateway(), &[SinkSpec::Stdout][..])
        );
        assert!(logs_of_envoy(&json!({ "disable": true }), &NONE).value.is_empty());
    }

    #[test]
    fn settings_are_formats_sinks_and_conditions() {
        let read = logs_of_envoy(
            &json!({ "settings": [
            {
                "format": { "type": "JSON", "json": { "code": "%RESPONSE_CODE%" } },
                "sinks": [{ "type": "File", "file": { "path": "/dev/stdout" } }],
                "matches": ["response.code >= 400 && !('x-quiet' in request.headers)"],
            },
            {
                "format": { "type": "Text", "text": "%DURATION%\n" },
                "sinks": [
                    { "type": "OpenTelemetry", "openTelemetry": {
                        "backendRefs": [{ "name": "otel", "namespace": "monitoring", "port": 4317 }],
                        "resources": { "k8s.cluster.name": "home" },
                    } },
                    { "type": "ALS" },
                ],
            },
            { "format": { "type": "Text", "text": "%NO%" } },
            { "matches": ["request.size > 5", "request.nothing > 5"] },
        ] }),
            &NONE,
        );
        assert_eq!(read.value.len(), 2);
        let conditions = Expression::parse("response.code >= 400 && !('x-quiet' in request.headers)");
        assert_eq!(read.value[0].filter.expressions, [conditions.expect("valid")]);
        let [SinkSpec::Collector(collector)] = &read.value[1].sinks[..] else {
            panic!("{:?}", read.value[1])
        };
        assert_eq!(collector.endpoint.to_string(), "http://otel.monitoring.svc:4317");
        assert_eq!(collector.resource["k8s.cluster.name"], "home");
        let fields: Vec<&str> = read.problems.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "accessLog.settings[1].sinks[1]",
                "accessLog.settings[2].format",
                "accessLog.settings[3].matches[1]"
            ]
        );
    }

    #[test]
    fn a_log_whose_conditions_cannot_be_read_is_left_out() {
        let read = |texts: &[&str]| filter(&json!(texts), "m", &mut Reading::new(&NONE));
        let both = read(&["response.code >= 500", "!(request.headers['x-a'] == 'b')"]);
        assert_eq!(both.expect("both can be read").expressions.len(), 2);
        for text in ["x || y", "response.code >=", ""] {
            assert!(read(&["response.code >= 500", text]).is_none(), "{text}");
        }
    }

    #[test]
    fn tracing_has_a_share_tags_and_a_collector() {
        let read = tracing_of_envoy(
            &json!({
                "samplingRate": 5,
                "clientSamplingFraction": { "numerator": 1, "denominator": 4 },
                "spanName": { "server": "%REQ(:METHOD)%", "client": "%NO%" },
                "tags": { "country": "%REQUEST_HEADER(CF-IPCountry)%", "wrong": "%REQ(%" },
                "provider": {
                    "host": "otel", "port": 4317, "serviceName": "edge",
                    "openTelemetry": { "sampler": { "type": "AlwaysOn" } },
                },
                "customTags": {
                    "a": { "type": "Literal", "literal": { "value": "b" } },
                    "t": { "type": "RequestHeader", "requestHeader": { "name": "X-T", "defaultValue": "-" } },
                    "e": { "type": "Environment", "environment": { "name": "CARGO_PKG_NAME" } },
                    "f": { "type": "Environment", "environment": { "name": "TRIGATE_NO_SUCH", "defaultValue": "x" } },
                    "g": { "type": "Environment", "environment": { "name": "TRIGATE_NO_SUCH" } },
                    "m": { "type": "Metadata" },
                },
            }),
            "node",
            &["CARGO_PKG_NAME", "TRIGATE_NO_SUCH"].map(str::to_owned).into(),
        );
        let tracing = read.value.expect("it can be sent");
        assert_eq!((tracing.share, tracing.collector.resource["service.name"].as_str()), (50_000, "edge"));
        let names: Vec<&str> = tracing.tags.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["country", "a", "e", "f", "t"]);
        assert_eq!(tracing.tags[2].1, Tag::Literal("trigate".to_owned()));
        assert_eq!((tracing.by_client, tracing.overall), (250_000, WHOLE));
        assert!(tracing.names.server.is_some() && tracing.names.client.is_none());
        let fields: Vec<&str> = read.problems.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields[0], "tracing.provider.openTelemetry.sampler");
        assert_eq!(fields[1..], ["tracing.spanName.client", "tracing.tags.wrong", "tracing.customTags.m"]);
        let zipkin = tracing_of_envoy(&json!({ "provider": { "type": "Zipkin", "host": "z" } }), "", &NONE);
        assert!(zipkin.value.is_none() && zipkin.problems[0].0 == "tracing.provider.type");
    }
    #[test]
    fn a_variable_that_may_not_be_read_is_as_if_it_were_not_set_and_is_named() {
        let allowed = BTreeSet::from(["CARGO_PKG_NAME".to_owned()]);
        let both = "%ENVIRONMENT(CARGO_PKG_NAME)% %ENVIRONMENT(CARGO_PKG_VERSION)%";
        let logs = logs_of_envoy(
            &json!({ "settings": [
                { "format": { "type": "Text", "text": both } },
                { "format": { "type": "JSON", "json": { "v": "%ENVIRONMENT(CARGO_PKG_VERSION):3%" } } },
            ] }),
            &allowed,
        );
        let record = Record::new(SystemTime::UNIX_EPOCH);
        for (log, want) in logs.value.iter().zip(["trigate -\n", "{\"v\":\"-\"}\n"]) {
            let mut line = Vec::new();
            log.format.line(&record, &mut line);
            assert_eq!(String::from_utf8_lossy(&line), want);
        }
        let tag = json!({ "type": "Environment", "environment": {
            "name": "CARGO_PKG_VERSION", "defaultValue": "secret",
        } });
        let tracing = tracing_of_envoy(
            &json!({
                "provider": { "host": "otel" },
                "spanName": { "server": both },
                "tags": { "t": both },
                "customTags": { "c": tag },
            }),
            "",
            &allowed,
        );
        let tags = tracing.value.expect("it can be sent").tags;
        assert_eq!(tags[1].1, Tag::Literal("secret".to_owned()));
        let problems: Vec<_> = logs.problems.into_iter().chain(tracing.problems).collect();
        let fields: Vec<&str> = problems.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "accessLog.settings[0].format",
                "accessLog.settings[1].format",
                "tracing.spanName.server",
                "tracing.tags.t",
                "tracing.customTags.c"
            ]
        );
        for (_, problem) in problems {
            assert!(problem.contains("CARGO_PKG_VERSION") && problem.contains("envoy_proxy.environment"));
        }
    }
}
