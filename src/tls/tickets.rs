//! Session tickets: what a client brings back to skip most of a handshake, encrypted with keys that change.
//!
//! ```text
//! roots ─ HKDF(epoch, context) ─▶ key of this epoch: encrypts and decrypts
//!   │                             keys of the epochs beside it: decrypt
//!   ├ of this process: random, a new one every epoch; the one before the last is forgotten
//!   └ shared: from a Secret or a file; all replicas derive the same keys and change them at the same time
//! ```
//!
//! An epoch is as long as a ticket is good at least. The context tells listeners apart that must not resume each
//! other's sessions: those that ask for client certificates, by whom they believe.
//!
//! Who resumes a session of TLS 1.2 gets no new ticket: its keys stay those of the first handshake, and with a ticket
//! for each resumption they would for ever (RFC 5246 F.1.4 wants an end after a day). TLS 1.3 agrees on new keys.

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// Says which key a ticket is encrypted with; it tells nothing about the key.
const NAME_LEN: usize = 8;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
/// A ticket may hold the client's certificates; what is larger than a hello can carry is none of ours.
const MOST: usize = 16 * 1024;
/// A shared secret must have the strength of the keys that are made of it.
const LEAST_SECRET: usize = 32;
const MOST_SECRETS: usize = 8;

/// Why a text holds no secrets for tickets.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TicketSecretError {
    #[error("it is no text; write one secret a line, such as `openssl rand -base64 48` prints")]
    NoText,
    #[error("it holds no secret; write one a line, such as `openssl rand -base64 48` prints")]
    Empty,
    #[error("line {0} has fewer than 32 characters; `openssl rand -base64 48` prints a good one")]
    Short(usize),
    #[error("it holds more than {MOST_SECRETS} secrets")]
    Many,
}

/// What the keys of all tickets are made of.
pub struct TicketKeys {
    /// Seconds.
    epoch_length: u64,
    roots: Mutex<Vec<Root>>,
    /// Changes with the roots.
    generation: AtomicU64,
}

struct Root {
    secret: Box<[u8]>,
    origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Made for this epoch.
    Own(u64),
    Shared,
    /// Was shared until this epoch.
    Retired(u64),
}

impl TicketKeys {
    /// Keys of this process's own, until others are shared. `lifetime` is how long a ticket is good at least.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(lifetime: Duration) -> Result<Self, Unspecified> {
        let epoch_length = lifetime.as_secs().max(1);
        let keys = Self { epoch_length, roots: Mutex::default(), generation: AtomicU64::new(0) };
        let now = keys.epoch(now());
        keys.roots().push(Root::own(now)?);
        Ok(keys)
    }

    /// Derives keys from these secrets, one a line, from now on; the first one encrypts, and tickets under those
    /// that were shared before stay good for their time. Returns whether something is different.
    ///
    /// # Errors
    /// The text holds none that can be used; what was used before still is.
    pub fn share(&self, text: &[u8]) -> Result<bool, TicketSecretError> {
        let secrets = secrets(text)?;
        let now = self.epoch(now());
        let mut roots = self.roots();
        let shared = roots.iter().filter(|root| root.origin == Origin::Shared);
        if shared.map(|root| &root.secret).eq(&secrets) {
            return Ok(false);
        }
        let mut new: Vec<Root> =
            secrets.into_iter().map(|secret| Root { secret, origin: Origin::Shared }).collect();
        for mut root in roots.drain(..) {
            if new.iter().any(|one| one.secret == root.secret) {
                continue;
            }
            if root.origin == Origin::Shared {
                root.origin = Origin::Retired(now);
            }
            new.push(root);
        }
        *roots = new;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(true)
    }

    fn epoch(&self, now: u64) -> u64 {
        now / self.epoch_length
    }

    /// The keys of an epoch, the one that encrypts first.
    fn ring(&self, epoch: u64, context: &[u8]) -> Result<Ring, Unspecified> {
        let mut roots = self.roots();
        let is_shared = roots.iter().any(|root| root.origin == Origin::Shared);
        if !is_shared && !roots.iter().any(|root| root.origin == Origin::Own(epoch)) {
            roots.insert(0, Root::own(epoch)?);
        }
        roots.retain(|root| root.is_of_use(epoch));
        let mut keys = Vec::new();
        for root in roots.iter() {
            for epoch in root.epochs(epoch) {
                keys.push(Key::derive(&root.secret, context, epoch)?);
            }
        }
        Ok(Ring { epoch, generation: self.generation.load(Ordering::Acquire), keys })
    }

    fn roots(&self) -> MutexGuard<'_, Vec<Root>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({} roots [redacted], {} s)", self.roots().len(), self.epoch_length)
    }
}

