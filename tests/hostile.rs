//! Attacks beyond those of `../shared/torture`: requests that two parsers may read differently, floods of HTTP/2
//! frames, and upstreams that lie.

mod harness;

use harness::client::{Ask, Client};
use harness::manifest::{route, service};
use harness::raw::Raw;
use harness::soon;
use harness::trigate::Trigate;
use harness::upstream::{Upstream, response};
use std::time::{Duration, Instant};

const HOST: &str = "app.example.test";
/// A request that must never reach the upstream as part of another one's body.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: app.example.test\r\n\r\n";

async fn in_front_of(upstream: &Upstream) -> Trigate {
    let mut objects = service("app", &[upstream.address]);
    objects.push(route("app").on("external").host(HOST).prefix_to("/app", "app").object());
    objects.push(route("inside").on("internal").host("inside.example.test").to("app").object());
    Trigate::serving(objects).await
}

/// A request of this start line and these lines, and what follows its head.
fn request(start: &str, lines: &str, after: &str) -> String {
    format!("{start} HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n{after}")
}

/// What is refused, by the status that says so.
fn refused() -> Vec<(u16, String)> {
    let post = |lines: &str, body: &str| request("POST /app", lines, &format!("{body}{HIDDEN}"));
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let host = |host: &str| format!("GET /app HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut all = Vec::new();
    for coding in ["xchunked", "chunked, chunked", ",chunked", "chunked;a=b", "\"chunked\"", "", "identity"] {
        all.push((501, post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n")));
    }
    for line in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked\0",
        "Transfer_Encoding: chunked",
        "X: a\rTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ] {
        all.push((400, post(&format!("{line}\r\n"), "0\r\n\r\n")));
    }
    for length in ["+5", "-5", "5, 5", "5,", "0x5", "5 5", "5e0", "5_0", "5.0", "", "18446744073709551621"] {
        all.push((400, post(&format!("Content-Length: {length}\r\n"), "hello")));
    }
    for body in [
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n",
        "0\r\na: b\r\n c\r\n\r\n",
    ] {
        all.push((400, chunked(body)));
    }
    for bad in ["a b", "a,b", "app.example.test/x", "x@app.example.test", "[::1", "a:+80", "a:65536", "a%2eb"]
    {
        all.push((400, host(bad)));
    }
    for target in
        ["http://x@app.example.test/app", "http://app.example.test:99999/app", "app.example.test:80"]
    {
        all.push((400, request(&format!("GET {target}"), "", "")));
    }
    for name in ["X\x01", "X@", "", " X", "a_b"] {
        all.push((400, request("GET /app", &format!("{name}: a\r\n"), "")));
    }
    all
}

#[tokio::test]
async fn what_two_parsers_may_read_differently_is_refused_and_hides_no_request() {
    let upstream = Upstream::recording(|_| response(200, "ok")).await;
    let trigate = in_front_of(&upstream).await;
    for (status, bytes) in refused() {
        let mut connection = Raw::connect(trigate.external.http).await;
        connection.send(&bytes).await;
        let answer = soon("an answer", connection.response()).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer to {bytes:?}"));
        assert_eq!(answer.status(), status, "{bytes:?}");
        assert!(connection.closed_within(Duration::from_secs(10)).await, "{bytes:?}");
    }
    let seen = upstream.records().concat();
    assert!(!String::from_utf8_lossy(&seen).contains("/hidden"), "a body became a request");
}

#[tokio::test]
async fn no_name_leads_from_outside_to_an_internal_route() {
    let upstream = Upstream::recording(|_| response(200, "ok")).await;
    let trigate = in_front_of(&upstream).await;
    for bytes in [
        "GET / HTTP/1.1\r\nHost: inside.example.test\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: INSIDE.example.test.:80\r\n\r\n".to_owned(),
        request("GET http://inside.example.test/", "", ""),
        request("GET //inside.example.test/", "", ""),
        request("GET /", "X-Forwarded-Host: inside.example.test\r\nX-Host: inside.example.test\r\n", ""),
        request("CONNECT inside.example.test:80", "", ""),
    ] {
        let mut connection = Raw::connect(trigate.external.http).await;
        connection.send(&bytes).await;
        let answer = soon("an answer", connection.response()).await.expect("an answer");
        assert_eq!(answer.status(), 404, "{bytes:?}");
    }
    assert_eq!(upstream.accepted(), 0);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals without indexing (RFC 7541 6.2.2), each shorter than 127 bytes.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn get(path: &str) -> Vec<u8> {
    fields(&[(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", path)])
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The `n`th round of a flood.
type Round = fn(u32) -> Vec<u8>;

/// Floods, and whether the connection has to end for them.
const FLOODS: [(&str, bool, Round); 9] = [
    ("requests that are reset at once", true, |n| {
        let begun = frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get("/app"));
        [begun, frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes())].concat()
    }),
    ("requests that the gateway is made to reset by a window of 0", true, |n| {
        let begun = frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get("/app"));
        [begun, frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0; 4])].concat()
    }),
    ("requests that the gateway is made to reset by a window that overflows", true, |n| {
        let begun = frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get("/app"));
        [begun, frame(WINDOW_UPDATE, 0, 2 * n + 1, &0x7fff_ffff_u32.to_be_bytes())].concat()
    }),
    ("a head without an end", true, |n| match n {
        0 => frame(HEADERS, END_STREAM, 1, &get("/app")),
        _ => frame(CONTINUATION, 0, 1, &fields(&[("x-more", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")])),
    }),
    ("a head of nothing without an end", true, |n| match n {
        0 => frame(HEADERS, END_STREAM, 1, &get("/app")),
        _ => frame(CONTINUATION, 0, 1, &[]),
    }),
    ("data of nothing", true, |n| match n {
        0 => frame(HEADERS, END_HEADERS, 1, &get("/app")),
        _ => frame(DATA, 0, 1, &[]),
    }),
    ("settings", false, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
    ("pings", false, |_| frame(PING, 0, 0, &[0; 8])),
    ("priorities", false, |n| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 16])),
];

/// Sends rounds and reads nothing, until the other side has had enough, or is stuck.
async fn flood(connection: &mut Raw, round: Round) {
    connection.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    connection.send(frame(SETTINGS, 0, 0, &[])).await;
    for number in 0..200_u32 {
        let bytes: Vec<u8> = (0..100).flat_map(|n| round(number * 100 + n)).collect();
        let sent = tokio::time::timeout(Duration::from_secs(2), connection.try_send(bytes)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

/// Whether a GOAWAY is among these frames.
fn says_goaway(mut bytes: &[u8]) -> bool {
    while let [a, b, c, kind, ..] = bytes {
        if *kind == GOAWAY {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn a_flood_of_frames_costs_little_and_holds_up_nobody() {
    let upstream = Upstream::recording(|_| response(200, "ok")).await;
    let trigate = in_front_of(&upstream).await;
    let mut bystander = Client::http1(trigate.external.http).await;
    assert_eq!(bystander.send(Ask::get(HOST, "/app")).await.status, 200);
    let before = trigate.resident_bytes();
    for (name, ends, round) in FLOODS {
        let start = (Instant::now(), trigate.cpu_time());
        let mut connection = Raw::connect(trigate.external.http).await;
        let flooding = flood(&mut connection, round);
        let ((), answer) = tokio::join!(flooding, bystander.send(Ask::get(HOST, "/app")));
        assert_eq!(answer.status, 200, "{name}");
        if ends {
            let got = tokio::time::timeout(Duration::from_secs(20), connection.rest()).await;
            assert!(says_goaway(&got.unwrap_or_else(|_| panic!("{name}: it goes on"))), "{name}");
        }
        drop(connection);
        assert_eq!(bystander.send(Ask::get(HOST, "/app")).await.status, 200, "after {name}");
        let (took, cpu) = (start.0.elapsed(), trigate.cpu_time() - start.1);
        println!("{name}: {took:?}, {cpu:?} of CPU time");
        assert!(cpu < Duration::from_secs(5), "{name}: {cpu:?} of CPU time");
    }
    let grown = trigate.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more are in memory");
}

/// An upstream that answers each path in its own way and then waits for the next request.
async fn lying() -> Upstream {
    Upstream::raw(|mut connection| async move {
        while let Some(request) = connection.request().await {
            let answer = match request.start.split(' ').nth(1).unwrap_or_default() {
                "/app/hints" => "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(5000),
                "/app/both" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned(),
                "/app/lengths" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok".to_owned(),
                "/app/coding" => "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok".to_owned(),
                "/app/large" => format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(70_000)),
                "/app/nul" => "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok".to_owned(),
                "/app/tunnel" => "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned(),
                "/app/promise" => "HTTP/1.1 204 No Content\r\ncontent-length: 36\r\n\r\n".to_owned(),
                "/app/more" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil".to_owned(),
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood".to_owned(),
            };
            if connection.try_send(&answer).await.is_err() {
                return;
            }
            if request.start.contains("/promise") {
                // Late enough for a gateway to have put the connection away.
                tokio::time::sleep(Duration::from_millis(100)).await;
                let _ = connection.try_send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_upstream_that_lies_harms_one_request_and_no_other() {
    let upstream = lying().await;
    let trigate = in_front_of(&upstream).await;
    for (path, status) in [
        ("/app/hints", 502),
        ("/app/both", 502),
        ("/app/lengths", 502),
        ("/app/coding", 502),
        ("/app/large", 502),
        ("/app/nul", 502),
        ("/app/tunnel", 502),
        ("/app/promise", 204),
        ("/app/more", 200),
    ] {
        let mut connection = Raw::connect(trigate.external.http).await;
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let mut answer = soon("an answer", connection.response()).await.expect("an answer");
        while answer.status() == 103 {
            answer = soon("an answer", connection.response()).await.expect("an answer");
        }
        assert_eq!(answer.status(), status, "{path}");
        for pause in [0, 150] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let next = trigate.external.get(HOST, "/app").await;
            assert_eq!((next.status, next.text().as_str()), (200, "good"), "after {path}");
        }
    }
}
