//! Holds `RoutingTable::find`, which looks things up in indexes, against a scan that knows nothing of them.
//!
//! The scan is written from the text of the Gateway API (`HTTPRouteSpec.hostnames`, `HTTPRouteRule.matches`,
//! listener isolation at `Gateway.spec.listeners`, GEP-3567 for 421): it looks at every match of every route
//! and compares by the criteria in the order in which they are written there. Names and paths come from few
//! letters, so that hosts, prefixes and ranks collide all the time.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use regex::bytes::Regex;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use trigate::host::HostPattern;
use trigate::reply::Reply;
use trigate::routing::{
    Backends, GatewayId, HeaderMatch, Listener, Matches, PathMatch, PathRank, QueryMatch, Rank, Request,
    RoutingTable, Rule, RuleName, SocketId, SocketTable, TextMatch, Transport,
};

const TABLES: usize = 500;
const REQUESTS_PER_TABLE: usize = 60;
const SOCKET: SocketId = SocketId { gateway: GatewayId(1), port: 443, transport: Transport::Tcp };

/// `None` is a listener or a route without a hostname.
type Hostname = Option<&'static str>;

const PATTERNS: &[Hostname] = &[
    None,
    Some("*.test"),
    Some("*.a.test"),
    Some("*.b.a.test"),
    Some("a.test"),
    Some("b.test"),
    Some("b.a.test"),
    Some("c.b.a.test"),
];
const HOSTS: &[&str] = &[
    "",
    "test",
    "a.test",
    "b.test",
    "b.a.test",
    "c.a.test",
    "c.b.a.test",
    "d.c.b.a.test",
    "ba.test",
    "other",
];
const PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/ab", "/A", "/b"];
const REQUEST_PATHS: &[&str] =
    &["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/d/e", "/a/bc", "/ab", "/ab/a", "/A", "/b", "/c"];
const REGEXES: &[&str] = &["/a.*", "/a/[bc]", "/.", "/(a|b)/b/?"];
/// The same, compiled once: a debug build takes long for it.
static WHOLE: LazyLock<Vec<(&str, regex::Regex)>> = LazyLock::new(|| {
    let whole = |text: &str| regex::Regex::new(&format!("^({text})$")).expect("a valid regex");
    REGEXES.iter().map(|text| (*text, whole(text))).collect()
});
const QUERIES: &[&str] = &["", "x=1", "x=2", "x=1&y=1", "y=1&x=2", "x=2&x=1", "X=1", "x=%31", "x"];

/// A listener with its routes, as a user would write them.
#[derive(Debug, Clone)]
struct WrittenListener {
    hostname: Hostname,
    routes: Vec<WrittenRoute>,
}

#[derive(Debug, Clone)]
struct WrittenRoute {
    created: i64,
    name: String,
    hostnames: Vec<Hostname>,
    rules: Vec<Vec<WrittenMatch>>,
}

#[derive(Debug, Clone)]
struct WrittenMatch {
    path: WrittenPath,
    method: Option<&'static str>,
    headers: BTreeMap<&'static str, &'static str>,
    queries: BTreeMap<&'static str, &'static str>,
}

