//! The account with the certificate authority: made once, its key kept, its contact kept up to date.

use super::http::Https;
use super::store::Store;
use crate::config::{Acme, ExternalAccount};
use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tracing::info;

/// What authorities show comes with padding and without.
const MAC_KEY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The account, once it is needed.
pub struct Accounts {
    https: Https,
    account: Mutex<Option<Account>>,
}

/// An account as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    contact: Vec<String>,
    credentials: AccountCredentials,
}

impl Accounts {
    /// None is open yet.
    ///
    /// # Errors
    /// The authority cannot be asked: its own authority cannot be read.
    pub fn new(acme: &Acme) -> anyhow::Result<Self> {
        Ok(Self { https: Https::new(acme.ca.as_deref())?, account: Mutex::new(None) })
    }

    /// The account, made where there is none.
    ///
    /// # Errors
    /// The authority cannot be asked, or gives no account.
    pub async fn open(&self, acme: &Acme, store: &Store) -> anyhow::Result<Account> {
        let mut account = self.account.lock().await;
        if let Some(account) = &*account {
            return Ok(account.clone());
        }
        let kept = store.account(&acme.directory).await?;
        let opened = match kept.and_then(|text| serde_json::from_str::<Kept>(&text).ok()) {
            Some(kept) => self.known(acme, store, kept).await?,
            None => self.made(acme, store).await?,
        };
        Ok(account.insert(opened).clone())
    }

    /// The authority does not know the account (any more): the next order makes a new one.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn forget(&self, acme: &Acme, store: &Store) -> anyhow::Result<()> {
        *self.account.lock().await = None;
        store.set_account(&acme.directory, String::new()).await
    }

    async fn known(&self, acme: &Acme, store: &Store, kept: Kept) -> anyhow::Result<Account> {
        let text = serde_json::to_string(&kept.credentials)?;
        let builder = Account::builder_with_http(Box::new(self.https.clone()));
        let account = builder.from_credentials(kept.credentials).await?;
        let contact = contact(acme);
        if contact != kept.contact {
            account.update_contacts(&contact.iter().map(String::as_str).collect::<Vec<_>>()).await?;
            let kept = Kept { contact, credentials: serde_json::from_str(&text)? };
            store.set_account(&acme.directory, serde_json::to_string(&kept)?).await?;
        }
        Ok(account)
    }

    async fn made(&self, acme: &Acme, store: &Store) -> anyhow::Result<Account> {
        let contact = contact(acme);
        let external = acme.external_account.as_ref().map(external_key).transpose()?;
        let addresses: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &addresses, terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(Box::new(self.https.clone()));
        let (account, credentials) =
            builder.create(&new, acme.directory.clone(), external.as_ref()).await.context("no account")?;
        let kept = serde_json::to_string(&Kept { contact, credentials })?;
        store.set_account(&acme.directory, kept).await?;
        info!("acme: there is an account with {} now: {}", acme.directory, account.id());
        Ok(account)
    }
}

/// Addresses as URLs.
fn contact(acme: &Acme) -> Vec<String> {
    let url = |one: &String| if one.contains(':') { one.clone() } else { format!("mailto:{one}") };
    acme.contact.iter().map(url).collect()
}

fn external_key(
    ExternalAccount { key_id, key_file }: &ExternalAccount,
) -> anyhow::Result<ExternalAccountKey> {
    let text = std::fs::read_to_string(key_file).with_context(|| key_file.display().to_string())?;
    // The decoder's own words would name bytes of the key.
    let key = MAC_KEY.decode(text.trim()).map_err(|_| {
        anyhow!("{} holds no base64url; write the MAC key as the authority shows it", key_file.display())
    })?;
    Ok(ExternalAccountKey::new(key_id.clone(), &key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_urls() {
        let contact_of = |text: &str| contact(&Acme { contact: vec![text.to_owned()], ..Acme::default() });
        assert_eq!(contact_of("me@example.com"), ["mailto:me@example.com"]);
        assert_eq!(contact_of("mailto:me@example.com"), ["mailto:me@example.com"]);
    }

    #[test]
    fn a_mac_key_is_read_with_and_without_padding_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("key");
        let read = |text: &str| {
            std::fs::write(&key_file, text).unwrap();
            external_key(&ExternalAccount { key_id: "id".to_owned(), key_file: key_file.clone() })
        };
        assert!(read("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9w\n").is_ok());
        assert!(read("AAAA-_8=").is_ok());
        let error = read("top secret!").err().unwrap().to_string();
        assert!(error.contains("base64url") && !error.contains("top"), "{error}");
    }
}
