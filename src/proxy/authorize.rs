//! Asks an external authorizer whether a request may pass (GEP-1494; Envoy's `ext_authz`).

use super::answer::Answer;
use super::call::{CallError, Called, Question, call};
use super::downstream::Downstream;
use super::exchange::{Ended, Exchange};
use super::outgoing::{Address, path_and_query};
use super::passage::Passage;
use super::pump::Over;
use super::{ext_authz, forwarded, recording};
use crate::filter::{AuthProtocol, ExternalAuth, Fields, OnFailure};
use crate::reply::Reply;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, request};
use thiserror::Error;
use tokio::time::timeout;

/// What an authorizer decided.
#[derive(Debug)]
pub enum Verdict {
    Allowed(Changes),
    /// With what the client is told.
    Denied {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
}

/// What an authorizer changes in a request that it lets pass.
#[derive(Debug, Default)]
pub struct Changes {
    pub set: HeaderMap,
    pub append: HeaderMap,
    pub remove: Vec<HeaderName>,
    /// Added to the response.
    pub response: HeaderMap,
}

/// Why there is no verdict.
#[derive(Debug, Error)]
pub enum AuthError {
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("it took too long")]
    TimedOut,
    #[error("it answered {0}")]
    Failed(StatusCode),
    #[error("its answer is no ext_authz: {0}")]
    NotExtAuthz(String),
}

/// Lets the request pass, changed as the authorizer says.
///
/// # Errors
/// The authorizer's answer when it refuses, and the filter's when there is no verdict.
pub async fn authorize(
    exchange: &Exchange<'_>,
    passage: &mut Passage<'_>,
    auth: &ExternalAuth,
    down: &mut Downstream,
) -> Result<(), Ended> {
    if let Some(most) = auth.body.filter(|&most| most > 0) {
        if passage.head.headers.remove(EXPECT).is_some() {
            recording::invite(down).await?;
        }
        passage.recording.read_all(down, passage.clock, most).await?;
    }
    let body = auth.body.map(|_| passage.recording.bytes()).unwrap_or_default();
    let question = question(exchange, passage, auth, body)?;
    let asking = timeout(auth.timeout, call(&exchange.worker.pool, passage.revision, question));
    let called = match passage.clock.within(asking).await {
        Ok(Ok(called)) => called.map_err(AuthError::from),
        Ok(Err(_)) => Err(AuthError::TimedOut),
        Err(Over::Request | Over::Attempt | Over::Idle) => return Err(Reply::UpstreamTimeout.into()),
    };
    let asked =
        passage.revision.clusters.get(auth.to.cluster.0 as usize).map(|cluster| cluster.stats().mine());
    let counted = exchange.connection.stats.mine();
    let verdict = called.and_then(|called| match auth.protocol {
        AuthProtocol::Http { .. } => http_verdict(called),
        AuthProtocol::Grpc { .. } => ext_authz::verdict(&called),
    });
    let changes = match verdict {
        Ok(Verdict::Allowed(changes)) => {
            counted.authorizing_ok.inc();
            asked.inspect(|cluster| cluster.authorizing_ok.inc());
            changes
        }
        Ok(Verdict::Denied { status, headers, body }) => {
            counted.authorizing_denied.inc();
            asked.inspect(|cluster| cluster.authorizing_denied.inc());
            return Err(Answer::denied(status, headers, body).into());
        }
        Err(error) => {
            tracing::debug!("an external authorizer gave no verdict: {error}");
            counted.authorizing_error.inc();
            match auth.on_failure {
                OnFailure::Allow => {
                    counted.authorizing_failure_allowed.inc();
                    Changes::default()
                }
                OnFailure::Deny(status) => {
                    return Err(Answer::denied(status, HeaderMap::new(), Bytes::new()).into());
                }
            }
        }
    };
    apply(passage, auth, changes);
    Ok(())
}

/// What an HTTP authorizer said: 200 is yes, 5xx is its own failure, all else is what the client is told.
fn http_verdict(called: Called) -> Result<Verdict, AuthError> {
    let Called { mut head, body, trailers: _ } = called;
    if head.status.is_server_error() {
        return Err(AuthError::Failed(head.status));
    }
    forwarded::remove_hop_by_hop_response(&mut head.headers);
    if head.status == StatusCode::OK {
        return Ok(Verdict::Allowed(Changes { set: head.headers, ..Changes::default() }));
    }
    head.headers.remove(CONTENT_LENGTH);
    Ok(Verdict::Denied { status: head.status, headers: head.headers, body })
}

