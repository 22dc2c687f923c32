//! A request between its match and its backend: what the filters look at and change.

use super::answer::Answer;
use super::asked::Asked;
use super::authorize::authorize;
use super::downstream::Downstream;
use super::exchange::{Ended, Exchange};
use super::forwarded;
use super::pump::Clock;
use super::recording::Recording;
use crate::filter::{Cors, Filters, Told};
use crate::live::Revision;
use http::{HeaderMap, StatusCode, request};

/// A request on its way.
pub struct Passage<'a> {
    pub revision: &'a Revision,
    pub asked: &'a Asked,
    /// The number of the gateway, whose certificate is shown to backends.
    pub gateway: u16,
    /// The length of the path prefix that the rule matched.
    pub matched: usize,
    pub head: &'a mut request::Parts,
    pub clock: &'a mut Clock,
    pub recording: Recording,
    /// What an authorizer adds to the response.
    pub additions: Option<Box<HeaderMap>>,
}

impl Passage<'_> {
    /// Runs the filters that may answer instead of a backend: those of the last level, after all levels before it
    /// have let the request pass.
    pub async fn admit(
        &mut self,
        exchange: &mut Exchange<'_>,
        levels: &[Option<&Filters>],
        down: &mut Downstream,
    ) -> Result<(), Ended> {
        let Some(Some(filters)) = levels.last() else { return Ok(()) };
        if let Some(reply) = filters.broken {
            return Err(reply.into());
        }
        if let Some(cors) = &filters.cors {
            if Cors::is_preflight(&self.head.method, &self.head.headers) {
                return Err(Answer::preflight(cors.preflight(&self.head.headers)).into());
            }
            exchange.grant = Some(cors.grant(&self.head.headers));
        }
        if let Some(auth) = &filters.external_auth {
            // On the heap, for most requests ask nobody, and all would carry its state around.
            Box::pin(authorize(exchange, self, auth, down)).await?;
        }
        let mut answer = match (&filters.redirect, &filters.direct_response) {
            (None, None) => return Ok(()),
            (Some(redirect), _) => {
                let origin = self.asked.origin(exchange.connection, self.matched);
                Answer::redirect(redirect.status, &redirect.location(&origin))?
            }
            (None, Some(direct)) => Answer::direct(direct, &self.told(exchange, direct.status())),
        };
        for edits in levels.iter().flatten().filter_map(|filters| filters.response_headers.as_deref()) {
            edits.apply(&mut answer.head.headers);
        }
        Err(answer.into())
    }

    /// What a direct response may tell of the request.
    fn told<'t>(&'t self, exchange: &Exchange<'t>, status: StatusCode) -> Told<'t> {
        let request::Parts { method, version, headers, .. } = &*self.head;
        let (asked, connection) = (self.asked, exchange.connection);
        Told {
            method,
            version: *version,
            headers,
            server_name: connection.server_name.as_deref(),
            host: asked.host.to_str().unwrap_or_default(),
            path: asked.path(),
            query: asked.query(),
            peer: connection.peer,
            client: exchange.client,
            status,
        }
    }

    /// Runs the filters that change the request's headers.
    pub fn edit(&mut self, levels: [Option<&Filters>; 2]) {
        for Filters { request_headers, credential, hides_host, .. } in levels.into_iter().flatten() {
            if *hides_host {
                forwarded::hide_host(&mut self.head.headers, &self.asked.host);
            }
            if let Some(edits) = request_headers {
                edits.apply(&mut self.head.headers);
            }
            if let Some(credential) = credential {
                credential.apply(&mut self.head.headers);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::filter::{
        Allowed, Cors, DirectResponse, Filters, HeaderEdits, OriginPattern, Redirect, Scheme,
    };
    use crate::proxy::rig::{Rig, Upstream, answer_with, body, filters_of, local, nobody, status, values};
    use crate::routing::{Backend, Backends, ClusterId};
    use http::{HeaderName, HeaderValue, StatusCode};
    use std::sync::Arc;

    fn cors() -> Filters {
        let origins = vec![OriginPattern::parse("https://*.a.test").expect("valid")];
        Filters { cors: Some(Arc::new(Cors::new(origins).methods(Allowed::Any))), ..Filters::default() }
    }

    fn marked() -> Option<Box<HeaderEdits>> {
        let field = (HeaderName::from_static("x-mark"), HeaderValue::from_static("1"));
        Some(Box::new(HeaderEdits { set: vec![field], ..HeaderEdits::default() }))
    }

    #[tokio::test]
    async fn a_preflight_is_the_gateways_to_answer() {
        local(async {
            let upstream = Upstream::named("app").await;
            let rig = Rig::new(&[&[upstream.address]], |rule| filters_of(rule, cors()));
            for (origin, want, granted) in
                [("https://www.a.test", 200, vec!["https://www.a.test"]), ("https://b.test", 403, vec![])]
            {
                let lines = format!("origin: {origin}\r\naccess-control-request-method: PUT\r\n");
                let answer = rig.send("OPTIONS", "/", &lines, "").await;
                assert_eq!(status(&answer), want, "{answer}");
                assert_eq!(values(&answer, "access-control-allow-origin"), granted);
                assert_eq!(values(&answer, "access-control-allow-methods").len(), granted.len());
            }
            assert!(upstream.requests().is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn every_answer_says_who_may_read_it_and_says_it_once() {
        local(async {
            let upstream =
                Upstream::new(|_, _| answer_with(200, "access-control-allow-origin: *\r\n", "")).await;
            let refusing = nobody().await;
            for (endpoint, origin, want, granted) in [
                (upstream.address, "https://www.a.test", 200, vec!["https://www.a.test"]),
                (upstream.address, "https://b.test", 200, vec![]),
                (refusing, "https://www.a.test", 503, vec!["https://www.a.test"]),
            ] {
                let rig = Rig::new(&[&[endpoint]], |rule| filters_of(rule, cors()));
                let answer = rig.send("GET", "/", &format!("origin: {origin}\r\n"), "").await;
                assert_eq!(status(&answer), want, "{answer}");
                assert_eq!(values(&answer, "access-control-allow-origin"), granted, "{answer}");
                assert_eq!(values(&answer, "vary"), ["Origin"]);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_direct_response_needs_no_backend_and_takes_header_edits() {
        local(async {
            let rig = Rig::new(&[], |rule| {
                rule.backends = Backends::default();
                let html = HeaderValue::from_static("text/html");
                let direct = DirectResponse::new(404, Some(html), "<p>gone".into()).expect("valid");
                let direct_response = Some(Box::new(direct));
                let response_headers = marked();
                filters_of(rule, Filters { direct_response, response_headers, ..Filters::default() });
            });
            let answer = rig.get("/").await;
            assert_eq!((status(&answer), body(&answer)), (404, "<p>gone"));
            assert_eq!(values(&answer, "content-type"), ["text/html"]);
            assert_eq!(values(&answer, "x-mark"), ["1"]);
            let answer = rig.send("HEAD", "/", "", "").await;
            assert_eq!((body(&answer), values(&answer, "content-length")), ("", vec!["7"]));
            let answer = rig.send("POST", "/", "content-type: application/grpc\r\n", "").await;
            assert_eq!((status(&answer), values(&answer, "grpc-status")), (200, vec!["12"]));
        })
        .await;
    }

    #[tokio::test]
    async fn the_chosen_backend_may_redirect() {
        local(async {
            let rig = Rig::new(&[&[]], |rule| {
                let redirect = Redirect {
                    scheme: Some(Scheme::Https),
                    hostname: Some("b.test".into()),
                    port: None,
                    path: None,
                    status: StatusCode::PERMANENT_REDIRECT,
                };
                let filters = Filters { redirect: Some(Box::new(redirect)), ..Filters::default() };
                let backend = Backend { weight: 1, index: Some(0), filters: Some(Box::new(filters)) };
                rule.backends = Backends::new(Some(ClusterId(0)), vec![backend]);
                filters_of(rule, Filters { response_headers: marked(), ..Filters::default() });
            });
            let answer = rig.get("/p?q").await;
            assert_eq!(status(&answer), 308);
            assert_eq!(values(&answer, "location"), ["https://b.test/p?q"]);
            assert_eq!(values(&answer, "x-mark"), ["1"]);
        })
        .await;
    }
}
