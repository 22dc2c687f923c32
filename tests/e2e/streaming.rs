//! Bodies flow as they come, in both directions, and a slow reader holds back whoever writes.

use crate::harness::client::{Ask, Client};
use crate::harness::soon;
use crate::harness::trigate::Trigate;
use crate::harness::upstream::{Body, Upstream, data, full, streamed};
use crate::{HOST, in_front_of, in_front_of_http2};
use futures::SinkExt;
use http::Response;
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

const MIB: u64 = 1024 * 1024;
/// What windows, socket buffers (of which Linux allows 4 + 6 MiB on each of two hops) and our own hold at most.
const IN_FLIGHT: u64 = 40 * MIB;
const PIECE: usize = 64 * 1024;

/// A body of so many bytes that counts what of it was taken.
fn counted_body(bytes: u64, taken: Arc<AtomicU64>) -> Body {
    let (mut sender, body) = streamed();
    tokio::spawn(async move {
        while taken.load(Relaxed) < bytes {
            if sender.send(data(vec![b'x'; PIECE])).await.is_err() {
                break;
            }
            taken.fetch_add(PIECE as u64, Relaxed);
        }
    });
    body
}

async fn clients(trigate: &Trigate) -> [(&'static str, Client); 4] {
    [
        ("HTTP/1.1", Client::http1(trigate.external.http).await),
        ("HTTP/1.1 over TLS", Client::https1(trigate, trigate.external, HOST).await),
        ("HTTP/2", Client::http2(trigate.external.http).await),
        ("HTTP/2 over TLS", Client::https2(trigate, trigate.external, HOST).await),
    ]
}

#[tokio::test]
async fn each_piece_of_an_answer_arrives_before_the_next_is_sent() {
    // The next event is sent when the client has had the one before.
    let next = Arc::new(Notify::new());
    let told = Arc::clone(&next);
    let upstream = Upstream::serve(move |_| {
        let told = Arc::clone(&told);
        async move {
            let (mut sender, body) = streamed();
            tokio::spawn(async move {
                for event in 0..3 {
                    sender.send(data(format!("data: {event}\n\n"))).await.expect("the gateway reads");
                    told.notified().await;
                }
            });
            Response::builder().header("content-type", "text/event-stream").body(body).expect("valid headers")
        }
    })
    .await;
    for trigate in [in_front_of(&upstream).await, in_front_of_http2(&upstream).await] {
        for (name, mut client) in clients(&trigate).await {
            let mut body = client.begin(Ask::get(HOST, "/")).await.into_body();
            for event in 0..3 {
                let frame =
                    soon("an event", body.frame()).await.expect("an event").expect("the body is whole");
                assert_eq!(frame.into_data().expect("data"), format!("data: {event}\n\n"), "{name}");
                next.notify_one();
            }
            let rest = soon("the end", body.collect()).await.expect("the body is whole").to_bytes();
            assert!(rest.is_empty(), "{name}: {rest:?}");
        }
    }
}

#[tokio::test]
async fn each_piece_of_a_request_arrives_before_the_next_is_sent() {
    // Echoes each piece at once, so that the client can wait for it before it sends the next.
    let upstream = Upstream::serve(|request| async {
        let whole = |error| -> Infallible { panic!("the request was cut off: {error}") };
        Response::new(request.into_body().map_err(whole).boxed_unsync())
    })
    .await;
    let trigate = in_front_of_http2(&upstream).await;
    let mut client = Client::http2(trigate.external.http).await;
    let (mut sender, body) = streamed();
    let mut answer = client.begin(Ask::new("POST", HOST, "/").body(body)).await.into_body();
    for piece in ["one", "two", "three"] {
        sender.send(data(piece)).await.expect("the gateway reads");
        let frame = soon("an echo", answer.frame()).await.expect("an echo").expect("the body is whole");
        assert_eq!(frame.into_data().expect("data"), piece);
    }
    drop(sender);
    let rest = soon("the end", answer.collect()).await.expect("the body is whole").to_bytes();
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_the_upstream_back_and_costs_no_memory() {
    let total = 96 * MIB;
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    let upstream = Upstream::serve(move |_| {
        let body = counted_body(total, Arc::clone(&counter));
        async move { Response::new(body) }
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    for (name, mut client) in clients(&trigate).await {
        let before = trigate.resident_bytes();
        taken.store(0, Relaxed);
        let mut body = client.begin(Ask::get(HOST, "/")).await.into_body();
        let stuck = until_it_stands_still(&taken).await;
        println!("{name}: {stuck} bytes on the way");
        assert!(stuck < IN_FLIGHT, "{name}: {stuck} bytes were taken from the upstream and read by nobody");
        let grown = trigate.resident_bytes().saturating_sub(before);
        assert!(grown < 24 * MIB, "{name}: {grown} bytes more memory");
        let mut received = 0;
        while let Some(frame) = soon("more of the body", body.frame()).await {
            received += frame.expect("the body is whole").into_data().expect("data").len() as u64;
        }
        assert_eq!(received, taken.load(Relaxed), "{name}: nothing was lost");
        let grown = trigate.resident_bytes().saturating_sub(before);
        assert!(grown < 24 * MIB, "{name}: {grown} bytes more memory after {total} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_does_not_read_holds_the_client_back_and_costs_no_memory() {
    let total = 96 * MIB;
    // Reads the head, then nothing until it is told to.
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let upstream = Upstream::serve(move |request| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            let mut body = request.into_body();
            let mut received = 0;
            while let Some(Ok(frame)) = body.frame().await {
                received += frame.into_data().map_or(0, |data| data.len() as u64);
            }
            Response::new(full(received.to_string()))
        }
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    for (name, mut client) in clients(&trigate).await {
        let before = trigate.resident_bytes();
        let sent = Arc::new(AtomicU64::new(0));
        let body = counted_body(total, Arc::clone(&sent));
        let answer =
            tokio::spawn(async move { client.send(Ask::new("POST", HOST, "/").body(body)).await.text() });
        let stuck = until_it_stands_still(&sent).await;
        println!("{name}: {stuck} bytes on the way");
        assert!(stuck < IN_FLIGHT, "{name}: {stuck} bytes were taken from the client and read by nobody");
        let grown = trigate.resident_bytes().saturating_sub(before);
        assert!(grown < 24 * MIB, "{name}: {grown} bytes more memory");
        go_on.notify_one();
        let received: u64 = soon("an answer", answer).await.expect("an answer").parse().expect("a number");
        assert_eq!(received, sent.load(Relaxed), "{name}: nothing was lost");
    }
}

/// The count once it has not moved for a while.
async fn until_it_stands_still(count: &AtomicU64) -> u64 {
    let wait = async {
        loop {
            let before = count.load(Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
            if before > 0 && count.load(Relaxed) == before {
                return before;
            }
        }
    };
    soon("a standstill", wait).await
}
