//! Which listener and which certificate answer a TLS handshake.

use super::Certificate;
use crate::host::{HostIndex, HostPattern};
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

/// All TLS listeners of a socket, by server name. (Filled by the data path's engineer.)
#[derive(Debug, Default)]
pub struct TlsSocket {
    pub listeners: HostIndex<Arc<TlsListener>>,
}

/// The server name of a handshake, lower case; empty when the client sent none.
pub type ServerName = Arc<str>;
