//! The certificates of authorities, read strictly at the border: what is none is not believed later either.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

/// Why a text holds no authorities.
#[derive(Debug, Error)]
pub enum AuthorityError {
    #[error("it is no PEM: {0}")]
    Pem(rustls_pki_types::pem::Error),
    #[error("it holds no certificate")]
    Empty,
    #[error("one of its certificates cannot be read: {0}")]
    Certificate(rustls::Error),
}

/// Reads PEM certificates to be trusted, at least one.
///
/// # Errors
/// One of them cannot be trusted, or there is none.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(AuthorityError::Pem)?;
    if certificates.is_empty() {
        return Err(AuthorityError::Empty);
    }
    let mut readable = RootCertStore::empty();
    for certificate in &certificates {
        readable.add(certificate.clone()).map_err(AuthorityError::Certificate)?;
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_read_and_what_is_none_is_refused() {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let pem = made.cert.pem();
        assert_eq!(authorities(format!("{pem}{pem}").as_bytes()).unwrap().len(), 2);
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = made.signing_key.serialize_pem();
        for bad in ["", "nonsense", key.as_str(), garbage, &format!("{pem}{garbage}")] {
            assert!(authorities(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
