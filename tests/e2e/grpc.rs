//! gRPC as it is on the wire: HTTP/2 on both sides, statuses in trailers, streams in both directions.

use crate::harness::client::{Ask, Client};
use crate::harness::manifest::{path_prefix, route, service_speaking};
use crate::harness::soon;
use crate::harness::trigate::Trigate;
use crate::harness::upstream::{Body, Upstream, data, full, streamed};
use crate::{HOST, in_front_of_http2};
use bytes::Bytes;
use futures::SinkExt;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use serde_json::json;

/// A message in gRPC's framing: not compressed, four bytes of length, the message.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.into()
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().expect("a value"));
    trailers.insert("grpc-message", "from the upstream".parse().expect("a value"));
    trailers
}

fn call(path: &str, body: Body) -> Ask {
    Ask::new("POST", HOST, path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
}

/// Sends each message back as it comes, then a status; `/empty` has a status alone.
async fn grpc_echo() -> Upstream {
    Upstream::serve(|request: Request<Incoming>| async move {
        assert_eq!(request.headers()["te"], "trailers", "gRPC needs it to reach the upstream");
        let answer = Response::builder().header("content-type", "application/grpc");
        if request.uri().path() == "/echo.Echo/Empty" {
            return answer.header("grpc-status", "5").body(full("")).expect("valid headers");
        }
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            let mut requests = request.into_body();
            while let Some(Ok(frame)) = requests.frame().await {
                if let Ok(bytes) = frame.into_data()
                    && sender.send(data(bytes)).await.is_err()
                {
                    return;
                }
            }
            // A client that is gone does not get its status.
            let _ = sender.send(Ok(Frame::trailers(status("0")))).await;
        });
        answer.body(body).expect("valid headers")
    })
    .await
}

async fn clients(trigate: &Trigate) -> [Client; 2] {
    [Client::http2(trigate.external.http).await, Client::https2(trigate, trigate.external, HOST).await]
}

#[tokio::test]
async fn a_unary_call_gets_its_message_and_its_status_in_trailers() {
    let upstream = grpc_echo().await;
    let trigate = in_front_of_http2(&upstream).await;
    for mut client in clients(&trigate).await {
        let answer = client.send(call("/echo.Echo/Unary", full(message("hello")))).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/grpc")));
        assert_eq!(answer.body, message("hello"));
        assert_eq!(answer.trailers["grpc-status"], "0");
        assert_eq!(answer.trailers["grpc-message"], "from the upstream");
    }
}

#[tokio::test]
async fn an_answer_of_a_status_alone_is_passed_on() {
    let upstream = grpc_echo().await;
    let trigate = in_front_of_http2(&upstream).await;
    for mut client in clients(&trigate).await {
        let answer = client.send(call("/echo.Echo/Empty", full(message("")))).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("5")));
        assert!(answer.body.is_empty());
    }
}

#[tokio::test]
async fn a_stream_in_both_directions_is_a_conversation() {
    let upstream = grpc_echo().await;
    let trigate = in_front_of_http2(&upstream).await;
    for mut client in clients(&trigate).await {
        let (mut sender, body) = streamed();
        let mut answer = client.begin(call("/echo.Echo/Chat", body)).await.into_body();
        for text in ["one", "two", "three"] {
            sender.send(data(message(text))).await.expect("the gateway reads");
            let frame = soon("an echo", answer.frame()).await.expect("an echo").expect("the stream is whole");
            assert_eq!(frame.into_data().expect("a message"), message(text));
        }
        drop(sender);
        let frame = soon("trailers", answer.frame()).await.expect("trailers").expect("the stream is whole");
        assert_eq!(frame.into_trailers().expect("trailers")["grpc-status"], "0");
    }
}

#[tokio::test]
async fn the_gateways_own_answers_to_grpc_are_statuses() {
    let upstream = grpc_echo().await;
    let mut objects = service_speaking("app", &[upstream.address], Some("kubernetes.io/h2c"));
    objects.extend(service_speaking("nobody", &[], Some("kubernetes.io/h2c")));
    let route = route("app")
        .on("external")
        .host(HOST)
        .prefix_to("/echo.Echo", "app")
        .prefix_to("/nobody.Home", "nobody")
        .rule(json!({ "matches": [path_prefix("/no.Backend")] }));
    objects.push(route.object());
    let trigate = Trigate::serving(objects).await;
    for mut client in clients(&trigate).await {
        // UNIMPLEMENTED for what no rule serves, UNAVAILABLE for a backend without endpoints.
        for (path, code) in [("/other.Service/Call", "12"), ("/nobody.Home/Call", "14")] {
            let answer = client.send(call(path, full(message("hello")))).await;
            assert_eq!(
                (answer.status, answer.header("grpc-status")),
                (200, Some(code)),
                "{path}: {answer:?}"
            );
            assert_eq!(answer.header("content-type"), Some("application/grpc"), "{path}");
        }
    }
}
