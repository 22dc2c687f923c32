//! Which of a listener's certificates a client gets: by its server name, then by what it can verify.

use super::Certificate;
use foldhash::fast::FixedState;
use rustls::SignatureAlgorithm;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

/// The certificates of one listener.
#[derive(Debug)]
pub(super) struct Choice {
    /// In the order of the listener's `certificateRefs`; the first one answers where no name decides.
    all: Vec<Arc<CertifiedKey>>,
    exact: ByName,
    /// By the name below the wildcard label.
    wildcard: ByName,
}

type ByName = HashMap<String, Vec<Arc<CertifiedKey>>, FixedState>;

impl Choice {
    pub(super) fn new(certificates: &[Arc<Certificate>]) -> Self {
        let all = certificates.iter().map(|certificate| certificate.key.clone()).collect();
        let (mut exact, mut wildcard) = (ByName::default(), ByName::default());
        for certificate in certificates {
            for name in &certificate.dns_names {
                let name = name.to_ascii_lowercase();
                match name.strip_prefix("*.") {
                    Some(below) => wildcard.entry(below.to_owned()),
                    None => exact.entry(name),
                }
                .or_default()
                .push(certificate.key.clone());
            }
        }
        // A signature with ECDSA costs a tenth of one with RSA, so who can verify both gets ECDSA.
        for keys in exact.values_mut().chain(wildcard.values_mut()) {
            keys.sort_by_key(|certified| certified.key.algorithm() != SignatureAlgorithm::ECDSA);
        }
        Self { all, exact, wildcard }
    }

    /// Certificates for the name, the most specific ones first, then all others. A wildcard stands for one
    /// label (RFC 6125 6.4.3).
    fn candidates(&self, name: &str) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let below = name.split_once('.').map_or("", |(_, below)| below);
        let named = [self.exact.get(name), self.wildcard.get(below)];
        named.into_iter().flatten().flatten().chain(&self.all)
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = &*self.all {
            return Some(only.clone());
        }
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        let schemes = hello.signature_schemes();
        self.candidates(&name)
            .find(|certified| certified.key.choose_scheme(schemes).is_some())
            // None can be verified: rustls tells the client so.
            .or_else(|| self.candidates(&name).next())
            .cloned()
    }
}
