//! The worker threads: each a single-threaded runtime with sockets, connections and upstream pools of its own.

use super::SocketOptions;
use super::accept::Acceptor;
use super::bind::{bind, bind_udp};
use super::places::Places;
use super::queue::Queue;
use crate::config::Limits;
use crate::l4::{Datagrams, Flows};
use crate::live::Live;
use crate::moment;
use crate::proxy::{self, Connection};
use crate::routing::{SocketId, Transport};
use crate::stats;
use crate::wire::Wire;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket as StdUdp};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, warn};

/// How long `close` waits for a worker to let go of its sockets. A worker answers as soon as its turn of work is
/// done, so this passes only when one is stuck.
const CLOSING: Duration = Duration::from_secs(1);

/// All workers. Dropped, it ends them and cuts their connections.
#[derive(Debug)]
pub struct Workers {
    commands: Vec<mpsc::UnboundedSender<Command>>,
    /// What is bound, by socket. Only the control path locks it.
    bound: Mutex<BTreeMap<SocketId, Bound>>,
    places: Arc<Places>,
    announced: watch::Sender<bool>,
    /// Whether the announcement is for good.
    draining: AtomicBool,
    shutdown: watch::Sender<bool>,
}

#[derive(Debug)]
struct Bound {
    gateway: String,
    addresses: Vec<SocketAddr>,
}

#[derive(Debug)]
enum Command {
    Open { options: SocketOptions, listeners: Vec<StdListener> },
    OpenUdp { options: SocketOptions, sockets: Vec<StdUdp> },
    Close { id: SocketId, closed: std_mpsc::Sender<()> },
}

impl Workers {
    /// Starts `count` threads that serve connections by what `live` holds, within these limits.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start(count: usize, live: Arc<Live>, limits: Limits) -> io::Result<Self> {
        let of_workers = live.clone();
        Self::serving(count, live, move |announced| {
            let worker = proxy::Worker::new(of_workers.clone(), &limits, announced);
            async move |wire, connection, shutdown| {
                proxy::serve(wire, connection, Rc::clone(&worker), shutdown).await;
            }
        })
    }

    /// Starts `count` threads with something else than the proxy in them. `make` runs once in each, in its
    /// runtime, and gives what serves its connections; that needs not be `Send`, for it never leaves the thread.
    /// Its receiver is true while clients are to be told to go elsewhere, that of a connection when sockets have
    /// closed and it should end soon.
    ///
    /// # Errors
    /// As [`Workers::start`].
    pub fn serving<S, F>(count: usize, live: Arc<Live>, make: F) -> io::Result<Self>
    where
        F: Fn(watch::Receiver<bool>) -> S + Clone + Send + 'static,
        S: AsyncFn(Wire, Connection, watch::Receiver<bool>) + 'static,
    {
        let places = Arc::new(Places::default());
        let (announced, announcement) = watch::channel(false);
        let (shutdown, drained) = watch::channel(false);
        let mut commands = Vec::with_capacity(count);
        for index in 0..count.max(1) {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (live, places, make) = (live.clone(), places.clone(), make.clone());
            let (started, start) = std::sync::mpsc::channel();
            let (drained, announcement) = (drained.clone(), announcement.clone());
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                stats::enter_worker(index, count);
                // Made in the thread that it never leaves.
                let mut builder = Builder::new_current_thread();
                builder.enable_all().on_thread_unpark(moment::wake);
                let runtime = match builder.build_local(LocalOptions::default()) {
                    Ok(runtime) => {
                        let _ = started.send(Ok(()));
                        runtime
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                        return;
                    }
                };
                runtime.block_on(async move {
                    let serve = Rc::new(make(announcement));
                    let worker = Worker { live, places, shutdown: drained, serve, stops: HashMap::new() };
                    worker.run(receiver).await;
                });
            })?;
            start.recv().map_err(io::Error::other)??;
            commands.push(sender);
        }
        let draining = AtomicBool::new(false);
        Ok(Self { commands, bound: Mutex::default(), places, announced, draining, shutdown })
    }

    /// Binds a socket in every worker and accepts connections on it. Returns the bound addresses, which tell the
    /// port where 0 was asked for.
    ///
    /// # Errors
    /// An address cannot be bound, and nothing is; the error names it and the way out.
    pub fn open(&self, options: SocketOptions) -> io::Result<Vec<SocketAddr>> {
        let mut bound = self.bound();
        if bound.contains_key(&options.id) {
            let message = format!("{:?} is open already; close it first", options.id);
            return Err(io::Error::new(ErrorKind::AlreadyExists, message));
        }
        if let Some((address, gateway)) = already_ours(&bound, &options) {
            let message = format!(
                "cannot bind {address}: gateway {gateway} of this process has it; map one of the two to another port"
            );
            return Err(io::Error::new(ErrorKind::AddrInUse, message));
        }
        let addresses = match options.id.transport {
            Transport::Tcp => {
                let sockets = bind(&options.addresses, self.commands.len())?;
                self.hand_out(sockets, |listeners| Command::Open { options: options.clone(), listeners })?
            }
            Transport::Udp => {
                let sockets = bind_udp(&options.addresses, self.commands.len())?;
                self.hand_out(sockets, |sockets| Command::OpenUdp { options: options.clone(), sockets })?
            }
        };
        let gateway = options.gateway.name.clone();
        bound.insert(options.id, Bound { gateway, addresses: addresses.clone() });
        Ok(addresses)
    }

    /// Gives each worker its sockets of every address. Returns the addresses.
    fn hand_out<T>(
        &self,
        sockets: Vec<(SocketAddr, Vec<T>)>,
        command: impl Fn(Vec<T>) -> Command,
    ) -> io::Result<Vec<SocketAddr>> {
        let addresses = sockets.iter().map(|(address, _)| *address).collect();
        let mut of_workers: Vec<Vec<T>> = self.commands.iter().map(|_| Vec::new()).collect();
        for (_, sockets) in sockets {
            of_workers.iter_mut().zip(sockets).for_each(|(mine, socket)| mine.push(socket));
        }
        for (worker, mine) in self.commands.iter().zip(of_workers) {
            worker.send(command(mine)).map_err(|_| io::Error::other("a worker thread has ended"))?;
        }
        Ok(addresses)
    }

    /// Stops accepting on a socket. What the kernel has queued is still served, and connections go on. The
    /// addresses are free when this returns, for which it blocks the calling thread for a moment.
    pub fn close(&self, id: SocketId) {
        if self.bound().remove(&id).is_some() {
            self.close_in_workers(&[id]);
        }
    }

    /// Tells clients to go elsewhere, with their next response or by GOAWAY, until this is taken back. Sockets stay
    /// open, and connections that are told so end.
    pub fn announce(&self, end: bool) {
        self.announced.send_replace(end || self.draining.load(Relaxed));
    }

    /// Ends all connections in order: clients are told with their next response, new ones are still accepted for
    /// `grace` (and told), then the sockets close, and connections without a request. Returns when no connection is left or `timeout` has passed since the call.
    /// Returns how many connections were left.
    pub async fn drain(&self, grace: Duration, timeout: Duration) -> u32 {
        let end = Instant::now() + timeout;
        self.draining.store(true, Relaxed);
        self.announced.send_replace(true);
        sleep(grace.min(timeout)).await;
        let open: Vec<SocketId> = std::mem::take(&mut *self.bound()).into_keys().collect();
        self.close_in_workers(&open);
        // Only now: a connection that ended while sockets accept could meet its client's next request.
        self.shutdown.send_replace(true);
        let _ = timeout_at(end, self.places.emptied()).await;
        self.places.taken()
    }

    /// How many connections are open.
    pub fn connections(&self) -> u32 {
        self.places.taken()
    }

    fn close_in_workers(&self, ids: &[SocketId]) {
        let (closed, all_closed) = std_mpsc::channel();
        for worker in &self.commands {
            for &id in ids {
                // A worker that has ended has closed its sockets.
                let _ = worker.send(Command::Close { id, closed: closed.clone() });
            }
        }
        drop(closed);
        let end = std::time::Instant::now() + CLOSING;
        loop {
            match all_closed.recv_timeout(end.saturating_duration_since(std::time::Instant::now())) {
                Ok(()) => {}
                Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
                Err(std_mpsc::RecvTimeoutError::Timeout) => {
                    return warn!("a worker is busy and has not closed its sockets yet");
                }
            }
        }
    }

    fn bound(&self) -> MutexGuard<'_, BTreeMap<SocketId, Bound>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first of the addresses that another socket of this process has, with that one's gateway.
