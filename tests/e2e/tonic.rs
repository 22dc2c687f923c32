//! GRPCRoute with a real gRPC library, tonic, on both sides of the gateway.

use crate::HOST;
use crate::harness::manifest::{route, service_speaking};
use crate::harness::soon;
use crate::harness::trigate::Trigate;
use crate::harness::upstream::{Body, Upstream, refusing};
use futures::channel::mpsc;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream};
use futures::{SinkExt, StreamExt};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use prost::Message;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tonic::metadata::MetadataValue;
use tonic::server::{ClientStreamingService, ServerStreamingService, StreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(uint32, tag = "2")]
    count: u32,
}

fn note(text: &str, count: u32) -> Note {
    Note { text: text.to_owned(), count }
}

/// The service `notes.Notes`, one method for each kind of call.
#[derive(Clone, Copy)]
struct Notes;

type Answered<T> = BoxFuture<'static, Result<tonic::Response<T>, Status>>;
type Stream = BoxStream<'static, Result<Note, Status>>;

impl UnaryService<Note> for Notes {
    type Response = Note;
    type Future = Answered<Note>;

    fn call(&mut self, request: tonic::Request<Note>) -> Self::Future {
        async move {
            let token = request.metadata().get("x-token").cloned();
            let note = request.into_inner();
            if note.text == "slow" {
                std::future::pending::<()>().await;
            }
            if note.text == "refuse" {
                let mut status = Status::with_details(Code::FailedPrecondition, "not yet: ä", "why".into());
                status.metadata_mut().insert("x-hint", MetadataValue::from_static("wait"));
                return Err(status);
            }
            let mut response = tonic::Response::new(note);
            if let Some(token) = token {
                response.metadata_mut().insert("x-token", token);
            }
            Ok(response)
        }
        .boxed()
    }
}

impl ServerStreamingService<Note> for Notes {
    type Response = Note;
    type ResponseStream = Stream;
    type Future = Answered<Stream>;

    fn call(&mut self, request: tonic::Request<Note>) -> Self::Future {
        let Note { text, count } = request.into_inner();
        let notes = stream::iter(0..count).map(move |number| Ok(note(&text, number)));
        let end = stream::iter([Err(Status::out_of_range("that was all"))]);
        std::future::ready(Ok(tonic::Response::new(notes.chain(end).boxed()))).boxed()
    }
}

impl ClientStreamingService<Note> for Notes {
    type Response = Note;
    type Future = Answered<Note>;

    fn call(&mut self, request: tonic::Request<Streaming<Note>>) -> Self::Future {
        async move {
            let mut notes = request.into_inner();
            let mut sum = note("", 0);
            while let Some(next) = notes.message().await? {
                sum.text.push_str(&next.text);
                sum.count += 1;
            }
            Ok(tonic::Response::new(sum))
        }
        .boxed()
    }
}

impl StreamingService<Note> for Notes {
    type Response = Note;
    type ResponseStream = Stream;
    type Future = Answered<Stream>;

    fn call(&mut self, request: tonic::Request<Streaming<Note>>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(request.into_inner().boxed()))).boxed()
    }
}

async fn notes(request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Note, Note>::default());
    let response = match path.as_str() {
        "/notes.Notes/Unary" => grpc.unary(Notes, request).await,
        "/notes.Notes/ServerStream" => grpc.server_streaming(Notes, request).await,
        "/notes.Notes/ClientStream" => grpc.client_streaming(Notes, request).await,
        "/notes.Notes/Both" => grpc.streaming(Notes, request).await,
        _ => Status::unimplemented("the service has no such method").into_http(),
    };
    response.map(|body| body.map_err(|status| panic!("statuses travel in trailers: {status}")).boxed_unsync())
}

/// A GRPCRoute of `apps` for [`HOST`] with these rules.
fn grpc_route(rules: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
        "metadata": { "name": "notes", "namespace": "apps" },
        "spec": {
            "parentRefs": [{ "name": "external", "namespace": "network" }],
            "hostnames": [HOST], "rules": rules,
        },
    })
}

fn to(service: &str, method: Value) -> Value {
    json!({ "matches": [{ "method": method }], "backendRefs": [{ "name": service, "port": 80 }] })
}

fn h2c(name: &str, endpoints: &[SocketAddr]) -> Vec<Value> {
    service_speaking(name, endpoints, Some("kubernetes.io/h2c"))
}

