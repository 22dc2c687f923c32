//! `[tls]`, `[gateways.NAME.tls]` and `[session_tickets]`: what is agreed on in TLS handshakes, and what is
//! remembered of them.
//!
//! The same settings can be given to all gateways, to one of them, and to one listener (its `tls.options`); what
//! is not said in the narrower place is as in the wider one.

use super::{ObjectName, units};
use schemars::JsonSchema;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Deserializer};
use std::path::PathBuf;
use std::time::Duration;

/// What is agreed on in handshakes; `None` where it is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsOptions {
    /// The oldest version that is spoken, 1.2 where nothing is said.
    pub min_version: Option<TlsVersion>,
    /// The newest one, 1.3 where nothing is said.
    pub max_version: Option<TlsVersion>,
    /// All that are spoken, the preferred one first; ours decides, not the client's order.
    pub cipher_suites: Option<Vec<CipherSuite>>,
    /// Key exchanges, the preferred one first.
    pub curves: Option<Vec<Curve>>,
    /// Protocols inside of TLS, the preferred one first; HTTPS listeners know `h2` and `http/1.1`.
    pub alpn: Option<Vec<String>>,
    /// Whether clients that send no server name are refused, even where a listener is for every name.
    pub require_server_name: Option<bool>,
    /// The name that clients are taken to ask for who send none: it chooses their listener and certificate.
    pub default_server_name: Option<String>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// A cipher suite, by its name at IANA. There are none without forward secrecy and authenticated encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum CipherSuite {
    #[serde(rename = "TLS_AES_128_GCM_SHA256")]
    Aes128,
    #[serde(rename = "TLS_AES_256_GCM_SHA384")]
    Aes256,
    #[serde(rename = "TLS_CHACHA20_POLY1305_SHA256")]
    ChaCha20,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")]
    EcdsaAes128,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")]
    RsaAes128,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")]
    EcdsaAes256,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")]
    RsaAes256,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")]
    EcdsaChaCha20,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")]
    RsaChaCha20,
}

/// A group for the key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum Curve {
    /// Withstands quantum computers as long as one of its two halves does.
    #[serde(rename = "X25519MLKEM768")]
    X25519MlKem768,
    #[serde(rename = "X25519")]
    X25519,
    #[serde(rename = "P-256")]
    P256,
    #[serde(rename = "P-384")]
    P384,
}

impl TlsVersion {
    /// All, the oldest first.
    pub const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];
}

impl CipherSuite {
    /// All, in the order of preference. AES-128 comes first: nobody breaks it, and SHA-256 has instructions of
    /// its own on most processors, where SHA-384 has none, which every handshake feels.
    pub const ALL: [Self; 9] = [
        Self::Aes128,
        Self::Aes256,
        Self::ChaCha20,
        Self::EcdsaAes128,
        Self::RsaAes128,
        Self::EcdsaAes256,
        Self::RsaAes256,
        Self::EcdsaChaCha20,
        Self::RsaChaCha20,
    ];

    /// The version that it belongs to.
    pub fn version(self) -> TlsVersion {
        match self {
            Self::Aes128 | Self::Aes256 | Self::ChaCha20 => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        }
    }
}

impl Curve {
    /// All, in the order of preference.
    pub const ALL: [Self; 4] = [Self::X25519MlKem768, Self::X25519, Self::P256, Self::P384];
}

/// Those of the whole file, complete.
pub(super) fn complete<'de, D: Deserializer<'de>>(source: D) -> Result<TlsOptions, D::Error> {
    Ok(TlsOptions::deserialize(source)?.within(&TlsOptions::everywhere()))
}

/// Reads a setting that is written outside of proxy.toml, by the name that it has there.
///
/// # Errors
/// It is none of those that there are, which the error names.
pub fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let source: StrDeserializer<'_, ValueError> = text.into_deserializer();
    T::deserialize(source).map_err(|error| error.to_string())
}

impl TlsOptions {
    /// What holds where nobody says anything.
    pub fn everywhere() -> Self {
        Self {
            min_version: Some(TlsVersion::Tls12),
            max_version: Some(TlsVersion::Tls13),
            cipher_suites: Some(CipherSuite::ALL.into()),
            curves: Some(Curve::ALL.into()),
            alpn: Some(vec!["h2".to_owned(), "http/1.1".to_owned()]),
            require_server_name: Some(false),
            default_server_name: None,
        }
    }

    /// These, and where they say nothing, the wider ones.
    #[must_use]
    pub fn within(self, wider: &Self) -> Self {
        let wider = wider.clone();
        let silent = self.require_server_name.is_none() && self.default_server_name.is_none();
        let of_silent = if silent { &wider } else { &self };
        Self {
            require_server_name: of_silent.require_server_name,
            default_server_name: of_silent.default_server_name.clone(),
            min_version: self.min_version.or(wider.min_version),
            max_version: self.max_version.or(wider.max_version),
            cipher_suites: self.cipher_suites.or(wider.cipher_suites),
            curves: self.curves.or(wider.curves),
            alpn: self.alpn.or(wider.alpn),
        }
    }

