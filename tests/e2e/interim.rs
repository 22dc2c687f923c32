//! Interim responses: 103 Early Hints on their way to clients, 100 Continue before a body.

use crate::harness::raw::Raw;
use crate::harness::soon;
use crate::harness::upstream::{Upstream, response};
use crate::{HOST, in_front_of};
use std::future::poll_fn;
use std::time::Duration;
use tokio::net::TcpStream;

async fn hinting() -> Upstream {
    Upstream::raw(|mut connection| async move {
        while connection.request().await.is_some() {
            connection.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            connection.send(response(200, "page")).await;
        }
    })
    .await
}

#[tokio::test]
async fn early_hints_reach_an_http1_client_before_the_answer() {
    let upstream = hinting().await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    for _ in 0..2 {
        connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let hints = soon("hints", connection.response()).await.expect("hints");
        assert_eq!((hints.status(), hints.header("link")), (103, Some("</style.css>; rel=preload")));
        let answer = soon("an answer", connection.response()).await.expect("an answer");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "page"));
    }
}

#[tokio::test]
async fn early_hints_do_not_reach_an_http_1_0_client() {
    let upstream = hinting().await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).await;
    let answer = soon("an answer", connection.response()).await.expect("an answer");
    // RFC 9110 15.2
    assert_eq!((answer.status(), answer.text().as_str()), (200, "page"));
}

#[tokio::test]
async fn early_hints_reach_an_http2_client_before_the_answer() {
    let upstream = hinting().await;
    let trigate = in_front_of(&upstream).await;
    let stream = TcpStream::connect(trigate.external.http).await.expect("somebody listens");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    for _ in 0..2 {
        sender = sender.ready().await.expect("the connection is open");
        let request = http::Request::get(format!("http://{HOST}/")).body(()).expect("a request");
        let (mut answer, _) = sender.send_request(request, true).expect("the connection is open");
        let hints = soon("hints", poll_fn(|cx| answer.poll_informational(cx))).await;
        let hints = hints.expect("hints come first").expect("the stream is open");
        assert_eq!(
            (hints.status().as_u16(), &hints.headers()["link"]),
            (103, &"</style.css>; rel=preload".parse().expect("a value"))
        );
        let answer = soon("an answer", answer).await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_and_its_body_arrives() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    for body in ["hello", "again"] {
        connection
            .send(format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            ))
            .await;
        let go_on = soon("100", connection.response()).await.expect("an interim answer");
        assert_eq!(go_on.status(), 100);
        connection.send(body).await;
        let answer = soon("an answer", connection.response()).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(answer.text().contains(&format!(r#""body":"{body}""#)), "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_wait_after_all_is_served_too() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"
        ))
        .await;
    let mut answer = soon("an answer", connection.response()).await.expect("an answer");
    if answer.status() == 100 {
        answer = soon("an answer", connection.response()).await.expect("an answer");
    }
    assert!(answer.text().contains(r#""body":"hello""#), "{answer:?}");
}

#[tokio::test]
async fn a_refusal_instead_of_100_reaches_the_client_without_its_body() {
    let upstream = Upstream::raw(|mut connection| async move {
        if let Some(head) = connection.request_head().await {
            assert_eq!(
                head.header("expect"),
                Some("100-continue"),
                "the upstream is asked whether it wants it"
            );
            connection.send(response(417, "not from you")).await;
        }
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection
        .send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"))
        .await;
    let answer = soon("an answer", connection.response()).await.expect("an answer");
    assert_eq!((answer.status(), answer.text().as_str()), (417, "not from you"));
}
