//! Binding addresses, once for each worker, with errors that name the address and the way out.

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;
use tracing::warn;

/// The kernel's queue of connections that nobody has accepted yet; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// When a silent peer is asked whether it still lives, how often, and how many times.
const KEEPALIVE_TIME: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 3;
/// `EAFNOSUPPORT`: the kernel runs without IPv6.
const FAMILY_NOT_SUPPORTED: i32 = 97;

/// Binds every address `workers` times. Returns the addresses with the sockets of all workers. Port 0 becomes one
/// port of the kernel's choice for all of them. `[::]` is left out, with a warning, on a machine without IPv6.
///
/// # Errors
/// One address cannot be bound; none stays bound then.
pub(super) fn bind(
    addresses: &[SocketAddr],
    workers: usize,
) -> io::Result<Vec<(SocketAddr, Vec<TcpListener>)>> {
    let mut bound = Vec::with_capacity(addresses.len());
    for &address in addresses {
        match bind_all(address, workers) {
            Ok(sockets) => bound.push(sockets),
            Err(error) if lacks_ipv6(address, &error) => {
                warn!("{address} is not bound, because this machine has no IPv6");
            }
            Err(error) => return Err(explained(address, &error)),
        }
    }
    if bound.is_empty() && !addresses.is_empty() {
        let message = "none of the addresses can be bound: this machine has no IPv6; bind 0.0.0.0 as well";
        return Err(io::Error::new(ErrorKind::AddrNotAvailable, message));
    }
    Ok(bound)
}

/// Binds every address `workers` times for UDP; otherwise the same.
///
/// # Errors
/// As [`bind`].
pub(super) fn bind_udp(
    addresses: &[SocketAddr],
    workers: usize,
) -> io::Result<Vec<(SocketAddr, Vec<UdpSocket>)>> {
    let mut bound = Vec::with_capacity(addresses.len());
    for &address in addresses {
        match bind_all_udp(address, workers) {
            Ok(sockets) => bound.push(sockets),
            Err(error) if lacks_ipv6(address, &error) => {
                warn!("{address} is not bound, because this machine has no IPv6");
            }
            Err(error) => return Err(explained(address, &error)),
        }
    }
    Ok(bound)
}

fn bind_all_udp(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<UdpSocket>)> {
    let probe = udp_socket(address)?;
    probe.bind(&address.into())?;
    let address = SockRef::from(&probe).local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    let bound = |_| {
        let socket = udp_socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    Ok((address, (0..workers).map(bound).collect::<io::Result<_>>()?))
}

fn udp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bind_all(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // SO_REUSEPORT would let two processes of one user share the port in silence, each with half of the
    // connections. A socket without it finds the port taken.
    let probe = socket(address)?;
    probe.bind(&address.into())?;
    let address = SockRef::from(&probe).local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    let listeners = (0..workers).map(|_| listener(address)).collect::<io::Result<_>>()?;
    Ok((address, listeners))
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    // Accepted connections inherit both on Linux, which saves two system calls for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] are two sockets, and an IPv4 client has an IPv4 address.
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier process in TIME_WAIT do not hold the port.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn lacks_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    address.ip() == Ipv6Addr::UNSPECIFIED
        && (error.raw_os_error() == Some(FAMILY_NOT_SUPPORTED) || error.kind() == ErrorKind::AddrNotAvailable)
}

fn explained(address: SocketAddr, error: &io::Error) -> io::Error {
    let way_out = match error.kind() {
        ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; give it to the process, or map the port to one above 1023"
                .to_owned()
        }
        ErrorKind::AddrInUse => format!(
            "another socket listens there; `ss -tulnp 'sport = :{}'` shows whose it is, stop that or map another port",
            address.port()
        ),
        ErrorKind::AddrNotAvailable => "no interface of this machine has that address".to_owned(),
        _ => "see the error".to_owned(),
    };
    io::Error::new(error.kind(), format!("cannot bind {address}: {error}: {way_out}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1:0";

    #[test]
    fn all_workers_get_a_socket_of_one_port() {
        let bound = bind(&[LOOPBACK.parse().unwrap()], 3).unwrap();
        let (address, listeners) = &bound[0];
        assert_ne!(address.port(), 0);
        assert_eq!(listeners.len(), 3);
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == *address));
    }

    #[test]
    fn a_port_in_use_is_told_with_its_address_even_when_it_could_be_shared() {
        let bound = bind(&[LOOPBACK.parse().unwrap()], 1).unwrap();
        let taken = bound[0].0;
        let error = bind(&[LOOPBACK.parse().unwrap(), taken], 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    }

    #[test]
    fn an_ipv6_socket_leaves_the_port_free_for_ipv4() {
        match socket("[::1]:0".parse().unwrap()) {
            Ok(socket) => assert!(socket.only_v6().unwrap()),
            Err(error) => assert_eq!(error.raw_os_error(), Some(FAMILY_NOT_SUPPORTED), "{error}"),
        }
    }

    #[test]
    fn an_address_that_is_not_ours_is_told_so() {
        let error = bind(&["192.0.2.1:0".parse().unwrap()], 1).unwrap_err();
        assert!(
            error.to_string().contains("192.0.2.1:0") && error.to_string().contains("no interface"),
            "{error}"
        );
    }
}
