//! Where account, certificates and pending orders are kept.

use super::folder::{self, Folder};
use super::secrets::Secrets;
use crate::challenge::Challenge;
use crate::config::ObjectName;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::io;
use std::path::PathBuf;

/// A private key and its chain, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub key: String,
    pub chain: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair([redacted])")
    }
}

impl Pair {
    /// The one text of a stored pair.
    pub fn text(&self) -> String {
        let line = if self.key.ends_with('\n') { "" } else { "\n" };
        format!("{}{line}{}", self.key, self.chain)
    }

    /// The pair that such a text holds, or that tailscaled sends: the key first.
    pub fn split(text: &str) -> Option<Self> {
        let at = text.find("-----BEGIN CERTIFICATE-----")?;
        let (key, chain) = text.split_at(at);
        Some(Self { key: key.to_owned(), chain: chain.to_owned() })
    }
}

/// What is known of a certificate beside itself: an order that is not over, and failures.
#[derive(Default, Clone, Serialize, Deserialize)]
pub struct Progress {
    pub order: Option<PendingOrder>,
    /// In a row.
    pub failures: u32,
    /// Nothing is ordered before, in seconds since 1970.
    pub not_before: i64,
    /// Why the last order failed.
    pub error: Option<String>,
    /// What was to be ordered, from whom. What failed for another name does not hold up this one.
    #[serde(default)]
    pub subject: String,
}

/// An order that was placed, with all that is needed to go on with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingOrder {
    pub url: String,
    /// PEM, of the certificate to come.
    pub key: String,
    pub names: Vec<String>,
    pub directory: String,
    pub profile: Option<String>,
}

/// The place.
#[derive(Debug, Clone)]
pub enum Store {
    Folder(Folder),
    Secrets(Secrets),
}

impl Store {
    /// The account with the authority of a directory, as JSON.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn account(&self, directory: &str) -> anyhow::Result<Option<String>> {
        match self {
            Self::Folder(folder) => read(folder.account(&hash(directory))).await,
            Self::Secrets(secrets) => secrets.text("account", directory).await,
        }
    }

    /// Keeps the account with the authority of a directory.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn set_account(&self, directory: &str, text: String) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => write(folder.account(&hash(directory)), text).await,
            Self::Secrets(secrets) => secrets.set_text("account", directory, &text).await,
        }
    }

    /// The certificate of a Secret.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn certificate(&self, secret: &ObjectName) -> anyhow::Result<Option<Pair>> {
        match self {
            Self::Folder(folder) => {
                Ok(read(folder.certificate(secret)).await?.and_then(|text| Pair::split(&text)))
            }
            Self::Secrets(secrets) => secrets.certificate(secret).await,
        }
    }

    /// From now on this is the certificate of a Secret.
    ///
    /// # Errors
    /// The store cannot be written; what was there before is still there.
    pub async fn set_certificate(&self, secret: &ObjectName, pair: &Pair) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => write(folder.certificate(secret), pair.text()).await,
            Self::Secrets(secrets) => secrets.set_certificate(secret, pair).await,
        }
    }

    /// What is known of a certificate beside itself. What cannot be understood counts as nothing.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn progress(&self, secret: &ObjectName) -> anyhow::Result<Progress> {
        let text = match self {
            Self::Folder(folder) => read(folder.order(secret)).await?,
            Self::Secrets(secrets) => secrets.text("order", &secret.to_string()).await?,
        };
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Keeps what is known of a certificate beside itself.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn set_progress(&self, secret: &ObjectName, progress: &Progress) -> anyhow::Result<()> {
        let text = serde_json::to_string(progress)?;
        match self {
            Self::Folder(folder) => write(folder.order(secret), text).await,
            Self::Secrets(secrets) => secrets.set_text("order", &secret.to_string(), &text).await,
        }
    }

    /// Lets all replicas answer a challenge.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn share(&self, challenge: &Challenge, authorization: &str) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => {
                write(folder.challenges().join(challenge.file()), authorization.to_owned()).await
            }
            Self::Secrets(secrets) => secrets.share(&challenge.file(), Some(authorization)).await,
        }
    }

    /// Takes back what was shared.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn unshare(&self, challenge: &Challenge) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => {
                let file = folder.challenges().join(challenge.file());
                blocking(file, folder::remove).await
            }
            Self::Secrets(secrets) => secrets.share(&challenge.file(), None).await,
        }
    }
}

async fn read(file: PathBuf) -> anyhow::Result<Option<String>> {
    blocking(file, folder::read).await
}

async fn write(file: PathBuf, text: String) -> anyhow::Result<()> {
    blocking(file, move |file| folder::write(file, &text)).await
}

/// Does it on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    file: PathBuf,
    act: impl FnOnce(&std::path::Path) -> io::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let path = file.clone();
    let done = tokio::task::spawn_blocking(move || act(&path)).await?;
    done.map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
}

/// Tells directories and names apart in names of files and Secrets.
pub fn hash(directory: &str) -> String {
    digest(&SHA256, directory.as_bytes()).as_ref()[..6].iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    })
}
