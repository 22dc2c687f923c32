//! What all TLS listeners of the process share: the protocol settings, the session tickets, the configurations
//! in use.
//!
//! A client resumes a session with any worker and after any change of configuration, because the ticket keys
//! live here and not in a revision. The server name is part of a session, so a ticket is good for its own name
//! only. Listeners that ask for client certificates have tickets of their own: a session without a certificate, or
//! with one of an authority that is trusted no more, cannot be resumed there.

use super::choice::Choice;
use super::{Carried, ClientValidation, Clients, Termination, TlsEnd};
use foldhash::fast::FixedState;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig};
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Sessions of TLS 1.2 clients that know no tickets; some 200 bytes each.
const STATEFUL_SESSIONS: usize = 4096;

/// Owned by the control path, for the life of the process.
pub struct TlsShared {
    /// All settings, but for the certificates.
    template: ServerConfig,
    provider: Arc<CryptoProvider>,
    /// The configurations that some revision still holds. Only the control path locks it.
    configs: Mutex<Configs>,
}

type Configs = HashMap<Served, (Weak<ServerConfig>, Option<Arc<Clients>>), FixedState>;

impl TlsShared {
    /// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, new ticket keys that rotate every six hours, no 0-RTT.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new() -> Result<Self, Error> {
        let provider =
            CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
        let mut template = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Choice::new(&[])));
        template.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        template.ticketer = aws_lc_rs::Ticketer::new()?;
        template.session_storage = ServerSessionMemoryCache::new(STATEFUL_SESSIONS);
        // Early data can be replayed by anybody who saw it (RFC 8446 8).
        template.max_early_data_size = 0;
        // HTTP clients speak first, so there is nothing to send before their Finished.
        template.send_half_rtt_data = false;
        Ok(Self { template, provider, configs: Mutex::default() })
    }

    /// How a listener ends TLS: with a configuration that is in use already, or a new one.
    pub(super) fn end(&self, termination: &Termination) -> TlsEnd {
        let Termination { certificates, clients, carried } = termination;
        let carried = *carried;
        let served = Served {
            keys: certificates.iter().map(|certificate| certificate.key.clone()).collect(),
            clients: clients.clone(),
            carried,
        };
        let mut configs = self.configs();
        if let Some((config, clients)) = configs.get(&served)
            && let Some(config) = config.upgrade()
        {
            return TlsEnd::Here { config, clients: clients.clone(), carried };
        }
        let clients = clients.as_ref().map(|clients| Clients::new(clients.clone(), self.provider.clone()));
        let clients = clients.map(Arc::new);
        let mut config = match &clients {
            None => self.template.clone(),
            Some(clients) => self.asking(clients.clone()),
        };
        config.cert_resolver = Arc::new(Choice::new(certificates));
        if carried == Carried::Bytes {
            // What is spoken inside is agreed on by others, if at all.
            config.alpn_protocols = Vec::new();
        }
        let config = Arc::new(config);
        configs.insert(served, (Arc::downgrade(&config), clients.clone()));
        TlsEnd::Here { config, clients, carried }
    }

    /// The settings of a listener that asks its clients for certificates.
    fn asking(&self, clients: Arc<Clients>) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the template was made of the same provider");
        let mut config = builder
            .with_client_cert_verifier(clients)
            .with_cert_resolver(self.template.cert_resolver.clone());
        config.alpn_protocols.clone_from(&self.template.alpn_protocols);
        config.max_early_data_size = self.template.max_early_data_size;
        config.send_half_rtt_data = self.template.send_half_rtt_data;
        // Without random numbers for keys there are no tickets, and every handshake is a whole one.
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        config
    }

    /// Drops the keys of certificates that no revision serves any more.
    pub(super) fn forget_unused(&self) {
        self.configs().retain(|_, (config, _)| config.strong_count() > 0);
    }

    fn configs(&self) -> MutexGuard<'_, Configs> {
        self.configs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TlsShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsShared").field("configs", &self.configs().len()).finish_non_exhaustive()
    }
}

/// Settings by what is in them, so that a Secret read again is the same. The key of a chain is known to belong
/// to it.
struct Served {
    keys: Vec<Arc<CertifiedKey>>,
    clients: Option<ClientValidation>,
    carried: Carried,
}

impl PartialEq for Served {
    fn eq(&self, other: &Self) -> bool {
        let Self { keys, clients, carried } = self;
        let same = |(a, b): (&Arc<CertifiedKey>, &Arc<CertifiedKey>)| {
            Arc::ptr_eq(a, b) || (a.cert == b.cert && a.ocsp == b.ocsp)
        };
        *carried == other.carried
            && *clients == other.clients
            && keys.len() == other.keys.len()
            && keys.iter().zip(&other.keys).all(same)
    }
}

impl Eq for Served {}

impl Hash for Served {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { keys, clients, carried } = self;
        for certified in keys {
            certified.cert.first().map(AsRef::<[u8]>::as_ref).hash(state);
        }
        (clients, carried).hash(state);
    }
}
