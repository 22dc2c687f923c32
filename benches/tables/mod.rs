//! Routing tables of any size, for the benches and for the test that counts allocations.

use http::{HeaderMap, Method};
use std::cmp::Reverse;
use std::sync::Arc;
use trigate::host::HostPattern;
use trigate::routing::{
    Backends, GatewayId, Listener, Matches, PathMatch, PathRank, Rank, Request, RoutingTable, Rule, RuleName,
    SocketId, SocketTable, Transport,
};

pub const SOCKET: SocketId = SocketId { gateway: GatewayId(0), port: 443, transport: Transport::Tcp };

/// `routes` routes, each for a host of its own and all paths: `app-7.example.test`, and every tenth one
/// `*.wild-10.example.test`.
pub fn many_hosts(routes: usize) -> RoutingTable {
    build((0..routes).map(|route| {
        let host = if route % 10 == 0 {
            format!("*.wild-{route}.example.test")
        } else {
            format!("app-{route}.example.test")
        };
        (host, Matches::of(PathMatch::prefix("/")))
    }))
}

/// One route, for `app.example.test`.
pub fn one_match(matches: Matches) -> RoutingTable {
    build(std::iter::once(("app.example.test".to_owned(), matches)))
}

/// `routes` routes for one host, `app.example.test`: every second one for `/section-7/exact`, the others for
/// what begins with `/section-8/prefix`.
pub fn many_paths(routes: usize) -> RoutingTable {
    build((0..routes).map(|route| {
        let path = match route % 2 {
            0 => PathMatch::prefix(&format!("/section-{route}/prefix")),
            _ => PathMatch::Exact(format!("/section-{route}/exact")),
        };
        ("app.example.test".to_owned(), Matches::of(path))
    }))
}

/// A GET request without anything that a route asks for beside host and path.
pub fn request<'a>(host: &'a str, path: &'a str, headers: &'a HeaderMap) -> Request<'a> {
    Request { host, server_name: Some(host), path, query: "", method: &Method::GET, headers }
}

fn build(routes: impl Iterator<Item = (String, Matches)>) -> RoutingTable {
    let mut listener = Listener { name: "network/external/https".into(), ..Listener::default() };
    let mut rules = Vec::new();
    for (index, (host, matches)) in routes.enumerate() {
        let name = format!("route-{index}");
        let rank = Rank {
            path: match &matches.path {
                PathMatch::Exact(path) => PathRank::Exact(path.len()),
                PathMatch::Prefix(path) => PathRank::Prefix(path.len()),
                PathMatch::Regex(regex) => PathRank::Regex(regex.as_str().len()),
            },
            method: false,
            headers: 0,
            queries: 0,
            age: Reverse(0),
            route: Reverse(format!("apps/{name}").into()),
            position: Reverse((0, 0)),
        };
        let pattern = HostPattern::parse(&host).expect("a valid host");
        let paths = Arc::make_mut(listener.hosts.entry(&pattern, Default::default));
        paths.insert(rank, matches, index as u32);
        let name = RuleName::new("HTTPRoute", "apps", &name, 0);
        rules.push(Arc::new(Rule { name, backends: Backends::default(), terms: None }));
    }
    let mut socket = SocketTable::default();
    let hostname = HostPattern::parse("*.example.test").expect("a valid host");
    socket.insert(&hostname, listener);
    RoutingTable::new(vec![(SOCKET, socket)], rules)
}
