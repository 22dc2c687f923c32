//! Which listener answers a TLS handshake: by the server name that the client asks for.
//!
//! ```text
//! server name ─▶ TlsSocket ─ most specific listener ─┬▶ ServerConfig ─ Choice ─▶ certificate
//!                    │                               └▶ passed through: a backend ends TLS
//!                    └─ no listener, or one without a certificate ─▶ Refusal
//! ```

use super::{Certificate, ClientValidation, Clients, TlsShared};
use crate::config::TlsOptions;
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
    /// The gateway.
    Terminate(Termination),
    /// A backend: the gateway reads the server name and nothing else.
    Passthrough,
}

impl TlsMode {
    /// The gateway ends TLS with one of these certificates, and HTTP is spoken in it.
    pub fn https(certificates: Vec<Arc<Certificate>>) -> Self {
        let options = TlsOptions::default();
        Self::Terminate(Termination { certificates, clients: None, options, carried: Carried::Http })
    }
}

/// How the gateway ends TLS.
#[derive(Debug, Clone)]
pub struct Termination {
    /// Without any (all references broken) a handshake for the listener fails.
    pub certificates: Vec<Arc<Certificate>>,
    /// `None` asks clients for no certificate.
    pub clients: Option<ClientValidation>,
    /// What is agreed on.
    pub options: TlsOptions,
    pub carried: Carried,
}

/// What is inside of a TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carried {
    Http,
    /// Bytes that are a backend's business.
    Bytes,
}

/// The server name of a handshake, lower case; empty when the client sent none.
pub type ServerName = Arc<str>;

/// All TLS listeners of a socket, by server name.
#[derive(Debug, Default)]
pub struct TlsSocket {
    listeners: HostIndex<Option<TlsEnd>>,
    carries_bytes: bool,
    nameless: Nameless,
}

/// What becomes of clients that send no server name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Nameless {
    /// They get the listener that is for every name, if there is one.
    #[default]
    AnyListener,
    Refused,
    /// They are taken to ask for this name.
    Named(ServerName),
}

/// What becomes of a handshake for a listener.
#[derive(Debug, Clone)]
pub enum TlsEnd {
    Here {
        config: Arc<ServerConfig>,
        clients: Option<Arc<Clients>>,
        carried: Carried,
    },
    /// All bytes, from the first one, are a backend's.
    Backend,
}

/// Why no listener answers a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No listener of the socket is for this name, or the client sent none and every listener has one.
    UnknownName,
    /// The listener for this name has no certificate that can be used.
    NoCertificate,
}

impl TlsSocket {
    /// The listeners of one socket. A listener with the same settings as one built before from the same
    /// `shared` gets the very same configuration.
    pub fn build(listeners: &[TlsListener], shared: &TlsShared) -> Self {
        let mut index = HostIndex::default();
        let mut carries_bytes = false;
        for TlsListener { hostname, mode } in listeners {
            let end = match mode {
                TlsMode::Terminate(termination) if termination.certificates.is_empty() => None,
                TlsMode::Terminate(termination) => shared.end(termination),
                TlsMode::Passthrough => Some(TlsEnd::Backend),
            };
            carries_bytes |= match mode {
                TlsMode::Terminate(termination) => termination.carried == Carried::Bytes,
                TlsMode::Passthrough => true,
            };
            index.entry(hostname, || end);
        }
        shared.forget_unused();
        Self { listeners: index, carries_bytes, nameless: Nameless::AnyListener }
    }

    /// The same, with clients that send no server name treated as the gateway's options say.
    #[must_use]
    pub fn with_options(mut self, options: &TlsOptions) -> Self {
        self.nameless = match &options.default_server_name {
            _ if options.require_server_name == Some(true) => Nameless::Refused,
            Some(name) => Nameless::Named(name.to_ascii_lowercase().into()),
            None => Nameless::AnyListener,
        };
        self
    }

    /// The name that a client is taken to ask for who asks for this one (lower case; empty when it sent none).
    pub fn asked(&self, sent: ServerName) -> ServerName {
        match &self.nameless {
            Nameless::Named(name) if sent.is_empty() => name.clone(),
            _ => sent,
        }
    }

    /// How the most specific listener for this name (lower case; empty when the client sent none) ends TLS.
    ///
    /// # Errors
    /// The handshake has to fail, with the [`Refusal`]'s alert or without a word.
    pub fn choose(&self, server_name: &str) -> Result<&TlsEnd, Refusal> {
        if server_name.is_empty() && self.nameless == Nameless::Refused {
            return Err(Refusal::UnknownName);
        }
        self.listeners.best(server_name).ok_or(Refusal::UnknownName)?.as_ref().ok_or(Refusal::NoCertificate)
    }

