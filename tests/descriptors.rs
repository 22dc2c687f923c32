//! A process that has no file descriptor left waits for one without using the processor.
//!
//! Alone in its own test binary: the limit holds for the whole process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use trigate::config::{Limits, ProxyProtocol};
use trigate::listener::{SocketOptions, Workers};
use trigate::live::Live;
use trigate::proxy::{Connection, Gateway, Habits};
use trigate::routing::{GatewayId, SocketId, Transport};
use trigate::wire::Wire;

/// How long the accept loop is watched.
const WATCHED: Duration = Duration::from_millis(600);

/// The processor time that this process has used.
fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.cast_unsigned(), u32::try_from(used.tv_nsec).unwrap())
}

fn options() -> SocketOptions {
    let (name, limits) = ("external".to_owned(), Limits::default());
    let gateway = Gateway {
        id: GatewayId(0),
        name,
        trusted_proxies: Vec::new(),
        trusted_hops: 0,
        habits: Habits::default(),
        limits,
    };
    SocketOptions {
        id: SocketId { gateway: GatewayId(0), port: 80, transport: Transport::Tcp },
        tls: false,
        addresses: vec!["127.0.0.1:0".parse().unwrap()],
        gateway: Arc::new(gateway),
        proxy_protocol: ProxyProtocol::Off,
        http: Arc::default(),
        stats: Arc::default(),
    }
}

#[test]
fn exhaustion_is_waited_out_and_then_connections_are_served() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..limit }).unwrap();
    let workers = Workers::serving(1, Arc::new(Live::default()), |_| {
        async |mut wire: Wire, _: Connection, _| {
            wire.push(b"!");
            let _ = std::future::poll_fn(|cx| wire.poll_drain(cx)).await;
        }
    })
    .unwrap();
    let address = workers.open(options()).unwrap()[0];
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // One for the client; the kernel makes the connection, and the server has no descriptor to accept it with.
    taken.pop();
    let mut client = TcpStream::connect(address).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let before = processor_time();
    std::thread::sleep(WATCHED);
    let used = processor_time() - before;
    assert!(used < WATCHED / 4, "{used:?} of {WATCHED:?}");

    drop(taken);
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = [0; 1];
    client.write_all(b"?").unwrap();
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"!");
}
