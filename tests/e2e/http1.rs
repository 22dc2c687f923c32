//! HTTP/1.1 and HTTP/1.0 clients: connections that stay, bodies that end where they should.

use crate::harness::client::{Ask, Client};
use crate::harness::raw::Raw;
use crate::harness::soon;
use crate::harness::upstream::{Upstream, data, response, streamed};
use crate::{HOST, in_front_of};
use http::Response;
use std::time::Duration;

const WORKERS: usize = 2;

#[tokio::test]
async fn a_connection_serves_many_requests_and_so_does_the_one_to_the_upstream() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let mut client = Client::http1(trigate.external.http).await;
    for number in 0..50 {
        let seen = client.send(Ask::post(HOST, &format!("/{number}"), format!("body {number}"))).await.seen();
        assert_eq!((seen.target, seen.body), (format!("/{number}"), format!("body {number}")));
    }
    assert!(upstream.accepted() <= WORKERS, "{} connections to the upstream", upstream.accepted());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    let request = |n: usize| {
        format!(
            "POST /{n} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{n}\r\n0\r\n\r\n"
        )
    };
    connection.send((0..8).map(request).collect::<String>()).await;
    for number in 0..8 {
        let answer = soon("an answer", connection.response()).await.expect("an answer for each request");
        assert!(answer.text().contains(&format!(r#""target":"/{number}""#)), "{number}: {answer:?}");
        assert!(answer.text().contains(&format!(r#""body":"{number}""#)), "{number}: {answer:?}");
    }
}

#[tokio::test]
async fn connection_close_is_said_and_done() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")).await;
    let answer = connection.response().await.expect("an answer");
    assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
    assert!(connection.closed_within(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_chunks_and_an_end() {
    let upstream = Upstream::serve(|_| async {
        let (mut sender, body) = streamed();
        tokio::spawn(async move {
            for piece in ["one ", "two ", "three"] {
                futures::SinkExt::send(&mut sender, data(piece)).await.expect("the gateway reads");
            }
        });
        Response::new(body)
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).await;
    let answer = soon("an answer", connection.response()).await.expect("an answer");
    assert_eq!(answer.header("transfer-encoding"), None, "{answer:?}");
    assert_eq!(answer.text(), "one two three");
    assert!(connection.closed_within(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    let upstream = Upstream::recording(|request| {
        let body = if request.start.starts_with("HEAD") { "" } else { "hello" };
        format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}").into_bytes()
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    for _ in 0..3 {
        connection.send(format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let head = soon("a head", connection.response_head()).await.expect("an answer");
        assert_eq!((head.status(), head.header("content-length")), (200, Some("5")));
        connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        assert_eq!(soon("an answer", connection.response()).await.expect("an answer").text(), "hello");
    }
    assert!(upstream.accepted() <= WORKERS, "the upstream's connection was kept");
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_in_step() {
    let upstream = Upstream::recording(|request| match request.start.split(' ').nth(1) {
        Some("/204") => b"HTTP/1.1 204 No Content\r\nX-Kind: none\r\n\r\n".to_vec(),
        Some("/304") => b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 99\r\n\r\n".to_vec(),
        Some("/empty") => response(200, ""),
        _ => response(200, "body"),
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    for (path, status, body) in
        [("/204", 204, ""), ("/x", 200, "body"), ("/304", 304, ""), ("/empty", 200, ""), ("/y", 200, "body")]
    {
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let answer = soon("an answer", connection.response()).await.expect("an answer");
        assert_eq!((answer.status(), answer.text().as_str()), (status, body), "{path}");
        assert!(status != 204 || answer.header("content-length").is_none(), "RFC 9110 8.6: {answer:?}");
        assert_eq!(answer.header("transfer-encoding"), None, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_upstreams_connection_ends_for_the_client_too() {
    let upstream = Upstream::raw(|mut connection| async move {
        connection.request().await;
        connection.send("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let answer = trigate.external.get(HOST, "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "until the end"));
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_not_passed_on_as_a_whole_one() {
    for framing in ["Content-Length: 100\r\n\r\npart", "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"] {
        let upstream = Upstream::raw(move |mut connection| async move {
            connection.request().await;
            connection.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        })
        .await;
        let trigate = in_front_of(&upstream).await;
        let cut = Client::http1(trigate.external.http).await.try_send(Ask::get(HOST, "/")).await;
        assert!(cut.is_err(), "{framing:?} over HTTP/1.1: {cut:?}");
        let cut = Client::http2(trigate.external.http).await.try_send(Ask::get(HOST, "/")).await;
        assert!(cut.is_err(), "{framing:?} over HTTP/2: {cut:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_answers_before_the_body_has_come_is_heard() {
    let upstream = Upstream::raw(|mut connection| async move {
        connection.request_head().await;
        connection.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig").await;
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\nbegin")).await;
    let answer = soon("an early answer", connection.response()).await.expect("an answer");
    assert_eq!((answer.status(), answer.text().as_str()), (413, "big"));
}
