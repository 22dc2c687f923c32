//! What is wrong between values that are right alone: two gateways on one socket, a public admin address.

mod acme;

use super::fault::{Fault, Text};
use super::{Config, Gateway, KubernetesSource, Limits, ProxyProtocol, SessionTickets, observing};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// All such mistakes, in the order of the file's sections.
pub fn find(text: &Text<'_>, config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    faults.extend(of_source(text, config));
    if config.gateways.is_empty() && config.source.kubernetes.is_none() {
        let hint = "add one: [gateways.external] with object = \"network/external\"";
        faults.push(fault(text, &["gateways"], "there is no gateway", hint));
    }
    faults.extend(config.gateways.iter().flat_map(|(name, gateway)| of_gateway(text, name, gateway)));
    faults.extend(shared_objects(text, config));
    let mapped = config.gateways.iter();
    let mapped = mapped.flat_map(|(name, gateway)| gateway.ports.0.keys().map(|port| (name.as_str(), *port)));
    faults.extend(shared_sockets(text, config, &mapped.collect::<Vec<_>>()));
    faults.extend(of_certificates(text, config));
    faults.extend(of_tls(text, config));
    faults.extend(of_session_tickets(text, &config.session_tickets));
    faults.extend(config.acme.iter().flat_map(|acme| acme::find(text, config, acme)));
    if !config.admin.address.ip().is_loopback() && !config.admin.allow_public {
        let message = format!("{} is reachable from outside this machine", config.admin.address);
        let hint = "bind 127.0.0.1, or say so twice: add allow_public = true to [admin]";
        faults.push(fault(text, &["admin", "address"], message, hint));
    }
    if config.drain.grace > config.drain.timeout {
        let hint = "the grace is a part of the timeout: make the timeout longer or the grace shorter";
        faults.push(fault(text, &["drain", "grace"], "the grace is longer than the timeout", hint));
    }
    faults.extend(of_limits(text, &config.limits));
    faults.extend(observing::faults(text, config));
    faults
}

fn of_source(text: &Text<'_>, config: &Config) -> Vec<Fault> {
    let paths = &config.source.files.paths;
    match &config.source.kubernetes {
        None if paths.is_empty() => {
            let hint = "name a folder with manifests, such as \"deploy/example\"";
            vec![fault(text, &["source", "files", "paths"], "no files and no folders to read", hint)]
        }
        None => Vec::new(),
        Some(_) if !paths.is_empty() => {
            let message = "objects come from files or from Kubernetes, not from both";
            vec![fault(text, &["source", "kubernetes"], message, "keep one of the two tables")]
        }
        Some(kubernetes) => of_kubernetes(text, config, kubernetes),
    }
}

fn of_kubernetes(text: &Text<'_>, config: &Config, kubernetes: &KubernetesSource) -> Vec<Fault> {
    let mut faults = Vec::new();
    let path = ["source", "kubernetes", "addresses"];
    if kubernetes.addresses.pool.is_some() && kubernetes.addresses.ports.is_some() {
        let message = "pool and ports are two answers to one question";
        let hint = "with a pool each further Gateway has its own address, with ports it shares one; keep one";
        faults.push(fault(text, &path, message, hint));
    }
    for name in kubernetes.services.keys().filter(|name| !config.gateways.contains_key(*name)) {
        let hint = "the name is that of a table [gateways.NAME]";
        let message = format!("there is no gateway `{name}`");
        faults.push(fault(text, &["source", "kubernetes", "services", name], message, hint));
    }
    faults
}

/// Paths to read that are not there. Certificates may be: they can come later, or be generated.
pub fn missing_paths(text: &Text<'_>, config: &Config) -> Vec<Fault> {
    let missing = |path: &Path| path.metadata().err().map(|error| (path.to_owned(), error));
    let paths = config.source.files.paths.iter().filter_map(|path| missing(path));
    paths
        .map(|(path, error)| {
            let message = format!("cannot read {}: {error}", path.display());
            fault(
                text,
                &["source", "files", "paths"],
                message,
                "paths are relative to the folder of this file",
            )
        })
        .collect()
}

