//! Certificates: read strictly, chosen by SNI, replaced live.

mod certificate;
mod choice;
pub mod dev;
mod server;
mod shared;

pub use certificate::{Certificate, CertificateError};
pub use server::{Refusal, ServerName, TlsListener, TlsMode, TlsSocket};
pub use shared::TlsShared;
