//! Envoy's `envoy.service.auth.v3.Authorization/Check`: what of its messages is told and understood here.
//!
//! Written by hand: the generated messages would bring all of Envoy's API along for one call.

mod messages;

use super::Connection;
use super::asked::Asked;
use super::authorize::{AuthError, Changes, Verdict};
use super::call::Called;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, request};
use messages::{
    Attributes, AttributesRequest, BoolValue, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderField,
    HeaderValueOption, HttpRequest, HttpResponse, OkHttpResponse, Peer, PeerAddress, SocketAddress,
    Timestamp, TlsSession,
};
use prost::Message;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where it is asked.
pub const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// A message's prefix in gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What is told of a request.
pub struct Told<'a> {
    pub connection: &'a Connection,
    pub asked: &'a Asked,
    pub head: &'a request::Parts,
    pub headers: HeaderMap,
    /// Whether the pseudo-headers are told with them.
    pub pseudo: bool,
    pub body: Bytes,
    pub context: &'a [(String, String)],
}

/// The question as a gRPC message.
pub fn message(told: Told<'_>) -> Bytes {
    let Told { connection, asked, head, headers, pseudo, body, context } = told;
    let scheme = if connection.server_name.is_some() { "https" } else { "http" };
    let path = asked.target.to_string();
    let host = String::from_utf8_lossy(asked.host.as_bytes()).into_owned();
    let mut fields = joined(&headers);
    if pseudo {
        for (name, value) in [
            (":authority", host.as_str()),
            (":method", head.method.as_str()),
            (":path", &path),
            (":scheme", scheme),
        ] {
            fields.insert(name.to_owned(), value.to_owned());
        }
    }
    let (body, raw_body) = match String::from_utf8(body.into()) {
        Ok(text) => (text, Vec::new()),
        Err(error) => (String::new(), error.into_bytes()),
    };
    let size = (body.len() + raw_body.len()) as i64;
    let id = head.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let http = HttpRequest {
        id: id.to_owned(),
        method: head.method.to_string(),
        headers: fields,
        path,
        host,
        scheme: scheme.to_owned(),
        size,
        protocol: protocol(head.version).to_owned(),
        body,
        raw_body,
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 };
    let check = CheckRequest {
        attributes: Some(Attributes {
            source: Some(Peer::new(connection.peer)),
            destination: Some(Peer::new(connection.local)),
            request: Some(AttributesRequest { time: Some(time), http: Some(http) }),
            context_extensions: context.iter().cloned().collect(),
            tls_session: connection.server_name.as_deref().map(|sni| TlsSession { sni: sni.to_owned() }),
        }),
    };
    let mut out = BytesMut::with_capacity(PREFIX + check.encoded_len());
    out.put_u8(0);
    out.put_u32(check.encoded_len() as u32);
    out.put_slice(&check.encode_to_vec());
    out.freeze()
}

/// What the answer means.
///
/// # Errors
/// When the call failed, which is no verdict.
pub fn verdict(called: &Called) -> Result<Verdict, AuthError> {
    if called.head.status != StatusCode::OK {
        return Err(AuthError::Failed(called.head.status));
    }
    let status = called.trailers.get("grpc-status").or(called.head.headers.get("grpc-status"));
    if status.is_none_or(|status| status != "0") {
        return Err(AuthError::NotExtAuthz(format!("grpc-status {status:?}")));
    }
    let message = unframed(&called.body).ok_or_else(|| AuthError::NotExtAuthz("no whole message".into()))?;
    let response =
        CheckResponse::decode(message).map_err(|error| AuthError::NotExtAuthz(error.to_string()))?;
    Ok(match (response.status.map_or(0, |status| status.code), response.http_response) {
        (0, Some(HttpResponse::Ok(ok))) => Verdict::Allowed(ok.changes()),
        (0, _) => Verdict::Allowed(Changes::default()),
        (_, Some(HttpResponse::Denied(denied))) => denied.verdict(),
        (_, _) => DeniedHttpResponse::default().verdict(),
    })
}

/// The one message of a unary answer.
fn unframed(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (message.len() == length as usize).then_some(message)
}

/// Fields of one name are joined by commas (RFC 9110 5.3).
fn joined(headers: &HeaderMap) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = HashMap::with_capacity(headers.keys_len() + 4);
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match all.get_mut(name.as_str()) {
            Some(joined) => {
                joined.push(',');
                joined.push_str(&value);
            }
            None => {
                all.insert(name.to_string(), value.into_owned());
            }
        }
    }
    all
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

