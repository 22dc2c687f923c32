//! A certificate with its key: parsed once, at the border, so that whatever holds one can serve it.

use super::leaf::words;
use super::{Leaf, Staple};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// A chain and the key of its leaf, which are known to belong together.
#[derive(Clone)]
pub struct Certificate {
    /// Where it comes from: `namespace/secret`, or a file. The metrics' `envoy_tls_certificate`.
    pub name: String,
    pub key: Arc<CertifiedKey>,
    /// The leaf's DNS names, as written in it.
    pub dns_names: Vec<String>,
    /// Who signed it, as a distinguished name.
    pub issuer: String,
    /// Validity in seconds since 1970: not before, not after.
    pub validity: (i64, i64),
    /// The leaf's serial number, in hexadecimal digits.
    pub serial: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, key: _, dns_names, issuer: _, validity, serial } = self;
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
    #[error("the private key does not belong to the leaf certificate, which is {0}")]
    Mismatch(String),
}

impl Certificate {
    /// Reads a PEM chain (leaf first) and its PEM key (PKCS #8, PKCS #1 or SEC 1).
    pub fn from_pem(name: impl Into<String>, chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(CertificateError::ChainPem)?;
        let Leaf { subject: _, dns_names, issuer, validity, serial } =
            Leaf::from_der(chain.first().ok_or(CertificateError::EmptyChain)?)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::KeyPem)?;
        let provider = CryptoProvider::get_default()
            .cloned()
            .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let key = provider.key_provider.load_private_key(key).map_err(CertificateError::Key)?;
        let certified = CertifiedKey::new(chain.clone(), key);
        match certified.keys_match() {
            // Some keys cannot tell their public half; they are believed.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(CertificateError::Mismatch(words(&dns_names, validity)));
            }
            Err(error) => return Err(CertificateError::Leaf(error.to_string())),
        }
        Ok(Self { name: name.into(), key: Arc::new(certified), dns_names, issuer, validity, serial })
    }

    /// The same with a word of its authority (RFC 6960), which clients get along with it.
    #[must_use]
    pub fn stapled(&self, staple: &Staple) -> Self {
        let mut key = CertifiedKey::clone(&self.key);
        key.ocsp = Some(staple.der.clone());
        Self { key: Arc::new(key), ..self.clone() }
    }

    /// Where a moment, in seconds since 1970, is in its validity.
    pub fn age(&self, now: i64) -> Age {
        match self.validity {
            (from, _) if now < from => Age::NotYetValid,
            (_, until) if now > until => Age::Expired,
            _ => Age::Valid,
        }
    }

    /// Whether clients that ask for a listener's name accept it, or for one of its names: `*.example.com` is every
    /// name that ends so.
    pub fn covers(&self, hostname: &str) -> bool {
        let hostname = hostname.to_ascii_lowercase();
        let parent = hostname.split_once('.').map(|(_, parent)| parent);
        self.dns_names.iter().map(|name| name.to_ascii_lowercase()).any(|name| {
            match hostname.strip_prefix('*') {
                Some(end) => name.ends_with(end),
                None => name == hostname || name.strip_prefix("*.") == parent && parent.is_some(),
            }
        })
    }

    /// Its names and dates, for a sentence: "for a.test, valid from … until …".
    pub fn words(&self) -> String {
        words(&self.dns_names, self.validity)
    }
}

/// Where a moment is in the validity of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    NotYetValid,
    Valid,
    Expired,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_covers_the_names_that_clients_accept_it_for() {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned(), "*.B.test".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let certificate = Certificate::from_pem("it", chain.as_bytes(), key.as_bytes()).unwrap();
        for (hostname, covers) in [
            ("a.test", true),
            ("A.test", true),
            ("x.b.test", true),
            ("b.test", false),
            ("y.x.b.test", false),
            ("test", false),
            ("*.test", true),
            ("*.b.test", true),
            ("*.x.b.test", false),
            ("*.a.test", false),
        ] {
            assert_eq!(certificate.covers(hostname), covers, "{hostname}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_told_with_names_and_dates() {
        let make = || rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let (chain, key) = (make().cert.pem(), make().signing_key.serialize_pem());
        let error = Certificate::from_pem("it", chain.as_bytes(), key.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("does not belong") && error.contains("for a.test, valid from 19"), "{error}");
    }
}