fn apply(passage: &mut Passage<'_>, auth: &ExternalAuth, changes: Changes) {
    let Changes { set, append, remove, response } = changes;
    let request = &mut passage.head.headers;
    for name in remove {
        request.remove(name);
    }
    let chosen = match &auth.protocol {
        AuthProtocol::Http { to_backend, .. } => to_backend,
        AuthProtocol::Grpc { .. } => &Fields::All,
    };
    chosen.take_over(&set, request);
    for (name, value) in &append {
        // A section that is full stays as it is.
        let _ = request.try_append(name.clone(), value.clone());
    }
    if !response.is_empty() {
        passage.additions.get_or_insert_default().extend(response);
    }
}

fn question(
    exchange: &Exchange<'_>,
    passage: &Passage<'_>,
    auth: &ExternalAuth,
    body: Bytes,
) -> Result<Question, Reply> {
    let asked = passage.asked;
    Ok(match &auth.protocol {
        AuthProtocol::Http { path, .. } => {
            let headers = http_headers(passage.head, auth, body.len());
            let address = Address {
                host: asked.host.clone(),
                target: path_and_query(&path.of(asked.path(), asked.query()), "")?,
            };
            Question {
                to: auth.to,
                gateway: passage.gateway,
                head: head(passage.head.method.clone(), headers),
                address,
                body,
            }
        }
        AuthProtocol::Grpc { authority, context } => {
            let headers = HeaderMap::from_iter([
                (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
                (TE, HeaderValue::from_static("trailers")),
            ]);
            let target = PathAndQuery::from_static(ext_authz::PATH);
            let address = Address { host: authority.clone(), target };
            let told = ext_authz::Told {
                connection: exchange.connection,
                asked,
                head: passage.head,
                headers: auth.asks_with.pick(&passage.head.headers),
                pseudo: auth.asks_with == Fields::All,
                body,
                context,
            };
            let body = ext_authz::message(told);
            Question {
                to: auth.to,
                gateway: passage.gateway,
                head: head(Method::POST, headers),
                address,
                body,
            }
        }
    })
}

/// The chosen headers, and those that an HTTP authorizer always gets.
fn http_headers(request: &request::Parts, auth: &ExternalAuth, length: usize) -> HeaderMap {
    let mut headers = auth.asks_with.pick(&request.headers);
    if let Some(credentials) = request.headers.get(AUTHORIZATION) {
        headers.insert(AUTHORIZATION, credentials.clone());
    }
    headers.remove(EXPECT);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers
}

fn head(method: Method, headers: HeaderMap) -> request::Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = method;
    head.headers = headers;
    head
}

#[cfg(test)]
mod tests {
    use crate::filter::{AuthPath, AuthProtocol, ExternalAuth, Fields, Filters, OnFailure};
    use crate::proxy::rig::{
        Act, Rig, Upstream, answer, answer_with, backend, body, filters_of, local, status, values,
    };
    use crate::routing::Rule;
    use http::{HeaderName, StatusCode};
    use std::time::Duration;

