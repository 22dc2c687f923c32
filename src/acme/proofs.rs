//! The proofs of one order: put where the authority looks, and taken away when the order is over, however it ends.

use super::dns::{Published, Publishers};
use super::store::Store;
use crate::challenge::{Challenge, Challenges};
use crate::config::Proof;
use anyhow::bail;
use instant_acme::{ChallengeType, KeyAuthorization};
use std::sync::Arc;
use tracing::warn;

/// Where proofs are put.
pub struct Prover {
    pub challenges: Arc<Challenges>,
    pub store: Store,
    pub publishers: Publishers,
}

/// One proof, until it is dropped.
pub enum Standing {
    Answer(#[expect(dead_code, reason = "it is there to be dropped")] Answer),
    Record(Box<Published>),
}

/// An answer that the gateway gives itself.
pub struct Answer {
    prover: Arc<Prover>,
    challenge: Challenge,
}

/// The challenge that stands for a proof.
pub fn kind(proof: &Proof) -> Option<ChallengeType> {
    match proof {
        Proof::Http => Some(ChallengeType::Http01),
        Proof::TlsAlpn => Some(ChallengeType::TlsAlpn01),
        Proof::Dns(_) => Some(ChallengeType::Dns01),
        Proof::Tailscale => None,
    }
}

impl Prover {
    /// Puts the proof that a name (without `*.`) is ours.
    ///
    /// # Errors
    /// It cannot be put.
    pub async fn put(
        self: &Arc<Self>,
        proof: &Proof,
        name: &str,
        token: &str,
        authorization: &KeyAuthorization,
    ) -> anyhow::Result<Standing> {
        let challenge = match proof {
            Proof::Http => Challenge::Http(token.to_owned()),
            Proof::TlsAlpn => Challenge::TlsAlpn(name.to_owned()),
            Proof::Dns(provider) => {
                let value = authorization.dns_value();
                let published = self.publishers.publish(provider.as_deref(), name, value).await?;
                return Ok(Standing::Record(Box::new(published)));
            }
            Proof::Tailscale => bail!("{name} is proved by tailscaled"),
        };
        if !challenge.is_plain() {
            bail!("the authority's token for {name} is none (RFC 8555 8.3)");
        }
        let text = authorization.as_str().to_owned();
        self.challenges.put(&challenge, text.clone());
        let answer = Answer { prover: Arc::clone(self), challenge };
        self.store.share(&answer.challenge, &text).await?;
        Ok(Standing::Answer(answer))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Self { prover, challenge } = self;
        prover.challenges.remove(challenge);
        let (prover, challenge) = (Arc::clone(prover), challenge.clone());
        // Without a runtime the process ends, and what is left is an answer that nobody asks for.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(error) = prover.store.unshare(&challenge).await {
                warn!("acme: a challenge that is over cannot be taken back: {error:#}");
            }
        });
    }
}
