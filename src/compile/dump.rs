//! What a compilation made, as a page of text: the table in the words of `routing::dump`, then all the rest.

use super::{
    Compiled, GatewayReport, ListenerReport, ListenerSetReport, ParentReport, PolicyReport, RouteReport,
    RouteVerdicts, SocketSpec, Verdict,
};
use crate::resource::{ParentRef, Resource};
use crate::routing::{GatewayId, Page, dump, socket_name};
use crate::tls::{
    Carried, ClientMode, ClientValidation, Termination, TlsListener, TlsMode, TlsOptions, TlsVersion,
};
use crate::upstream::{
    Address, BackendSpec, BackendTls, ClusterSpec, DnsName, EndpointsSpec, Planned, Protocol, Roots, TlsSpec,
};
use std::collections::{BTreeMap, BTreeSet};

impl Compiled {
    /// The page. It shows no secret, and of clusters those that are new.
    pub fn dump(&self) -> String {
        let mut page = Page::default();
        let gateway = |id: GatewayId| {
            let report = self.gateways.iter().find(|report| report.id == id);
            report.map_or_else(|| format!("gateway {}", id.0), |report| report.binding.clone())
        };
        dump(&self.table, gateway, &mut page);
        page.open(0, "clusters");
        self.clusters.iter().filter_map(Planned::spec).for_each(|cluster| dump_cluster(cluster, &mut page));
        page.open(0, "endpoints");
        for (key, spec) in self.endpoints.iter().collect::<BTreeMap<_, _>>() {
            page.entry(1, &key.0, endpoints_words(spec));
        }
        page.open(0, "sockets");
        for (id, spec) in &self.sockets {
            dump_socket(&socket_name(*id, gateway), spec, &mut page);
        }
        page.open(0, "gateways");
        self.gateways.iter().for_each(|report| dump_gateway(report, &mut page));
        page.open(0, "routes");
        self.routes.iter().for_each(|report| dump_route(report, &mut page));
        if !self.policies.is_empty() {
            page.open(0, "policies");
            self.policies.iter().for_each(|report| dump_policy(report, &mut page));
        }
        page.open(0, "diagnostics");
        self.diagnostics.iter().for_each(|diagnostic| page.item(1, diagnostic));
        page.into_text()
    }
}

fn dump_cluster(cluster: &ClusterSpec, page: &mut Page) {
    let ClusterSpec { name, backends, connect_timeout: _ } = cluster;
    page.open(1, name);
    for BackendSpec { endpoints, protocol, tls } in backends {
        let protocol = match protocol {
            Protocol::Http1 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
            Protocol::Opaque => "bytes",
        };
        let tls = tls.as_deref().map(backend_tls_words).unwrap_or_default();
        page.pair(2, &endpoints.0, format!("{protocol}{tls}"));
    }
}

fn backend_tls_words(BackendTls { spec, of }: &BackendTls) -> String {
    let words = tls_words(spec);
    let shown: Vec<String> = of.iter().map(|(gateway, _)| gateway.to_string()).collect();
    match shown.is_empty() {
        true => words,
        false => format!("{words}, with the certificate of gateway {}", shown.join(", ")),
    }
}

fn tls_words(tls: &TlsSpec) -> String {
    let TlsSpec { server_name, roots, subject_alt_names, client } = tls;
    let roots = match roots {
        Roots::System => "verified by the system's authorities".to_owned(),
        Roots::Given(certificates) if certificates.is_empty() => "with nobody to trust".to_owned(),
        Roots::Given(certificates) => format!("verified by {} given authorities", certificates.len()),
        Roots::Unverified => "not verified".to_owned(),
    };
    let names =
        if subject_alt_names.is_empty() { String::new() } else { format!(", names {subject_alt_names:?}") };
    let own = if client.is_some() { ", with a certificate of our own" } else { "" };
    format!(" over TLS to {server_name}, {roots}{names}{own}")
}

