//! TLS towards a backend: whom to trust, and which names its certificate must have.

use super::{Protocol, Roots, SubjectAltName, TlsSpec};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
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
    #[error("the trusted certificates cannot be used: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
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
        let verifier: Arc<dyn ServerCertVerifier> = match &spec.roots {
            Roots::Unverified => Arc::new(AcceptAny(provider.clone())),
            Roots::System => verifier(system_roots()?, spec, &provider)?,
            Roots::Given(certificates) => {
                let mut roots = RootCertStore::empty();
                let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
                if added == 0 {
                    return Err(ClientTlsError::NoRoots);
                }
                verifier(Arc::new(roots), spec, &provider)?
            }
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
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

fn verifier(
    roots: Arc<RootCertStore>,
    spec: &TlsSpec,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ClientTlsError> {
    let names =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider)).build()?;
    if spec.subject_alt_names.is_empty() {
        return Ok(names);
    }
    let wanted = spec.subject_alt_names.clone();
    Ok(Arc::new(AnyOfNames { names, roots, wanted, provider: Arc::clone(provider) }))
}

/// Trusts a chain whose leaf has one of the wanted names, whatever name the connection asked for
/// (`BackendTLSPolicy.validation.subjectAltNames`).
#[derive(Debug)]
struct AnyOfNames {
    names: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    wanted: Vec<SubjectAltName>,
    provider: Arc<CryptoProvider>,
}

impl AnyOfNames {
    fn has_uri(&self, leaf: &CertificateDer<'_>) -> bool {
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
        let Ok(Some(names)) = leaf.subject_alternative_name() else { return false };
        names.value.general_names.iter().any(|name| match name {
            GeneralName::URI(uri) => {
                self.wanted.iter().any(|want| matches!(want, SubjectAltName::Uri(want) if want == uri))
            }
            _ => false,
        })
    }
}

impl ServerCertVerifier for AnyOfNames {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.has_uri(leaf) {
            let parsed = ParsedCertificate::try_from(leaf)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            return verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                algorithms,
            )
            .map(|()| ServerCertVerified::assertion());
        }
        let mut error = Error::InvalidCertificate(CertificateError::NotValidForName);
        for want in &self.wanted {
            let SubjectAltName::Dns(name) = want else { continue };
            let Ok(name) = ServerName::try_from(name.as_str()) else { continue };
            match self.names.verify_server_cert(leaf, intermediates, &name, ocsp, now) {
                Ok(verified) => return Ok(verified),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.names.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.names.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.names.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

/// Trusts every certificate: `insecureSkipVerify`, which its user asked for by name.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
