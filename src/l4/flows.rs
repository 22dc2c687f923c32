//! Flows of datagrams: what one client address sends goes to one endpoint, and what comes back to that client.
//!
//! Each flow has a socket of its own towards the endpoint, and ends when nothing has moved for a while. Each worker
//! has its own flows: the kernel gives all datagrams of one client address to the same worker's socket.

use super::Target;
use super::datagrams::{Client, Datagrams, Received};
use super::pick::still_leads;
use super::story::{Story, Told};
use super::traffic::Moved;
use crate::live::Live;
use crate::routing::SocketId;
use crate::telemetry::{FlowShard, ListenerStats};
use crate::upstream::{Active, Address, Closed, Cluster};
use foldhash::fast::FixedState;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{debug, warn};

/// A flow on which nothing moves for so long is over; Envoy's default.
const IDLE: Duration = Duration::from_secs(60);
/// Flows of one socket in one worker; when there are more, the one that was idle for the longest makes room.
const MOST: usize = 4096;
/// How long a socket rests that cannot be read.
const PAUSE: Duration = Duration::from_millis(100);

type Index = Rc<RefCell<HashMap<Client, Known, FixedState>>>;

/// The flows of a socket in one worker.
pub struct Flows {
    pub id: SocketId,
    pub live: Arc<Live>,
    pub stats: Arc<ListenerStats>,
}

/// A flow in the index. Taken out, it ends.
struct Known {
    flow: Rc<Flow>,
    _end: oneshot::Sender<()>,
}

