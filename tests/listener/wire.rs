//! What a client sees of writes that the wire gathers: full TLS records, and no stall.

use crate::client::{certificate, client, handshake};
use crate::rig::{Rig, Setup, soon};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use trigate::wire::Wire;

/// Remembers every byte that the server sent, as it was on the wire.
struct Tap {
    tcp: TcpStream,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.seen.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// The lengths of the TLS records in what was seen.
fn records(mut seen: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [23, 3, 3, high, low, rest @ ..] = seen {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        lengths.push(length);
        seen = &rest[length..];
    }
    assert!(seen.is_empty(), "whole records of application data");
    lengths
}

/// Answers each line with a head and a body of `body` bytes, written apart.
async fn answer_lines(mut wire: Wire, body: usize) {
    while wire.read_u8().await.is_ok() {
        wire.push(b"HTTP/1.1 200 OK\r\n\r\n");
        wire.push(&vec![b'x'; body]);
        poll_fn(|cx| wire.poll_drain(cx)).await.unwrap();
    }
}

async fn record_lengths(body: usize) -> Vec<usize> {
    let rig = Rig::serving(Setup { tls: true, ..Setup::default() }, async move |wire, _| {
        answer_lines(wire, body).await;
    });
    let certificate = certificate(&["a.test"]);
    rig.listeners(&[("a.test", &[&certificate])]);
    let seen = Arc::<Mutex<Vec<u8>>>::default();
    let tap = Tap { tcp: rig.connect().await, seen: seen.clone() };
    let connector = TlsConnector::from(Arc::new(client(&[&certificate])));
    let mut stream = soon(connector.connect("a.test".try_into().unwrap(), tap)).await.unwrap();
    let mut answer = vec![0; 19 + body];
    for _ in 0..2 {
        // The second time no session ticket is among the records.
        seen.lock().unwrap().clear();
        stream.write_all(b"\n").await.unwrap();
        soon(stream.read_exact(&mut answer)).await.unwrap();
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK") && answer.ends_with(b"x"));
    let seen = seen.lock().unwrap().clone();
    records(&seen)
}

#[tokio::test]
async fn a_head_and_a_small_body_are_one_tls_record() {
    assert_eq!(record_lengths(1000).await.len(), 1);
}

#[tokio::test]
async fn a_large_body_fills_its_records() {
    let lengths = record_lengths(100_000).await;
    assert_eq!(lengths.len(), 7, "{lengths:?}");
    assert!(lengths[..6].iter().all(|&length| length > 16_000), "{lengths:?}");
}

#[tokio::test]
async fn streamed_bytes_arrive_although_nobody_flushes() {
    for tls in [false, true] {
        let rig = Rig::serving(Setup { tls, ..Setup::default() }, async |mut wire: Wire, _| {
            wire.push(b"event 1");
            // Waits for the client, which waits for the event.
            let _ = wire.read_u8().await;
            wire.push(b"event 2");
            let _ = wire.read_u8().await;
        });
        let certificate = certificate(&["a.test"]);
        rig.listeners(&[("a.test", &[&certificate])]);
        let config = Arc::new(client(&[&certificate]));
        let tcp = rig.connect().await;
        let mut stream: Box<dyn Both> =
            if tls { Box::new(handshake(&config, "a.test", tcp).await.unwrap()) } else { Box::new(tcp) };
        for want in [b"event 1", b"event 2"] {
            let mut event = [0; 7];
            soon(stream.read_exact(&mut event)).await.unwrap();
            assert_eq!(&event, want);
            stream.write_all(b"!").await.unwrap();
        }
    }
}

trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

#[tokio::test]
async fn a_slow_reader_gets_a_large_response_whole() {
    let rig = Rig::serving(Setup { tls: true, ..Setup::default() }, async |wire, _| {
        answer_lines(wire, 3_000_000).await;
    });
    let certificate = certificate(&["a.test"]);
    rig.listeners(&[("a.test", &[&certificate])]);
    let config = Arc::new(client(&[&certificate]));
    let mut stream = handshake(&config, "a.test", rig.connect().await).await.unwrap();
    stream.write_all(b"\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut answer = vec![0; 19 + 3_000_000];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert!(answer[19..].iter().all(|&byte| byte == b'x'));
}