    /// The versions that are spoken.
    pub fn versions(&self) -> impl Iterator<Item = TlsVersion> {
        let least = self.min_version.unwrap_or(TlsVersion::Tls12);
        let most = self.max_version.unwrap_or(TlsVersion::Tls13);
        TlsVersion::ALL.into_iter().filter(move |version| (least..=most).contains(version))
    }

    /// What does not fit together, with the key that shows it. With nothing to say, handshakes can succeed.
    pub fn contradiction(&self) -> Option<(&'static str, String)> {
        if self.versions().next().is_none() {
            return Some(("min_version", "min_version is newer than max_version".to_owned()));
        }
        if self.curves.as_ref().is_some_and(Vec::is_empty) {
            return Some(("curves", "without curves no keys can be agreed on; leave the key out".to_owned()));
        }
        if let Some(suites) = &self.cipher_suites {
            let has = |version| suites.iter().any(|suite| suite.version() == version);
            if let Some(version) = self.versions().find(|version| !has(*version)) {
                let (name, key) = match version {
                    TlsVersion::Tls12 => ("1.2", "min_version = \"1.3\""),
                    TlsVersion::Tls13 => ("1.3", "max_version = \"1.2\""),
                };
                let message = format!("none of the suites is for TLS {name}; add one, or set {key}");
                return Some(("cipher_suites", message));
            }
        }
        let unfit = |id: &&String| id.is_empty() || id.len() > usize::from(u8::MAX);
        if let Some(id) = self.alpn.iter().flatten().find(unfit) {
            return Some(("alpn", format!("`{id}` is no protocol; one has 1 to 255 bytes")));
        }
        if self.require_server_name == Some(true) && self.default_server_name.is_some() {
            let message =
                "clients without a server name are refused, so none is needed for them; keep one key";
            return Some(("default_server_name", message.to_owned()));
        }
        None
    }

    /// The first protocol that cannot be spoken by a listener for HTTP.
    pub fn not_http(&self) -> Option<&str> {
        let known = |id: &&String| !matches!(id.as_str(), "h2" | "http/1.1");
        self.alpn.iter().flatten().find(known).map(String::as_str)
    }
}

/// How clients resume their sessions.
///
/// Tickets are encrypted with keys that change every `lifetime`, and are good under the key before as well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionTickets {
    /// Without them every handshake is a whole one.
    pub enabled: bool,
    /// How many a client of TLS 1.3 gets, each good for one connection; one of TLS 1.2 gets one.
    pub per_handshake: u8,
    /// How long a ticket is good at least; it ends before twice that time.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub lifetime: Duration,
    /// A Secret whose value `keys` all replicas derive their keys from, so that a ticket of one is good at all.
    #[schemars(with = "Option<String>")]
    pub secret: Option<ObjectName>,
    /// The same from a file, which is read again when it changes.
    pub file: Option<PathBuf>,
}

impl Default for SessionTickets {
    fn default() -> Self {
        let lifetime = Duration::from_secs(12 * 3600);
        Self { enabled: true, per_handshake: 1, lifetime, secret: None, file: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> TlsOptions {
        toml::from_str(text).expect("they can be read")
    }

    #[test]
    fn what_a_narrower_place_does_not_say_is_as_in_the_wider_one() {
        let wide = options("min_version = \"1.3\"\nalpn = [\"h2\"]\ndefault_server_name = \"a.test\"");
        let narrow = options("alpn = [\"http/1.1\"]").within(&wide);
        assert_eq!(narrow.versions().collect::<Vec<_>>(), [TlsVersion::Tls13]);
        assert_eq!(narrow.alpn.as_deref(), Some(&["http/1.1".to_owned()][..]));
        assert_eq!(narrow.default_server_name.as_deref(), Some("a.test"));
        let strict = options("require_server_name = true").within(&wide);
        assert_eq!((strict.require_server_name, strict.default_server_name), (Some(true), None));
    }

    #[test]
    fn what_does_not_fit_together_is_named_by_its_key() {
        for (text, key) in [
            ("min_version = \"1.3\"\nmax_version = \"1.2\"", Some("min_version")),
            ("curves = []", Some("curves")),
            ("cipher_suites = [\"TLS_AES_128_GCM_SHA256\"]", Some("cipher_suites")),
            ("cipher_suites = [\"TLS_AES_128_GCM_SHA256\"]\nmin_version = \"1.3\"", None),
            ("cipher_suites = []\nmin_version = \"1.3\"", Some("cipher_suites")),
            ("alpn = [\"\"]", Some("alpn")),
            ("alpn = []", None),
            ("require_server_name = true\ndefault_server_name = \"a\"", Some("default_server_name")),
            ("", None),
        ] {
            assert_eq!(options(text).contradiction().map(|(key, _)| key), key, "{text}");
        }
    }

    #[test]
    fn a_name_that_there_is_not_is_told_with_those_that_there_are() {
        assert_eq!(named("P-256"), Ok(Curve::P256));
        let error = named::<Curve>("P-512").expect_err("there is none");
        assert!(error.contains("P-512") && error.contains("X25519MLKEM768"), "{error}");
    }
}
