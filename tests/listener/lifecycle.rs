//! Sockets that open and close, connections that are limited, drained, counted.

use crate::rig::{Rig, SOCKET, Setup, ask, ends, options, soon, until};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use trigate::config::Limits;
use trigate::listener::Workers;
use trigate::live::Live;
use trigate::routing::{GatewayId, SocketId, Transport};
use trigate::wire::Wire;

#[tokio::test]
async fn a_closed_socket_frees_its_address_and_keeps_its_connections() {
    let rig = Rig::echo(Setup { workers: 2, ..Setup::default() });
    let mut stream = rig.connect().await;
    ask(&mut stream, b"before").await;
    rig.workers.close(SOCKET);
    assert!(TcpStream::connect(rig.address).await.is_err());
    assert!(TcpListener::bind(rig.address).is_ok());
    assert_eq!(ask(&mut stream, b"after").await, b"after");
}

#[tokio::test]
async fn a_socket_can_be_opened_again_and_again() {
    let rig = Rig::echo(Setup { workers: 2, ..Setup::default() });
    let mut again = rig.options.clone();
    again.addresses = vec![rig.address];
    for _ in 0..20 {
        rig.workers.close(SOCKET);
        rig.workers.open(again.clone()).unwrap();
        assert_eq!(ask(&mut rig.connect().await, b"hello").await, b"hello");
    }
}

#[tokio::test]
async fn connections_made_before_a_socket_closes_are_served() {
    let rig = Rig::serving(Setup::default(), async |mut wire: Wire, _| {
        if wire.read_u8().await.is_ok_and(|byte| byte == b'b') {
            // A worker that is busy for a while: what comes meanwhile waits in the kernel's queue.
            std::thread::sleep(Duration::from_millis(200));
        }
        wire.push(b"!");
        let _ = wire.shutdown().await;
    });
    let mut busy = rig.connect().await;
    busy.write_all(b"b").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut queued = Vec::new();
    for _ in 0..50 {
        queued.push(rig.connect().await);
    }
    rig.workers.close(SOCKET);
    for stream in &mut queued {
        stream.write_all(b"q").await.unwrap();
        assert_eq!(soon(stream.read_u8()).await.unwrap(), b'!');
    }
}

