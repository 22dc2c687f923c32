//! TLS towards a backend: whom to trust, and which names its certificate must have.

use super::{ClientCertificate, Protocol, Roots, SubjectAltName, TlsSpec};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::{Arc, OnceLock};
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why TLS to a backend cannot be set up; its requests are answered 503 then, never sent in cleartext.
#[derive(Debug, Error)]
pub enum ClientTlsError {
    #[error("{0:?} is no server name")]
    ServerName(String),
    #[error("not one trusted certificate can be used")]
    NoRoots,
    #[error(transparent)]
    Rustls(#[from] Error),
}

/// A connector's settings, made once per distinct [`TlsSpec`].
#[derive(Debug, Clone)]
pub(super) struct ClientTls {
    pub config: Arc<ClientConfig>,
    pub server_name: ServerName<'static>,
}

impl ClientTls {
    pub fn new(spec: &TlsSpec, protocol: Protocol) -> Result<Self, ClientTlsError> {
        let server_name = ServerName::try_from(spec.server_name.clone())
            .map_err(|_| ClientTlsError::ServerName(spec.server_name.clone()))?;
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let trust = match &spec.roots {
            Roots::Unverified => None,
            Roots::System => Some((system_roots()?, Vec::new())),
            Roots::Given(certificates) => {
                let mut roots = RootCertStore::empty();
                let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
                if added == 0 {
                    return Err(ClientTlsError::NoRoots);
                }
                Some((Arc::new(roots), certificates.clone()))
            }
        };
        let wanted = spec.subject_alt_names.clone();
        let trust = trust.map(|(roots, certificates)| Trust { roots, certificates, wanted, algorithms });
        let verifier = Arc::new(Verifier { trust, algorithms });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        if let Some(ClientCertificate(certified)) = &spec.client {
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(certified)));
        }
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
            Protocol::Opaque => Vec::new(),
        };
        Ok(Self { config: Arc::new(config), server_name })
    }
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

fn system_roots() -> Result<Arc<RootCertStore>, ClientTlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() { Err(ClientTlsError::NoRoots) } else { Ok(Arc::clone(roots)) }
}

/// Decides on the certificates of a backend.
#[derive(Debug)]
struct Verifier {
    /// `None` trusts every certificate: `insecureSkipVerify`, which its user asked for by name.
    trust: Option<Trust>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Trusts a chain of a known authority whose leaf has the name that the connection asks for, or, where there are
/// wanted names, one of them whatever is asked for (`BackendTLSPolicy.validation.subjectAltNames`).
#[derive(Debug)]
struct Trust {
    roots: Arc<RootCertStore>,
    /// Certificates that are believed themselves.
    certificates: Vec<CertificateDer<'static>>,
    wanted: Vec<SubjectAltName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.algorithms.all;
        let verified =
            verify_server_cert_signed_by_trust_anchor(parsed, &self.roots, intermediates, now, algorithms);
        match verified {
            // A self-signed certificate that is trusted itself has no chain, and most say that they are authorities.
            Err(_) if self.certificates.contains(leaf) && is_current(leaf, now) => Ok(()),
            verified => verified,
        }
    }

    fn verify_names(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        asked: &ServerName<'_>,
    ) -> Result<(), Error> {
        if self.wanted.is_empty() {
            return verify_server_name(parsed, asked);
        }
        let has = |want: &SubjectAltName| match want {
            SubjectAltName::Dns(name) => match ServerName::try_from(name.as_str()) {
                Ok(name) => verify_server_name(parsed, &name).is_ok(),
                // A wildcard is no name that a server can have; the certificate has to have the same one.
                Err(_) => has_name(leaf, |known| matches!(known, GeneralName::DNSName(dns) if dns == name)),
            },
            SubjectAltName::Uri(uri) => {
                has_name(leaf, |known| matches!(known, GeneralName::URI(known) if known == uri))
            }
        };
        match self.wanted.iter().any(has) {
            true => Ok(()),
            false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }
}

fn has_name(leaf: &CertificateDer<'_>, is_wanted: impl Fn(&GeneralName<'_>) -> bool) -> bool {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(is_wanted)
}

/// Whether a certificate is within its validity.
fn is_current(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trust) = &self.trust {
            let parsed = ParsedCertificate::try_from(leaf)?;
            trust.verify_chain(leaf, &parsed, intermediates, now)?;
            trust.verify_names(leaf, &parsed, asked)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
