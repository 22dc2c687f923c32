//! The table of a revision, and the one look-up that every request makes.

use super::{GatewayId, PathIndex, Rule, SocketId};
use crate::host::{HostIndex, HostPattern};
use crate::reply::Reply;
use http::{HeaderMap, Method};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What of a request decides who serves it. Host and path are normalised already.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `Host` or `:authority`, lower case, without port and trailing dot.
    pub host: &'a str,
    /// The server name of the TLS handshake, lower case; `None` on a cleartext connection, empty when the
    /// client sent none.
    pub server_name: Option<&'a str>,
    /// Without the query.
    pub path: &'a str,
    /// Without its `?`.
    pub query: &'a str,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

/// The rule that serves a request.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    pub rule: &'a Arc<Rule>,
    /// The length of the path prefix that the rule matched, without a trailing slash.
    pub matched: usize,
    /// Which of the rule's matches it was, in the order written.
    pub place: u32,
    /// How much of the host, from its end, the names of listener and route have in common with it: all of it when they
    /// name it, the part after `*.`, or nothing.
    pub of_host: usize,
}

impl Found<'_> {
    /// The name of listener and route that covers this host, for which the rule was found: the host itself,
    /// `*.example.com` or `*`.
    pub fn host_name(&self, host: &str) -> String {
        match self.of_host {
            0 => "*".to_owned(),
            all if all == host.len() => host.to_owned(),
            end => format!("*.{}", &host[host.len() - end..]),
        }
    }
}

/// All that routes a request, of one moment.
#[derive(Debug, Clone, Default)]
pub struct RoutingTable {
    /// Sorted by id; a gateway has few.
    sockets: Vec<(SocketId, SocketTable)>,
    rules: Vec<Arc<Rule>>,
}

/// The listeners that share a port of a gateway.
#[derive(Debug, Clone, Default)]
pub struct SocketTable {
    listeners: Vec<Listener>,
    by_host: HostIndex<usize>,
    streams: HostIndex<StreamListener>,
}

/// A listener of the Gateway API, with the routes attached to it.
#[derive(Debug, Clone, Default)]
pub struct Listener {
    /// `namespace/gateway/listener`, or `ListenerSet namespace/set/listener`, for dumps and logs.
    pub name: String,
    /// Whether GRPCRoutes are attached: an unknown method is then answered by `UNIMPLEMENTED`.
    pub grpc: bool,
    /// By the host names of routes as they are written, which may be wider than the listener's: the more specific
    /// one goes first also where both cover all that the listener serves.
    pub hosts: HostIndex<Arc<PathIndex>>,
}

/// A listener of the Gateway API that carries connections or datagrams to backends as they are.
#[derive(Debug, Clone, Default)]
pub struct StreamListener {
    /// `namespace/gateway/listener`, for dumps and logs.
    pub name: String,
    /// Rules of the table, by the server names of their connections; without TLS all of them have the empty name.
    pub hosts: HostIndex<u32>,
}

impl RoutingTable {
    /// A table of these sockets and rules. The indexes in each [`PathIndex`] are places in `rules`.
    pub fn new(mut sockets: Vec<(SocketId, SocketTable)>, rules: Vec<Arc<Rule>>) -> Self {
        sockets.sort_by_key(|(id, _)| *id);
        for (_, socket) in &mut sockets {
            // Those that are sealed may be shared with another table.
            let paths = socket.listeners.iter_mut().flat_map(|listener| listener.hosts.values_mut());
            paths.filter(|paths| paths.is_open()).for_each(|paths| Arc::make_mut(paths).seal());
        }
        Self { sockets, rules }
    }

    /// The socket's listeners.
    pub fn socket(&self, id: SocketId) -> Option<&SocketTable> {
        self.sockets.iter().find(|(socket, _)| *socket == id).map(|(_, table)| table)
    }

    /// All sockets, sorted by id.
    pub fn sockets(&self) -> &[(SocketId, SocketTable)] {
        &self.sockets
    }

