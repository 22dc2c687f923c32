//! A client's certificate as backends are told of it: Envoy's `x-forwarded-client-cert`.

use super::CertificateDetails;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use std::fmt::Write;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

/// The value of the field for a chain, leaf first; `None` when the leaf cannot be read.
///
/// `Hash` comes always, then what `details` ask for, in Envoy's order. What a certificate says cannot end a value:
/// quotes are escaped, and bytes that no header can carry are left out.
pub fn forwarded_certificate(chain: &[CertificateDer<'_>], details: CertificateDetails) -> Option<String> {
    let leaf = chain.first()?;
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let CertificateDetails { subject, certificate, chain: whole, dns, uri } = details;
    let mut text = String::from("Hash=");
    for byte in digest(&SHA256, leaf).as_ref() {
        write!(text, "{byte:02x}").expect("a string takes it");
    }
    let mut add = |name: &str, value: &str| {
        write!(text, ";{name}=").expect("a string takes it");
        quoted(value, &mut text);
    };
    if certificate {
        add("Cert", &escaped_pem(leaf));
    }
    if whole {
        add("Chain", &chain.iter().map(|one| escaped_pem(one)).collect::<String>());
    }
    if subject {
        add("Subject", &distinguished_name(parsed.subject()));
    }
    let names = parsed.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(text) if uri => add("URI", text),
            GeneralName::DNSName(text) if dns => add("DNS", text),
            _ => {}
        }
    }
    Some(text)
}

/// A value in quotes where it needs them.
fn quoted(value: &str, text: &mut String) {
    let plain = value.bytes().all(|b| b.is_ascii_graphic() && !b"\",;=".contains(&b)) && !value.is_empty();
    if plain {
        return text.push_str(value);
    }
    text.push('"');
    for c in value.chars().filter(|c| *c == ' ' || c.is_ascii_graphic()) {
        if c == '"' || c == '\\' {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

/// A certificate as PEM with everything escaped that is no letter or digit.
fn escaped_pem(certificate: &CertificateDer<'_>) -> String {
    let encoded = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    let mut escaped = String::with_capacity(pem.len() * 5 / 4);
    for byte in pem.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => write!(escaped, "%{byte:02X}").expect("a string takes it"),
        }
    }
    escaped
}

/// A name as RFC 2253 writes it: the most specific part first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes = rdn.iter().map(|attribute| {
                let oid = attribute.attr_type();
                let name = oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
                format!("{name}={}", rfc_2253(attribute.as_str().unwrap_or_default()))
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn rfc_2253(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if ",+\"\\<>;".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    const ALL: CertificateDetails =
        CertificateDetails { subject: true, certificate: true, chain: true, dns: true, uri: true };

    fn certificate(common_name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://home/client".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn only_what_is_asked_for_is_told() {
        let chain = [certificate("client")];
        let hash = forwarded_certificate(&chain, CertificateDetails::default()).unwrap();
        assert_eq!(hash.len(), "Hash=".len() + 64);
        let all = forwarded_certificate(&chain, ALL).unwrap();
        assert!(all.starts_with(&format!("{hash};Cert=-----BEGIN%20CERTIFICATE-----%0A")), "{all}");
        assert!(all.contains(";Chain=-----BEGIN"), "{all}");
        assert!(all.ends_with(r#";Subject="CN=client";DNS=client.test;URI=spiffe://home/client"#), "{all}");
    }

    #[test]
    fn a_certificate_cannot_end_its_value_or_the_field() {
        let details = CertificateDetails { subject: true, ..CertificateDetails::default() };
        let told = forwarded_certificate(&[certificate("a\",Hash=0;\r\nx: y")], details).unwrap();
        let subject = told.split_once(";Subject=").unwrap().1;
        assert_eq!(subject, r#""CN=a\\\"\\,Hash=0\\;x: y""#);
        assert!(forwarded_certificate(&[], details).is_none());
        assert!(forwarded_certificate(&[CertificateDer::from(vec![0])], details).is_none());
    }
}