fn of_gateway(text: &Text<'_>, name: &str, gateway: &Gateway) -> Vec<Fault> {
    let Gateway {
        object: _,
        bind,
        ports,
        trusted_proxies,
        trusted_hops,
        proxy_protocol,
        tls: _,
        access_log: _,
        accept_http10: _,
        enable_envoy_headers: _,
    } = gateway;
    let mut faults = Vec::new();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        let hint = "use lower-case letters, digits and -: the name becomes a label of metrics and logs";
        faults.push(fault(text, &["gateways", name], format!("`{name}` is no name for a gateway"), hint));
    }
    if bind.is_empty() {
        let hint = "\"0.0.0.0\" and \"[::]\" are all addresses of this machine";
        faults.push(fault(text, &["gateways", name, "bind"], "the gateway binds no address", hint));
    }
    let mut taken = BTreeMap::new();
    for (listener, bound) in &ports.0 {
        if let Some(other) = taken.insert(bound, listener) {
            let message = format!("the listener ports {other} and {listener} are both bound as {bound}");
            let key = listener.to_string();
            let path = ["gateways", name, "ports", &key];
            faults.push(fault(text, &path, message, "give each its own port"));
        }
    }
    if *trusted_hops > 0 && !trusted_proxies.is_empty() {
        let message = "trusted_hops and trusted_proxies are two answers to one question";
        let hint = "trusted_proxies names who is believed, trusted_hops counts; keep one of them";
        faults.push(fault(text, &["gateways", name, "trusted_hops"], message, hint));
    }
    if *proxy_protocol != ProxyProtocol::Off && trusted_proxies.is_empty() {
        let message = "nobody's PROXY header is believed, because trusted_proxies is empty";
        let hint = "name the load balancers' networks in trusted_proxies";
        faults.push(fault(text, &["gateways", name, "proxy_protocol"], message, hint));
    }
    faults
}

fn shared_objects(text: &Text<'_>, config: &Config) -> Vec<Fault> {
    let mut served = BTreeMap::new();
    let twice = config.gateways.iter().filter_map(|(name, gateway)| {
        let other = served.insert(&gateway.object, name)?;
        let message = format!("the gateways {other} and {name} both serve {}", gateway.object);
        let hint = "one gateway can bind many addresses and ports; or give this one its own Gateway object";
        Some(fault(text, &["gateways", name, "object"], message, hint))
    });
    twice.collect()
}

/// A socket that is asked for, and by which key.
struct Wanted<'a> {
    what: String,
    path: Vec<&'a str>,
    address: SocketAddr,
}

/// Sockets that two ask for, where the gateways have listeners on these ports.
pub fn shared_sockets(text: &Text<'_>, config: &Config, listeners: &[(&str, u16)]) -> Vec<Fault> {
    let keys: Vec<String> = listeners.iter().map(|(_, port)| port.to_string()).collect();
    let of_gateways = listeners.iter().zip(&keys).flat_map(|((name, port), key)| {
        let addresses =
            config.gateways.get(*name).map(|gateway| gateway.addresses(*port)).unwrap_or_default();
        addresses.into_iter().map(move |address| Wanted {
            what: format!("gateway {name} (listener port {port})"),
            path: vec!["gateways", name, "ports", key],
            address,
        })
    });
    let wanted: Vec<Wanted<'_>> = own_sockets(config).into_iter().chain(of_gateways).collect();
    let mut faults: Vec<Fault> = Vec::new();
    for (index, later) in wanted.iter().enumerate() {
        let earlier = wanted[..index].iter().find(|earlier| overlap(earlier.address, later.address));
        // Two ports of one gateway are said by `of_gateway`, and one sentence for each pair is enough.
        let Some(earlier) = earlier.filter(|earlier| earlier.path[..2] != later.path[..2]) else { continue };
        let message = format!("{} and {} both bind {}", earlier.what, later.what, later.address);
        let hint = "give one of them another port or another address";
        // One of the two may be a default that nobody wrote; of a gateway at least its name is written.
        let written = if text.has_table_of(&later.path[..later.path.len().min(3)]) { later } else { earlier };
        let found = fault(text, &written.path, message, hint);
        if !faults.iter().any(|other| (other.line, other.column) == (found.line, found.column)) {
            faults.push(found);
        }
    }
    faults
}

fn own_sockets(config: &Config) -> Vec<Wanted<'static>> {
    let mut own = vec![
        ("admin", config.admin.address),
        ("stats", config.stats.address),
        ("ready", config.ready.address),
    ];
    if config.echo.enabled {
        own.push(("echo", config.echo.address));
    }
    own.into_iter()
        .map(|(table, address)| Wanted { what: format!("[{table}]"), path: vec![table, "address"], address })
        .collect()
}

/// Whether the kernel would give both the same connections. `[::]` is bound for IPv6 only, and port 0 is another
/// port each time.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (a_ip, b_ip) = (a.ip().to_canonical(), b.ip().to_canonical());
    let all = |ip: IpAddr| ip.is_unspecified();
    a.port() == b.port()
        && a.port() != 0
        && a_ip.is_ipv4() == b_ip.is_ipv4()
        && (a_ip == b_ip || all(a_ip) || all(b_ip))
}