    /// All rules.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// Every host that a gateway serves with some rule, each once, sorted.
    pub fn exposed(&self) -> BTreeSet<(GatewayId, HostPattern)> {
        let hosts = self.sockets.iter().flat_map(|(id, socket)| {
            let http =
                socket.listeners.iter().flat_map(|listener| listener.hosts.iter().map(|(host, _)| host));
            let streams = socket.streams.iter();
            let streams = streams
                .flat_map(|(_, listener)| listener.hosts.iter().map(|(host, _)| host).collect::<Vec<_>>());
            http.chain(streams).map(|host| (id.gateway, host))
        });
        hosts.collect()
    }

    /// The rule that serves the request on this socket.
    ///
    /// The most specific listener for the host alone answers (listener isolation); within it rules of the
    /// more specific host name go first, and a request that none of them matches falls to the next one.
    ///
    /// # Errors
    /// [`Reply::Misdirected`] when the TLS connection was opened for another listener's name, else
    /// [`Reply::NoRoute`].
    pub fn find(&self, socket: SocketId, request: &Request<'_>) -> Result<Found<'_>, Reply> {
        let table = self.socket(socket).ok_or(Reply::NoRoute)?;
        let by_host = table.by_host.covering(request.host).next();
        let listener = by_host.map(|(_, &listener)| listener);
        if let Some(name) = request.server_name
            && name != request.host
            && table.by_host.best(name).copied() != listener
        {
            return Err(Reply::Misdirected);
        }
        let (of_listener, &listener) = by_host.ok_or(Reply::NoRoute)?;
        let found = table.listeners[listener].hosts.covering(request.host).find_map(|(of_route, paths)| {
            let hit = paths.find(request.path, request.query, request.method, request.headers)?;
            Some(Found {
                rule: &self.rules[hit.rule as usize],
                matched: hit.matched,
                place: hit.place,
                of_host: of_route.max(of_listener),
            })
        });
        found.ok_or(Reply::NoRoute)
    }

    /// The rule for a connection with this server name (lower case; empty when there is none), or for a flow.
    /// `None` when no route is for it: the connection ends then without a word.
    pub fn find_stream(&self, socket: SocketId, server_name: &str) -> Option<&Arc<Rule>> {
        let listener = self.socket(socket)?.streams.best(server_name)?;
        listener.hosts.best(server_name).map(|&rule| &self.rules[rule as usize])
    }

    /// The listener that answers for this host on this socket.
    pub fn listener(&self, socket: SocketId, host: &str) -> Option<&Listener> {
        let table = self.socket(socket)?;
        table.by_host.best(host).map(|&index| &table.listeners[index])
    }
}

impl SocketTable {
    /// Adds a listener for a host pattern that no other listener of the socket has.
    pub fn insert(&mut self, pattern: &crate::host::HostPattern, listener: Listener) {
        let index = self.listeners.len();
        self.listeners.push(listener);
        self.by_host.entry(pattern, || index);
    }

    /// Adds a listener that speaks no HTTP, for a pattern that no other one of the socket has.
    pub fn insert_stream(&mut self, pattern: &crate::host::HostPattern, listener: StreamListener) {
        self.streams.entry(pattern, || listener);
    }

    /// Listeners that speak no HTTP, in no order.
    pub fn streams(&self) -> impl Iterator<Item = (crate::host::HostPattern, &StreamListener)> {
        self.streams.iter()
    }

    /// Whether no listener of the socket speaks HTTP.
    pub fn speaks_no_http(&self) -> bool {
        self.listeners.is_empty()
    }

    /// All listeners that speak HTTP, in the order of insertion.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Listener host patterns with the places of their listeners.
    pub fn hosts(&self) -> impl Iterator<Item = (crate::host::HostPattern, usize)> {
        self.by_host.iter().map(|(pattern, &index)| (pattern, index))
    }
}
