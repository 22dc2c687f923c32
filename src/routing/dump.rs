//! A routing table as a page of text that people read and tests compare; it is YAML.
//!
//! The one renderer of what is served: the admin server shows the running revision with it, and the golden
//! tests what `compile` makes. The order of its lines depends on nothing but what it shows.

use super::dump_filters::dump_filters;
use super::{
    Backend, Backends, Carrier, CookieMatch, GatewayId, HeaderMatch, Listener, Matches, PathIndex, PathMatch,
    QueryMatch, Retry, RoutingTable, Rule, Session, SocketId, SocketTable, StreamListener, Terms, TextMatch,
    TimeLimit, Timeouts, Transport,
};
use crate::host::HostPattern;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;

/// A page of YAML, written line by line.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// A key whose value follows in deeper lines.
    pub fn open(&mut self, depth: usize, key: impl Display) {
        let key = scalar(&key.to_string());
        self.line(depth, &format!("{key}:"));
    }

    /// A key with its value.
    pub fn entry(&mut self, depth: usize, key: impl Display, value: impl Display) {
        let (key, value) = (scalar(&key.to_string()), scalar(&value.to_string()));
        self.line(depth, &format!("{key}: {value}"));
    }

    /// An element of a list.
    pub fn item(&mut self, depth: usize, value: impl Display) {
        let value = scalar(&value.to_string());
        self.line(depth, &format!("- {value}"));
    }

    /// An element of a list that is a key with its value.
    pub fn pair(&mut self, depth: usize, key: impl Display, value: impl Display) {
        let (key, value) = (scalar(&key.to_string()), scalar(&value.to_string()));
        self.line(depth, &format!("- {key}: {value}"));
    }

    fn line(&mut self, depth: usize, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{:indent$}{text}", "", indent = 2 * depth);
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// A text as a YAML scalar, quoted only where it must be.
fn scalar(text: &str) -> String {
    let ends = |end: char| end.is_ascii_alphanumeric() || "/._)-[]<>=+äöü".contains(end);
    let starts = |start: char| start.is_ascii_alphanumeric() || "/._(<".contains(start);
    let plain = text.starts_with(starts)
        && text.ends_with(|end| ends(end) || end == '*' || end == '$')
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.chars().any(char::is_control);
    if plain {
        text.to_owned()
    } else if text.chars().any(char::is_control) {
        format!("{text:?}")
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// Writes a table; `gateway` says what a gateway is called.
pub fn dump(table: &RoutingTable, gateway: impl Fn(GatewayId) -> String, page: &mut Page) {
    page.open(0, "table");
    for (id, socket) in table.sockets() {
        page.open(1, socket_name(*id, &gateway));
        dump_socket(table, socket, page);
    }
    page.open(0, "rules");
    for rule in table.rules() {
        dump_rule(rule, page);
    }
}

/// `external 443`, `external 53/udp`.
pub fn socket_name(id: SocketId, gateway: impl Fn(GatewayId) -> String) -> String {
    let SocketId { gateway: of, port, transport } = id;
    match transport {
        Transport::Tcp => format!("{} {port}", gateway(of)),
        Transport::Udp => format!("{} {port}/udp", gateway(of)),
    }
}

fn dump_socket(table: &RoutingTable, socket: &SocketTable, page: &mut Page) {
    let mut hosts: Vec<_> = socket.hosts().collect();
    hosts.sort();
    for (pattern, place) in hosts {
        let Listener { name, grpc, hosts } = &socket.listeners()[place];
        page.open(2, format!("{name} for {pattern}{}", if *grpc { " (gRPC)" } else { "" }));
        let sorted: BTreeMap<HostPattern, &Arc<PathIndex>> = hosts.iter().collect();
        for (host, paths) in sorted {
            page.open(3, host);
            for (matches, rule) in paths.iter() {
                let rule = &table.rules()[rule as usize].name;
                page.pair(4, match_words(&matches), rule);
            }
        }
    }
    let streams: BTreeMap<_, _> = socket.streams().collect();
    for (pattern, StreamListener { name, hosts }) in streams {
        page.open(2, format!("{name} for {pattern}"));
        let sorted: BTreeMap<HostPattern, &u32> = hosts.iter().collect();
        for (host, rule) in sorted {
            page.entry(3, host, &table.rules()[*rule as usize].name);
        }
    }
}

fn match_words(matches: &Matches) -> String {
    let Matches { path, method, headers, queries, cookies } = matches;
    let mut words = match path {
        PathMatch::Exact(path) => format!("exact {path}"),
        PathMatch::Prefix(path) if path.is_empty() => "prefix /".to_owned(),
        PathMatch::Prefix(path) => format!("prefix {path}"),
        PathMatch::Regex(regex) => format!("regex {regex}"),
    };
    if let Some(method) = method {
        let _ = write!(words, ", {method}");
    }
    for HeaderMatch { name, value } in headers {
        let _ = write!(words, ", header {name} {}", text_words(value));
    }
    for QueryMatch { name, value } in queries {
        let _ = write!(words, ", query {name} {}", text_words(value));
    }
    for lists in cookies {
        let all = |list: &[CookieMatch]| {
            let each = list.iter().map(|CookieMatch { name, value }| format!("{name} {}", text_words(value)));
            each.collect::<Vec<_>>().join(" and ")
        };
        let any: Vec<_> = lists.iter().map(|list| all(list)).collect();
        let _ = write!(words, ", cookie {}", any.join(" or "));
    }
    words
}

fn text_words(text: &TextMatch) -> String {
    match text {
        TextMatch::Exact(text) => format!("= {text}"),
        TextMatch::Regex(regex) => format!("~ {regex}"),
    }
}

fn dump_rule(rule: &Rule, page: &mut Page) {
    let Rule { name, backends, terms } = rule;
    page.open(1, name);
    if let Some(terms) = terms {
        dump_terms(terms, page);
    }
    dump_backends(backends, page);
}

fn dump_terms(terms: &Terms, page: &mut Page) {
    let Terms { name, filters, timeouts, retry, session } = terms;
    if let Some(name) = name {
        page.entry(2, "name", name);
    }
    let Timeouts { request, backend_request } = timeouts;
    dump_limit("request timeout", *request, page);
    dump_limit("backend request timeout", *backend_request, page);
    if let Some(retry) = retry {
        page.entry(2, "retry", retry_words(retry));
    }
    if let Some(session) = session {
        page.entry(2, "session", session_words(session));
    }
    dump_filters(filters, 2, page);
}

fn dump_limit(name: &str, limit: TimeLimit, page: &mut Page) {
    match limit {
        TimeLimit::Unset => {}
        TimeLimit::Never => page.entry(2, name, "none"),
        TimeLimit::After(duration) => page.entry(2, name, format!("{duration:?}")),
    }
}

fn retry_words(retry: &Retry) -> String {
    let codes = retry.codes().iter().map(|code| format!(", on {}", code.as_u16()));
    format!("{} times after {:?}{}", retry.attempts(), retry.backoff(), codes.collect::<String>())
}

fn session_words(session: &Session) -> String {
    let mut words = match session.carrier() {
        Carrier::Cookie { name, path, permanent } => {
            format!("cookie {name} for {path}{}", if *permanent { ", permanent" } else { "" })
        }
        Carrier::Header(name) => format!("header {name}"),
    };
    if let Some(lifetime) = session.lifetime() {
        let _ = write!(words, ", for {lifetime:?}");
    }
    words
}

fn dump_backends(backends: &Backends, page: &mut Page) {
    if backends.entries().is_empty() {
        return;
    }
    page.open(2, "backends");
    for Backend { weight, index, filters } in backends.entries() {
        let whither = match index {
            Some(index) => format!("backend {index} of its cluster"),
            None => "500 NoBackend".to_owned(),
        };
        page.pair(3, format!("weight {weight}"), whither);
        if let Some(filters) = filters {
            dump_filters(filters, 4, page);
        }
    }
}