impl OkHttpResponse {
    fn changes(self) -> Changes {
        let mut changes = Changes::default();
        for option in self.headers {
            let append = option.append == Some(BoolValue { value: true });
            let Some((name, value)) = option.field() else { continue };
            let whither = if append { &mut changes.append } else { &mut changes.set };
            whither.append(name, value);
        }
        let removable = |name: &HeaderName| *name != http::header::HOST;
        changes.remove =
            self.headers_to_remove.iter().filter_map(|name| name.parse().ok()).filter(removable).collect();
        for (name, value) in self.response_headers_to_add.into_iter().filter_map(HeaderValueOption::field) {
            changes.response.append(name, value);
        }
        changes
    }
}

impl DeniedHttpResponse {
    fn verdict(self) -> Verdict {
        let code = self.status.and_then(|status| StatusCode::from_u16(u16::try_from(status.code).ok()?).ok());
        // A refusal that says it is a success would hide that it is one, and 1xx is no answer.
        let status = code.filter(|code| code.as_u16() >= 300).unwrap_or(StatusCode::FORBIDDEN);
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.into_iter().filter_map(HeaderValueOption::field) {
            headers.append(name, value);
        }
        super::forwarded::remove_hop_by_hop_response(&mut headers);
        headers.remove(http::header::CONTENT_LENGTH);
        Verdict::Denied { status, headers, body: self.body.into() }
    }
}

impl HeaderValueOption {
    /// The field, if it is one; pseudo-headers are none.
    fn field(self) -> Option<(HeaderName, HeaderValue)> {
        let HeaderField { key, value, raw_value } = self.header?;
        let value = if value.is_empty() { raw_value } else { value.into_bytes() };
        Some((key.parse().ok()?, HeaderValue::try_from(value).ok()?))
    }
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        let socket_address =
            SocketAddress { address: address.ip().to_string(), port_value: Some(address.port().into()) };
        Self { address: Some(PeerAddress { socket_address: Some(socket_address) }) }
    }
}

#[cfg(test)]
mod tests {
    use super::messages::{HttpStatus, RpcStatus};
    use super::*;
    use crate::filter::{AuthProtocol, ExternalAuth, Fields, Filters, OnFailure};
    use crate::proxy::rig::{Rig, Upstream, backend, body, filters_of, local, status, values};
    use crate::upstream::Protocol;
    use http::Response;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;
    use tokio::net::TcpListener;
    use tokio::task::spawn_local;

    fn option(key: &str, value: &str) -> HeaderValueOption {
        let header = HeaderField { key: key.into(), value: value.into(), raw_value: Vec::new() };
        HeaderValueOption { header: Some(header), append: None }
    }

    fn framed(message: &impl Message) -> Bytes {
        let bytes = message.encode_to_vec();
        let mut out = BytesMut::from(&[0][..]);
        out.put_u32(bytes.len() as u32);
        out.put_slice(&bytes);
        out.freeze()
    }