impl Root {
    fn own(epoch: u64) -> Result<Self, Unspecified> {
        let mut secret = [0; KEY_LEN];
        rand::fill(&mut secret)?;
        Ok(Self { secret: secret.into(), origin: Origin::Own(epoch) })
    }

    /// Whether a ticket that is good in this epoch can be under it.
    fn is_of_use(&self, now: u64) -> bool {
        match self.origin {
            Origin::Shared => true,
            Origin::Own(epoch) | Origin::Retired(epoch) => epoch + 1 >= now,
        }
    }

    /// The epochs whose keys are good in this one. Another replica's clock may be ahead of ours.
    fn epochs(&self, now: u64) -> Vec<u64> {
        match self.origin {
            Origin::Own(epoch) => vec![epoch],
            Origin::Shared => vec![now, now + 1, now.saturating_sub(1)],
            Origin::Retired(epoch) => vec![epoch, epoch.saturating_sub(1)],
        }
    }
}

/// The tickets of some listeners.
pub(super) struct Tickets {
    keys: Arc<TicketKeys>,
    context: Vec<u8>,
    ring: ArcSwap<Ring>,
}

impl Tickets {
    /// Tickets that only those with the same context can read.
    pub fn new(keys: Arc<TicketKeys>, context: Vec<u8>) -> Result<Self, Unspecified> {
        let ring = keys.ring(keys.epoch(now()), &context)?;
        Ok(Self { keys, context, ring: ArcSwap::from_pointee(ring) })
    }

    /// The keys of this moment. They are made anew once in an epoch, by the first handshake that finds them old.
    fn ring(&self, now: u64) -> Option<Arc<Ring>> {
        let epoch = self.keys.epoch(now);
        let ring = self.ring.load_full();
        if ring.epoch == epoch && ring.generation == self.keys.generation.load(Ordering::Acquire) {
            return Some(ring);
        }
        let ring = Arc::new(self.keys.ring(epoch, &self.context).ok()?);
        self.ring.store(ring.clone());
        Some(ring)
    }

    fn encrypt_at(&self, now: u64, plain: &[u8]) -> Option<Vec<u8>> {
        self.ring(now)?.keys.first()?.encrypt(plain)
    }

    fn decrypt_at(&self, now: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, sealed) = ticket.split_first_chunk::<NAME_LEN>().filter(|_| ticket.len() <= MOST)?;
        let ring = self.ring(now)?;
        ring.keys.iter().find(|key| key.name == *name)?.decrypt(sealed)
    }
}

/// What the hello that a thread reads has brought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Brought {
    /// No hello is being read.
    Nothing,
    NoSession,
    /// A session of TLS 1.2.
    Session,
}

thread_local! {
    static BROUGHT: Cell<Brought> = const { Cell::new(Brought::Nothing) };
}

/// Calls what has rustls read a client's hello. What the client brought is forgotten with the answer to the hello,
/// however it ends: later the thread is busy with other clients, too.
pub fn reading_hello<T>(read: impl FnOnce() -> T) -> T {
    BROUGHT.set(Brought::NoSession);
    let answer = read();
    BROUGHT.set(Brought::Nothing);
    answer
}

