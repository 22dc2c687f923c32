//! What an HTTP/1 upstream gets byte for byte: the end of a body is written once, however the client ended it.
//!
//! A last chunk written twice stays in the kept connection and breaks the next request, another client's.

use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::harness::upstream::{Upstream, response};
use crate::{HOST, in_front_of};
use bytes::Bytes;
use h2::SendStream;
use h2::client::SendRequest;
use std::time::Duration;
use tokio::net::TcpStream;

/// One step of an HTTP/2 client that sends a body.
#[derive(Debug, Clone, Copy)]
enum Step {
    Data(&'static str),
    /// Data with the flag that ends the stream.
    End(&'static str),
    Pause,
}
use Step::{Data, End, Pause};

/// All ways to end a request: the name, the declared length, the steps, and the body that must arrive.
const ENDINGS: &[(&str, Option<usize>, &[Step], &str)] = &[
    ("an empty end", None, &[End("")], ""),
    ("a late empty end", None, &[Pause, End("")], ""),
    ("data, then an empty end", None, &[Data("hello"), End("")], "hello"),
    ("data, then a late empty end", None, &[Data("hello"), Pause, End("")], "hello"),
    ("late data, then a late empty end", None, &[Pause, Data("hello"), Pause, End("")], "hello"),
    ("empty data, then data with the end", None, &[Data(""), End("hello")], "hello"),
    ("empty data, then data, then an empty end", None, &[Data(""), Data("hello"), End("")], "hello"),
    ("only empty data", None, &[Data(""), Pause, Data(""), End("")], ""),
    ("data with the end", None, &[End("hello")], "hello"),
    ("late data with the end", None, &[Pause, End("hello")], "hello"),
    ("length 0 and an empty end", Some(0), &[End("")], ""),
    ("length 0 and a late empty end", Some(0), &[Pause, End("")], ""),
    ("length 5, data, then an empty end", Some(5), &[Data("hello"), End("")], "hello"),
    ("length 5, data, then a late empty end", Some(5), &[Data("hello"), Pause, End("")], "hello"),
    ("length 5, data with the end", Some(5), &[End("hello")], "hello"),
];

async fn send(
    sender: SendRequest<Bytes>,
    method: &str,
    length: Option<usize>,
    steps: &[Step],
) -> http::Response<h2::RecvStream> {
    let mut request = http::Request::builder().method(method).uri(format!("http://{HOST}/"));
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    let mut sender = sender.ready().await.expect("the connection is open");
    let request = request.body(()).expect("a request");
    let (answer, mut body) = sender.send_request(request, false).expect("the connection is open");
    for step in steps {
        match step {
            Pause => tokio::time::sleep(Duration::from_millis(30)).await,
            Data(text) => send_data(&mut body, text, false),
            End(text) => send_data(&mut body, text, true),
        }
    }
    answer.await.expect("an answer")
}

/// A stream whose request had its whole length may be answered, and so over, before its end is sent.
fn send_data(body: &mut SendStream<Bytes>, text: &'static str, end: bool) {
    let sent = body.send_data(Bytes::from_static(text.as_bytes()), end);
    assert!(sent.is_ok() || end && text.is_empty(), "{text:?}: {sent:?}");
}

#[tokio::test]
async fn the_end_of_a_body_is_written_once_however_an_http2_client_ends_it() {
    for (name, length, steps, want) in ENDINGS {
        for method in ["GET", "POST"] {
            let upstream = Upstream::recording(|request| response(200, &request.text())).await;
            let trigate = in_front_of(&upstream).await;
            let stream = TcpStream::connect(trigate.external.http).await.expect("somebody listens");
            let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2 is spoken");
            tokio::spawn(connection);
            for _ in 0..3 {
                let answer = send(sender.clone(), method, *length, steps).await;
                assert_eq!(answer.status(), 200, "{method}, {name}");
                let mut body = answer.into_body();
                let mut text = Vec::new();
                while let Some(data) = body.data().await {
                    text.extend(data.expect("the stream is whole"));
                }
                assert_eq!(text, want.as_bytes(), "{method}, {name}");
            }
            // Another client's request on the kept connection: a stray chunk would come before it.
            let next = trigate.external.get(HOST, "/next").await;
            assert_eq!(next.status, 200, "{method}, {name}");
            assert_framed(&upstream, &format!("{method}, {name}"));
        }
    }
}

/// Each connection holds whole requests and nothing between or after them.
fn assert_framed(upstream: &Upstream, case: &str) {
    for record in upstream.records() {
        let mut rest = &record[..];
        while !rest.is_empty() {
            let shown = String::from_utf8_lossy(rest);
            assert!(
                rest.starts_with(b"GET /") || rest.starts_with(b"POST /"),
                "{case}: a request must begin here: {shown:?}"
            );
            let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
            let head = String::from_utf8_lossy(&rest[..end]).to_lowercase();
            rest = &rest[end..];
            if head.contains("transfer-encoding: chunked") {
                // No chunk of these tests has an empty line in it: the first one ends the body, or its trailers.
                let last = rest.windows(4).position(|four| four == b"\r\n\r\n");
                rest = &rest[last.expect("a whole body") + 4..];
            } else if let Some(length) = head.split("content-length: ").nth(1) {
                let length: usize =
                    length.split("\r\n").next().and_then(|l| l.parse().ok()).expect("a length");
                rest = &rest[length..];
            }
        }
    }
}

#[tokio::test]
async fn the_end_of_a_body_is_written_once_for_http1_clients_too() {
    let upstream = Upstream::recording(|request| response(200, &request.text())).await;
    let trigate = in_front_of(&upstream).await;
    let mut client = Client::http1(trigate.external.http).await;
    for body in ["", "hello"] {
        for ask in [Ask::get(HOST, "/"), Ask::post(HOST, "/", body)] {
            assert_eq!(client.send(ask).await.status, 200);
        }
    }
    let mut raw = crate::harness::raw::Raw::connect(trigate.external.http).await;
    for body in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "0\r\nX-Trailer: x\r\n\r\n",
    ] {
        raw.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
            .await;
        assert_eq!(raw.response().await.expect("an answer").status(), 200, "{body:?}");
    }
    assert_framed(&upstream, "HTTP/1.1");
    let records = upstream.records().concat();
    assert!(records.windows(19).any(|text| text == b"0\r\nx-trailer: x\r\n\r\n"), "the trailers go on");
}

#[tokio::test]
async fn two_thousand_empty_ends_break_no_other_clients_request() {
    let upstream = Upstream::recording(|_| response(200, "ok")).await;
    let trigate = in_front_of(&upstream).await;
    let (address, statuses) = (trigate.external.http, std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let others = (0..4).map(|_| {
        let statuses = std::sync::Arc::clone(&statuses);
        tokio::spawn(async move {
            let mut client = Client::http1(address).await;
            for _ in 0..150 {
                let status = client.send(Ask::get(HOST, "/other")).await.status;
                statuses.lock().expect("nobody panics with it").push(status);
            }
        })
    });
    let others: Vec<_> = others.collect();
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    for _ in 0..100 {
        let batch = (0..20).map(|_| send(sender.clone(), "GET", None, &[End("")]));
        for answer in futures::future::join_all(batch).await {
            assert_eq!(answer.status(), 200);
        }
    }
    for other in others {
        other.await.expect("its requests are answered");
    }
    let count = |status: u16| {
        statuses.lock().expect("nobody panics with it").iter().filter(|s| **s == status).count()
    };
    eventually("all answers", || async { (count(200) == 600).then_some(()) }).await;
}