fn of_certificates(text: &Text<'_>, config: &Config) -> Vec<Fault> {
    let mut secrets = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, files) in &config.certificates {
        if let Some(other) = secrets.insert(&files.secret, name) {
            let message = format!("the certificates {other} and {name} are both the Secret {}", files.secret);
            let hint = "give each its own name; a listener may refer to several";
            faults.push(fault(text, &["certificates", name, "secret"], message, hint));
        }
    }
    faults
}

/// Settings that let no handshake succeed, of all gateways and of each.
fn of_tls(text: &Text<'_>, config: &Config) -> Vec<Fault> {
    const HINT: &str = "see `trigate schema`; what is left out has a default";
    let gateways = config.gateways.iter();
    let of_gateways = gateways.map(|(name, gateway)| {
        (vec!["gateways", name.as_str(), "tls"], gateway.tls.clone().within(&config.tls))
    });
    let all = std::iter::once((vec!["tls"], config.tls.clone())).chain(of_gateways);
    let mut faults: Vec<Fault> = Vec::new();
    for (mut path, options) in all {
        let not_http = options.not_http().map(|id| {
            (
                "alpn",
                format!(
                    "`{id}` is not spoken; there are h2 and http/1.1, and others by a listener's options"
                ),
            )
        });
        let Some((key, message)) = options.contradiction().or(not_http) else { continue };
        path.push(key);
        let found = fault(text, &path, message, HINT);
        // What is wrong for all gateways is told once.
        if !faults.iter().any(|other| other.message == found.message) {
            faults.push(found);
        }
    }
    faults
}

fn of_session_tickets(text: &Text<'_>, tickets: &SessionTickets) -> Vec<Fault> {
    // RFC 8446 4.6.1: no ticket is good for more than seven days. One is good for up to twice its lifetime.
    const MOST: Duration = Duration::from_secs(84 * 3600);
    let SessionTickets { enabled: _, per_handshake, lifetime, secret, file } = tickets;
    let place = |key| ["session_tickets", key];
    let mut faults = Vec::new();
    if *lifetime < Duration::from_secs(1) || *lifetime > MOST {
        let hint = "1s to 84h; to have no tickets, set enabled = false";
        faults.push(fault(text, &place("lifetime"), "no ticket can be good for so long", hint));
    }
    if *per_handshake == 0 || *per_handshake > 8 {
        let hint = "1 to 8; to have no tickets, set enabled = false";
        faults.push(fault(text, &place("per_handshake"), "so many tickets cannot be given", hint));
    }
    if secret.is_some() && file.is_some() {
        let hint = "the keys come from one place; keep one of the two";
        faults.push(fault(text, &place("file"), "there is a secret and a file", hint));
    }
    faults
}

fn of_limits(text: &Text<'_>, limits: &Limits) -> Vec<Fault> {
    // RFC 9113 6.9.2: a window starts at 65,535; a smaller one would have to be taken back from the client.
    const WINDOW: (u64, &str) = (65_535, "64KiB");
    let least = [
        ("connections", u64::from(limits.connections), (1, "1")),
        ("head_bytes", limits.head_bytes.into(), (1024, "1KiB")),
        ("head_fields", limits.head_fields.into(), (1, "1")),
        ("http2_streams", limits.http2_streams.into(), (1, "1")),
        ("http2_stream_window", limits.http2_stream_window.into(), WINDOW),
        ("http2_connection_window", limits.http2_connection_window.into(), WINDOW),
    ];
    let small =
        least.into_iter().filter(|(_, value, (least, _))| value < least).map(|(key, _, (_, least))| {
            fault(text, &["limits", key], format!("{key} is too small"), &format!("the least is {least}"))
        });
    let times = [
        ("handshake_timeout", limits.handshake_timeout),
        ("head_timeout", limits.head_timeout),
        ("connect_timeout", limits.connect_timeout),
    ];
    let zero = times.into_iter().filter(|(_, time)| *time == Duration::ZERO).map(|(key, _)| {
        let hint = "what a client does not finish must end some time; choose a long one";
        fault(text, &["limits", key], format!("{key} cannot be 0"), hint)
    });
    small.chain(zero).collect()
}

fn fault(text: &Text<'_>, path: &[&str], message: impl Into<String>, hint: &str) -> Fault {
    text.fault_at(path, message.into(), Some(hint.to_owned()))
}
