//! Starts what writes: the competition for the Lease, and the writer.

use super::keeper::Keeper;
use super::lease::Leadership;
use super::pace::Paces;
use super::publication::Publisher;
use super::trouble::Troubles;
use super::writer::Writer;
use crate::config::KubernetesSource;
use crate::resource::Records;
use kube::Client;
use std::collections::HashMap;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What writes statuses and Services while this replica leads. Stops when it is dropped.
pub struct Writing {
    publisher: Publisher,
    leadership: Leadership,
    task: JoinHandle<()>,
}

impl Writing {
    /// Starts to compete and, once this replica leads, to write what is published. Must be called within a
    /// runtime.
    pub fn start(client: &Client, records: &Records, config: &KubernetesSource) -> Self {
        let namespace = config.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let identity = identity();
        let leadership = Leadership::compete(client.clone(), &namespace, &config.lease, identity.clone());
        let publisher = Publisher::default();
        let keeper =
            Keeper::new(client.clone(), records.clone(), config.clone(), namespace.clone(), identity);
        let writer = Writer {
            client: client.clone(),
            records: records.clone(),
            config: config.clone(),
            namespace,
            publications: publisher.subscribe(),
            leads: leadership.leads(),
            keeper,
            settled: HashMap::new(),
            paces: Paces::default(),
            troubles: Troubles::default(),
            bundle: None,
            due: None,
        };
        Self { publisher, leadership, task: tokio::spawn(writer.run()) }
    }

    /// Where to publish what is live.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Whether this replica leads, now and later.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leadership.leads()
    }

    /// Stops to write and lets another replica lead.
    pub async fn stop(self) {
        self.task.abort();
        self.leadership.resign().await;
    }
}

/// Names this process among all replicas: the pod, and something that a restart of it changes.
fn identity() -> String {
    // The second is what Envoy Gateway's pods have.
    let pod = ["POD_NAME", "ENVOY_POD_NAME", "HOSTNAME"].iter().find_map(|name| std::env::var(name).ok());
    format!("{}-{:08x}", pod.unwrap_or_else(|| "trigate".to_owned()), fastrand::u32(..))
}
