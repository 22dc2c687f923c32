//! A UDP socket that knows which of our addresses a datagram was sent to, so that the answer comes from there.

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The largest datagram, and the most that the kernel joins to one read.
const MOST: usize = 64 * 1024;

/// A bound socket.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// Whose a datagram is: the client, and the address of ours that it was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub address: SocketAddr,
    pub asked: Option<IpAddr>,
}

/// What one read brought: datagrams of one client.
pub(super) struct Received {
    pub client: Client,
    pub length: usize,
    /// All are of this length but the last one, which may be shorter.
    pub each: usize,
}

impl Datagrams {
    /// Takes over a bound socket. Must run in the runtime that is to watch it.
    ///
    /// # Errors
    /// The system does not tell the addresses of datagrams, or cannot watch the socket.
    pub fn new(socket: StdSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Made for QUIC, the state forbids fragments; answers of others may be larger than the way's limit.
        match socket.local_addr()? {
            SocketAddr::V4(_) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?,
            SocketAddr::V6(_) => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DONT)?,
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, state })
    }

    /// A buffer that takes whatever one read brings.
    pub(super) fn buffer() -> Vec<u8> {
        vec![0; MOST]
    }

    /// Waits for datagrams of one client.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut meta = [RecvMeta::default()];
        let read = || {
            let mut parts = [IoSliceMut::new(buffer)];
            self.state.recv(UdpSockRef::from(&self.socket), &mut parts, &mut meta)
        };
        self.socket.async_io(Interest::READABLE, read).await?;
        let [RecvMeta { addr, len, stride, dst_ip, .. }] = meta;
        let client = Client { address: addr, asked: dst_ip };
        Ok(Received { client, length: len, each: stride.max(1) })
    }

    /// Answers a client from the address that it asked; what the network does not take at once is lost.
    pub(super) fn answer(&self, client: Client, datagram: &[u8]) -> io::Result<()> {
        let Client { address, asked } = client;
        let transmit = Transmit {
            destination: address,
            ecn: None,
            contents: datagram,
            segment_size: None,
            src_ip: asked,
        };
        let send = || self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        self.socket.try_io(Interest::WRITABLE, send)
    }
}