#[derive(Debug, Clone, Copy)]
enum WrittenPath {
    Exact(&'static str),
    Prefix(&'static str),
    Regex(&'static str),
}

#[derive(Debug, Clone)]
struct WrittenRequest {
    host: &'static str,
    server_name: Option<&'static str>,
    path: &'static str,
    query: &'static str,
    method: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

fn a_match() -> impl Strategy<Value = WrittenMatch> {
    let path = prop_oneof![
        3 => select(PATHS).prop_map(WrittenPath::Exact),
        5 => select(PATHS).prop_map(WrittenPath::Prefix),
        1 => select(REGEXES).prop_map(WrittenPath::Regex),
    ];
    let method = prop_oneof![2 => Just(None), 1 => select(&["GET", "POST"][..]).prop_map(Some)];
    let pairs = |names: &'static [&'static str]| {
        prop_oneof![
            2 => Just(BTreeMap::new()),
            1 => vec((select(names), select(&["1", "2"][..])), 1..3).prop_map(BTreeMap::from_iter),
        ]
    };
    (path, method, pairs(&["x-a", "x-b"]), pairs(&["x", "y"]))
        .prop_map(|(path, method, headers, queries)| WrittenMatch { path, method, headers, queries })
}

fn a_route() -> impl Strategy<Value = WrittenRoute> {
    let hostnames = prop_oneof![1 => Just(vec![None]), 3 => vec(select(&PATTERNS[1..]), 1..3)];
    let rules = vec(vec(a_match(), 1..3), 1..4);
    (0..3i64, hostnames, rules).prop_map(|(created, hostnames, rules)| WrittenRoute {
        created,
        name: String::new(),
        hostnames,
        rules,
    })
}

fn listeners() -> impl Strategy<Value = Vec<WrittenListener>> {
    let routes = vec(a_route(), 0..6);
    vec((select(PATTERNS), routes), 1..5).prop_map(|written| {
        let mut names = (0..).map(|n: u32| format!("ns{}/route-{:02}", n % 2, 99 - n));
        let mut by_hostname = BTreeMap::new();
        for (hostname, mut routes) in written {
            for route in &mut routes {
                route.name = names.next().expect("it never ends");
            }
            // Two listeners of one port cannot have the same hostname.
            by_hostname.entry(hostname).or_insert(routes);
        }
        by_hostname.into_iter().map(|(hostname, routes)| WrittenListener { hostname, routes }).collect()
    })
}

fn a_request() -> impl Strategy<Value = WrittenRequest> {
    let names = prop_oneof![
        3 => select(HOSTS).prop_map(|host| (host, None)),
        4 => select(HOSTS).prop_map(|host| (host, Some(host))),
        1 => (select(HOSTS), select(HOSTS)).prop_map(|(host, name)| (host, Some(name))),
    ];
    let method = select(&["GET", "GET", "POST", "PUT"][..]);
    let headers = vec((select(&["x-a", "x-b"][..]), select(&["1", "2"][..])), 0..4);
    (names, select(REQUEST_PATHS), select(QUERIES), method, headers).prop_map(
        |((host, server_name), path, query, method, headers)| WrittenRequest {
            host,
            server_name,
            path,
            query,
            method,
            headers,
        },
    )
}

/// What the Gateway API says about a request.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Route, rule, and the length of the matched path.
    Rule(String, usize),
    NotFound,
    Misdirected,
}

/// Whether a hostname covers a host: `*.` stands for one label or more.
fn covers(hostname: Hostname, host: &str) -> bool {
    let Some(hostname) = hostname else { return true };
    match hostname.strip_prefix('*') {
        Some(tail) => host.strip_suffix(tail).is_some_and(|labels| !labels.is_empty()),
        None => hostname == host,
    }
}

/// "Characters in a matching non-wildcard hostname", then "characters in a matching hostname".
fn specificity(hostname: Hostname) -> (usize, usize) {
    let text = hostname.unwrap_or_default();
    (if text.starts_with('*') { 0 } else { text.len() }, text.len())
}

/// The names that a listener and one hostname of a route have in common: the more specific of the two.
fn common(listener: Hostname, route: Hostname) -> Option<Hostname> {
    let overlap = |wide: Hostname, narrow: Hostname| match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => {
            wide == narrow
                || covers(Some(wide), narrow.trim_start_matches("*.")) && {
                    // `*.test` has `*.a.test` below it, and `a.test`, but nothing that lies beside it.
                    wide.starts_with('*')
                }
        }
    };
    match (overlap(listener, route), overlap(route, listener)) {
        (true, _) => Some(route),
        (_, true) => Some(listener),
        _ => None,
    }
}

fn path_holds(path: WrittenPath, asked: &str) -> bool {
    match path {
        WrittenPath::Exact(path) => path == asked,
        WrittenPath::Prefix(path) => {
            let segments = |path: &str| path.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
            let want = segments(path.strip_suffix('/').unwrap_or(path));
            segments(asked).starts_with(&want)
        }
        WrittenPath::Regex(regex) => {
            let (_, whole) = WHOLE.iter().find(|(text, _)| *text == regex).expect("all of them are there");
            whole.is_match(asked)
        }
    }
}

fn holds(wanted: &WrittenMatch, request: &WrittenRequest) -> bool {
    let header = |(name, value): (&&str, &&str)| {
        let values: Vec<_> = request.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| *v).collect();
        !values.is_empty() && values.join(",") == *value
    };
    let query = |(name, value): (&&str, &&str)| {
        let mut pairs = request.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(n, _)| n == name).is_some_and(|(_, v)| v.replace("%31", "1") == *value)
    };
    path_holds(wanted.path, request.path)
        && wanted.method.is_none_or(|method| method == request.method)
        && wanted.headers.iter().all(header)
        && wanted.queries.iter().all(query)
}

