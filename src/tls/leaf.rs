//! What stands in a certificate: for whom, by whom, until when.

use super::CertificateError;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What is told of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// As a distinguished name.
    pub subject: String,
    /// As written in it.
    pub dns_names: Vec<String>,
    /// As a distinguished name.
    pub issuer: String,
    /// Validity in seconds since 1970: not before, not after.
    pub validity: (i64, i64),
    /// The serial number, in hexadecimal digits.
    pub serial: String,
}

impl Leaf {
    /// Reads the first certificate of a PEM chain.
    ///
    /// # Errors
    /// There is none that can be read.
    pub fn from_pem(chain: &[u8]) -> Result<Self, CertificateError> {
        let first = CertificateDer::pem_slice_iter(chain).next().ok_or(CertificateError::EmptyChain)?;
        Self::from_der(&first.map_err(CertificateError::ChainPem)?)
    }

    /// Reads a certificate.
    ///
    /// # Errors
    /// It is none.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, parsed) =
            X509Certificate::from_der(der).map_err(|error| CertificateError::Leaf(error.to_string()))?;
        let names = parsed.subject_alternative_name().ok().flatten();
        Ok(Self {
            subject: parsed.subject().to_string(),
            dns_names: names
                .map(|names| names.value.general_names.iter().filter_map(dns_name).collect())
                .unwrap_or_default(),
            issuer: parsed.issuer().to_string(),
            validity: (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()),
            serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        _ => None,
    }
}

/// Names and dates in a sentence.
pub(super) fn words(names: &[String], (from, until): (i64, i64)) -> String {
    const MOST: usize = 6;
    let mut shown = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => shown.push_str("no name"),
        count if count > MOST => shown.push_str(&format!(" and {} more", count - MOST)),
        _ => {}
    }
    format!("for {shown}, valid from {} until {}", date(from), date(until))
}

/// A moment in seconds since 1970, as RFC 3339 writes it.
pub fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "a time too far away".to_owned(), |time| time.to_string())
}
