//! The kernel's queue of the connections to one address that nobody has accepted yet.
//!
//! Whether it is empty is asked before it is accepted from: an accept that fails has made a socket and a file by then,
//! and costs the kernel fifteen times as much as the question. At a moderate rate each connection is followed by one.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, acceptfrom_with};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;

pub(super) struct Queue(AsyncFd<TcpListener>);

impl Queue {
    /// The queue of a listener that does not block.
    ///
    /// # Errors
    /// The runtime has no event queue to watch it with.
    #[expect(
        deprecated,
        reason = "it is unsound for what changes its descriptor, which a TcpListener never does"
    )]
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        AsyncFd::with_interest(listener, Interest::READABLE).map(Self)
    }

    /// Waits for a connection, which comes with the address of its client.
    ///
    /// # Errors
    /// Those of accept(2): of this connection, or of all.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        // A queue that never gets empty leaves time to the connections that are accepted already.
        consume_budget().await;
        loop {
            let mut ready = self.0.readable().await?;
            if holds_one(ready.get_inner())? {
                match accept(ready.get_inner()) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    accepted => return accepted,
                }
            }
            ready.clear_ready();
        }
    }

    /// Takes what is left in the queue, which the kernel would reset with the listener.
    pub fn rest(self) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
        let listener = self.0.into_inner();
        std::iter::from_fn(move || accept(&listener).ok())
    }
}

fn holds_one(listener: &TcpListener) -> io::Result<bool> {
    let mut asked = [PollFd::new(listener, PollFlags::IN)];
    Ok(poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
}

fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (connection, client) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let client = client.and_then(|client| client.try_into().ok()).ok_or(ErrorKind::AddrNotAvailable)?;
    Ok((TcpStream::from_std(connection.into())?, client))
}
