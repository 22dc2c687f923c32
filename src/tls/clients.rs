//! Certificates of clients: who asks for them, which are believed, and how a backend is told of them.
//!
//! The verifier belongs to a listener's configuration, so that new authorities make a new configuration with
//! session tickets of its own: a session that was opened under the old ones cannot be resumed under the new.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is asked of the clients of a listener (GEP-91).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientValidation {
    /// Certificates that they sign are valid, and so are these themselves.
    pub authorities: Vec<CertificateDer<'static>>,
    pub mode: ClientMode,
    /// What backends are told of a valid certificate; `None` tells nothing.
    pub told: Option<CertificateDetails>,
}

/// What becomes of clients without a valid certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientMode {
    /// Their handshake fails.
    ValidOnly,
    /// They are served like all others.
    InsecureFallback,
}

/// What of a certificate stands in `x-forwarded-client-cert`, beside its hash (Envoy's `certDetailsToAdd`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CertificateDetails {
    pub subject: bool,
    pub certificate: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

/// Decides on the certificates of clients.
pub struct Clients {
    pub validation: ClientValidation,
    /// `None` when not one of the authorities can be used: nobody is valid then.
    chains: Option<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ClientValidation { authorities, mode, told } = &self.validation;
        write!(f, "Clients({} authorities, {mode:?}, {told:?})", authorities.len())
    }
}

impl Clients {
    /// A verifier of this validation.
    pub(super) fn new(validation: ClientValidation, provider: Arc<CryptoProvider>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(validation.authorities.iter().cloned());
        let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        Self { validation, chains: chains.ok(), provider }
    }

    /// Whether a chain that a client has proved to own is valid at this moment.
    pub fn believe(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        self.verify(leaf, intermediates, UnixTime::now()).is_ok()
    }

    /// Whether a client that resumes a session would still be let in: its certificate was verified when the session
    /// began, and may have expired since. Other authorities have other sessions.
    pub fn still_admits(&self, chain: Option<&[CertificateDer<'_>]>) -> bool {
        let now = UnixTime::now();
        self.validation.mode == ClientMode::InsecureFallback
            || chain.is_some_and(|chain| chain.iter().all(|certificate| is_current(certificate, now)))
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let unknown = || Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let verified = match &self.chains {
            Some(chains) => chains.verify_client_cert(leaf, intermediates, now),
            None => unknown(),
        };
        // A self-signed certificate that is trusted itself has no chain, and most say that they are authorities.
        match verified {
            Err(_) if self.validation.authorities.contains(leaf) && is_current(leaf, now) => {
                Ok(ClientCertVerified::assertion())
            }
            verified => verified,
        }
    }
}

/// Whether a certificate is within its validity.
fn is_current(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.validation.mode == ClientMode::ValidOnly
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match (&self.chains, self.validation.mode) {
            (Some(chains), ClientMode::ValidOnly) => chains.root_hint_subjects(),
            // Whatever a client has is welcome; a hint would make some send nothing.
            _ => &[],
        }
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.validation.mode {
            ClientMode::ValidOnly => self.verify(leaf, intermediates, now),
            ClientMode::InsecureFallback => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
