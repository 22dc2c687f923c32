//! What all TLS listeners of the process share: the protocol settings, the session tickets, the configurations
//! in use.
//!
//! A client resumes a session with any worker and after any change of configuration, because the ticket keys
//! live here and not in a revision. The server name is part of a session, so a ticket is good for its own name
//! only; whoever adds client certificates must give such listeners tickets of their own, or a session without a
//! certificate could be resumed where one is asked for.

use super::Certificate;
use super::choice::Choice;
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
    /// The configurations that some revision still holds. Only the control path locks it.
    configs: Mutex<HashMap<Served, Weak<ServerConfig>, FixedState>>,
}

impl TlsShared {
    /// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, new ticket keys that rotate every six hours, no 0-RTT.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new() -> Result<Self, Error> {
        let provider =
            CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
        let mut template = ServerConfig::builder_with_provider(provider)
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
        Ok(Self { template, configs: Mutex::default() })
    }

    /// The configuration that serves these certificates: one that is in use already, or a new one.
    pub(super) fn config(&self, certificates: &[Arc<Certificate>]) -> Arc<ServerConfig> {
        let served = Served(certificates.iter().map(|certificate| certificate.key.clone()).collect());
        let mut configs = self.configs();
        if let Some(config) = configs.get(&served).and_then(Weak::upgrade) {
            return config;
        }
        let mut config = self.template.clone();
        config.cert_resolver = Arc::new(Choice::new(certificates));
        let config = Arc::new(config);
        configs.insert(served, Arc::downgrade(&config));
        config
    }

    /// Drops the keys of certificates that no revision serves any more.
    pub(super) fn forget_unused(&self) {
        self.configs().retain(|_, config| config.strong_count() > 0);
    }

    fn configs(&self) -> MutexGuard<'_, HashMap<Served, Weak<ServerConfig>, FixedState>> {
        self.configs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TlsShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsShared").field("configs", &self.configs().len()).finish_non_exhaustive()
    }
}

/// Certificates by what is in them, so that a Secret read again is the same. The key of a chain is known to
/// belong to it.
struct Served(Vec<Arc<CertifiedKey>>);

impl PartialEq for Served {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .all(|(a, b)| Arc::ptr_eq(a, b) || (a.cert == b.cert && a.ocsp == b.ocsp))
    }
}

impl Eq for Served {}

impl Hash for Served {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for certified in &self.0 {
            certified.cert.first().map(AsRef::<[u8]>::as_ref).hash(state);
        }
    }
}