/// One match that holds, with all that precedence looks at.
struct Contender<'a> {
    hostname: Hostname,
    wanted: &'a WrittenMatch,
    route: &'a WrittenRoute,
    rule: usize,
    position: usize,
}

/// `Less` is the one that wins; each line is a criterion of `HTTPRouteRule.matches`, in its order.
fn precedence(a: &Contender<'_>, b: &Contender<'_>) -> Ordering {
    let exact = |c: &Contender<'_>| matches!(c.wanted.path, WrittenPath::Exact(_));
    // The API leaves regular expressions open; ours stand between exact paths and prefixes, the longer first.
    let regex = |c: &Contender<'_>| match c.wanted.path {
        WrittenPath::Regex(regex) => regex.len(),
        _ => 0,
    };
    let prefix = |c: &Contender<'_>| match c.wanted.path {
        WrittenPath::Prefix(path) => path.trim_end_matches('/').len(),
        _ => 0,
    };
    let more = |x: usize, y: usize| y.cmp(&x);
    specificity(b.hostname)
        .cmp(&specificity(a.hostname))
        .then(more(exact(a).into(), exact(b).into()))
        .then(more(regex(a), regex(b)))
        .then(more(prefix(a), prefix(b)))
        .then(more(a.wanted.method.is_some().into(), b.wanted.method.is_some().into()))
        .then(more(a.wanted.headers.len(), b.wanted.headers.len()))
        .then(more(a.wanted.queries.len(), b.wanted.queries.len()))
        .then(a.route.created.cmp(&b.route.created))
        .then(a.route.name.cmp(&b.route.name))
        .then(a.rule.cmp(&b.rule))
        .then(a.position.cmp(&b.position))
}

/// The answer by looking at everything.
fn scan(listeners: &[WrittenListener], request: &WrittenRequest) -> Answer {
    let most_specific = |name: &str| {
        let covering = listeners.iter().filter(|listener| covers(listener.hostname, name));
        covering.max_by_key(|listener| specificity(listener.hostname))
    };
    let listener = most_specific(request.host);
    if let Some(name) = request.server_name
        && most_specific(name).map(|l| l.hostname) != listener.map(|l| l.hostname)
    {
        return Answer::Misdirected;
    }
    let Some(listener) = listener else { return Answer::NotFound };
    let mut contenders = Vec::new();
    for route in &listener.routes {
        let shared = |hostname: &&Hostname| common(listener.hostname, **hostname).is_some();
        for &hostname in route.hostnames.iter().filter(shared) {
            for (rule, matches) in route.rules.iter().enumerate() {
                for (position, wanted) in matches.iter().enumerate() {
                    if covers(hostname, request.host) && holds(wanted, request) {
                        contenders.push(Contender { hostname, wanted, route, rule, position });
                    }
                }
            }
        }
    }
    contenders.sort_by(precedence);
    let Some(Contender { wanted, route, rule, .. }) = contenders.first() else { return Answer::NotFound };
    let matched = match wanted.path {
        WrittenPath::Prefix(path) => path.trim_end_matches('/').len(),
        WrittenPath::Exact(_) | WrittenPath::Regex(_) => request.path.len(),
    };
    Answer::Rule(format!("httproute/{}/rule/{rule}", route.name), matched)
}

fn pattern(hostname: Hostname) -> HostPattern {
    hostname.map_or(HostPattern::Any, |text| HostPattern::parse(text).expect("a valid hostname"))
}

fn compiled(written: &WrittenMatch) -> (PathRank, Matches) {
    let (rank, path) = match written.path {
        WrittenPath::Exact(path) => (PathRank::Exact(path.len()), PathMatch::Exact(path.into())),
        WrittenPath::Prefix(path) => {
            (PathRank::Prefix(path.trim_end_matches('/').len()), PathMatch::prefix(path))
        }
        WrittenPath::Regex(regex) => {
            let whole = Regex::new(&format!("^(?:{regex})$")).expect("a valid regex");
            (PathRank::Regex(regex.len()), PathMatch::Regex(whole))
        }
    };
    let header = |(name, value): (&&'static str, &&str)| HeaderMatch {
        name: HeaderName::from_static(name),
        value: TextMatch::Exact((*value).to_owned()),
    };
    let query = |(name, value): (&&str, &&str)| QueryMatch {
        name: (*name).to_owned(),
        value: TextMatch::Exact((*value).to_owned()),
    };
    let matches = Matches {
        path,
        method: written.method.map(|method| method.parse().expect("a method")),
        headers: written.headers.iter().map(header).collect(),
        queries: written.queries.iter().map(query).collect(),
        cookies: Box::default(),
    };
    (rank, matches)
}

