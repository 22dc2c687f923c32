//! What all TLS listeners of the process share: the keys of session tickets, and the configurations in use.
//!
//! A client resumes a session with any worker and after any change of configuration, because the ticket keys
//! live here and not in a revision. The server name is part of a session, so a ticket is good for its own name
//! only. Listeners that ask for client certificates have tickets of their own: a session without a certificate, or
//! with one of an authority that is trusted no more, cannot be resumed there.

use super::choice::Choice;
use super::settings::{provider, versions};
use super::tickets::{TicketKeys, Tickets};
use super::{Carried, ClientMode, ClientValidation, Clients, Termination, TlsEnd};
use crate::config::{SessionTickets, TlsOptions};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::error::Unspecified;
use foldhash::fast::FixedState;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs as default};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, StoresServerSessions};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Sessions of TLS 1.2 clients that know no tickets; some 200 bytes each.
const STATEFUL_SESSIONS: usize = 4096;

/// Owned by the control path, for the life of the process.
pub struct TlsShared {
    provider: Arc<CryptoProvider>,
    tickets: SessionTickets,
    keys: Arc<TicketKeys>,
    /// Of all listeners that ask for no client certificates.
    open: Resumption,
    /// The configurations that some revision still holds. Only the control path locks it.
    configs: Mutex<Configs>,
}

type Configs = HashMap<Served, (Weak<ServerConfig>, Option<Arc<Clients>>), FixedState>;

/// What is remembered of sessions; without tickets nothing is.
#[derive(Clone)]
struct Resumption {
    tickets: Option<Arc<Tickets>>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl TlsShared {
    /// Nothing is served yet, and the keys of tickets are this process's own.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(tickets: &SessionTickets) -> Result<Self, Unspecified> {
        let provider =
            CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(default::default_provider()));
        let keys = Arc::new(TicketKeys::new(tickets.lifetime)?);
        let open = Resumption::new(tickets, &keys, Vec::new())?;
        Ok(Self { provider, tickets: tickets.clone(), keys, open, configs: Mutex::default() })
    }

    /// The keys of all tickets, to share them with other replicas.
    pub fn ticket_keys(&self) -> &Arc<TicketKeys> {
        &self.keys
    }

    /// How a listener ends TLS: with a configuration that is in use already, or a new one. `None` where its
    /// options let no handshake succeed.
    pub(super) fn end(&self, termination: &Termination) -> Option<TlsEnd> {
        let Termination { certificates, clients, options, carried } = termination;
        let carried = *carried;
        let served = Served {
            keys: certificates.iter().map(|certificate| certificate.key.clone()).collect(),
            clients: clients.clone(),
            options: options.clone(),
            carried,
        };
        let mut configs = self.configs();
        if let Some((config, clients)) = configs.get(&served)
            && let Some(config) = config.upgrade()
        {
            return Some(TlsEnd::Here { config, clients: clients.clone(), carried });
        }
        let clients = clients.as_ref().map(|clients| Clients::new(clients.clone(), self.provider.clone()));
        let clients = clients.map(Arc::new);
        let config = Arc::new(self.config(termination, clients.as_ref())?);
        configs.insert(served, (Arc::downgrade(&config), clients.clone()));
        Some(TlsEnd::Here { config, clients, carried })
    }

    fn config(&self, termination: &Termination, clients: Option<&Arc<Clients>>) -> Option<ServerConfig> {
        let Termination { certificates, clients: _, options, carried } = termination;
        let provider = Arc::new(provider(options, &self.provider));
        let builder =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions(options)).ok()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(clients.clone()),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Choice::new(certificates)));
        config.ignore_client_order = true;
        config.alpn_protocols = match (&options.alpn, carried) {
            (Some(ids), _) => ids.iter().map(|id| id.clone().into_bytes()).collect(),
            (None, Carried::Http) => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            // What is spoken inside is agreed on by others, if at all.
            (None, Carried::Bytes) => Vec::new(),
        };
        // Early data can be replayed by anybody who saw it (RFC 8446 8).
        config.max_early_data_size = 0;
        // HTTP clients speak first, so there is nothing to send before their Finished.
        config.send_half_rtt_data = false;
        config.send_tls13_tickets = self.tickets.per_handshake.into();
        self.resumption(clients.map(|clients| &clients.validation)).set(&mut config);
        Some(config)
    }

    /// Sessions without a client certificate, or with one of other authorities, are none of those that ask for
    /// certificates.
    fn resumption(&self, clients: Option<&ClientValidation>) -> Resumption {
        let Some(clients) = clients else { return self.open.clone() };
        // Without random numbers nothing is remembered, and every handshake is a whole one.
        Resumption::new(&self.tickets, &self.keys, context(clients)).unwrap_or_else(|_| Resumption::none())
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

impl Resumption {
    fn new(settings: &SessionTickets, keys: &Arc<TicketKeys>, context: Vec<u8>) -> Result<Self, Unspecified> {
        if !settings.enabled {
            return Ok(Self::none());
        }
        let tickets = Some(Arc::new(Tickets::new(keys.clone(), context)?));
        Ok(Self { tickets, sessions: ServerSessionMemoryCache::new(STATEFUL_SESSIONS) })
    }

    fn none() -> Self {
        Self { tickets: None, sessions: Arc::new(NoServerSessionStorage {}) }
    }

    fn set(self, config: &mut ServerConfig) {
        config.session_storage = self.sessions;
        match self.tickets {
            Some(tickets) => config.ticketer = tickets,
            None => config.send_tls13_tickets = 0,
        }
    }
}

/// What tells the sessions of such clients apart from others; the same in every replica.
fn context(clients: &ClientValidation) -> Vec<u8> {
    let ClientValidation { authorities, mode, told: _ } = clients;
    let mut digest = Context::new(&SHA256);
    digest.update(match mode {
        ClientMode::ValidOnly => b"valid",
        ClientMode::InsecureFallback => b"every",
    });
    for authority in authorities {
        digest.update(&authority.len().to_be_bytes());
        digest.update(authority);
    }
    digest.finish().as_ref().to_vec()
}

/// Settings by what is in them, so that a Secret read again is the same. The key of a chain is known to belong
/// to it.
struct Served {
    keys: Vec<Arc<CertifiedKey>>,
    clients: Option<ClientValidation>,
    options: TlsOptions,
    carried: Carried,
}

impl PartialEq for Served {
    fn eq(&self, other: &Self) -> bool {
        let Self { keys, clients, options, carried } = self;
        let same = |(a, b): (&Arc<CertifiedKey>, &Arc<CertifiedKey>)| {
            Arc::ptr_eq(a, b) || (a.cert == b.cert && a.ocsp == b.ocsp)
        };
        *carried == other.carried
            && *clients == other.clients
            && *options == other.options
            && keys.len() == other.keys.len()
            && keys.iter().zip(&other.keys).all(same)
    }
}

impl Eq for Served {}

impl Hash for Served {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { keys, clients, options, carried } = self;
        for certified in keys {
            certified.cert.first().map(AsRef::<[u8]>::as_ref).hash(state);
        }
        (clients, options, carried).hash(state);
    }
}
