//! The PROXY protocol, versions 1 and 2: who the client of a connection is, told by the balancer in front of us.
//!
//! A header is believed only from a trusted peer. What another peer sends is not even looked at, because a header
//! that is skipped without being believed would still hide bytes from TLS and HTTP.

use super::inbound::Inbound;
use crate::config::ProxyProtocol;
use crate::proxy::Gateway;
use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};
use std::io;
use std::net::SocketAddr;
use thiserror::Error;

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Addresses take up to 232 bytes, the extensions that balancers add some hundred more. Version 1 has its own
/// limit of 107.
const MAX_HEADER: usize = 2048;

/// Why a connection is closed instead of served.
#[derive(Debug, Error)]
pub enum HeaderError {
    #[error("the peer is not in trusted_proxies, and its gateway requires a PROXY header from one that is")]
    Untrusted,
    #[error("the connection does not begin with a PROXY header, which its gateway requires")]
    Missing,
    #[error("the PROXY header is malformed")]
    Malformed,
    #[error("the PROXY header is longer than {MAX_HEADER} bytes")]
    TooLong,
    #[error("the connection ended within the PROXY header")]
    Ended,
    #[error("reading the PROXY header failed: {0}")]
    Io(#[from] io::Error),
}

/// Reads the header that the gateway asks for and takes it off the connection. Returns the client's address and
/// the one it connected to, or `None` when the connection itself tells them. The caller bounds the time.
///
/// # Errors
/// The connection must not be served.
pub async fn read_header(
    stream: &mut Inbound,
    mode: ProxyProtocol,
    peer: SocketAddr,
    gateway: &Gateway,
) -> Result<Option<(SocketAddr, SocketAddr)>, HeaderError> {
    let believed = || gateway.trusts(peer.ip());
    match mode {
        ProxyProtocol::Off => return Ok(None),
        ProxyProtocol::Optional if !believed() => return Ok(None),
        ProxyProtocol::Required if !believed() => return Err(HeaderError::Untrusted),
        ProxyProtocol::Optional | ProxyProtocol::Required => {}
    }
    loop {
        match parse(stream.ahead()) {
            Parsed::Header { length, addresses } => {
                stream.discard(length);
                return Ok(addresses);
            }
            Parsed::Other if mode == ProxyProtocol::Optional => return Ok(None),
            Parsed::Other => return Err(HeaderError::Missing),
            Parsed::Malformed => return Err(HeaderError::Malformed),
            Parsed::Incomplete => {}
        }
        let most = MAX_HEADER - stream.ahead().len();
        if most == 0 {
            return Err(HeaderError::TooLong);
        }
        if stream.read_ahead(most).await? == 0 {
            return Err(HeaderError::Ended);
        }
    }
}

/// What the first bytes of a connection are.
enum Parsed {
    /// A header of `length` bytes; without addresses when the balancer speaks for itself (LOCAL, UNKNOWN).
    Header { length: usize, addresses: Option<(SocketAddr, SocketAddr)> },
    /// Perhaps a header, of which more has to come.
    Incomplete,
    /// No header.
    Other,
    /// The signature of a header, and then something else.
    Malformed,
}

fn parse(bytes: &[u8]) -> Parsed {
    let signature = if bytes.first() == Some(&SIGNATURE_V2[0]) { SIGNATURE_V2 } else { SIGNATURE_V1 };
    let compared = bytes.len().min(signature.len());
    if bytes[..compared] != signature[..compared] {
        return Parsed::Other;
    }
    if compared < signature.len() {
        return Parsed::Incomplete;
    }
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, length)) => match header.proxied_address() {
            Some(ProxiedAddress { protocol: Protocol::Datagram, .. }) => Parsed::Malformed,
            Some(ProxiedAddress { protocol: Protocol::Stream, source, destination }) => {
                Parsed::Header { length, addresses: Some((plain(*source), plain(*destination))) }
            }
            None => Parsed::Header { length, addresses: None },
        },
        Err(proxy_header::Error::BufferTooShort) => Parsed::Incomplete,
        Err(_) => Parsed::Malformed,
    }
}

/// An IPv4 address as such, although the balancer writes it within IPv6: networks are compared with it later.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
