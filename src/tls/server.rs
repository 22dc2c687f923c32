//! Which listener answers a TLS handshake: by the server name that the client asks for.
//!
//! ```text
//! server name ─▶ TlsSocket ─ most specific listener ─▶ ServerConfig ─ Choice ─▶ certificate
//!                    └─ no listener, or one without a certificate ─▶ Refusal
//! ```

use super::{Certificate, TlsShared};
use crate::host::{HostIndex, HostPattern};
use rustls::{AlertDescription, ServerConfig};
use std::sync::Arc;

/// A listener that speaks TLS.
#[derive(Debug, Clone)]
pub struct TlsListener {
    pub hostname: HostPattern,
    pub mode: TlsMode,
}

/// Who ends the TLS connection.
#[derive(Debug, Clone)]
pub enum TlsMode {
    /// The gateway, with one of these certificates. Without any (all references broken) a handshake for the
    /// listener fails.
    Terminate { certificates: Vec<Arc<Certificate>> },
}

/// The server name of a handshake, lower case; empty when the client sent none.
pub type ServerName = Arc<str>;

/// All TLS listeners of a socket, by server name.
#[derive(Debug, Default)]
pub struct TlsSocket {
    listeners: HostIndex<Termination>,
}

/// How a listener ends TLS; `None` is a listener without a certificate.
type Termination = Option<Arc<ServerConfig>>;

/// Why no listener answers a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No listener of the socket is for this name, or the client sent none and every listener has one.
    UnknownName,
    /// The listener for this name has no certificate that can be used.
    NoCertificate,
}

impl TlsSocket {
    /// The listeners of one socket. A listener with the same certificates as one built before from the same
    /// `shared` gets the very same configuration.
    pub fn build(listeners: &[TlsListener], shared: &TlsShared) -> Self {
        let mut index = HostIndex::default();
        for TlsListener { hostname, mode } in listeners {
            index.entry(hostname, || match mode {
                TlsMode::Terminate { certificates } if certificates.is_empty() => None,
                TlsMode::Terminate { certificates } => Some(shared.config(certificates)),
            });
        }
        shared.forget_unused();
        Self { listeners: index }
    }

    /// How the most specific listener for this name (lower case; empty when the client sent none) ends TLS.
    ///
    /// # Errors
    /// The handshake has to fail with the [`Refusal`]'s alert.
    pub fn choose(&self, server_name: &str) -> Result<&Arc<ServerConfig>, Refusal> {
        self.listeners.best(server_name).ok_or(Refusal::UnknownName)?.as_ref().ok_or(Refusal::NoCertificate)
    }
}

impl Refusal {
    /// What the client is told (RFC 6066 3, RFC 8446 6.2).
    pub fn alert(self) -> AlertDescription {
        match self {
            Self::UnknownName => AlertDescription::UnrecognisedName,
            Self::NoCertificate => AlertDescription::HandshakeFailure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(hostname: &str, certificates: &[&Arc<Certificate>]) -> TlsListener {
        let hostname = if hostname == "*" {
            HostPattern::Any
        } else {
            HostPattern::parse(hostname).expect("a valid pattern")
        };
        let certificates = certificates.iter().map(|&certificate| certificate.clone()).collect();
        TlsListener { hostname, mode: TlsMode::Terminate { certificates } }
    }

    fn certificate(name: &str) -> Arc<Certificate> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Arc::new(Certificate::from_pem(name, chain.as_bytes(), key.as_bytes()).unwrap())
    }

    #[test]
    fn the_most_specific_listener_answers_and_an_unknown_name_is_refused() {
        let shared = TlsShared::new().unwrap();
        let (one, two) = (certificate("a.test"), certificate("*.test"));
        let listeners = [listener("a.test", &[&one]), listener("*.test", &[&two]), listener("b.test", &[])];
        let socket = TlsSocket::build(&listeners, &shared);
        let exact = socket.choose("a.test").unwrap();
        let wildcard = socket.choose("c.test").unwrap();
        assert!(!Arc::ptr_eq(exact, wildcard));
        assert!(Arc::ptr_eq(wildcard, socket.choose("d.c.test").unwrap()));
        assert_eq!(socket.choose("b.test").unwrap_err(), Refusal::NoCertificate);
        assert_eq!(socket.choose("test").unwrap_err(), Refusal::UnknownName);
        assert_eq!(socket.choose("").unwrap_err(), Refusal::UnknownName);
    }

    #[test]
    fn a_listener_without_hostname_answers_every_name_and_none() {
        let shared = TlsShared::new().unwrap();
        let socket = TlsSocket::build(&[listener("*", &[&certificate("a.test")])], &shared);
        assert!(socket.choose("").is_ok());
        assert!(socket.choose("z.example").is_ok());
    }

    #[test]
    fn a_rebuild_keeps_the_configuration_of_listeners_whose_certificates_stay() {
        let shared = TlsShared::new().unwrap();
        let (one, two) = (certificate("a.test"), certificate("b.test"));
        let before = TlsSocket::build(&[listener("a.test", &[&one]), listener("b.test", &[&two])], &shared);
        // Read again from the same Secret: equal, but not the same allocation.
        let reread = Arc::new(Certificate::clone(&one));
        let renewed = certificate("b.test");
        let after =
            TlsSocket::build(&[listener("a.test", &[&reread]), listener("b.test", &[&renewed])], &shared);
        assert!(Arc::ptr_eq(before.choose("a.test").unwrap(), after.choose("a.test").unwrap()));
        assert!(!Arc::ptr_eq(before.choose("b.test").unwrap(), after.choose("b.test").unwrap()));
    }
}
