//! Filters that ask or tell somebody beside the backend: mirrors and authorizers, each a cluster of its own.

use super::backends::Resolver;
use super::durations;
use super::findings::{Fault, Findings};
use super::grants::From;
use crate::filter::{AuthPath, AuthProtocol, Destination, ExternalAuth, Fields, Mirror, OnFailure, Share};
use crate::resource::{self, BackendRef, HttpBackendRef, RequestMirror};
use crate::routing::RuleName;
use crate::upstream::{ClusterSpec, Planned, Protocol};
use http::{HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

/// How long an authorizer may take; Envoy Gateway's default.
const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the clusters of a rule's mirrors and authorizers are made.
pub(super) struct Aside<'a, 's> {
    pub backends: &'a mut Resolver<'s>,
    pub clusters: &'a mut Vec<Planned>,
    pub findings: &'a mut Findings,
    pub from: From<'a>,
    pub rule: &'a RuleName,
    pub connect_timeout: Duration,
}

impl Aside<'_, '_> {
    /// `requestMirror`.
    pub fn mirror(&mut self, written: &RequestMirror) -> Result<Mirror, Fault> {
        let RequestMirror { backend_ref, percent, fraction } = written;
        let share = match (percent, fraction) {
            (None, None) => Some(Share::ALL),
            (Some(percent), None) => Share::percent(*percent),
            (None, Some(part)) => Share::fraction(part.numerator, part.denominator.unwrap_or(100)),
            (Some(_), Some(_)) => {
                return Err(unsupported("percent and fraction exclude each other; use one of them"));
            }
        };
        let share =
            share.ok_or_else(|| unsupported("the share of requests to mirror is more than all of them"))?;
        Ok(Mirror { to: self.destination(backend_ref, "mirror", None)?, share })
    }

    /// `externalAuth` (GEP-1494).
    pub fn external_auth(&mut self, written: &resource::ExternalAuth) -> Result<ExternalAuth, Fault> {
        let resource::ExternalAuth { protocol, backend_ref, grpc, http, forward_body } = written;
        let (protocol, asks_with, speaks) = match &**protocol {
            "HTTP" => {
                let http = http.clone().unwrap_or_default();
                let path = AuthPath::prefix(http.path.as_deref().unwrap_or_default());
                let to_backend = fields(&http.allowed_response_headers, Fields::All)?;
                let asks_with = fields(&http.allowed_headers, Fields::Only(Box::default()))?;
                (AuthProtocol::Http { path, to_backend }, asks_with, None)
            }
            "GRPC" => {
                let asks_with = fields(&grpc.clone().unwrap_or_default().allowed_headers, Fields::All)?;
                let authority = self.authority(backend_ref)?;
                let protocol = AuthProtocol::Grpc { authority, context: Vec::new() };
                (protocol, asks_with, Some(Protocol::Http2))
            }
            other => {
                return Err(unsupported(format!("there is no protocol `{other}`; there are HTTP and GRPC")));
            }
        };
        let body = forward_body.as_ref().map(|body| body.max_size as usize).filter(|&most| most > 0);
        Ok(ExternalAuth {
            to: self.destination(backend_ref, "auth", speaks)?,
            protocol,
            asks_with,
            body,
            timeout: AUTH_TIMEOUT,
            on_failure: OnFailure::Deny(StatusCode::FORBIDDEN),
        })
    }

    /// What a gRPC authorizer is called.
    fn authority(&self, reference: &BackendRef) -> Result<HeaderValue, Fault> {
        let BackendRef { namespace, name, port, .. } = reference;
        let namespace = namespace.as_deref().unwrap_or(self.from.namespace);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        HeaderValue::try_from(format!("{name}.{namespace}{port}"))
            .map_err(|_| unsupported(format!("`{}` is no name of an authorizer", name.escape_default())))
    }

    /// A cluster of this one backend, named after the rule and the role.
    fn destination(
        &mut self,
        reference: &BackendRef,
        role: &str,
        speaks: Option<Protocol>,
    ) -> Result<Destination, Fault> {
        let BackendRef { group, kind, namespace, name, port } = reference.clone();
        let reference =
            HttpBackendRef { group, kind, namespace, name, port, weight: None, filters: Default::default() };
        let mut backend = self.backends.resolve(self.from, &reference, self.findings)?;
        backend.protocol = speaks.unwrap_or(backend.protocol);
        let (rule, number) = (self.rule, self.clusters.len());
        let id = super::rules::cluster_id(number);
        let name = format!("{rule}/{role}/{}", self.of_role(role)).into();
        self.clusters.push(Planned::New(ClusterSpec {
            name,
            backends: [backend].into(),
            connect_timeout: self.connect_timeout,
        }));
        Ok(Destination { cluster: id, backend: 0 })
    }

    /// How many clusters of this role the rule has already. They were all made just now.
    fn of_role(&self, role: &str) -> usize {
        let prefix = format!("{}/{role}/", self.rule);
        let made = self.clusters.iter().rev().map_while(Planned::spec);
        made.take_while(|cluster| cluster.name.starts_with(&prefix)).count()
    }
}

fn fields(names: &[Box<str>], if_empty: Fields) -> Result<Fields, Fault> {
    if names.is_empty() {
        return Ok(if_empty);
    }
    let names = names.iter().map(|text| {
        HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| unsupported(format!("`{}` is no header name", text.escape_default())))
    });
    Ok(Fields::Only(names.collect::<Result<_, _>>()?))
}

fn unsupported(message: impl Into<String>) -> Fault {
    Fault::new("UnsupportedValue", message)
}

/// `retry` of a rule, and what is wrong with it: a field and a sentence each.
pub(super) fn retry(written: &resource::Retry) -> (crate::routing::Retry, Vec<(&'static str, String)>) {
    let resource::Retry { codes, attempts, backoff } = written;
    let mut faults = Vec::new();
    let mut statuses = Vec::new();
    for &code in codes.iter() {
        match StatusCode::from_u16(code).ok().filter(|_| (400..600).contains(&code)) {
            Some(status) => statuses.push(status),
            None => faults.push(("retry.codes", format!("{code} is no status of an error; use 400 to 599"))),
        }
    }
    let backoff = backoff.as_deref().and_then(|text| {
        let duration = durations::parse(text);
        if duration.is_none() {
            faults
                .push(("retry.backoff", format!("`{text}` is no duration like `100ms`; the default holds")));
        }
        duration
    });
    (crate::routing::Retry::new(*attempts, statuses, backoff), faults)
}
