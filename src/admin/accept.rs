//! What a client takes: the coding and the format of a page (RFC 9110 12.5).

use crate::telemetry::Format;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, AsHeaderName};

/// How a page may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// The coding that the client takes; of two that it likes equally the one that costs less.
pub fn coding(headers: &HeaderMap) -> Option<Coding> {
    let wanted = Weighted::of(headers, ACCEPT_ENCODING);
    let weight = |name| wanted.weight(|part| part.eq_ignore_ascii_case(name) || part == "*");
    let (zstd, gzip) = (weight("zstd"), weight("gzip"));
    match (zstd > 0.0, gzip > 0.0) {
        (true, _) if zstd >= gzip => Some(Coding::Zstd),
        (_, true) => Some(Coding::Gzip),
        _ => None,
    }
}

/// The format of the metrics. Whoever takes Prometheus' text format by name gets it, as from Envoy: in OpenMetrics
/// most of Envoy's counters cannot be counters, and a bucket `1` is called `1.0`, so that queries would notice.
pub fn format(headers: &HeaderMap) -> Format {
    let wanted = Weighted::of(headers, ACCEPT);
    let open = wanted.weight(|part| part.eq_ignore_ascii_case("application/openmetrics-text"));
    let text = wanted.weight(|part| part.eq_ignore_ascii_case("text/plain"));
    if open > 0.0 && text <= 0.0 { Format::OpenMetrics } else { Format::Text }
}

/// A list of names with their weights.
struct Weighted<'a>(Vec<(&'a str, f32)>);

impl<'a> Weighted<'a> {
    fn of(headers: &'a HeaderMap, field: impl AsHeaderName) -> Self {
        let fields = headers.get_all(field).iter().filter_map(|value| value.to_str().ok());
        let parts = fields.flat_map(|value| value.split(',')).map(|part| {
            let mut parameters = part.split(';').map(str::trim);
            let name = parameters.next().unwrap_or_default();
            let weight = parameters.find_map(|parameter| parameter.strip_prefix("q=")).unwrap_or("1");
            (name, weight.parse().unwrap_or(0.0))
        });
        Self(parts.collect())
    }

    /// The weight of the first name that is one of these; 0 when there is none.
    fn weight(&self, is_one: impl Fn(&str) -> bool) -> f32 {
        self.0.iter().find(|(name, _)| is_one(name)).map_or(0.0, |(_, weight)| *weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn accepting(field: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(field, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_coding_is_one_that_the_client_takes() {
        for (codings, taken) in [
            ("gzip", Some(Coding::Gzip)),
            ("zstd", Some(Coding::Zstd)),
            ("gzip, zstd", Some(Coding::Zstd)),
            ("zstd;q=0.4, GZIP;q=0.5", Some(Coding::Gzip)),
            ("zstd;q=0, gzip;q=0.1", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("gzip;q=0", None),
            ("gzip; q=0.0", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(coding(&accepting(ACCEPT_ENCODING, codings)), taken, "{codings}");
        }
    }

    #[test]
    fn openmetrics_is_for_those_who_take_nothing_else() {
        const PROMETHEUS: &str =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (types, want) in [
            ("application/openmetrics-text; version=1.0.0", Format::OpenMetrics),
            ("application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.4", Format::OpenMetrics),
            (PROMETHEUS, Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            ("*/*", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("", Format::Text),
        ] {
            assert_eq!(format(&accepting(ACCEPT, types)), want, "{types}");
        }
    }
}
