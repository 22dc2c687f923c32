//! A certificate with its key: parsed once, at the border, so that whatever holds one can serve it.

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A chain and the key of its leaf, which are known to belong together.
#[derive(Clone)]
pub struct Certificate {
    /// Where it comes from: `namespace/secret`, or a file. The metrics' `envoy_tls_certificate`.
    pub name: String,
    pub key: Arc<CertifiedKey>,
    /// The leaf's DNS names, as written in it.
    pub dns_names: Vec<String>,
    /// Validity in seconds since 1970: not before, not after.
    pub validity: (i64, i64),
    /// The leaf's serial number, in hexadecimal digits.
    pub serial: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, key: _, dns_names, validity, serial } = self;
        write!(f, "Certificate({name}, {dns_names:?}, {validity:?}, {serial}, key [redacted])")
    }
}

/// Why a certificate cannot be served.
#[derive(Debug, Error)]
pub enum CertificateError {
    #[error("the certificate chain is no PEM: {0}")]
    ChainPem(rustls_pki_types::pem::Error),
    #[error("the certificate chain holds no certificate")]
    EmptyChain,
    #[error("the private key is no PEM key of a known kind: {0}")]
    KeyPem(rustls_pki_types::pem::Error),
    #[error("the leaf certificate cannot be read: {0}")]
    Leaf(String),
    #[error("the private key cannot be used: {0}")]
    Key(rustls::Error),
    #[error("the private key does not belong to the leaf certificate")]
    Mismatch,
}

impl Certificate {
    /// Reads a PEM chain (leaf first) and its PEM key (PKCS #8, PKCS #1 or SEC 1).
    pub fn from_pem(name: impl Into<String>, chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(CertificateError::ChainPem)?;
        let leaf = chain.first().ok_or(CertificateError::EmptyChain)?;
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|error| CertificateError::Leaf(error.to_string()))?;
        let dns_names = parsed
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|names| names.value.general_names.iter().filter_map(dns_name).collect())
            .unwrap_or_default();
        let validity = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::KeyPem)?;
        let provider = CryptoProvider::get_default()
            .cloned()
            .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let key = provider.key_provider.load_private_key(key).map_err(CertificateError::Key)?;
        let certified = CertifiedKey::new(chain.clone(), key);
        match certified.keys_match() {
            // Some keys cannot tell their public half; they are believed.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(CertificateError::Mismatch),
        }
        Ok(Self { name: name.into(), key: Arc::new(certified), dns_names, validity, serial })
    }
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        _ => None,
    }
}