#[tokio::test]
async fn what_is_bound_twice_is_told_with_its_owner() {
    let rig = Rig::echo(Setup::default());
    let error = rig.workers.open(rig.options.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);

    let mut other = options(Setup::default());
    other.id = SocketId { gateway: GatewayId(1), port: 80, transport: Transport::Tcp };
    other.addresses = vec![rig.address];
    let error = rig.workers.open(other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let told = error.to_string();
    assert!(told.contains(&rig.address.to_string()) && told.contains("gateway external"), "{told}");
}

#[tokio::test]
async fn a_port_of_another_program_is_told_with_the_way_to_find_it() {
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let rig = Rig::echo(Setup::default());
    let mut options = options(Setup::default());
    options.id = SocketId { gateway: GatewayId(1), port: 80, transport: Transport::Tcp };
    options.addresses = vec![theirs.local_addr().unwrap()];
    let told = rig.workers.open(options).unwrap_err().to_string();
    assert!(told.contains(&theirs.local_addr().unwrap().to_string()) && told.contains("ss -tulnp"), "{told}");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_counted() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let rig = Rig::echo(Setup { limits, ..Setup::default() });
    let (mut one, mut two) = (rig.connect().await, rig.connect().await);
    ask(&mut one, b"1").await;
    ask(&mut two, b"2").await;
    assert!(ends(&mut rig.connect().await).await);
    until(|| rig.options.stats.sum(|shard| shard.cx_overflow.get()) == 1).await;
    drop(one);
    until(|| rig.workers.connections() == 1).await;
    ask(&mut rig.connect().await, b"3").await;
    assert_eq!(rig.options.stats.sum(|shard| shard.cx_total.get()), 3);
}

#[tokio::test]
async fn connections_are_counted_while_they_live() {
    let rig = Rig::echo(Setup { workers: 2, ..Setup::default() });
    let mut streams = vec![rig.connect().await, rig.connect().await, rig.connect().await];
    for stream in &mut streams {
        ask(stream, b"hello").await;
    }
    let (http, stats) = (&rig.options.http, &rig.options.stats);
    assert_eq!(http.sum(|shard| shard.cx_active.get()), 3);
    assert_eq!(stats.sum(|shard| shard.cx_active.get()), 3);
    drop(streams);
    until(|| http.sum(|shard| shard.cx_active.get()) == 0).await;
    assert_eq!(http.sum(|shard| shard.cx_total.get()), 3);
    assert_eq!(stats.sum(|shard| shard.cx_destroy.get()), 3);
}

/// Serves one line at a time, and ends when it is told to and has nothing in flight.
async fn lines(mut wire: Wire, mut shutdown: watch::Receiver<bool>) {
    loop {
        let line = tokio::select! {
            line = wire.read_u8() => line,
            _ = shutdown.wait_for(|&draining| draining) => break,
        };
        if line.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        wire.push(b"more");
        let _ = poll_fn(|cx| wire.poll_drain(cx)).await;
    }
    let _ = wire.shutdown().await;
}

#[tokio::test]
async fn a_drain_accepts_and_serves_for_the_grace_and_waits_for_the_rest() {
    let rig = Rig::serving(Setup { workers: 2, ..Setup::default() }, lines);
    let mut idle = rig.connect().await;
    assert_eq!(&exchange(&mut idle).await, b"more");
    let mut busy = rig.connect().await;
    busy.write_all(b"\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;

    let begun = Instant::now();
    let (grace, timeout) = (Duration::from_millis(200), Duration::from_secs(5));
    let (left, ()) = tokio::join!(rig.workers.drain(grace, timeout), async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut late = TcpStream::connect(rig.address).await.expect("still accepted within the grace");
        assert_eq!(&exchange(&mut late).await, b"more", "a connection of the grace is served");
        assert_eq!(&exchange(&mut idle).await, b"more", "and so is an earlier one that was idle");
        let mut answer = Vec::new();
        soon(busy.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"more", "a request in flight is finished");
        assert!(begun.elapsed() >= grace, "connections outlive the grace");
        assert!(ends(&mut idle).await, "an idle connection ends");
        assert!(ends(&mut late).await);
    });
    assert_eq!(left, 0);
    assert!(begun.elapsed() >= grace && begun.elapsed() < timeout, "{:?}", begun.elapsed());
    assert!(TcpStream::connect(rig.address).await.is_err());
}

async fn exchange(stream: &mut TcpStream) -> [u8; 4] {
    stream.write_all(b"\n").await.unwrap();
    let mut answer = [0; 4];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_drain_ends_at_its_timeout_whatever_is_left() {
    let rig = Rig::serving(Setup::default(), async |_wire: Wire, _| std::future::pending().await);
    let _stream = rig.connect().await;
    until(|| rig.workers.connections() == 1).await;
    let begun = Instant::now();
    let left = rig.workers.drain(Duration::from_millis(10), Duration::from_millis(100)).await;
    assert_eq!(left, 1);
    assert!(begun.elapsed() >= Duration::from_millis(100) && begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn the_proxy_answers_on_an_open_socket() {
    let workers = Workers::start(2, Arc::new(Live::default()), Limits::default()).unwrap();
    let address = workers.open(options(Setup::default())).unwrap()[0];
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 "), "{answer:?}");
}

#[tokio::test]
async fn dropped_workers_cut_their_connections() {
    let rig = Rig::echo(Setup { workers: 2, ..Setup::default() });
    let mut stream = rig.connect().await;
    ask(&mut stream, b"hello").await;
    let address = rig.address;
    drop(rig);
    assert!(ends(&mut stream).await);
    until(|| TcpListener::bind(address).is_ok()).await;
}
