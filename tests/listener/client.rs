//! TLS clients and the certificates they trust.

use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trigate::tls::Certificate;

use crate::rig::soon;

/// A self-signed certificate with an ECDSA key.
pub fn certificate(names: &[&str]) -> Arc<Certificate> {
    certificate_with(names, &rcgen::PKCS_ECDSA_P256_SHA256)
}

pub fn certificate_with(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Arc<Certificate> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let chain = CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap().pem();
    let certificate =
        Certificate::from_pem(names.join(" "), chain.as_bytes(), key.serialize_pem().as_bytes());
    Arc::new(certificate.unwrap())
}

/// A client that trusts these certificates.
pub fn client(trusted: &[&Arc<Certificate>]) -> ClientConfig {
    client_of(trusted, rustls::DEFAULT_VERSIONS)
}

pub fn client_of(
    trusted: &[&Arc<Certificate>],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.key.cert[0].clone()).unwrap();
    }
    let builder = ClientConfig::builder_with_protocol_versions(versions);
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(16);
    config
}

/// A handshake for this server name, or without one when it is an address.
pub async fn handshake(
    config: &Arc<ClientConfig>,
    name: &str,
    tcp: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon(TlsConnector::from(config.clone()).connect(name, tcp)).await
}
