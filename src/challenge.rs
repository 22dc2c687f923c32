//! What the gateway answers to a certificate authority that wants to see whether a name is ours: a text on the
//! HTTP sockets (RFC 8555 8.3), a handshake on the HTTPS sockets (RFC 8737).
//!
//! It is looked at before any route, and only where `[acme]` is on: a path that does not begin as these do, and
//! a handshake that offers another protocol, cost one comparison. Replicas that share a folder answer for each
//! other: what one of them does not know itself it looks up there.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// The protocol that an authority offers, and nobody else.
const ACME_TLS: &[u8] = b"acme-tls/1";
/// Where an authority looks for a text.
const PLACE: &str = "/.well-known/acme-challenge/";
/// Longer than any token or name; what is longer is not looked up.
const MOST_NAME: usize = 255;
/// A key authorization is a token, a dot and 43 letters.
const MOST_ANSWER: u64 = 1024;

/// The answers of pending orders.
#[derive(Default)]
pub struct Challenges {
    /// Key authorizations, by [`Challenge::file`].
    pending: RwLock<BTreeMap<String, String>>,
    /// The same of other replicas, where this one is told of them.
    known: RwLock<BTreeMap<String, String>>,
    /// Where replicas put theirs.
    shared: Option<PathBuf>,
}

/// One answer, by what an authority asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token, asked for over HTTP.
    Http(String),
    /// A server name, asked for in a handshake.
    TlsAlpn(String),
}

impl Challenge {
    /// The name under which replicas share it. Two kinds cannot meet: no token has a dot.
    pub fn file(&self) -> String {
        match self {
            Self::Http(token) => token.clone(),
            Self::TlsAlpn(name) => format!("tls.{name}"),
        }
    }

    /// Whether its file is one in the folder and nowhere else.
    pub fn is_plain(&self) -> bool {
        let (text, dot) = match self {
            Self::Http(token) => (token, false),
            Self::TlsAlpn(name) => (name, true),
        };
        let fits =
            |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || (dot && byte == b'.');
        !text.is_empty() && text.len() <= MOST_NAME && text.bytes().all(fits)
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Challenges {
    /// None is pending here; others may be in a folder that replicas share.
    pub fn new(shared: Option<PathBuf>) -> Self {
        Self { shared, ..Self::default() }
    }

    /// From now on the challenge is answered with this key authorization.
    pub fn put(&self, challenge: &Challenge, authorization: String) {
        self.write(|pending| {
            pending.insert(challenge.file(), authorization);
        });
    }

    /// The challenge is answered no more.
    pub fn remove(&self, challenge: &Challenge) {
        self.write(|pending| {
            pending.remove(&challenge.file());
        });
    }

    /// What all replicas together have put, in place of what was known of it before.
    pub fn know(&self, all: BTreeMap<String, String>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = all;
    }

    fn write(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        change(&mut self.pending.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The challenge that a request's path asks for.
    pub fn asked(path: &str) -> Option<Challenge> {
        let challenge = Challenge::Http(path.strip_prefix(PLACE)?.to_owned());
        challenge.is_plain().then_some(challenge)
    }

    /// The text for a challenge; `None` where it is somebody else's (a route may know him).
    pub async fn text(&self, challenge: &Challenge) -> Option<Bytes> {
        self.authorization(challenge).await.map(Bytes::from)
    }

    /// Whether a handshake that offers these protocols is an authority's.
    pub fn is_asked<'a>(mut protocols: impl Iterator<Item = &'a [u8]>) -> bool {
        protocols.next() == Some(ACME_TLS) && protocols.next().is_none()
    }

    /// How to answer an authority's handshake for a name; `None` where it is somebody else's.
    pub async fn handshake(&self, server_name: &str) -> Option<Arc<ServerConfig>> {
        let challenge = Challenge::TlsAlpn(server_name.to_owned());
        if !challenge.is_plain() {
            return None;
        }
        let authorization = self.authorization(&challenge).await?;
        certificate(server_name, &authorization).ok().map(Arc::new)
    }

    async fn authorization(&self, challenge: &Challenge) -> Option<String> {
        let file = challenge.file();
        let of = |answers: &RwLock<BTreeMap<String, String>>| {
            answers.read().unwrap_or_else(PoisonError::into_inner).get(&file).cloned()
        };
        match (of(&self.pending).or_else(|| of(&self.known)), &self.shared) {
            (Some(own), _) => Some(own),
            (None, Some(folder)) => read(folder.join(file)).await,
            (None, None) => None,
        }
    }
}

async fn read(file: PathBuf) -> Option<String> {
    let metadata = tokio::fs::metadata(&file).await.ok()?;
    if !metadata.is_file() || metadata.len() > MOST_ANSWER {
        return None;
    }
    tokio::fs::read_to_string(&file).await.ok()
}

/// A handshake with a certificate that proves to know the key authorization (RFC 8737 3).
fn certificate(name: &str, authorization: &str) -> anyhow::Result<ServerConfig> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let digest = digest(&SHA256, authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let provider =
        CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(provider::default_provider()));
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    // Not `with_single_cert`: it refuses critical extensions that it does not know, and this is one.
    let certified =
        CertifiedKey::new(vec![certificate.der().clone()], provider.key_provider.load_private_key(key)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_text_is_there_from_put_to_remove_and_in_the_folder_of_another_replica() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let challenges = Challenges::new(Some(folder.path().to_owned()));
        let asked = Challenges::asked("/.well-known/acme-challenge/to-Ken_1").expect("a challenge");
        assert_eq!(challenges.text(&asked).await, None);
        challenges.put(&asked, "to-Ken_1.print".to_owned());
        assert_eq!(challenges.text(&asked).await.as_deref(), Some(b"to-Ken_1.print".as_slice()));
        challenges.remove(&asked);
        assert_eq!(challenges.text(&asked).await, None);
        std::fs::write(folder.path().join("to-Ken_1"), "theirs").expect("the folder is ours");
        assert_eq!(challenges.text(&asked).await.as_deref(), Some(b"theirs".as_slice()));
    }

    #[test]
    fn a_path_that_leaves_the_folder_is_no_challenge() {
        for path in ["", "..", ".", "a/b", "a.b", "a%2fb", "tls.a", "a\0", &"a".repeat(300)] {
            assert_eq!(Challenges::asked(&format!("{PLACE}{path}")), None, "{path}");
        }
        assert_eq!(Challenges::asked("/well-known/acme-challenge/a"), None);
    }

    #[tokio::test]
    async fn only_a_hello_with_one_protocol_is_an_authoritys() {
        let asked = |protocols: &[&[u8]]| Challenges::is_asked(protocols.iter().copied());
        assert!(asked(&[b"acme-tls/1"]));
        assert!(!asked(&[b"h2", b"acme-tls/1"]) && !asked(&[b"acme-tls/1", b"h2"]) && !asked(&[]));
        let challenges = Challenges::default();
        assert!(challenges.handshake("a.test").await.is_none());
        challenges.put(&Challenge::TlsAlpn("a.test".to_owned()), "token.print".to_owned());
        let config = challenges.handshake("a.test").await.expect("it is pending");
        assert_eq!(config.alpn_protocols, [b"acme-tls/1"]);
        assert!(challenges.handshake("b.test").await.is_none());
    }
}
