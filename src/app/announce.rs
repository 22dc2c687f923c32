//! What a start prints: gateways, sockets, routes, and a few lines to try.

use super::counted;
use crate::config::Config;
use crate::control::Opened;
use crate::host::HostPattern;
use crate::live::Revision;
use crate::routing::{Found, Request, SocketId, Transport};
use http::{HeaderMap, Method};
use std::collections::BTreeSet;
use std::fmt::{self, Display, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Host names of a socket that are printed; the admin address has them all.
const HOSTS_SHOWN: usize = 6;
/// Lines to try.
const LINES: usize = 3;

/// The text for the operator: what is served where, and what to ask it.
pub struct Announcement<'a> {
    pub config: &'a Config,
    pub revision: &'a Revision,
    pub sockets: &'a [Opened],
    /// The authority of a development certificate.
    pub authority: Option<&'a Path>,
}

impl Display for Announcement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.revision.table.rules();
        let routes: BTreeSet<_> = rules.iter().map(|rule| rule.name.route()).collect();
        writeln!(
            f,
            "trigate {} serves {} with {}",
            env!("CARGO_PKG_VERSION"),
            counted(routes.len(), "route"),
            counted(rules.len(), "rule"),
        )?;
        for (name, gateway) in &self.config.gateways {
            writeln!(f, "\n  {name}, the Gateway {}", gateway.object)?;
            let mut sockets = self.sockets.iter().filter(|socket| socket.gateway == *name).peekable();
            if sockets.peek().is_none() {
                writeln!(f, "    no socket: the object has no listener that can be served")?;
            }
            for socket in sockets {
                let scheme = self.scheme(socket);
                let addresses: Vec<_> = socket.addresses.iter().map(ToString::to_string).collect();
                writeln!(f, "    {scheme:5}  {}  {}", addresses.join(" "), self.hosts(socket))?;
            }
        }
        let Config { admin, stats, ready, echo, .. } = self.config;
        writeln!(f, "\n  admin    http://{}/", reachable(admin.address))?;
        writeln!(f, "  metrics  http://{}/stats/prometheus", reachable(stats.address))?;
        writeln!(f, "  ready    http://{}/ready", reachable(ready.address))?;
        if echo.enabled {
            writeln!(f, "  echo     http://{}/, the built-in backend", echo.address)?;
        }
        let lines = self.lines();
        if !lines.is_empty() {
            writeln!(f, "\nto try:\n{}", lines.join("\n"))?;
        }
        Ok(())
    }
}

impl Announcement<'_> {
    fn scheme(&self, socket: &Opened) -> &'static str {
        let table = self.revision.table.socket(socket.id);
        let bytes = table.is_some_and(|table| table.speaks_no_http());
        match (socket.id.transport, bytes, socket.tls) {
            (Transport::Udp, _, _) => "udp",
            (Transport::Tcp, true, true) => "tls",
            (Transport::Tcp, true, false) => "tcp",
            (Transport::Tcp, false, true) => "https",
            (Transport::Tcp, false, false) => "http",
        }
    }

    /// The host names that the socket serves, in alphabetical order.
    fn host_patterns(&self, id: SocketId) -> BTreeSet<HostPattern> {
        let Some(table) = self.revision.table.socket(id) else { return BTreeSet::new() };
        let mut hosts = BTreeSet::new();
        for (of_listener, place) in table.hosts() {
            let of_routes = table.listeners()[place].hosts.iter();
            hosts.extend(of_routes.filter_map(|(pattern, _)| pattern.intersect(&of_listener)));
        }
        for (of_listener, listener) in table.streams() {
            let of_routes = listener.hosts.iter();
            hosts.extend(of_routes.filter_map(|(pattern, _)| pattern.intersect(&of_listener)));
        }
        hosts
    }

    fn hosts(&self, socket: &Opened) -> String {
        let hosts = self.host_patterns(socket.id);
        let mut text = hosts.iter().take(HOSTS_SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match hosts.len() {
            0 => text.push_str("no route"),
            more if more > HOSTS_SHOWN => {
                write!(text, " and {} more", more - HOSTS_SHOWN).expect("a string takes it");
            }
            _ => {}
        }
        text
    }

    /// Requests that a backend answers: one in clear text, one over TLS, then hosts that were not asked yet.
    fn lines(&self) -> Vec<String> {
        let mut asked: BTreeSet<String> = BTreeSet::new();
        let mut lines = Vec::new();
        for (tls, again) in [(Some(false), true), (Some(true), true), (None, false), (None, true)] {
            let wanted = self.sockets.iter().filter(|socket| tls.is_none_or(|tls| socket.tls == tls));
            for socket in wanted {
                let answered = self.answered(socket);
                let Some(host) = answered.into_iter().find(|host| again || !asked.contains(host)) else {
                    continue;
                };
                let line = self.line(socket, &host);
                if lines.len() < LINES && !lines.contains(&line) {
                    lines.push(line);
                    asked.insert(host);
                    if tls.is_some() {
                        break;
                    }
                }
            }
        }
        lines
    }

    /// Exact host names for which `GET /` reaches a backend.
    fn answered(&self, socket: &Opened) -> Vec<String> {
        let hosts = self.host_patterns(socket.id).into_iter();
        let exact = hosts.filter_map(|pattern| match pattern {
            HostPattern::Exact(host) => Some(host),
            HostPattern::Any | HostPattern::Suffix(_) => None,
        });
        exact.filter(|host| self.reaches_a_backend(socket, host)).collect()
    }

    fn reaches_a_backend(&self, socket: &Opened, host: &str) -> bool {
        let request = Request {
            host,
            server_name: socket.tls.then_some(host),
            path: "/",
            query: "",
            method: &Method::GET,
            headers: &HeaderMap::new(),
        };
        let found = self.revision.table.find(socket.id, &request);
        found.is_ok_and(|Found { rule, .. }| {
            rule.filters().is_none_or(|filters| filters.redirect.is_none())
                && rule.backends.cluster().is_some()
        })
    }

    fn line(&self, socket: &Opened, host: &str) -> String {
        let address = socket.addresses.first().copied().map(reachable);
        let (ip, port) = address.map_or((IpAddr::from([127, 0, 0, 1]), 0), |a| (a.ip(), a.port()));
        let mut line = "  curl ".to_owned();
        if let Some(authority) = self.authority.filter(|_| socket.tls) {
            write!(line, "--cacert {} ", authority.display()).expect("a string takes it");
        }
        // curl knows names below .localhost (RFC 6761 6.3) without asking anybody.
        if !(host.ends_with(".localhost") && ip == IpAddr::from([127, 0, 0, 1])) {
            write!(line, "--resolve {host}:{port}:{ip} ").expect("a string takes it");
        }
        let scheme = if socket.tls { "https" } else { "http" };
        write!(line, "{scheme}://{host}:{port}/").expect("a string takes it");
        line
    }
}

/// An address that a client on this machine can use.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            SocketAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        });
    }
    address
}
