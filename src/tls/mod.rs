//! Certificates: read strictly, chosen by SNI, replaced live.

mod authorities;
mod certificate;
mod choice;
mod clients;
pub mod dev;
mod server;
mod shared;
mod told;

pub use authorities::{AuthorityError, authorities};
pub use certificate::{Certificate, CertificateError};
pub use clients::{CertificateDetails, ClientMode, ClientValidation, Clients};
pub use server::{Carried, Refusal, ServerName, Termination, TlsEnd, TlsListener, TlsMode, TlsSocket};
pub use shared::TlsShared;
pub use told::forwarded_certificate;