    /// Whether one of the listeners carries what is no HTTP. Clients of such a socket are refused without a word:
    /// nobody can say whose alert it would be (TLSRoute in the Gateway API).
    pub fn carries_bytes(&self) -> bool {
        self.carries_bytes
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
    use crate::config::SessionTickets;
    use crate::tls::ClientMode;

    fn listener(hostname: &str, certificates: &[&Arc<Certificate>]) -> TlsListener {
        let hostname = if hostname == "*" {
            HostPattern::Any
        } else {
            HostPattern::parse(hostname).expect("a valid pattern")
        };
        let certificates = certificates.iter().map(|&certificate| certificate.clone()).collect();
        TlsListener { hostname, mode: TlsMode::https(certificates) }
    }

    fn config<'a>(socket: &'a TlsSocket, name: &str) -> &'a Arc<ServerConfig> {
        match socket.choose(name).unwrap() {
            TlsEnd::Here { config, .. } => config,
            TlsEnd::Backend => panic!("{name} is passed through"),
        }
    }

    fn certificate(name: &str) -> Arc<Certificate> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Arc::new(Certificate::from_pem(name, chain.as_bytes(), key.as_bytes()).unwrap())
    }

    #[test]
    fn the_most_specific_listener_answers_and_an_unknown_name_is_refused() {
        let shared = TlsShared::new(&SessionTickets::default()).unwrap();
        let (one, two) = (certificate("a.test"), certificate("*.test"));
        let listeners = [listener("a.test", &[&one]), listener("*.test", &[&two]), listener("b.test", &[])];
        let socket = TlsSocket::build(&listeners, &shared);
        let exact = config(&socket, "a.test");
        let wildcard = config(&socket, "c.test");
        assert!(!Arc::ptr_eq(exact, wildcard));
        assert!(Arc::ptr_eq(wildcard, config(&socket, "d.c.test")));
        assert_eq!(socket.choose("b.test").unwrap_err(), Refusal::NoCertificate);
        assert_eq!(socket.choose("test").unwrap_err(), Refusal::UnknownName);
        assert_eq!(socket.choose("").unwrap_err(), Refusal::UnknownName);
    }

    #[test]
    fn a_listener_without_hostname_answers_every_name_and_none() {
        let shared = TlsShared::new(&SessionTickets::default()).unwrap();
        let socket = TlsSocket::build(&[listener("*", &[&certificate("a.test")])], &shared);
        assert!(socket.choose("").is_ok());
        assert!(socket.choose("z.example").is_ok());
    }

    #[test]
    fn a_rebuild_keeps_the_configuration_of_listeners_whose_certificates_stay() {
        let shared = TlsShared::new(&SessionTickets::default()).unwrap();
        let (one, two) = (certificate("a.test"), certificate("b.test"));
        let before = TlsSocket::build(&[listener("a.test", &[&one]), listener("b.test", &[&two])], &shared);
        // Read again from the same Secret: equal, but not the same allocation.
        let reread = Arc::new(Certificate::clone(&one));
        let renewed = certificate("b.test");
        let after =
            TlsSocket::build(&[listener("a.test", &[&reread]), listener("b.test", &[&renewed])], &shared);
        assert!(Arc::ptr_eq(config(&before, "a.test"), config(&after, "a.test")));
        assert!(!Arc::ptr_eq(config(&before, "b.test"), config(&after, "b.test")));
    }

    #[test]
    fn other_authorities_make_another_configuration_and_the_same_ones_the_same() {
        let shared = TlsShared::new(&SessionTickets::default()).unwrap();
        let (own, authority) = (certificate("a.test"), certificate("clients.test"));
        let listener = |authorities: &[&Arc<Certificate>], carried| {
            let authorities = authorities.iter().map(|one| one.key.cert[0].clone()).collect();
            let clients = ClientValidation { authorities, mode: ClientMode::ValidOnly, told: None };
            let certificates = vec![own.clone()];
            let options = TlsOptions::default();
            let mode =
                TlsMode::Terminate(Termination { certificates, clients: Some(clients), options, carried });
            TlsSocket::build(&[TlsListener { hostname: HostPattern::Any, mode }], &shared)
        };
        let first = listener(&[&authority], Carried::Http);
        let same = listener(&[&authority], Carried::Http);
        let other = listener(&[&own], Carried::Http);
        let bytes = listener(&[&authority], Carried::Bytes);
        assert!(Arc::ptr_eq(config(&first, ""), config(&same, "")));
        assert!(!Arc::ptr_eq(config(&first, ""), config(&other, "")));
        assert!(config(&bytes, "").alpn_protocols.is_empty() && bytes.carries_bytes());
        let open = TlsSocket::build(&[listener_of(&own)], &shared);
        assert!(!Arc::ptr_eq(&config(&first, "").ticketer, &config(&open, "").ticketer));
    }

    fn listener_of(certificate: &Arc<Certificate>) -> TlsListener {
        listener("*", &[certificate])
    }
}
