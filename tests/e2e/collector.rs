//! Log records and spans reach a collector: messages of the official crate, gRPC of tonic, HTTP of hyper.

use super::HOST;
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::harness::manifest::{route, service};
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::{Body, Seen, Upstream, full};
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::sync::{Arc, Mutex};
use tonic::server::UnaryService;
use tonic_prost::ProstCodec;

/// What a collector was told.
#[derive(Debug, Clone, Default)]
struct Told {
    logs: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

impl UnaryService<ExportLogsServiceRequest> for Told {
    type Response = ExportLogsServiceResponse;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::Response>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<ExportLogsServiceRequest>) -> Self::Future {
        self.logs.lock().expect("nobody panics with it").push(request.into_inner());
        std::future::ready(Ok(tonic::Response::new(ExportLogsServiceResponse::default()))).boxed()
    }
}

impl UnaryService<ExportTraceServiceRequest> for Told {
    type Response = ExportTraceServiceResponse;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::Response>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<ExportTraceServiceRequest>) -> Self::Future {
        self.traces.lock().expect("nobody panics with it").push(request.into_inner());
        std::future::ready(Ok(tonic::Response::new(ExportTraceServiceResponse::default()))).boxed()
    }
}

impl Told {
    /// A collector on a socket of its own, for both protocols.
    async fn collector() -> (Self, Upstream) {
        let told = Self::default();
        let serving = told.clone();
        let upstream = Upstream::serve(move |request| serving.clone().answer(request)).await;
        (told, upstream)
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        self.tokens.lock().expect("nobody panics with it").extend(token.map(str::to_owned));
        let path = request.uri().path().to_owned();
        let response = match path.as_str() {
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => {
                let codec = ProstCodec::<ExportLogsServiceResponse, ExportLogsServiceRequest>::default();
                tonic::server::Grpc::new(codec).unary(self, request).await
            }
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
                let codec = ProstCodec::<ExportTraceServiceResponse, ExportTraceServiceRequest>::default();
                tonic::server::Grpc::new(codec).unary(self, request).await
            }
            path => return self.over_http(path, request).await,
        };
        let (head, body) = response.into_parts();
        Response::from_parts(
            head,
            body.map_err(|status| panic!("statuses travel in trailers: {status}")).boxed_unsync(),
        )
    }

    async fn over_http(self, path: &str, request: Request<Incoming>) -> Response<Body> {
        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
        let message = request.into_body().collect().await.expect("a body").to_bytes();
        match path {
            "/base/v1/logs" => {
                let logs = ExportLogsServiceRequest::decode(message).expect("logs");
                self.logs.lock().expect("nobody panics with it").push(logs);
            }
            "/base/v1/traces" => {
                let traces = ExportTraceServiceRequest::decode(message).expect("spans");
                self.traces.lock().expect("nobody panics with it").push(traces);
            }
            path => panic!("{path} is none of OTLP's"),
        }
        Response::new(full(""))
    }

    async fn spans(&self, count: usize) -> Vec<Span> {
        let spans = || {
            let told = self.traces.lock().expect("nobody panics with it").clone();
            let scopes = told.into_iter().flat_map(|one| one.resource_spans).flat_map(|one| one.scope_spans);
            let spans: Vec<Span> = scopes.flat_map(|scope| scope.spans).collect();
            async move { (spans.len() >= count).then_some(spans) }
        };
        eventually("spans", spans).await.0
    }

    async fn records(&self, count: usize) -> Vec<LogRecord> {
        let records = || {
            let told = self.logs.lock().expect("nobody panics with it").clone();
            let scopes = told.into_iter().flat_map(|one| one.resource_logs).flat_map(|one| one.scope_logs);
            let records: Vec<LogRecord> = scopes.flat_map(|scope| scope.log_records).collect();
            async move { (records.len() >= count).then_some(records) }
        };
        eventually("log records", records).await.0
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|one| one.key == key).and_then(|one| one.value.clone()?.value);
    match found {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// A gateway that tells this collector, in front of an echo.
async fn telling(collector: &Upstream, table: &str, http: bool) -> (Trigate, Upstream) {
    let upstream = Upstream::echo("app").await;
    let endpoint = format!("http://{}{}", collector.address, if http { "/base" } else { "" });
    let builder = Builder::new()
        .set(&format!("{table}.otlp.endpoint"), endpoint)
        .set(&format!("{table}.otlp.protocol"), if http { "http" } else { "grpc" })
        .set(&format!("{table}.otlp.headers.authorization"), "Bearer token")
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").host(HOST).to("app").object());
    let builder = match table {
        "access_log" => builder.set("access_log.enabled", true).set("access_log.path", ""),
        _ => builder
            .set("tracing.tags.tenant", "%REQ(x-tenant)%")
            .set("tracing.tags.answer", "%RESPONSE_CODE% \"%RESP(server)%\"")
            .set("tracing.tags.missing", "%REQ(x-missing)%")
            .set("tracing.sampling", 0),
    };
    (builder.start().await, upstream)
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn hexadecimal(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn lines_of_the_log_reach_a_collector_over_both_protocols() {
    for http in [false, true] {
        let (told, collector) = Told::collector().await;
        let (trigate, _upstream) = telling(&collector, "access_log", http).await;
        assert_eq!(trigate.external.get(HOST, "/a").await.status, 200);
        let records = told.records(1).await;
        assert_eq!(attribute(&records[0].attributes, "response_code"), "200");
        assert_eq!(attribute(&records[0].attributes, "x-envoy-origin-path"), "/a");
        assert_eq!(attribute(&records[0].attributes, "requested_server_name"), "-");
        assert!(records[0].time_unix_nano > 0);
        assert!(records[0].observed_time_unix_nano >= records[0].time_unix_nano);
        let resource = told.logs.lock().expect("nobody panics with it")[0].resource_logs[0].resource.clone();
        assert_eq!(attribute(&resource.expect("a resource").attributes, "service.name"), "trigate");
        assert_eq!(told.tokens.lock().expect("nobody panics with it")[0], "Bearer token");
        assert_eq!(trigate.metric("trigate_access_log_dropped_total", &[]).await, 0.0, "http: {http}");
    }
}

#[tokio::test]
async fn a_trace_goes_on_through_the_gateway_with_envoys_tags() {
    for http in [false, true] {
        let (told, collector) = Told::collector().await;
        let (trigate, _upstream) = telling(&collector, "tracing", http).await;
        let ask = Ask::get(HOST, "/a?b=c")
            .header("traceparent", &format!("00-{TRACE}-{PARENT}-01"))
            .header("tracestate", "vendor=1")
            .header("x-tenant", "home")
            .header("user-agent", "probe");
        let seen: Seen = Client::http1(trigate.external.http).await.send(ask).await.seen();
        let spans = told.spans(2).await;
        let own = spans.iter().find(|span| span.kind == 2).expect("a server's span");
        let upstream = spans.iter().find(|span| span.kind == 3).expect("a client's span");
        assert_eq!(hexadecimal(&own.trace_id), TRACE);
        assert_eq!(hexadecimal(&own.parent_span_id), PARENT);
        assert_eq!((&upstream.trace_id, &upstream.parent_span_id), (&own.trace_id, &own.span_id));
        let told_backend = format!("00-{TRACE}-{}-01", hexadecimal(&upstream.span_id));
        assert_eq!(seen.header("traceparent"), Some(told_backend.as_str()));
        assert_eq!(seen.header("tracestate"), Some("vendor=1"));
        assert_eq!(upstream.name, "router httproute/apps/app/rule/0 egress");
        for (tag, want) in [
            ("component", "proxy"),
            ("http.method", "GET"),
            ("http.url", &*format!("http://{HOST}/a?b=c")),
            ("http.status_code", "200"),
            ("http.protocol", "HTTP/1.1"),
            ("response_flags", "-"),
            ("upstream_cluster", "httproute/apps/app/rule/0"),
            ("user_agent", "probe"),
            ("request_size", "0"),
            ("tenant", "home"),
            ("answer", "200 \"echo\""),
            ("missing", "None"),
            ("peer.address", "127.0.0.1"),
        ] {
            assert_eq!(attribute(&own.attributes, tag), want, "{tag}");
        }
        assert_eq!(seen.header("x-request-id"), Some(&*attribute(&own.attributes, "guid:x-request-id")));
        assert!(own.end_time_unix_nano >= own.start_time_unix_nano && own.status.is_none());
    }
}

#[tokio::test]
async fn only_what_is_sampled_is_told_and_headers_can_ask_for_it() {
    let (told, collector) = Told::collector().await;
    let (trigate, _upstream) = telling(&collector, "tracing", false).await;
    let mut client = Client::http1(trigate.external.http).await;
    // The share is zero, and a stranger cannot force it.
    let unsampled = client.send(Ask::get(HOST, "/no").header("x-envoy-force-trace", "1")).await.seen();
    let parent = unsampled.header("traceparent").expect("the backend is told").to_owned();
    assert!(parent.ends_with("-00"), "{parent}");
    let refused = Ask::get(HOST, "/no").header("traceparent", &format!("00-{TRACE}-{PARENT}-00"));
    assert_eq!(client.send(refused).await.status, 200);
    assert_eq!(client.send(Ask::get(HOST, "/yes").header("x-client-trace-id", "id-1")).await.status, 200);
    let b3 = client.send(Ask::get("nobody.test", "/b3").header("b3", &format!("{TRACE}-{PARENT}-1"))).await;
    assert_eq!(b3.status, 404);
    let spans = told.spans(3).await;
    assert_eq!(spans.len(), 3, "two of one exchange, one of the other");
    let missing = spans.iter().find(|span| hexadecimal(&span.trace_id) == TRACE).expect("the last one");
    assert_eq!(attribute(&missing.attributes, "response_flags"), "NR");
    let asked =
        spans.iter().find(|span| hexadecimal(&span.trace_id) != TRACE && span.kind == 2).expect("the other");
    assert_eq!(attribute(&asked.attributes, "guid:x-client-trace-id"), "id-1");
}
