//! Clusters that are running, and how they follow what `compile` says they should be.

use super::client_tls::{ClientTls, ClientTlsError};
use super::endpoint::EndpointSet;
use super::resolve::Resolver;
use super::{
    BackendSpec, ClusterSpec, ClusterStats, EndpointsKey, EndpointsSpec, EndpointsSpecs, Protocol, TlsSpec,
};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::AbortHandle;

/// How a backend's endpoints are spoken to; shared by all backends that are spoken to alike.
#[derive(Debug)]
pub struct Channel {
    /// Unique in the process: connections in a pool are kept by it.
    pub(super) id: u64,
    pub protocol: Protocol,
    /// `None` is cleartext; an error answers every request.
    pub(super) tls: ChannelTls,
}

/// TLS of a channel, if it has any, or why it cannot be had.
pub(super) type ChannelTls = Option<Result<ClientTls, ClientTlsError>>;

impl Channel {
    fn new(protocol: Protocol, tls: Option<&TlsSpec>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tls = tls.map(|spec| ClientTls::new(spec, protocol));
        Self { id: NEXT.fetch_add(1, Relaxed), protocol, tls }
    }

    /// Whether the upstream is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// One backend of a cluster.
#[derive(Debug, Clone)]
pub struct Backend {
    pub endpoints: Arc<EndpointSet>,
    pub channel: Arc<Channel>,
}

/// A cluster that is running. Its counters outlive changes of its backends.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    backends: Vec<Backend>,
    /// The backends whose TLS is another one for a gateway, by its number and their places.
    backends_of: HashMap<(u16, u16), Backend>,
    connect_timeout: Duration,
    stats: Arc<ClusterStats>,
    spec: ClusterSpec,
}

impl Cluster {
    /// Envoy Gateway's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The backend at this place of the rule's valid `backendRefs`.
    pub fn backend(&self, index: u16) -> Option<&Backend> {
        self.backends.get(usize::from(index))
    }

    /// The same, as this gateway is to speak to it: with its own certificate, if it has one.
    pub fn backend_of(&self, gateway: u16, index: u16) -> Option<&Backend> {
        self.backends_of.get(&(gateway, index)).or_else(|| self.backend(index))
    }

    /// All backends, in order.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// How long a connection may take to open.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Its counters.
    pub fn stats(&self) -> &ClusterStats {
        &self.stats
    }

    /// Its counters, for a connection that outlives a request.
    pub(super) fn shared_stats(&self) -> Arc<ClusterStats> {
        Arc::clone(&self.stats)
    }

    /// Whether one of its backends is spoken to over TLS.
    pub fn speaks_tls(&self) -> bool {
        self.backends.iter().chain(self.backends_of.values()).any(|backend| backend.channel.is_tls())
    }

    /// How often its endpoints changed.
    pub fn membership_changes(&self) -> u64 {
        self.backends.iter().map(|backend| backend.endpoints.changes()).sum()
    }

    /// How many endpoints there are, and how many of them are healthy.
    pub fn endpoint_counts(&self) -> (usize, usize) {
        let all = self.backends.iter().map(|backend| backend.endpoints.len()).sum();
        (all, all)
    }
}

/// All clusters, endpoint sets and channels of the process, by name. Owned by `control`.
#[derive(Debug)]
pub struct Clusters {
    resolver: Resolver,
    clusters: HashMap<String, Arc<Cluster>, RandomState>,
    endpoints: HashMap<EndpointsKey, Running, RandomState>,
    channels: HashMap<(Protocol, Option<Arc<TlsSpec>>), Arc<Channel>>,
}

#[derive(Debug)]
struct Running {
    spec: EndpointsSpec,
    set: Arc<EndpointSet>,
    /// The tasks that keep DNS names resolved.
    resolving: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.resolving.iter().for_each(AbortHandle::abort);
    }
}

impl Clusters {
    /// No clusters yet. Tasks that resolve names run on the calling runtime.
    pub fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            clusters: HashMap::default(),
            endpoints: HashMap::default(),
            channels: HashMap::new(),
        }
    }

    /// Makes what is running what it should be, and returns the clusters in the order of their specs. What did
    /// not change keeps its connections, its counters and its state.
    pub fn reconcile(&mut self, specs: Vec<ClusterSpec>, endpoints: EndpointsSpecs) -> Vec<Arc<Cluster>> {
        self.endpoints.retain(|key, _| endpoints.contains_key(key));
        self.update_endpoints(endpoints);
        let mut old = std::mem::take(&mut self.clusters);
        let clusters: Vec<_> = specs
            .into_iter()
            .map(|spec| match old.remove(&spec.name) {
                Some(same) if same.spec == spec => same,
                other => Arc::new(self.cluster(spec, other.as_deref())),
            })
            .collect();
        self.clusters = clusters.iter().map(|cluster| (cluster.name.clone(), Arc::clone(cluster))).collect();
        self.channels.retain(|_, channel| Arc::strong_count(channel) > 1);
        clusters
    }

    /// Takes over new endpoints of sets that there are; routes and clusters stay.
    pub fn update_endpoints(&mut self, endpoints: EndpointsSpecs) {
        for (key, spec) in endpoints {
            match self.endpoints.get_mut(&key) {
                Some(running) if running.spec == spec => {}
                Some(running) => running.follow(spec, &self.resolver),
                None => {
                    self.endpoints.insert(key, Running::start(spec, &self.resolver));
                }
            }
        }
    }

    fn cluster(&mut self, spec: ClusterSpec, old: Option<&Cluster>) -> Cluster {
        let mut backends = Vec::with_capacity(spec.backends.len());
        let mut backends_of = HashMap::new();
        for (index, backend) in (0..).zip(&spec.backends) {
            backends.push(self.backend(backend, backend.tls.as_ref()));
            for (gateway, tls) in &backend.tls_of {
                backends_of.insert((*gateway, index), self.backend(backend, Some(tls)));
            }
        }
        let stats = old.map_or_else(Arc::default, |old| Arc::clone(&old.stats));
        let (name, connect_timeout) = (spec.name.clone(), spec.connect_timeout);
        Cluster { name, backends, backends_of, connect_timeout, stats, spec }
    }

    fn backend(&mut self, spec: &BackendSpec, tls: Option<&Arc<TlsSpec>>) -> Backend {
        let endpoints = self.endpoints.get(&spec.endpoints).map(|running| Arc::clone(&running.set));
        let channel = self
            .channels
            .entry((spec.protocol, tls.cloned()))
            .or_insert_with(|| Arc::new(Channel::new(spec.protocol, tls.map(Arc::as_ref))));
        Backend { endpoints: endpoints.unwrap_or_default(), channel: Arc::clone(channel) }
    }
}

impl Running {
    fn start(spec: EndpointsSpec, resolver: &Resolver) -> Self {
        let empty = EndpointsSpec::Addresses(Vec::new());
        let mut running = Self { spec: empty, set: Arc::default(), resolving: Vec::new() };
        running.follow(spec, resolver);
        running
    }

    fn follow(&mut self, spec: EndpointsSpec, resolver: &Resolver) {
        self.resolving.drain(..).for_each(|task| task.abort());
        match &spec {
            EndpointsSpec::Addresses(addresses) => self.set.update(addresses),
            EndpointsSpec::Dns { names, addresses } => {
                self.resolving = resolver.keep_resolved(names, addresses, &self.set);
            }
        }
        self.spec = spec;
    }
}