    fn only(names: &[&'static str]) -> Fields {
        Fields::Only(names.iter().map(|name| HeaderName::from_static(name)).collect())
    }

    fn auth() -> ExternalAuth {
        ExternalAuth {
            to: backend(1),
            protocol: AuthProtocol::Http {
                path: AuthPath::prefix("/verify"),
                to_backend: only(&["remote-user", "remote-groups"]),
            },
            asks_with: only(&["cookie"]),
            body: None,
            timeout: Duration::from_millis(500),
            on_failure: OnFailure::default(),
        }
    }

    fn asking(auth: ExternalAuth) -> impl FnOnce(&mut Rule) {
        let filters = Filters { external_auth: Some(Box::new(auth)), ..Filters::default() };
        move |rule| filters_of(rule, filters)
    }

    const FORGED: &str = "remote-user: admin\r\nremote-groups: root\r\ncookie: c=1\r\nx-a: 1\r\n";

    #[tokio::test]
    async fn who_is_let_in_is_whom_the_authorizer_names() {
        local(async {
            let upstream = Upstream::named("app").await;
            let authorizer =
                Upstream::new(|_, _| answer_with(200, "remote-user: alice\r\nx-b: 1\r\n", "ok")).await;
            let rig = Rig::new(&[&[upstream.address], &[authorizer.address]], asking(auth()));
            assert_eq!(body(&rig.send("PUT", "/p?q", FORGED, "body").await), "app");
            let question = &authorizer.requests()[0];
            assert!(question.starts_with("PUT /verify/p?q HTTP/1.1\r\n"), "{question}");
            for (name, want) in [
                ("host", vec!["a.test"]),
                ("content-length", vec!["0"]),
                ("cookie", vec!["c=1"]),
                ("x-a", vec![]),
                ("remote-user", vec![]),
            ] {
                assert_eq!(values(question, name), want, "{name}");
            }
            let request = &upstream.requests()[0];
            for (name, want) in [
                ("remote-user", vec!["alice"]),
                ("remote-groups", vec![]),
                ("x-a", vec!["1"]),
                ("x-b", vec![]),
            ] {
                assert_eq!(values(request, name), want, "{name}");
            }
            assert_eq!(body(request), "body");
        })
        .await;
    }

    #[tokio::test]
    async fn who_is_not_let_in_gets_the_authorizers_answer() {
        local(async {
            let upstream = Upstream::named("app").await;
            let authorizer = Upstream::new(|_, _| {
                let lines = "location: https://login.test/\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n";
                answer_with(302, &format!("{lines}content-type: text/html\r\n"), "<p>log in")
            })
            .await;
            let rig = Rig::new(&[&[upstream.address], &[authorizer.address]], asking(auth()));
            let got = rig.send("POST", "/", "", "body").await;
            assert_eq!((status(&got), body(&got)), (302, "<p>log in"));
            assert_eq!(values(&got, "location"), ["https://login.test/"]);
            assert_eq!(values(&got, "set-cookie"), ["a=1", "b=2"]);
            assert_eq!(values(&got, "content-type"), ["text/html"]);
            assert!(upstream.requests().is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn without_a_verdict_the_filter_decides() {
        local(async {
            for (on_failure, want) in [
                (OnFailure::default(), 403),
                (OnFailure::Deny(StatusCode::SERVICE_UNAVAILABLE), 503),
                (OnFailure::Allow, 200),
            ] {
                for broken in [|| Act::Close, || Act::Hang, || answer(500, "no")] {
                    let upstream = Upstream::named("app").await;
                    let authorizer = Upstream::new(move |_, _| broken()).await;
                    let auth = ExternalAuth { on_failure, ..auth() };
                    let rig = Rig::new(&[&[upstream.address], &[authorizer.address]], asking(auth));
                    assert_eq!(status(&rig.send("GET", "/", FORGED, "").await), want, "{on_failure:?}");
                    for request in upstream.requests() {
                        assert_eq!(values(&request, "remote-user"), Vec::<&str>::new());
                    }
                }
            }
            let upstream = Upstream::named("app").await;
            let rig = Rig::new(&[&[upstream.address], &[]], asking(auth()));
            assert_eq!(status(&rig.get("/").await), 403, "it has no endpoint");
            assert!(upstream.requests().is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn an_authorizer_sees_a_body_up_to_its_limit() {
        local(async {
            let upstream = Upstream::named("app").await;
            let authorizer = Upstream::new(|_, _| answer(200, "")).await;
            let auth = ExternalAuth { body: Some(10), ..auth() };
            let rig = Rig::new(&[&[upstream.address], &[authorizer.address]], asking(auth));
            assert_eq!(status(&rig.send("POST", "/", "expect: 100-continue\r\n", "0123456789").await), 100);
            assert_eq!(body(&authorizer.requests()[0]), "0123456789");
            assert_eq!(body(&upstream.requests()[0]), "0123456789");
            assert_eq!(status(&rig.send("POST", "/", "", "0123456789x").await), 413);
            assert_eq!((authorizer.requests().len(), upstream.requests().len()), (1, 1));
        })
        .await;
    }
}