async fn serving() -> (Trigate, Upstream) {
    let upstream = Upstream::serve(notes).await;
    let mut objects = h2c("notes", &[upstream.address]);
    objects.push(grpc_route(json!([to("notes", json!({ "service": "notes.Notes" }))])));
    (Trigate::serving(objects).await, upstream)
}

async fn client(trigate: &Trigate) -> tonic::client::Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", trigate.external.http)).expect("an address");
    let endpoint = endpoint.origin(format!("http://{HOST}").parse().expect("an origin"));
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.expect("the gateway listens"));
    client.ready().await.expect("the gateway answers");
    client
}

fn codec() -> ProstCodec<Note, Note> {
    ProstCodec::default()
}

fn path(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}

async fn unary(trigate: &Trigate, target: &'static str, text: &str) -> Result<tonic::Response<Note>, Status> {
    let request = tonic::Request::new(note(text, 1));
    soon("an answer", client(trigate).await.unary(request, path(target), codec())).await
}

#[tokio::test]
async fn a_unary_call_carries_message_metadata_and_status() {
    let (trigate, _upstream) = serving().await;
    let mut request = tonic::Request::new(note("hello", 7));
    request.metadata_mut().insert("x-token", MetadataValue::from_static("t"));
    let answer = client(&trigate).await.unary(request, path("/notes.Notes/Unary"), codec()).await;
    let answer = answer.expect("the call succeeds");
    assert_eq!(answer.metadata().get("x-token").map(|value| value.as_bytes()), Some(&b"t"[..]));
    assert_eq!(answer.into_inner(), note("hello", 7));
    let refused = unary(&trigate, "/notes.Notes/Unary", "refuse").await.expect_err("it is refused");
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "not yet: ä"));
    assert_eq!(refused.details(), b"why");
    assert_eq!(refused.metadata().get("x-hint").map(|value| value.as_bytes()), Some(&b"wait"[..]));
    let large = "0123456789abcdef".repeat(100_000);
    let answer = unary(&trigate, "/notes.Notes/Unary", &large).await.expect("a large message passes");
    assert_eq!(answer.into_inner().text, large);
}

#[tokio::test]
async fn a_stream_of_the_server_comes_whole_and_ends_with_its_status() {
    let (trigate, _upstream) = serving().await;
    let request = tonic::Request::new(note("n", 1000));
    let mut client = client(&trigate).await;
    let answer = client.server_streaming(request, path("/notes.Notes/ServerStream"), codec());
    let mut notes = answer.await.expect("the stream begins").into_inner();
    for number in 0..1000 {
        assert_eq!(notes.message().await.expect("no error yet"), Some(note("n", number)));
    }
    let end = notes.message().await.expect_err("its status ends it");
    assert_eq!((end.code(), end.message()), (Code::OutOfRange, "that was all"));
}

#[tokio::test]
async fn a_stream_of_the_client_is_answered_at_its_end() {
    let (trigate, _upstream) = serving().await;
    let notes = stream::iter(["a", "b", "c"]).map(|text| note(text, 0));
    let request = tonic::Request::new(notes);
    let mut client = client(&trigate).await;
    let answer = client.client_streaming(request, path("/notes.Notes/ClientStream"), codec());
    assert_eq!(answer.await.expect("the call succeeds").into_inner(), note("abc", 3));
}

#[tokio::test]
async fn both_sides_stream_and_each_message_passes_at_once() {
    let (trigate, _upstream) = serving().await;
    let (mut sender, notes) = mpsc::channel(0);
    let request = tonic::Request::new(notes);
    let mut client = client(&trigate).await;
    let answer = client.streaming(request, path("/notes.Notes/Both"), codec());
    let mut echoes = soon("the head", answer).await.expect("the stream begins").into_inner();
    for number in 0..50 {
        sender.send(note("ping", number)).await.expect("the stream is open");
        let echo = soon("an echo", echoes.message()).await.expect("no error");
        assert_eq!(echo, Some(note("ping", number)));
    }
    drop(sender);
    assert_eq!(soon("the end", echoes.message()).await.expect("the status is OK"), None);
}

