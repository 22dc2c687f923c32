//! What the operator's words for versions, suites and curves are in rustls.

use crate::config::{CipherSuite, Curve, TlsOptions, TlsVersion};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

/// The cryptography of the process, as far as these options let it be used.
pub(super) fn provider(options: &TlsOptions, of_process: &CryptoProvider) -> CryptoProvider {
    let suites = options.cipher_suites.as_deref().unwrap_or(&CipherSuite::ALL);
    let curves = options.curves.as_deref().unwrap_or(&Curve::ALL);
    CryptoProvider {
        cipher_suites: suites.iter().map(|suite| self::suite(*suite)).collect(),
        kx_groups: curves.iter().map(|curve| group(*curve)).collect(),
        ..of_process.clone()
    }
}

/// The versions that are spoken.
pub(super) fn versions(options: &TlsOptions) -> Vec<&'static SupportedProtocolVersion> {
    let versions = options.versions().map(|version| match version {
        TlsVersion::Tls12 => &rustls::version::TLS12,
        TlsVersion::Tls13 => &rustls::version::TLS13,
    });
    versions.collect()
}

fn suite(suite: CipherSuite) -> SupportedCipherSuite {
    use aws_lc_rs::cipher_suite as suites;
    match suite {
        CipherSuite::Aes128 => suites::TLS13_AES_128_GCM_SHA256,
        CipherSuite::Aes256 => suites::TLS13_AES_256_GCM_SHA384,
        CipherSuite::ChaCha20 => suites::TLS13_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdsaAes128 => suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::RsaAes128 => suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdsaAes256 => suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::RsaAes256 => suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdsaChaCha20 => suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::RsaChaCha20 => suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn group(curve: Curve) -> &'static dyn SupportedKxGroup {
    use aws_lc_rs::kx_group as groups;
    match curve {
        Curve::X25519MlKem768 => groups::X25519MLKEM768,
        Curve::X25519 => groups::X25519,
        Curve::P256 => groups::SECP256R1,
        Curve::P384 => groups::SECP384R1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_and_curve_has_the_name_that_it_has_in_rustls() {
        for suite in CipherSuite::ALL {
            let schema = serde_json::to_value(schemars::schema_for!(CipherSuite)).unwrap();
            let ours = schema.to_string();
            let theirs = format!("{:?}", self::suite(suite).suite()).replace("TLS13_", "TLS_");
            assert!(ours.contains(&format!("\"{theirs}\"")), "{theirs}");
            let is_new = self::suite(suite).version() == &rustls::version::TLS13;
            assert_eq!(is_new, suite.version() == TlsVersion::Tls13, "{theirs}");
        }
        let names = Curve::ALL.map(|curve| format!("{:?}", group(curve).name()));
        assert_eq!(names, ["X25519MLKEM768", "X25519", "secp256r1", "secp384r1"]);
    }
}
