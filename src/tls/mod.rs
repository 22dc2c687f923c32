//! Certificates: read strictly, chosen by SNI, replaced live.

mod certificate;
mod server;

pub use certificate::{Certificate, CertificateError};
pub use server::{ServerName, TlsListener, TlsMode, TlsSocket};