#[tokio::test]
async fn what_the_gateway_answers_itself_is_a_grpc_status() {
    let upstream = Upstream::serve(notes).await;
    let mut objects = h2c("notes", &[upstream.address]);
    objects.extend(h2c("refusing", &[refusing().await]));
    objects.extend(h2c("empty", &[]));
    let forbidding = json!([{ "type": "ExtensionRef", "extensionRef": {
        "group": "gateway.envoyproxy.io", "kind": "HTTPRouteFilter", "name": "forbidding" } }]);
    let mut forbidden = to("notes", json!({ "service": "notes.Forbidden" }));
    forbidden["filters"] = forbidding;
    objects.push(json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "HTTPRouteFilter",
        "metadata": { "name": "forbidding", "namespace": "apps" },
        "spec": { "directResponse": { "statusCode": 403, "body": { "inline": "not you" } } },
    }));
    objects.push(grpc_route(json!([
        to("notes", json!({ "service": "notes.Notes", "method": "Unary" })),
        to("refusing", json!({ "service": "notes.Refusing" })),
        to("empty", json!({ "service": "notes.Empty" })),
        to("absent", json!({ "service": "notes.Absent" })),
        forbidden,
    ])));
    let trigate = Trigate::serving(objects).await;
    for (target, code, message) in [
        ("/notes.Refusing/Unary", Code::Unavailable, "connection failure"),
        ("/notes.Empty/Unary", Code::Unavailable, "no healthy upstream"),
        ("/notes.Notes/Unary/More", Code::Unimplemented, ""),
        ("/notes.Nobody/Unary", Code::Unimplemented, ""),
        ("/notes.Absent/Unary", Code::Unknown, ""),
        ("/notes.Forbidden/Unary", Code::PermissionDenied, "not you"),
    ] {
        let status = unary(&trigate, target, "x").await.expect_err("it fails");
        assert_eq!(status.code(), code, "{target}: {status:?}");
        assert!(status.message().contains(message), "{target}: {status:?}");
    }
    assert!(unary(&trigate, "/notes.Notes/Unary", "x").await.is_ok());
}

/// A server of notes, and the metadata of each call that it gets.
async fn telling() -> (Upstream, mpsc::UnboundedReceiver<HeaderMap>) {
    let (sender, metadata) = mpsc::unbounded();
    let upstream = Upstream::serve(move |request: Request<Incoming>| {
        // Nobody may listen any more.
        let _ = sender.unbounded_send(request.headers().clone());
        notes(request)
    })
    .await;
    (upstream, metadata)
}

