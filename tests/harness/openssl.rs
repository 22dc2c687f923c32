//! OpenSSL's command line as a client: the stack that most of the world's clients are made of.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// What `openssl s_client` said.
#[derive(Debug)]
pub struct Openssl(pub String);

/// One handshake, with these arguments beside the address.
pub fn openssl(address: SocketAddr, arguments: &[&str]) -> Openssl {
    let done = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        // Without a word from the keyboard it ends once the handshake is done.
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Openssl(text(&done.stdout) + &text(&done.stderr))
}

/// Runs another command of it in a folder.
pub fn openssl_in(folder: &Path, command: &str) {
    let done = Command::new("openssl").args(command.split(' ')).current_dir(folder).output();
    let done = done.expect("openssl is installed");
    assert!(done.status.success(), "openssl {command}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Openssl {
    /// Whether the handshake was done.
    pub fn agreed(&self) -> bool {
        !self.suite().is_empty()
    }

    /// The cipher suite by OpenSSL's name, empty without a handshake.
    pub fn suite(&self) -> &str {
        // "New, TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256"; a server that refuses says so after that, or before.
        let refused = self.0.contains("no peer certificate available");
        self.after("Cipher is ").filter(|suite| !refused && *suite != "(NONE)").unwrap_or_default()
    }

    /// The protocol that was agreed on by ALPN.
    pub fn protocol(&self) -> Option<String> {
        self.after("ALPN protocol: ").map(str::to_owned)
    }

    /// The algorithm of the server's key.
    pub fn key_kind(&self) -> &str {
        // " 0 s:… a:PKEY: id-ecPublicKey, 256 (bit); sigalg: …"
        let kind = self.after("a:PKEY: ").unwrap_or_default();
        kind.split(',').next().unwrap_or_default()
    }

    /// What follows these words on their line.
    fn after(&self, words: &str) -> Option<&str> {
        let at = self.0.find(words)? + words.len();
        self.0[at..].lines().next().map(str::trim)
    }
}