fn endpoints_words(spec: &EndpointsSpec) -> String {
    let (names, addresses) = match spec {
        EndpointsSpec::Dns { names, addresses } => (names.as_slice(), addresses),
        EndpointsSpec::Addresses(addresses) => (&[][..], addresses),
    };
    let names = names.iter().map(|DnsName { host, port }| format!("DNS {host} port {port}"));
    let addresses = addresses.iter().map(|endpoint| match &endpoint.address {
        Address::Ip(address) => address.to_string(),
        Address::Unix(path) => format!("unix {}", path.display()),
    });
    let words: Vec<_> = names.chain(addresses).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn dump_socket(name: &str, spec: &SocketSpec, page: &mut Page) {
    match spec {
        SocketSpec::Http => page.entry(1, name, "HTTP"),
        SocketSpec::Tcp => page.entry(1, name, "TCP"),
        SocketSpec::Udp => page.entry(1, name, "UDP"),
        SocketSpec::Tls(listeners) => {
            page.open(1, name);
            for TlsListener { hostname, mode } in listeners {
                let words = match mode {
                    TlsMode::Terminate(termination) => termination_words(termination),
                    TlsMode::Passthrough => "passed through".to_owned(),
                };
                page.pair(2, hostname, words);
            }
        }
    }
}

fn termination_words(termination: &Termination) -> String {
    let Termination { certificates, clients, options, carried } = termination;
    if certificates.is_empty() {
        return "no certificate".to_owned();
    }
    let names: Vec<_> = certificates.iter().map(|certificate| certificate.name.as_str()).collect();
    let bytes = if *carried == Carried::Bytes { ", carries bytes" } else { "" };
    let clients = clients.as_ref().map(|ClientValidation { authorities, mode, told }| {
        let mode = match mode {
            ClientMode::ValidOnly => "",
            ClientMode::InsecureFallback => " or of nobody",
        };
        let told = if told.is_some() { ", of which backends are told" } else { "" };
        format!(", asks for certificates of {} authorities{mode}{told}", authorities.len())
    });
    let options = options_words(options);
    format!("terminates with {}{bytes}{}{options}", names.join(", "), clients.unwrap_or_default())
}

/// What differs from the defaults. Who sends no server name is a matter of the whole gateway.
fn options_words(options: &TlsOptions) -> String {
    let TlsOptions {
        min_version,
        max_version,
        cipher_suites,
        curves,
        alpn,
        require_server_name: _,
        default_server_name: _,
    } = options;
    let usual = TlsOptions::everywhere();
    let version = |bound: &str, version: TlsVersion| match version {
        TlsVersion::Tls12 => format!(", {bound} TLS 1.2"),
        TlsVersion::Tls13 => format!(", {bound} TLS 1.3"),
    };
    let words = [
        min_version.filter(|_| *min_version != usual.min_version).map(|v| version("from", v)),
        max_version.filter(|_| *max_version != usual.max_version).map(|v| version("up to", v)),
        cipher_suites
            .as_ref()
            .filter(|_| *cipher_suites != usual.cipher_suites)
            .map(|suites| format!(", {} cipher suites", suites.len())),
        curves
            .as_ref()
            .filter(|_| *curves != usual.curves)
            .map(|curves| format!(", {} curves", curves.len())),
        alpn.as_ref().filter(|_| *alpn != usual.alpn).map(|ids| format!(", ALPN {}", ids.join(" "))),
    ];
    words.into_iter().flatten().collect()
}

fn dump_gateway(report: &GatewayReport, page: &mut Page) {
    let GatewayReport {
        id: _,
        binding,
        namespace,
        name,
        generation: _,
        accepted,
        programmed,
        resolved_refs,
        insecure_frontend,
        listeners,
        listener_sets,
        parameters,
    } = report;
    page.open(1, format!("{namespace}/{name} as {binding}"));
    page.entry(2, "Accepted", words(accepted));
    page.entry(2, "Programmed", words(programmed));
    page.entry(2, "ResolvedRefs", words(resolved_refs));
    if let Some(verdict) = insecure_frontend {
        page.entry(2, "InsecureFrontendValidationMode", words(verdict));
    }
    if let Some(proxy) = parameters.as_ref().and_then(|parameters| parameters.proxy.as_ref()) {
        page.entry(2, "parameters", proxy.reference());
    }
    listeners.iter().for_each(|listener| dump_listener(listener, 2, page));
    for ListenerSetReport { namespace, name, generation: _, accepted, programmed, listeners } in listener_sets
    {
        page.open(2, format!("ListenerSet {namespace}/{name}"));
        page.entry(3, "Accepted", words(accepted));
        page.entry(3, "Programmed", words(programmed));
        listeners.iter().for_each(|listener| dump_listener(listener, 3, page));
    }
}

fn dump_listener(report: &ListenerReport, depth: usize, page: &mut Page) {
    let ListenerReport {
        name,
        port,
        protocol,
        attached_routes,
        supported_kinds,
        accepted,
        programmed,
        resolved_refs,
        conflicted,
        overlapping,
    } = report;
    page.open(depth, format!("{name} ({protocol} {port})"));
    page.entry(depth + 1, "attachedRoutes", attached_routes);
    page.entry(depth + 1, "supportedKinds", format!("[{}]", supported_kinds.join(", ")));
    page.entry(depth + 1, "Accepted", words(accepted));
    page.entry(depth + 1, "Programmed", words(programmed));
    page.entry(depth + 1, "ResolvedRefs", words(resolved_refs));
    page.entry(depth + 1, "Conflicted", words(conflicted));
    if let Some(verdict) = overlapping {
        page.entry(depth + 1, "OverlappingTLSConfig", words(verdict));
    }
}

fn dump_route(report: &RouteReport, page: &mut Page) {
    let RouteReport { route, verdicts } = report;
    let RouteVerdicts { parents, resolved_refs, partially_invalid } = &**verdicts;
    let name = route.reference();
    if parents.is_empty() {
        return page.entry(1, name, "has no parent here");
    }
    page.open(1, name);
    let mut told = BTreeSet::new();
    for ParentReport { place, accepted } in parents {
        let parent = parent_words(&route.parent_refs()[*place]);
        // A parent that stands twice in a file is one parent.
        if told.insert(parent.clone()) {
            page.entry(2, format!("Accepted by {parent}"), words(accepted));
        }
    }
    page.entry(2, "ResolvedRefs", words(resolved_refs));
    if let Some(verdict) = partially_invalid {
        page.entry(2, "PartiallyInvalid", words(verdict));
    }
}

fn dump_policy(report: &PolicyReport, page: &mut Page) {
    let PolicyReport { kind, namespace, name, generation: _, ancestors, accepted, resolved_refs } = report;
    page.open(1, format!("{kind} {namespace}/{name}"));
    let names: Vec<_> = ancestors.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
    page.entry(2, "ancestors", format!("[{}]", names.join(", ")));
    page.entry(2, "Accepted", words(accepted));
    page.entry(2, "ResolvedRefs", words(resolved_refs));
}

fn parent_words(parent: &ParentRef) -> String {
    let ParentRef { group: _, kind: _, namespace, name, section_name, port } = parent;
    let kind = if parent.kind() == "Gateway" { String::new() } else { format!("{} ", parent.kind()) };
    let mut words = match namespace {
        Some(namespace) => format!("{kind}{namespace}/{name}"),
        None => format!("{kind}{name}"),
    };
    if let Some(section) = section_name {
        words.push_str(&format!(" listener {section}"));
    }
    if let Some(port) = port {
        words.push_str(&format!(" port {port}"));
    }
    words
}

/// `True Accepted`, or `False NoMatchingParent, …`. The message itself stands among the diagnostics.
fn words(verdict: &Verdict) -> String {
    let Verdict { holds, reason, message: _ } = verdict;
    format!("{} {reason}", if *holds { "True" } else { "False" })
}