fn values(metadata: &HeaderMap, name: &str) -> String {
    let values = metadata.get_all(name).iter().map(|value| value.to_str().expect("it is text"));
    values.collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn the_filters_of_a_named_grpc_rule_change_its_metadata_and_copy_its_calls() {
    let (backend, mut calls) = telling().await;
    let (mirror, mut copies) = telling().await;
    let mut objects = h2c("notes", &[backend.address]);
    objects.extend(h2c("copies", &[mirror.address]));
    let edit = |name: &str, value: &str| json!([{ "name": name, "value": value }]);
    let request = json!({
        "set": edit("X-Set", "gateway"), "add": edit("X-Token", "gateway"), "remove": ["X-Remove"],
    });
    let response = json!({ "set": edit("X-Answered", "gateway") });
    let mut rule = to("notes", json!({ "service": "notes.Notes", "method": "Unary" }));
    rule["name"] = "notes".into();
    rule["filters"] = json!([
        { "type": "RequestHeaderModifier", "requestHeaderModifier": request },
        { "type": "ResponseHeaderModifier", "responseHeaderModifier": response },
        { "type": "RequestMirror", "requestMirror": { "backendRef": { "name": "copies", "port": 80 } } },
    ]);
    let inner = json!({ "set": edit("x-backend", "notes") });
    rule["backendRefs"][0]["filters"] =
        json!([{ "type": "RequestHeaderModifier", "requestHeaderModifier": inner }]);
    objects.push(grpc_route(json!([rule])));
    let trigate = Trigate::serving(objects).await;
    let mut request = tonic::Request::new(note("hello", 1));
    for name in ["x-set", "x-token", "x-remove", "x-other"] {
        request.metadata_mut().insert(name, MetadataValue::from_static("client"));
    }
    let call = client(&trigate).await.unary(request, path("/notes.Notes/Unary"), codec()).await;
    let answer = call.expect("the call succeeds");
    assert_eq!(answer.metadata().get("x-answered").map(|value| value.as_bytes()), Some(&b"gateway"[..]));
    assert_eq!(answer.into_inner(), note("hello", 1));
    let seen = soon("the call", calls.next()).await.expect("the backend was called");
    for (name, value) in [
        ("x-set", "gateway"),
        ("x-token", "client,gateway"),
        ("x-remove", ""),
        ("x-other", "client"),
        ("x-backend", "notes"),
    ] {
        assert_eq!(values(&seen, name), value, "{name} in {seen:?}");
    }
    let copy = soon("the copy", copies.next()).await.expect("the mirror was called");
    assert_eq!(
        (values(&copy, "x-other"), values(&copy, "content-type")),
        ("client".into(), "application/grpc".into())
    );
}

#[tokio::test]
async fn every_status_of_http_has_the_grpc_status_that_envoy_gives_it() {
    let statuses = [
        (400, Code::Internal),
        (401, Code::Unauthenticated),
        (403, Code::PermissionDenied),
        (404, Code::Unimplemented),
        (418, Code::Unknown),
        (429, Code::ResourceExhausted),
        (500, Code::Unknown),
        (502, Code::Unavailable),
        (503, Code::Unavailable),
        (504, Code::Unavailable),
    ];
    let mut objects = Vec::new();
    let mut rules = Vec::new();
    for (status, _) in statuses {
        let name = format!("status-{status}");
        let reference = json!({ "group": "gateway.envoyproxy.io", "kind": "HTTPRouteFilter", "name": name });
        rules.push(json!({
            "matches": [{ "headers": [{ "name": "x-status", "value": status.to_string() }] }],
            "filters": [{ "type": "ExtensionRef", "extensionRef": reference }],
        }));
        objects.push(json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "HTTPRouteFilter",
            "metadata": { "name": name, "namespace": "apps" },
            "spec": { "directResponse": { "statusCode": status, "body": { "inline": name } } },
        }));
    }
    objects.push(grpc_route(rules.into()));
    let trigate = Trigate::serving(objects).await;
    let mut client = client(&trigate).await;
    for (status, code) in statuses {
        let mut request = tonic::Request::new(note("x", 1));
        let value = status.to_string().parse().expect("a number is metadata");
        request.metadata_mut().insert("x-status", value);
        client.ready().await.expect("the gateway answers");
        let answer = soon("an answer", client.unary(request, path("/notes.Notes/Unary"), codec())).await;
        let answer = answer.expect_err("it is refused");
        assert_eq!(
            (answer.code(), answer.message()),
            (code, format!("status-{status}").as_str()),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_call_that_takes_longer_than_its_rule_allows_exceeds_its_deadline() {
    let upstream = Upstream::serve(notes).await;
    let mut objects = h2c("notes", &[upstream.address]);
    let rule = json!({
        "timeouts": { "request": "300ms" },
        "backendRefs": [{ "name": "notes", "port": 80 }],
    });
    objects.push(route("notes").on("external").host(HOST).rule(rule).object());
    let trigate = Trigate::serving(objects).await;
    let status = unary(&trigate, "/notes.Notes/Unary", "slow").await.expect_err("it takes too long");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let answer = unary(&trigate, "/notes.Notes/Unary", "quick").await;
    assert_eq!(answer.expect("it is in time").into_inner(), note("quick", 1));
}

/// Tells when it is dropped.
struct Told(mpsc::UnboundedSender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        // The test may be over already.
        let _ = self.0.unbounded_send(());
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_stream_at_the_upstream() {
    let (sender, mut told) = mpsc::unbounded();
    let upstream = Upstream::serve(move |_| {
        let told = Told(sender.clone());
        async move {
            let silence = stream::pending().inspect(move |_| {
                let _ = &told;
            });
            let body = StreamBody::new(silence).boxed_unsync();
            Response::builder().header("content-type", "application/grpc").body(body).expect("valid headers")
        }
    })
    .await;
    let mut objects = h2c("notes", &[upstream.address]);
    objects.push(grpc_route(json!([to("notes", json!({ "service": "notes.Notes" }))])));
    let trigate = Trigate::serving(objects).await;
    let mut client = client(&trigate).await;
    let request = tonic::Request::new(note("n", 1));
    let answer = client.server_streaming(request, path("/notes.Notes/ServerStream"), codec());
    let notes = soon("the head", answer).await.expect("the stream begins");
    drop((notes, client));
    soon("the end of the upstream's stream", told.next()).await.expect("it is told once");
}
