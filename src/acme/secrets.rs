//! Account, certificates and pending orders as Secrets, for replicas in a cluster.
//!
//! ```text
//! NS/NAME                             the certificate, where a listener refers to it: kubernetes.io/tls, labelled
//! trigate-acme-account-<hash>         in trigate's own namespace, by the hash of the directory
//! trigate-acme-order-<hash>           an order that is not over, by the hash of its Secret's name
//! trigate-acme-challenges             answers that replicas share, one for each key
//! ```

use super::store::{Pair, hash};
use super::wanted::LABEL;
use crate::challenge::Challenges;
use crate::config::ObjectName;
use anyhow::{Context, bail};
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, watcher};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use tracing::debug;

/// Who owns the fields that are written.
const OWNER: &str = "trigate-acme";
const SHARED: &str = "trigate-acme-challenges";
/// The one key of a Secret that holds a text.
const TEXT: &str = "text";
/// The API takes no longer notes, in bytes.
const LONGEST_NOTE: usize = 1000;

/// The Secrets of a cluster.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
    /// Trigate's own.
    namespace: String,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.namespace)
    }
}

impl Secrets {
    /// Secrets beside this process's own objects, and where listeners refer to them.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    fn own(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The text that is kept under a name.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn text(&self, kind: &str, name: &str) -> anyhow::Result<Option<String>> {
        let secret = self.own().get_opt(&format!("trigate-acme-{kind}-{}", hash(name))).await?;
        Ok(secret.as_ref().and_then(|secret| value(secret, TEXT)))
    }

    /// Keeps a text under a name.
    ///
    /// # Errors
    /// The API server does not take it.
    pub async fn set_text(&self, kind: &str, name: &str, text: &str) -> anyhow::Result<()> {
        let data = BTreeMap::from([(TEXT.to_owned(), ByteString(text.as_bytes().to_vec()))]);
        let name = format!("trigate-acme-{kind}-{}", hash(name));
        self.apply(&self.own(), &name, "Opaque", data).await
    }

    /// The certificate of a Secret, if it is one that was ordered.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn certificate(
        &self,
        ObjectName { namespace, name }: &ObjectName,
    ) -> anyhow::Result<Option<Pair>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = api.get_opt(name).await?;
        Ok(secret.and_then(|secret| {
            Some(Pair { key: value(&secret, "tls.key")?, chain: value(&secret, "tls.crt")? })
        }))
    }

    /// From now on this is the certificate of a Secret.
    ///
    /// # Errors
    /// The Secret is somebody else's, or the API server does not take it.
    pub async fn set_certificate(&self, secret: &ObjectName, pair: &Pair) -> anyhow::Result<()> {
        let ObjectName { namespace, name } = secret;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        if let Some(there) = api.get_opt(name).await?
            && !there.metadata.labels.unwrap_or_default().contains_key(LABEL)
        {
            bail!("the Secret {secret} is somebody else's; remove it, or give it the label {LABEL}");
        }
        let data = BTreeMap::from([
            ("tls.key".to_owned(), ByteString(pair.key.as_bytes().to_vec())),
            ("tls.crt".to_owned(), ByteString(pair.chain.as_bytes().to_vec())),
        ]);
        self.apply(&api, name, "kubernetes.io/tls", data).await
    }

    async fn apply(
        &self,
        api: &Api<Secret>,
        name: &str,
        kind: &str,
        data: BTreeMap<String, ByteString>,
    ) -> anyhow::Result<()> {
        let labels = BTreeMap::from([(LABEL.to_owned(), "true".to_owned())]);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            type_: Some(kind.to_owned()),
            data: Some(data),
            ..Secret::default()
        };
        let params = PatchParams::apply(OWNER).force();
        api.patch(name, &params, &Patch::Apply(&secret))
            .await
            .with_context(|| format!("the Secret {name}"))?;
        Ok(())
    }

    /// Lets all replicas know an answer, or forget it.
    ///
    /// # Errors
    /// The API server does not take it.
    pub async fn share(&self, file: &str, answer: Option<&str>) -> anyhow::Result<()> {
        let api = self.own();
        if answer.is_some() && api.get_opt(SHARED).await?.is_none() {
            self.apply(&api, SHARED, "Opaque", BTreeMap::new()).await?;
        }
        let value = answer.map(|answer| ByteString(answer.as_bytes().to_vec()));
        let patch = json!({ "data": { file: value } });
        api.patch(SHARED, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Keeps what all replicas know among the answers of this one.
    pub async fn follow(self, challenges: Arc<Challenges>) {
        let named = watcher::Config::default().fields(&format!("metadata.name={SHARED}"));
        let mut events = pin!(watcher(self.own(), named));
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(secret) | watcher::Event::InitApply(secret)) => {
                    let data = secret.data.clone().unwrap_or_default();
                    let known = data.keys().filter_map(|key| Some((key.clone(), value(&secret, key)?)));
                    challenges.know(known.collect());
                }
                Ok(watcher::Event::Delete(_)) => challenges.know(BTreeMap::new()),
                Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                // The watcher begins again by itself, a little later each time.
                Err(error) => {
                    debug!("acme: the answers of other replicas cannot be followed: {error}");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// What tells people by an Event of a Secret that there is no new certificate for it.
    pub fn complaint(&self, controller: &str) -> super::keep::Complaint {
        let reporter = Reporter { controller: controller.to_owned(), instance: None };
        let recorder = Recorder::new(self.client.clone(), reporter);
        Box::new(move |ObjectName { namespace, name }, error| {
            let reference = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectReference::default()
            };
            let end = (0..=LONGEST_NOTE.min(error.len())).rev().find(|&at| error.is_char_boundary(at));
            let event = Event {
                type_: EventType::Warning,
                reason: "OrderFailed".to_owned(),
                note: Some(error[..end.unwrap_or(0)].to_owned()),
                action: "Order".to_owned(),
                secondary: None,
            };
            let recorder = recorder.clone();
            // Nobody waits for an Event, and nothing depends on it.
            tokio::spawn(async move {
                if let Err(error) = recorder.publish(&event, &reference).await {
                    debug!("acme: cannot publish an Event: {error}");
                }
            });
        })
    }
}

fn value(secret: &Secret, key: &str) -> Option<String> {
    let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.clone()).ok()
}
