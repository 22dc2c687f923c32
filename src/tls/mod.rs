//! Certificates: read strictly, chosen by SNI, replaced live.

mod authorities;
mod certificate;
mod choice;
mod clients;
pub mod dev;
mod leaf;
mod ocsp;
mod server;
mod settings;
mod shared;
mod tickets;
mod told;

pub use crate::config::{CipherSuite, Curve, TlsOptions, TlsVersion, named};
pub use authorities::{AuthorityError, authorities};
pub use certificate::{Age, Certificate, CertificateError};
pub use clients::{CertificateDetails, ClientMode, ClientValidation, Clients};
pub use leaf::{Leaf, date};
pub use ocsp::Staple;
pub use server::{Carried, Refusal, ServerName, Termination, TlsEnd, TlsListener, TlsMode, TlsSocket};
pub use shared::TlsShared;
pub use tickets::{TicketKeys, TicketSecretError, reading_hello};
pub use told::forwarded_certificate;