/// The table that `compile` would make of these listeners.
fn table(listeners: &[WrittenListener]) -> RoutingTable {
    let mut rules = Vec::new();
    let mut socket = SocketTable::default();
    for written in listeners {
        let mut listener = Listener::default();
        for route in &written.routes {
            insert(&mut listener, written.hostname, route, &mut rules);
        }
        socket.insert(&pattern(written.hostname), listener);
    }
    RoutingTable::new(vec![(SOCKET, socket)], rules)
}

fn insert(listener: &mut Listener, hostname: Hostname, route: &WrittenRoute, rules: &mut Vec<Arc<Rule>>) {
    let (namespace, name) = route.name.split_once('/').expect("a namespace and a name");
    for (index, matches) in route.rules.iter().enumerate() {
        let id = rules.len() as u32;
        rules.push(Arc::new(Rule {
            name: RuleName::new("HTTPRoute", namespace, name, index),
            backends: Backends::default(),
            terms: None,
        }));
        for (position, written) in matches.iter().enumerate() {
            let (path, matches) = compiled(written);
            let rank = Rank {
                path,
                method: written.method.is_some(),
                headers: written.headers.len(),
                queries: written.queries.len(),
                age: Reverse(route.created),
                route: Reverse(route.name.as_str().into()),
                position: Reverse((index, position)),
            };
            let patterns = route.hostnames.iter().map(|hostname| pattern(*hostname));
            for shared in patterns.filter(|name| name.intersect(&pattern(hostname)).is_some()) {
                let paths = Arc::make_mut(listener.hosts.entry(&shared, Default::default));
                paths.insert(rank.clone(), matches.clone(), id);
            }
        }
    }
}

fn find(table: &RoutingTable, request: &WrittenRequest) -> Answer {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let method: Method = request.method.parse().expect("a method");
    let request = Request {
        host: request.host,
        server_name: request.server_name,
        path: request.path,
        query: request.query,
        method: &method,
        headers: &headers,
    };
    match table.find(SOCKET, &request) {
        Ok(found) => Answer::Rule(found.rule.name.to_string(), found.matched),
        Err(Reply::NoRoute) => Answer::NotFound,
        Err(Reply::Misdirected) => Answer::Misdirected,
        Err(other) => panic!("{other:?} is no answer of a look-up"),
    }
}

#[test]
fn find_gives_the_same_rule_as_a_scan_of_all_matches() {
    let config = Config { failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let (mut found, mut not_found, mut misdirected) = (0, 0, 0);
    for _ in 0..TABLES {
        let listeners = listeners().new_tree(&mut runner).expect("a value").current();
        let table = table(&listeners);
        for _ in 0..REQUESTS_PER_TABLE {
            let request = a_request().new_tree(&mut runner).expect("a value").current();
            let want = scan(&listeners, &request);
            assert_eq!(find(&table, &request), want, "{request:#?} among {listeners:#?}");
            match want {
                Answer::Rule(..) => found += 1,
                Answer::NotFound => not_found += 1,
                Answer::Misdirected => misdirected += 1,
            }
        }
    }
    // A generator that only ever asks for what nobody serves would prove nothing.
    assert!(found > 2_000 && not_found > 2_000 && misdirected > 500, "{found} {not_found} {misdirected}");
}

#[test]
fn a_socket_that_is_not_in_the_table_serves_nothing() {
    let route = WrittenRoute {
        created: 0,
        name: "ns/all".into(),
        hostnames: vec![None],
        rules: vec![vec![WrittenMatch {
            path: WrittenPath::Prefix("/"),
            method: None,
            headers: BTreeMap::new(),
            queries: BTreeMap::new(),
        }]],
    };
    let table = table(&[WrittenListener { hostname: None, routes: vec![route] }]);
    let headers = HeaderMap::new();
    let request = Request {
        host: "a.test",
        server_name: None,
        path: "/",
        query: "",
        method: &Method::GET,
        headers: &headers,
    };
    assert!(table.find(SOCKET, &request).is_ok());
    for other in [SocketId { port: 80, ..SOCKET }, SocketId { gateway: GatewayId(0), ..SOCKET }] {
        assert_eq!(table.find(other, &request).err(), Some(Reply::NoRoute), "{other:?}");
    }
}