impl ProducesTickets for Tickets {
    /// rustls asks it of a client of TLS 1.2 for the answer to the hello whose ticket it has just decrypted.
    fn enabled(&self) -> bool {
        BROUGHT.get() != Brought::Session
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.keys.epoch_length).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(now(), plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let session = self.decrypt_at(now(), ticket)?;
        if BROUGHT.get() != Brought::Nothing && is_of_tls12(&session) {
            BROUGHT.set(Brought::Session);
        }
        Some(session)
    }
}

/// The version stands in a session behind the server name, if there is one; a test holds that it does.
fn is_of_tls12(session: &[u8]) -> bool {
    let version = match session {
        [0, version @ ..] => Some(version),
        [_, length, rest @ ..] => rest.get(usize::from(*length)..),
        [_] | [] => None,
    };
    version.is_some_and(|version| version.starts_with(&[3, 3]))
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("keys", &self.keys).finish_non_exhaustive()
    }
}

struct Ring {
    epoch: u64,
    generation: u64,
    keys: Vec<Key>,
}

struct Key {
    name: [u8; NAME_LEN],
    /// Nonces are random: a key that lives for days makes far fewer tickets than the 2^32 that are safe.
    aead: LessSafeKey,
}

/// Of HKDF's output.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    fn derive(secret: &[u8], context: &[u8], epoch: u64) -> Result<Self, Unspecified> {
        let mut made = [0; NAME_LEN + KEY_LEN];
        let salt = Salt::new(HKDF_SHA256, b"trigate session tickets");
        let epoch = epoch.to_be_bytes();
        salt.extract(secret).expand(&[&epoch, context], Length(made.len()))?.fill(&mut made)?;
        let (name, key) = made.split_first_chunk().ok_or(Unspecified)?;
        Ok(Self { name: *name, aead: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key)?) })
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME_LEN + NONCE_LEN + plain.len() + TAG_LEN);
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let text = &mut ticket[NAME_LEN + NONCE_LEN..];
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.aead.seal_in_place_separate_tag(nonce, Aad::from(self.name), text).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.aead.open_in_place(nonce, Aad::from(self.name), &mut text).ok()?.len();
        text.truncate(plain);
        Some(text)
    }
}

fn secrets(text: &[u8]) -> Result<Vec<Box<[u8]>>, TicketSecretError> {
    let text = std::str::from_utf8(text).map_err(|_| TicketSecretError::NoText)?;
    let mut secrets = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.len() < LEAST_SECRET {
            return Err(TicketSecretError::Short(number));
        }
        secrets.push(line.as_bytes().into());
    }
    match secrets.len() {
        0 => Err(TicketSecretError::Empty),
        1..=MOST_SECRETS => Ok(secrets),
        _ => Err(TicketSecretError::Many),
    }
}