    /// An authorizer that answers every question so, and keeps the questions.
    async fn authorizer(answer: CheckResponse) -> (SocketAddr, Rc<RefCell<Vec<CheckRequest>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let questions = Rc::new(RefCell::new(Vec::new()));
        let asked = Rc::clone(&questions);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, answer) = (Rc::clone(&asked), answer.clone());
                spawn_local(async move {
                    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        assert_eq!(request.uri().path(), PATH);
                        assert_eq!(request.uri().host(), Some("auth.test"));
                        let (asked, answer) = (Rc::clone(&asked), answer.clone());
                        spawn_local(async move {
                            let mut body = request.into_body();
                            let mut all = BytesMut::new();
                            while let Some(Ok(piece)) = body.data().await {
                                all.extend_from_slice(&piece);
                            }
                            let question = CheckRequest::decode(unframed(&all).expect("framed"));
                            asked.borrow_mut().push(question.expect("a question"));
                            let mut send = respond.send_response(Response::new(()), false).expect("sent");
                            send.send_data(framed(&answer), false).expect("sent");
                            let ok = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
                            send.send_trailers(HeaderMap::from_iter([ok])).expect("sent");
                        });
                    }
                });
            }
        });
        (address, questions)
    }

    fn rig(upstream: &Upstream, authorizer: SocketAddr, body: Option<usize>) -> Rig {
        let auth = ExternalAuth {
            to: backend(1),
            protocol: AuthProtocol::Grpc {
                authority: HeaderValue::from_static("auth.test:9001"),
                context: vec![("rule".into(), "app".into())],
            },
            asks_with: Fields::All,
            body,
            timeout: Duration::from_secs(5),
            on_failure: OnFailure::default(),
        };
        let backends = [(Protocol::Http1, vec![upstream.address]), (Protocol::Http2, vec![authorizer])];
        Rig::speaking(&backends, |rule| {
            filters_of(rule, Filters { external_auth: Some(Box::new(auth)), ..Filters::default() });
        })
    }

    #[tokio::test]
    async fn a_request_that_is_allowed_is_changed_as_the_authorizer_says() {
        local(async {
            let upstream = Upstream::named("app").await;
            let ok = OkHttpResponse {
                headers: vec![option("x-user-id", "42"), option(":path", "/evil")],
                headers_to_remove: vec!["x-secret".into(), "Host".into()],
                response_headers_to_add: vec![option("x-seen", "1")],
            };
            let answer = CheckResponse { status: None, http_response: Some(HttpResponse::Ok(ok)) };
            let (address, questions) = authorizer(answer).await;
            let rig = rig(&upstream, address, Some(100));
            let got = rig.send("POST", "/p?q", "x-user-id: 1\r\nx-secret: s\r\nx-a: 1\r\n", "body").await;
            assert_eq!((body(&got), values(&got, "x-seen")), ("app", vec!["1"]));
            let request = &upstream.requests()[0];
            for (name, want) in [
                ("x-user-id", vec!["42"]),
                ("x-secret", vec![]),
                ("x-a", vec!["1"]),
                ("host", vec!["a.test"]),
            ] {
                assert_eq!(values(request, name), want, "{name}");
            }
            assert!(request.starts_with("POST /p?q ") && request.ends_with("body"), "{request}");
            let question = questions.borrow()[0].attributes.clone().expect("attributes");
            assert_eq!(question.context_extensions["rule"], "app");
            let http = question.request.and_then(|request| request.http).expect("an HTTP request");
            let told = (http.method.as_str(), http.path.as_str(), http.host.as_str(), http.body.as_str());
            assert_eq!(told, ("POST", "/p?q", "a.test", "body"));
            assert_eq!((http.headers["x-a"].as_str(), http.headers[":path"].as_str()), ("1", "/p?q"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_request_that_is_denied_gets_the_authorizers_answer() {
        local(async {
            let upstream = Upstream::named("app").await;
            let denied = |code: Option<i32>| {
                let denied = DeniedHttpResponse {
                    status: code.map(|code| HttpStatus { code }),
                    headers: vec![option("x-auth-error", "access-denied"), option("content-length", "9")],
                    body: "no".into(),
                };
                CheckResponse {
                    status: Some(RpcStatus { code: 7 }),
                    http_response: Some(HttpResponse::Denied(denied)),
                }
            };
            let bare = CheckResponse { status: Some(RpcStatus { code: 16 }), http_response: None };
            for (answer, want, text, errors) in [
                (denied(Some(401)), 401, "no", 1),
                (denied(None), 403, "no", 1),
                (denied(Some(200)), 403, "no", 1),
                (bare, 403, "", 0),
            ] {
                let (address, questions) = authorizer(answer).await;
                let got = rig(&upstream, address, None).send("POST", "/", "", "body").await;
                assert_eq!((status(&got), body(&got)), (want, text), "{got}");
                assert_eq!(values(&got, "x-auth-error").len(), errors);
                let question = questions.borrow()[0].attributes.clone().and_then(|it| it.request?.http);
                assert_eq!(question.expect("an HTTP request").body, "", "no body was asked for");
            }
            assert!(upstream.requests().is_empty());
        })
        .await;
    }

    #[test]
    fn what_is_no_answer_is_no_verdict() {
        let called = |grpc: Option<&'static str>, body: &'static [u8]| {
            let (head, ()) = Response::new(()).into_parts();
            let field = |value| (HeaderName::from_static("grpc-status"), HeaderValue::from_static(value));
            Called { head, body: Bytes::from_static(body), trailers: grpc.map(field).into_iter().collect() }
        };
        for (grpc, body, allowed) in [
            (Some("0"), &[0, 0, 0, 0, 0][..], true),
            (Some("14"), &[0, 0, 0, 0, 0], false),
            (None, &[0, 0, 0, 0, 0], false),
            (Some("0"), &[], false),
            (Some("0"), &[1, 0, 0, 0, 0], false),
            (Some("0"), &[0, 0, 0, 0, 9, 1], false),
            (Some("0"), &[0, 0, 0, 0, 1, 255], false),
        ] {
            let verdict = verdict(&called(grpc, body));
            assert_eq!(matches!(verdict, Ok(Verdict::Allowed(_))), allowed, "{grpc:?} {body:?}");
            assert_eq!(verdict.is_err(), !allowed);
        }
    }
}
