//! One order, from the account to the chain: placed or taken up again, proved, finished.

use super::account::Accounts;
use super::proofs::{Prover, Standing, kind};
use super::store::{Pair, PendingOrder, Progress, Store};
use super::wanted::Wanted;
use crate::config::{Acme, Proof};
use crate::tls::Certificate;
use anyhow::{Context, anyhow, bail};
use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, Error,
    Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

/// How often an order is looked at while the authority is at it, and for how long.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(150))
    .backoff(1.4)
    .timeout(Duration::from_secs(180));

/// How often an order is gone on with after a nonce that the authority rejects.
const NONCES: u32 = 5;

/// Places orders with one authority.
pub struct Orderer {
    pub acme: Acme,
    pub store: Store,
    pub accounts: Accounts,
    pub prover: Arc<Prover>,
}

impl Orderer {
    /// Gets a certificate. What is known of it is kept while the order goes on, so that a process that starts in
    /// between takes it up again.
    ///
    /// # Errors
    /// There is none, and why; a sentence for the operator.
    pub async fn order(
        &self,
        wanted: &Wanted,
        progress: &mut Progress,
        replaces: Option<CertificateIdentifier<'_>>,
    ) -> anyhow::Result<Pair> {
        let mut nonces = NONCES;
        let got = loop {
            let account = self.accounts.open(&self.acme, &self.store).await;
            let got = match account {
                Ok(account) => self.order_with(&account, wanted, progress, replaces.clone()).await,
                Err(error) => Err(error),
            };
            match &got {
                // The library tries thrice; an authority that has lost its nonces may want more.
                Err(error) if nonces > 0 && is_problem(error, "badNonce") => nonces -= 1,
                _ => break got,
            }
        };
        if let Err(error) = &got
            && is_problem(error, "accountDoesNotExist")
        {
            self.accounts.forget(&self.acme, &self.store).await?;
        }
        got
    }

    async fn order_with(
        &self,
        account: &Account,
        wanted: &Wanted,
        progress: &mut Progress,
        replaces: Option<CertificateIdentifier<'_>>,
    ) -> anyhow::Result<Pair> {
        let (mut order, pending) = match self.taken_up(account, wanted, progress).await {
            Some(order) => order,
            None => self.placed(account, wanted, progress, replaces).await?,
        };
        if order.state().status == OrderStatus::Pending {
            let standing = self.prove(&mut order, wanted).await?;
            let status = order.poll_ready(&POLL).await;
            let refused = !matches!(status, Ok(OrderStatus::Ready));
            if refused {
                let why = refusal(&mut order).await;
                drop(standing);
                return Err(why.unwrap_or_else(|| match status {
                    Ok(status) => anyhow!("the order is {status:?}"),
                    Err(error) => error.into(),
                }));
            }
        }
        let key = KeyPair::from_pem(&pending.key).context("the key of the pending order is broken")?;
        if order.state().status == OrderStatus::Ready {
            let mut params = CertificateParams::new(pending.names.clone())?;
            params.distinguished_name = DistinguishedName::new();
            order.finalize_csr(params.serialize_request(&key)?.der()).await?;
        }
        let chain = order.poll_certificate(&POLL).await?;
        checked(wanted, Pair { key: pending.key, chain })
    }

    /// The order of an earlier process, where it is still the one that is wanted.
    async fn taken_up(
        &self,
        account: &Account,
        wanted: &Wanted,
        progress: &Progress,
    ) -> Option<(Order, PendingOrder)> {
        let pending = progress.order.clone()?;
        let PendingOrder { url, key: _, names, directory, profile } = &pending;
        if *directory != self.acme.directory
            || *profile != wanted.profile
            || !names.iter().eq(wanted.names.keys())
        {
            return None;
        }
        let mut order = account.order(url.clone()).await.ok()?;
        debug!("acme: the order {url} is taken up again");
        self.take_back(&mut order, wanted).await;
        (order.state().status != OrderStatus::Invalid).then_some((order, pending))
    }