/// Seconds since 1970; what replicas agree on.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    fn keys() -> Arc<TicketKeys> {
        Arc::new(TicketKeys::new(Duration::from_secs(HOUR)).unwrap())
    }

    fn tickets(keys: &Arc<TicketKeys>, context: &str) -> Tickets {
        Tickets::new(keys.clone(), context.into()).unwrap()
    }

    #[test]
    fn a_ticket_is_good_for_its_lifetime_and_for_less_than_twice_that() {
        for shared in [false, true] {
            let keys = keys();
            if shared {
                keys.share(SECRET.as_bytes()).unwrap();
            }
            let tickets = tickets(&keys, "");
            // The own keys are of an epoch of today.
            let start = now() / HOUR * HOUR + 10 * HOUR;
            for made in [start, start + HOUR / 2, start + HOUR - 1] {
                let ticket = tickets.encrypt_at(made, b"session").unwrap();
                assert_eq!(tickets.decrypt_at(made + HOUR, &ticket).as_deref(), Some(&b"session"[..]));
                assert_eq!(tickets.decrypt_at(made + 2 * HOUR, &ticket), None, "shared: {shared}");
                assert_eq!(tickets.decrypt_at(made, &ticket).is_some(), shared, "own keys are forgotten");
            }
        }
    }

    #[test]
    fn replicas_that_share_a_secret_read_each_others_tickets_and_others_do_not() {
        let (one, two, alone) = (keys(), keys(), keys());
        assert_eq!(one.share(SECRET.as_bytes()), Ok(true));
        assert_eq!(one.share(SECRET.as_bytes()), Ok(false));
        two.share(SECRET.as_bytes()).unwrap();
        let ticket = tickets(&one, "").encrypt(b"session").unwrap();
        assert!(tickets(&two, "").decrypt(&ticket).is_some());
        assert!(tickets(&alone, "").decrypt(&ticket).is_none());
        assert!(tickets(&two, "other clients").decrypt(&ticket).is_none());
        // One replica's clock is a minute ahead, over the end of an epoch.
        let end = now() / HOUR * HOUR + 5 * HOUR;
        let ahead = tickets(&one, "").encrypt_at(end + 30, b"session").unwrap();
        assert!(tickets(&two, "").decrypt_at(end - 30, &ahead).is_some());
    }

    #[test]
    fn a_secret_can_be_replaced_in_two_ways() {
        let keys = keys();
        let tickets = tickets(&keys, "");
        let own = tickets.encrypt(b"session").unwrap();
        keys.share(SECRET.as_bytes()).unwrap();
        assert!(tickets.decrypt(&own).is_some(), "what was given before is still good");
        let old = tickets.encrypt(b"session").unwrap();
        keys.share(OTHER.as_bytes()).unwrap();
        let new = tickets.encrypt(b"session").unwrap();
        assert!(tickets.decrypt(&old).is_some() && tickets.decrypt(&new).is_some());
        assert!(tickets.decrypt_at(now() + 3 * HOUR, &old).is_none());
        // A replica that has both already, the old one first.
        let other = self::tickets(&self::keys(), "");
        other.keys.share(format!("# both\n{SECRET}\n\n{OTHER}\n").as_bytes()).unwrap();
        assert!(other.decrypt(&old).is_some() && other.decrypt(&new).is_some());
    }

    #[test]
    fn a_session_of_tls_1_2_denies_a_ticket_to_the_client_that_brings_it_and_to_no_other() {
        let tickets = tickets(&keys(), "");
        let [old, new] = [[0, 3, 3], [0, 3, 4]].map(|session| tickets.encrypt(&session).unwrap());
        let read = |ticket: &[u8]| {
            tickets.decrypt(ticket).unwrap();
            tickets.enabled()
        };
        assert!(!reading_hello(|| read(&old)), "it resumes");
        assert!(reading_hello(|| read(&new)), "TLS 1.3 gets one each time");
        // The connection broke off before rustls asked for a ticket.
        reading_hello(|| tickets.decrypt(&old)).unwrap();
        assert!(tickets.enabled(), "a client whose hello was read before");
        assert!(reading_hello(|| tickets.enabled()), "the next client");
        // A second hello, which is one of TLS 1.3, with a session that is of no use to it.
        assert!(read(&old));
    }

    #[test]
    fn what_is_no_ticket_is_not_read() {
        let tickets = tickets(&keys(), "");
        let good = tickets.encrypt(b"session").unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(tickets.decrypt(&bad), None, "byte {at}");
            assert_eq!(tickets.decrypt(&good[..at]), None, "{at} bytes");
        }
        assert_eq!(tickets.decrypt(&vec![0; MOST + 1]), None);
        assert_ne!(tickets.encrypt(b"session"), Some(good), "no ticket is like another");
    }

    #[test]
    fn secrets_are_lines_that_are_long_enough_and_are_never_printed() {
        let keys = keys();
        for (text, want) in [
            (&b"\xff"[..], TicketSecretError::NoText),
            (b"\n# nothing\n", TicketSecretError::Empty),
            (b"\nshort\n", TicketSecretError::Short(2)),
            (format!("{SECRET}\n").repeat(9).as_bytes(), TicketSecretError::Many),
        ] {
            assert_eq!(keys.share(text), Err(want));
        }
        keys.share(SECRET.as_bytes()).unwrap();
        assert!(!format!("{keys:?}{:?}", tickets(&keys, "")).contains("0123"));
    }
}
