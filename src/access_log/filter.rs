//! Which exchanges a log tells of.

use super::expression::Expression;
use super::format::request_field;
use super::operator::Field;
use super::record::Record;
use super::render;
use crate::reply::Flags;
use http::HeaderName;
use std::time::Duration;

/// What an exchange has to be. An empty filter takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only statuses from this one on; no response counts as 0.
    pub status_from: Option<u16>,
    /// Only what took at least this long.
    pub duration_from: Option<Duration>,
    /// Only what has one of these flags.
    pub flags: Option<Flags>,
    /// Only what fulfils all of these.
    pub headers: Vec<HeaderCondition>,
    /// Only what makes all of these true.
    pub expressions: Vec<Expression>,
    /// Whether requests of Envoy's and Kubernetes' health checkers are left out.
    pub no_health_checks: bool,
}

/// What a field of the request has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCondition {
    field: Field,
    /// `None`: that it is there.
    value: Option<Box<str>>,
    /// The opposite.
    not: bool,
}

/// How health checkers call themselves.
const HEALTH_CHECKERS: [&[u8]; 3] = [b"Envoy/HC", b"kube-probe/", b"GoogleHC/"];

impl HeaderCondition {
    /// Reads `name` (it is there), `name=value`, or either after a `!`.
    ///
    /// # Errors
    /// The name is none of a header field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (not, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let (name, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
        Ok(Self { field: request_field(name.trim())?, value: value.map(|value| value.trim().into()), not })
    }

    fn holds(&self, record: &Record) -> bool {
        let found = render::field(&self.field, record);
        let fits = match &self.value {
            None => found.is_some(),
            Some(value) => found.as_deref() == Some(value.as_bytes()),
        };
        fits != self.not
    }
}

impl Filter {
    /// Whether the log tells of this one. What is no HTTP has no status and no fields, and passes those conditions.
    pub fn takes(&self, record: &Record) -> bool {
        let Self { status_from, duration_from, flags, headers, expressions, no_health_checks } = self;
        let http = record.is_http();
        duration_from.is_none_or(|least| record.duration >= least)
            && flags.is_none_or(|wanted| wanted.meets(record.outcome.flags))
            && (!http || status_from.is_none_or(|least| record.status >= least))
            && (!http || headers.iter().all(|condition| condition.holds(record)))
            && !(*no_health_checks && is_health_check(record))
            && expressions.iter().all(|expression| expression.holds(record))
    }

    /// The fields that it reads: of requests, of responses, of trailers.
    pub fn reads(&self) -> [Vec<HeaderName>; 3] {
        let of_headers = self.headers.iter().filter_map(|condition| match &condition.field {
            Field::Named(name) => Some(name.clone()),
            _ => None,
        });
        let of_requests = of_headers.chain(self.no_health_checks.then_some(http::header::USER_AGENT));
        let mut all = [of_requests.collect(), Vec::new(), Vec::new()];
        for read in self.expressions.iter().map(Expression::reads) {
            all.iter_mut().zip(read).for_each(|(all, more)| all.extend(more));
        }
        all
    }
}

fn is_health_check(record: &Record) -> bool {
    let agent = record.request_field(&http::header::USER_AGENT);
    agent.is_some_and(|agent| HEALTH_CHECKERS.iter().any(|name| agent.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::{Flag, Outcome};
    use http::{HeaderValue, Method, Version};
    use std::time::SystemTime;

    fn record() -> Record {
        let mut record = Record::new(SystemTime::UNIX_EPOCH);
        record.method = Some(Method::GET);
        record.version = Some(Version::HTTP_11);
        record.status = 503;
        record.duration = Duration::from_millis(20);
        record.outcome = Outcome::new(Flag::NoHealthyUpstream, "no_healthy_upstream");
        record.request = vec![(HeaderName::from_static("x-a"), HeaderValue::from_static("1"))];
        record
    }

    fn conditions(texts: &[&str]) -> Vec<HeaderCondition> {
        texts.iter().map(|text| HeaderCondition::parse(text).expect(text)).collect()
    }

    fn expressions(texts: &[&str]) -> Vec<Expression> {
        texts.iter().map(|text| Expression::parse(text).expect(text)).collect()
    }

    #[test]
    fn each_condition_must_hold() {
        let flags = |name| Some(Flags::NONE.with(Flag::named(name).expect(name)));
        let any = Filter::default;
        for (filter, takes) in [
            (any(), true),
            (Filter { status_from: Some(503), ..any() }, true),
            (Filter { status_from: Some(504), ..any() }, false),
            (Filter { duration_from: Some(Duration::from_millis(20)), ..any() }, true),
            (Filter { duration_from: Some(Duration::from_millis(21)), ..any() }, false),
            (Filter { flags: flags("UH"), ..any() }, true),
            (Filter { flags: flags("NR"), ..any() }, false),
            (
                Filter { headers: conditions(&["x-a", "x-a=1", "!x-b", "!x-a=2", ":method=GET"]), ..any() },
                true,
            ),
            (Filter { headers: conditions(&["x-a", "x-a=2"]), ..any() }, false),
            (Filter { headers: conditions(&["!x-a"]), ..any() }, false),
            (
                Filter {
                    expressions: expressions(&["response.code > 500", "!('x-b' in request.headers)"]),
                    ..any()
                },
                true,
            ),
            (
                Filter {
                    expressions: expressions(&["response.code > 500", "'x-b' in request.headers"]),
                    ..any()
                },
                false,
            ),
            (Filter { no_health_checks: true, ..any() }, true),
        ] {
            assert_eq!(filter.takes(&record()), takes, "{filter:?}");
        }
    }

    #[test]
    fn health_checks_are_known_by_their_agents() {
        let filter = Filter { no_health_checks: true, ..Filter::default() };
        assert_eq!(filter.reads()[0], [http::header::USER_AGENT]);
        for (agent, takes) in [("kube-probe/1.34", false), ("Envoy/HC", false), ("curl/8", true)] {
            let mut record = record();
            record.request = vec![(http::header::USER_AGENT, HeaderValue::from_static(agent))];
            assert_eq!(filter.takes(&record), takes, "{agent}");
        }
    }

    #[test]
    fn a_connection_passes_conditions_of_http() {
        let filter = Filter { status_from: Some(500), headers: conditions(&["x-a"]), ..Filter::default() };
        assert!(filter.takes(&Record::new(SystemTime::UNIX_EPOCH)));
    }
}