fn already_ours<'a>(
    bound: &'a BTreeMap<SocketId, Bound>,
    wanted: &SocketOptions,
) -> Option<(SocketAddr, &'a str)> {
    let same_transport = |id: &SocketId| id.transport == wanted.id.transport;
    wanted.addresses.iter().filter(|address| address.port() != 0).find_map(|&address| {
        let mut others = bound.iter().filter(|(id, _)| same_transport(id));
        let (_, owner) = others.find(|(_, bound)| bound.addresses.contains(&address))?;
        Some((address, owner.gateway.as_str()))
    })
}

/// One thread's share.
struct Worker<S> {
    live: Arc<Live>,
    places: Arc<Places>,
    shutdown: watch::Receiver<bool>,
    serve: Rc<S>,
    /// Ends the accept loops of a socket.
    stops: HashMap<SocketId, Vec<Loop>>,
}

/// An accept loop: the one way to end it, and the sign that it has ended.
struct Loop {
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

impl<S> Worker<S>
where
    S: AsyncFn(Wire, Connection, watch::Receiver<bool>) + 'static,
{
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Open { options, listeners } => self.open(options, listeners),
                Command::OpenUdp { options, sockets } => self.open_udp(&options, sockets),
                Command::Close { id, closed } => {
                    for Loop { stop, ended } in self.stops.remove(&id).into_iter().flatten() {
                        let _ = stop.send(());
                        let _ = ended.await;
                    }
                    let _ = closed.send(());
                }
            }
        }
    }

    fn open(&mut self, options: SocketOptions, listeners: Vec<StdListener>) {
        let id = options.id;
        let acceptor = Rc::new(Acceptor {
            options,
            live: self.live.clone(),
            places: self.places.clone(),
            shutdown: self.shutdown.clone(),
            serve: self.serve.clone(),
        });
        let loops = listeners.into_iter().filter_map(|listener| {
            // Fails only when the runtime has no event queue, which it had when the worker started.
            let queue = Queue::new(listener)
                .inspect_err(|failure| error!("a bound socket cannot be watched: {failure}"))
                .ok()?;
            let (stop, stopped) = oneshot::channel();
            Some(Loop { stop, ended: spawn_local(acceptor.clone().run(queue, stopped)) })
        });
        self.stops.insert(id, loops.collect());
    }

    fn open_udp(&mut self, options: &SocketOptions, sockets: Vec<StdUdp>) {
        let loops = sockets.into_iter().filter_map(|socket| {
            let socket = Datagrams::new(socket)
                .inspect_err(|failure| error!("a bound socket cannot be used for UDP: {failure}"))
                .ok()?;
            let flows = Flows { id: options.id, live: self.live.clone(), stats: options.stats.clone() };
            let (stop, stopped) = oneshot::channel();
            Some(Loop { stop, ended: spawn_local(flows.serve(socket, stopped)) })
        });
        self.stops.insert(options.id, loops.collect());
    }
}