struct Flow {
    upstream: UdpSocket,
    active: Active,
    cluster: Arc<Cluster>,
    moved: Moved,
    opened: Instant,
    stats: Arc<ListenerStats>,
    /// For somebody who wants to know: the story, and the bytes from and to the client.
    story: Cell<Option<Box<Story>>>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

/// What all tasks of a socket share.
#[derive(Clone)]
struct Shared {
    socket: Rc<Datagrams>,
    index: Index,
    /// Answers are read into it, one after the other.
    buffer: Rc<RefCell<Vec<u8>>>,
}

impl Flows {
    /// Serves datagrams until `stop` says so or is dropped; all flows end then.
    pub async fn serve(self, socket: Datagrams, mut stop: oneshot::Receiver<()>) {
        let shared = Shared {
            socket: Rc::new(socket),
            index: Index::default(),
            buffer: Rc::new(RefCell::new(Datagrams::buffer())),
        };
        let mut answering = JoinSet::new();
        let mut buffer = Datagrams::buffer();
        loop {
            let received = tokio::select! {
                received = shared.socket.receive(&mut buffer) => received,
                Some(_) = answering.join_next() => continue,
                _ = &mut stop => break,
            };
            match received {
                Ok(Received { client, length, each }) => {
                    for datagram in buffer[..length].chunks(each) {
                        self.pass(&shared, &mut answering, client, datagram).await;
                    }
                }
                Err(error) => {
                    warn!("{}: no datagram can be read: {error}", self.stats.address());
                    self.counted().rx_errors.inc();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        // The address is free only when nobody can answer from it any more.
        answering.shutdown().await;
    }

    fn counted(&self) -> &FlowShard {
        self.stats.carried().flows()
    }

    async fn pass(&self, shared: &Shared, answering: &mut JoinSet<()>, client: Client, datagram: &[u8]) {
        let counted = self.counted();
        counted.rx_datagrams.inc();
        counted.rx_bytes.add(datagram.len() as u64);
        let known = shared.index.borrow().get(&client).map(|known| known.flow.clone());
        let leads = |flow: &Rc<Flow>| still_leads(&self.live, self.id, &flow.active.endpoint().address);
        let flow = match known.filter(leads) {
            Some(flow) => flow,
            None => {
                let Some(flow) = self.open(client).await.map(Rc::new) else { return counted.no_route.inc() };
                self.make_room(&shared.index);
                let (end, ended) = oneshot::channel();
                shared.index.borrow_mut().insert(client, Known { flow: flow.clone(), _end: end });
                answering.spawn_local(answer(flow.clone(), client, shared.clone(), ended));
                flow
            }
        };
        flow.moved.touch();
        flow.received.set(flow.received.get() + datagram.len() as u64);
        match flow.upstream.try_send(datagram) {
            Ok(sent) => flow.cluster.stats().mine().cx_tx_bytes.add(sent as u64),
            // A datagram more than the network takes is lost, as anywhere else.
            Err(_) => counted.rx_errors.inc(),
        }
    }

    async fn open(&self, client: Client) -> Option<Flow> {
        let target = Target::find(&self.live, self.id, "")?;
        let cluster = target.cluster()?.clone();
        let active = target.backend()?.endpoints.pick(|| fastrand::u32(..), None)?;
        let upstream = match connected(&active.endpoint().address).await {
            Ok(upstream) => upstream,
            Err(error) => {
                cluster.stats().connect_failed();
                debug!("{}: {:?}: {error}", cluster.name(), active.endpoint().address);
                return None;
            }
        };
        cluster.stats().connected(Duration::ZERO);
        self.counted().sessions.inc();
        self.counted().active.inc();
        let local = client.asked.map(|asked| SocketAddr::new(asked, self.stats.port()));
        let story = Story::begin(&self.live, self.id.gateway.0, client.address, local).map(Box::new);
        let (received, sent, opened) = (Cell::new(0), Cell::new(0), Instant::now());
        let (moved, stats, story) = (Moved::now(), self.stats.clone(), Cell::new(story));
        Some(Flow { upstream, active, cluster, moved, opened, stats, story, received, sent })
    }

    fn make_room(&self, index: &Index) {
        let mut index = index.borrow_mut();
        if index.len() < MOST {
            return;
        }
        let oldest = index.iter().min_by_key(|(_, known)| known.flow.moved.last());
        if let Some(client) = oldest.map(|(client, _)| *client) {
            index.remove(&client);
            self.counted().overflow.inc();
        }
    }
}

/// A socket that talks to this endpoint alone.
async fn connected(address: &Address) -> io::Result<UdpSocket> {
    let Address::Ip(address) = address else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "a Unix socket takes no UDP"));
    };
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    // A socket that was not waited for yet does not know that it can be written.
    socket.writable().await?;
    Ok(socket)
}

/// Passes on what comes back, until the flow ends.
async fn answer(flow: Rc<Flow>, client: Client, shared: Shared, mut ended: oneshot::Receiver<()>) {
    let counted = || flow.stats.carried().flows();
    loop {
        tokio::select! {
            readable = flow.upstream.readable() => if readable.is_err() { break },
            () = flow.moved.idle(Some(IDLE)) => {
                counted().idle_timeout.inc();
                break;
            }
            // Its place in the index is another flow's.
            _ = &mut ended => return,
        }
        let mut buffer = shared.buffer.borrow_mut();
        let length = match flow.upstream.try_recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            // The endpoint refuses: the next datagram may find a better one.
            Err(_) => break,
        };
        flow.moved.touch();
        flow.cluster.stats().mine().cx_rx_bytes.add(length as u64);
        match shared.socket.answer(client, &buffer[..length]) {
            Ok(()) => {
                counted().tx_datagrams.inc();
                counted().tx_bytes.add(length as u64);
                flow.sent.set(flow.sent.get() + length as u64);
            }
            Err(_) => counted().tx_errors.inc(),
        }
    }
    shared.index.borrow_mut().remove(&client);
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stats.carried().flows().active.dec();
        self.cluster.stats().closed(Closed::Local, self.opened.elapsed());
        if let Some(story) = self.story.take() {
            story.end(Told {
                received: self.received.get(),
                sent: self.sent.get(),
                cluster: Some(self.cluster.clone()),
                endpoint: Some(self.active.endpoint().address.clone()),
                upstream_local: self.upstream.local_addr().ok(),
                ..Told::default()
            });
        }
    }
}
