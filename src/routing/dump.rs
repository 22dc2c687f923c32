//! A routing table as a page of text that people read and tests compare; it is YAML.
//!
//! The one renderer of what is served: the admin server shows the running revision with it, and the golden
//! tests what `compile` makes. The order of its lines depends on nothing but what it shows.

use super::{
    Backend, Backends, GatewayId, HeaderMatch, Listener, Matches, PathIndex, PathMatch, QueryMatch,
    RoutingTable, Rule, SocketTable, TextMatch, Timeouts,
};
use crate::filter::{Filters, HeaderEdits, PathEdit, Redirect, Rewrite};
use crate::host::HostPattern;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

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
        page.open(1, format!("{} {}", gateway(id.gateway), id.port));
        dump_socket(table, socket, page);
    }
    page.open(0, "rules");
    for rule in table.rules() {
        dump_rule(rule, page);
    }
}

fn dump_socket(table: &RoutingTable, socket: &SocketTable, page: &mut Page) {
    let mut hosts: Vec<_> = socket.hosts().collect();
    hosts.sort();
    for (pattern, place) in hosts {
        let Listener { name, grpc, hosts } = &socket.listeners()[place];
        page.open(2, format!("{name} for {pattern}{}", if *grpc { " (gRPC)" } else { "" }));
        let sorted: BTreeMap<HostPattern, &PathIndex> = hosts.iter().collect();
        for (host, paths) in sorted {
            page.open(3, host);
            for (matches, rule) in paths.iter() {
                let rule = &table.rules()[rule as usize].name;
                page.pair(4, match_words(matches), rule);
            }
        }
    }
}

fn match_words(matches: &Matches) -> String {
    let Matches { path, method, headers, queries } = matches;
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
    words
}

fn text_words(text: &TextMatch) -> String {
    match text {
        TextMatch::Exact(text) => format!("= {text}"),
        TextMatch::Regex(regex) => format!("~ {regex}"),
    }
}

fn dump_rule(rule: &Rule, page: &mut Page) {
    let Rule { name, filters, backends, timeouts } = rule;
    page.open(1, name);
    if let Some(name) = &name.name {
        page.entry(2, "name", name);
    }
    let Timeouts { request, backend_request } = timeouts;
    if let Some(request) = request {
        page.entry(2, "request timeout", format!("{request:?}"));
    }
    if let Some(one_try) = backend_request {
        page.entry(2, "backend request timeout", format!("{one_try:?}"));
    }
    dump_filters(filters, 2, page);
    dump_backends(backends, page);
}

fn dump_filters(filters: &Filters, depth: usize, page: &mut Page) {
    let Filters { broken, redirect, request_headers, rewrite, response_headers } = filters;
    if let Some(reply) = broken {
        page.entry(depth, "answers", format!("{} {reply:?}", reply.status().as_u16()));
    }
    if let Some(redirect) = redirect {
        page.entry(depth, "redirect", redirect_words(redirect));
    }
    if let Some(edits) = request_headers {
        page.entry(depth, "request headers", edit_words(edits));
    }
    if let Some(rewrite) = rewrite {
        page.entry(depth, "rewrite", rewrite_words(rewrite));
    }
    if let Some(edits) = response_headers {
        page.entry(depth, "response headers", edit_words(edits));
    }
}

fn redirect_words(redirect: &Redirect) -> String {
    let Redirect { scheme, hostname, port, path, status } = redirect;
    let mut words = status.as_u16().to_string();
    if let Some(scheme) = scheme {
        let _ = write!(words, ", scheme {scheme:?}");
    }
    if let Some(hostname) = hostname {
        let _ = write!(words, ", host {hostname}");
    }
    if let Some(port) = port {
        let _ = write!(words, ", port {port}");
    }
    if let Some(path) = path {
        let _ = write!(words, ", {}", path_words(path));
    }
    words
}

fn rewrite_words(rewrite: &Rewrite) -> String {
    let Rewrite { hostname, path } = rewrite;
    let host = hostname.as_ref().map(|host| format!("host {}", String::from_utf8_lossy(host.as_bytes())));
    let path = path.as_ref().map(path_words);
    host.into_iter().chain(path).collect::<Vec<_>>().join(", ")
}

fn path_words(edit: &PathEdit) -> String {
    match edit {
        PathEdit::Full(path) => format!("whole path {path}"),
        PathEdit::Prefix(path) if path.is_empty() => "prefix /".to_owned(),
        PathEdit::Prefix(path) => format!("prefix {path}"),
    }
}

fn edit_words(edits: &HeaderEdits) -> String {
    let HeaderEdits { set, add, remove } = edits;
    let value = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let set = set.iter().map(|(name, text)| format!("set {name}={}", value(text)));
    let add = add.iter().map(|(name, text)| format!("add {name}={}", value(text)));
    let remove = remove.iter().map(|name| format!("remove {name}"));
    set.chain(add).chain(remove).collect::<Vec<_>>().join(", ")
}

fn dump_backends(backends: &Backends, page: &mut Page) {
    if backends.entries().is_empty() {
        return;
    }
    page.open(2, "backends");
    for Backend { weight, filters, index } in backends.entries() {
        let whither = match index {
            Some(index) => format!("backend {index} of its cluster"),
            None => "500 NoBackend".to_owned(),
        };
        page.pair(3, format!("weight {weight}"), whither);
        dump_filters(filters, 4, page);
    }
}
