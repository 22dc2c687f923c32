//! An authority of the tests' own, and leaf certificates for any names.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, SerialNumber};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

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
        self.leaf_of(Self::params(names))
    }

    /// The same, valid from one moment until another.
    pub fn leaf_valid(&self, names: &[&str], from: SystemTime, until: SystemTime) -> Leaf {
        let mut params = Self::params(names);
        (params.not_before, params.not_after) = (from.into(), until.into());
        self.leaf_of(params)
    }

    fn params(names: &[&str]) -> CertificateParams {
        static SERIAL: AtomicU64 = AtomicU64::new(1000);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.serial_number = Some(SerialNumber::from(SERIAL.fetch_add(1, Relaxed)));
        params
    }

    fn leaf_of(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf { chain_pem: certificate.pem(), key_pem: key.serialize_pem(), der: certificate.der().clone() }
    }

    /// A certificate of these parameters.
    pub fn sign(&self, params: &CertificateParams, key: &KeyPair) -> rcgen::Certificate {
        params.signed_by(key, &self.issuer).expect("a certificate")
    }

    /// The authority's own certificate, as PEM.
    pub fn pem(&self) -> String {
        let text = STANDARD.encode(&self.certificate);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    /// A leaf for these names that also has a URI.
    pub fn leaf_with_uri(&self, names: &[&str], uri: &str) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("ASCII")));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf { chain_pem: certificate.pem(), key_pem: key.serialize_pem(), der: certificate.der().clone() }
    }

    /// A client that trusts this authority and shows a certificate when it is asked for one.
    pub fn client_showing(&self, leaf: &Leaf) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider());
        let versions = builder.with_safe_default_protocol_versions().expect("the provider knows them");
        let config = versions.with_root_certificates(self.roots());
        config.with_client_auth_cert(vec![leaf.der.clone()], leaf.key()).expect("they belong together")
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
    /// A certificate that nobody signed but itself, and that says it is an authority.
    pub fn self_signed(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { chain_pem: certificate.pem(), key_pem: key.serialize_pem(), der: certificate.der().clone() }
    }

    /// One with an RSA key, which nobody signed but itself.
    pub fn rsa(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
        let params = CertificateParams::new(names).expect("valid names");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { chain_pem: certificate.pem(), key_pem: key.serialize_pem(), der: certificate.der().clone() }
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a key")
    }

    /// A server with this certificate that asks its clients for one of this authority.
    pub fn server_asking(&self, authority: &Authority) -> ServerConfig {
        let roots = Arc::new(authority.roots());
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().expect("a root");
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![self.der.clone()], self.key())
            .expect("they belong together")
    }

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
