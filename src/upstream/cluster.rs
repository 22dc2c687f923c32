//! Clusters that are running, and how they follow what `compile` says they should be.

use super::client_tls::{ClientTls, ClientTlsError};
use super::endpoint::EndpointSet;
use super::resolve::Resolver;
use super::{
    BackendSpec, ClusterSpec, ClusterStats, EndpointsKey, EndpointsSpec, EndpointsSpecs, Planned, Protocol,
    TlsSpec,
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

/// Backends are the same where they share what is running.
impl PartialEq for Backend {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.endpoints, &other.endpoints) && Arc::ptr_eq(&self.channel, &other.channel)
    }
}

/// A cluster that is running. Its counters outlive changes of its backends.
#[derive(Debug)]
pub struct Cluster {
    name: Arc<str>,
    backends: Box<[Backend]>,
    /// The backends whose TLS is another one for a gateway, by its number and their places; nearly always none.
    backends_of: Option<Box<BackendsOf>>,
    connect_timeout: Duration,
    stats: Arc<ClusterStats>,
}

type BackendsOf = HashMap<(u16, u16), Backend, RandomState>;

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
        match &self.backends_of {
            None => self.backend(index),
            Some(others) => others.get(&(gateway, index)).or_else(|| self.backend(index)),
        }
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
        // Where it is so for a gateway, it is so for all.
        self.backends.iter().any(|backend| backend.channel.is_tls())
    }

    /// Whether the other one is the same but for its counters.
    fn is_as(&self, other: &Self) -> bool {
        let Self { name, backends, backends_of, connect_timeout, stats: _ } = self;
        *name == other.name
            && *backends == other.backends
            && *backends_of == other.backends_of
            && *connect_timeout == other.connect_timeout
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
    /// In the order of the last plan.
    clusters: Arc<[Arc<Cluster>]>,
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
        Self { resolver, clusters: Arc::default(), endpoints: HashMap::default(), channels: HashMap::new() }
    }

    /// Makes what is running what it should be, and returns the clusters in the order of the plan. What did not change
    /// keeps its connections, its counters and its state. `endpoints` has the sets of all clusters that are new.
    pub fn reconcile(&mut self, plan: Vec<Planned>, endpoints: EndpointsSpecs) -> Arc<[Arc<Cluster>]> {
        self.update_endpoints(endpoints);
        let before = Arc::clone(&self.clusters);
        let stays = |place: usize| matches!(plan.get(place), Some(Planned::Same));
        let others = before.iter().enumerate().filter(|(place, _)| !stays(*place));
        let mut old: HashMap<&str, &Arc<Cluster>> = others.map(|(_, old)| (old.name(), old)).collect();
        let mut clusters = Vec::with_capacity(plan.len());
        for (place, planned) in plan.into_iter().enumerate() {
            clusters.push(match planned {
                Planned::Same => Arc::clone(&before[place]),
                Planned::New(spec) => {
                    let new = self.cluster(spec);
                    match old.remove(&*new.name) {
                        Some(same) if same.is_as(&new) => Arc::clone(same),
                        Some(old) => Arc::new(Cluster { stats: Arc::clone(&old.stats), ..new }),
                        None => Arc::new(new),
                    }
                }
            });
        }
        self.clusters = clusters.into();
        Arc::clone(&self.clusters)
    }

    /// Lets go of what no cluster uses any more, once no revision has the clusters that did.
    pub fn sweep(&mut self) {
        self.endpoints.retain(|_, running| Arc::strong_count(&running.set) > 1);
        self.channels.retain(|_, channel| Arc::strong_count(channel) > 1);
    }

    /// The sets of endpoints that there are.
    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointsKey> {
        self.endpoints.keys()
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

    /// The cluster that a spec means, with counters of its own.
    fn cluster(&mut self, spec: ClusterSpec) -> Cluster {
        let ClusterSpec { name, backends: specs, connect_timeout } = spec;
        let tls = |spec: &BackendSpec| spec.tls.as_ref().map(|tls| Arc::clone(&tls.spec));
        let backends = specs.iter().map(|spec| self.backend(spec, tls(spec))).collect();
        let mut backends_of = None;
        for (index, spec) in (0..).zip(&specs) {
            for (gateway, tls) in spec.tls.iter().flat_map(|tls| &tls.of) {
                let others: &mut Box<BackendsOf> = backends_of.get_or_insert_default();
                others.insert((*gateway, index), self.backend(spec, Some(Arc::clone(tls))));
            }
        }
        Cluster { name, backends, backends_of, connect_timeout, stats: Arc::default() }
    }

    fn backend(&mut self, spec: &BackendSpec, tls: Option<Arc<TlsSpec>>) -> Backend {
        let endpoints = self.endpoints.get(&spec.endpoints).map(|running| Arc::clone(&running.set));
        let channel = self
            .channels
            .entry((spec.protocol, tls))
            .or_insert_with_key(|(protocol, tls)| Arc::new(Channel::new(*protocol, tls.as_deref())));
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