    /// Takes away the proofs of an earlier process that the authority has judged already: nobody else would.
    async fn take_back(&self, order: &mut Order, wanted: &Wanted) {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if authorization.status == AuthorizationStatus::Pending {
                continue;
            }
            let name = authorization.identifier().to_string();
            let Some(proof) = wanted.names.get(&name) else { continue };
            let Some(challenge) = kind(proof).and_then(|kind| authorization.challenge(kind)) else {
                continue;
            };
            let bare = name.strip_prefix("*.").unwrap_or(&name);
            // What is put is taken away when it is dropped, whoever put it first.
            if let Err(error) =
                self.prover.put(proof, bare, &challenge.token, &challenge.key_authorization()).await
            {
                debug!("acme: an old proof for {name} cannot be taken away: {error:#}");
            }
        }
    }

    async fn placed(
        &self,
        account: &Account,
        wanted: &Wanted,
        progress: &mut Progress,
        replaces: Option<CertificateIdentifier<'_>>,
    ) -> anyhow::Result<(Order, PendingOrder)> {
        let names: Vec<String> = wanted.names.keys().cloned().collect();
        let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
        let new = || {
            let new = NewOrder::new(&identifiers);
            match &wanted.profile {
                Some(profile) => new.profile(profile),
                None => new,
            }
        };
        let order = match replaces {
            Some(replaces) => match account.new_order(&new().replaces(replaces)).await {
                Ok(order) => order,
                // It says only which certificate ends with this one; an authority that has another opinion on
                // that gets an order without it.
                Err(Error::Unsupported(_) | Error::Other(_)) => account.new_order(&new()).await?,
                Err(Error::Api(problem)) if !is_limit(problem.r#type.as_deref()) => {
                    debug!("acme: the order says not any more what it replaces: {problem}");
                    account.new_order(&new()).await?
                }
                Err(error) => return Err(error.into()),
            },
            None => account.new_order(&new()).await?,
        };
        let pending = PendingOrder {
            url: order.url().to_owned(),
            key: KeyPair::generate()?.serialize_pem(),
            names,
            directory: self.acme.directory.clone(),
            profile: wanted.profile.clone(),
        };
        progress.order = Some(pending.clone());
        self.store.set_progress(&wanted.secret, progress).await?;
        Ok((order, pending))
    }

    /// Puts all proofs, waits until they can be seen, and tells the authority to look.
    async fn prove(&self, order: &mut Order, wanted: &Wanted) -> anyhow::Result<Vec<Standing>> {
        let mut standing = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let Some((name, proof)) = open(&authorization, wanted)? else { continue };
            let kind = kind(proof).with_context(|| format!("{name} is proved by tailscaled"))?;
            let bare = name.strip_prefix("*.").unwrap_or(&name).to_owned();
            let challenge = authorization.challenge(kind.clone());
            let challenge = challenge.with_context(|| {
                format!("the authority offers no {kind:?} for {name}; choose another challenge")
            })?;
            let put = self.prover.put(proof, &bare, &challenge.token, &challenge.key_authorization()).await;
            standing.push(put.with_context(|| format!("the proof for {name} cannot be put"))?);
        }
        self.prover.publishers.seen(&standing).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let Some((name, proof)) = open(&authorization, wanted)? else { continue };
            let Some(mut challenge) = kind(proof).and_then(|kind| authorization.challenge(kind)) else {
                continue;
            };
            // One that was told before a restart is being looked at already.
            if challenge.status == ChallengeStatus::Pending {
                challenge.set_ready().await.with_context(|| format!("{name} is refused"))?;
            }
        }
        Ok(standing)
    }
}

/// The name of an authorization that is still to be proved, and how.
fn open<'w>(
    authorization: &AuthorizationHandle<'_>,
    wanted: &'w Wanted,
) -> anyhow::Result<Option<(String, &'w Proof)>> {
    let name = authorization.identifier().to_string();
    match authorization.status {
        AuthorizationStatus::Pending => {}
        AuthorizationStatus::Valid => return Ok(None),
        status => bail!("the authorization for {name} is {status:?}"),
    }
    let proof = wanted
        .names
        .get(&name)
        .with_context(|| format!("the authority asks for {name}, which nobody ordered"))?;
    Ok(Some((name, proof)))
}

/// Why the authority does not believe that the names are ours.
async fn refusal(order: &mut Order) -> Option<anyhow::Error> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let name = state.identifier().to_string();
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.clone()) {
            let detail = problem.detail.clone().unwrap_or_default();
            return Some(anyhow::Error::from(problem).context(format!("{name} is not proved: {detail}")));
        }
    }
    None
}

/// A pair that can be served and has all names.
fn checked(wanted: &Wanted, pair: Pair) -> anyhow::Result<Pair> {
    let Pair { key, chain } = &pair;
    let certificate = Certificate::from_pem("", chain.as_bytes(), key.as_bytes())
        .context("the authority's certificate cannot be served")?;
    match wanted.names.keys().find(|name| !certificate.dns_names.contains(name)) {
        Some(name) => Err(anyhow!("the authority's certificate is not for {name}")),
        None => Ok(pair),
    }
}

/// Whether an error is the authority's, and of this kind.
pub fn is_problem(error: &anyhow::Error, kind: &str) -> bool {
    let problem = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<Error>() {
        Some(Error::Api(problem)) => problem.r#type.clone(),
        _ => None,
    };
    error.chain().filter_map(problem).any(|of| of.ends_with(&format!(":{kind}")))
}

fn is_limit(kind: Option<&str>) -> bool {
    kind.is_some_and(|kind| kind.ends_with(":rateLimited"))
}
