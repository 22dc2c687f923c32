//! An authority of the tests' own, and leaf certificates for any names.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SerialNumber};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Signs leaf certificates; clients of the tests trust it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A leaf certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub chain_pem: String,
    pub key_pem: String,
    /// As a handshake shows it.
    pub der: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A new leaf with a new key and a serial number that no other one has.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        static SERIAL: AtomicU64 = AtomicU64::new(1000);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.serial_number = Some(SerialNumber::from(SERIAL.fetch_add(1, Relaxed)));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf { chain_pem: certificate.pem(), key_pem: key.serialize_pem(), der: certificate.der().clone() }
    }

    /// A client that trusts this authority alone.
    pub fn client(&self, alpn: &[&str]) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider());
        let versions = builder.with_safe_default_protocol_versions().expect("the provider knows them");
        let mut config = versions.with_root_certificates(self.roots()).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }

    /// The same, speaking one version of TLS alone.
    pub fn client_of_version(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider());
        let versions = builder.with_protocol_versions(&[version]).expect("the provider knows it");
        versions.with_root_certificates(self.roots()).with_no_client_auth()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate that can be trusted");
        roots
    }
}

impl Leaf {
    /// A server with this certificate.
    pub fn server(&self, alpn: &[&str]) -> ServerConfig {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .expect("they belong together");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }
}

/// Named, because two providers are linked in and none is the default of this process.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
