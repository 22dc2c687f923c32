//! From what users wrote to what it means: a pure, total function.
//!
//! No clock, environment, log or network; it never fails, it returns diagnostics. One file per pass:
//!
//! ```text
//! admission ▸ gateways (certificates, frontend) ▸ policies ▸ attach ▸ rules (matches ▸ filters ▸ backends ▸ durations) ▸ table
//! ▸ endpoints
//! ```
//!
//! What became of a route is taken over from the compilation before where nothing changed on which it depends (`kept`).

mod admission;
mod aside;
mod attach;
mod backends;
mod certificates;
mod conflicts;
mod cors;
mod dump;
mod durations;
mod endpoints;
mod extension;
mod filters;
mod findings;
mod frontend;
mod gateways;
mod grants;
mod kept;
mod listener_sets;
mod matches;
mod namespaces;
mod nearness;
mod overlaps;
mod owner;
mod parameters;
mod parents;
mod policies;
mod report;
mod routes;
mod rules;
mod sessions;
mod table;
mod tls_options;
mod trust;

pub use crate::resource::{Diagnostic, ObjectRef, Place, Severity};
pub use certificates::Certificates;
pub use endpoints::endpoints;
pub use kept::Kept;
pub use parameters::{Parameters, of_class as class_parameters};
pub use report::{
    GatewayReport, ListenerReport, ListenerSetReport, ParentReport, PolicyReport, ReportedRoute, RouteReport,
    RouteVerdicts, Verdict,
};

use crate::resource::Snapshot;
use crate::routing::{GatewayId, Listener, RoutingTable, SocketId, SocketTable, StreamListener, Transport};
use crate::tls::{Carried, Termination, TlsListener, TlsMode, TlsOptions};
use crate::upstream::{ClientCertificate, EndpointsSpecs, Planned};
use backends::{Identities, Resolver};
use findings::Findings;
use gateways::{Bound, Family, Listening};
use kept::{Around, Done, Former};
use owner::Owner;
use policies::BackendTlsPolicies;
use std::collections::BTreeMap;
use std::sync::Arc;
use table::Filling;

/// A gateway of `proxy.toml`, as far as it decides what is compiled for it.
#[derive(Debug, Clone)]
pub struct Binding {
    pub id: GatewayId,
    /// `external`.
    pub name: String,
    /// The Gateway object that it serves.
    pub namespace: String,
    pub object: String,
    /// What is agreed on in its TLS handshakes, where a listener says nothing else.
    pub tls: TlsOptions,
}

/// What a snapshot means.
#[derive(Debug, Default)]
pub struct Compiled {
    pub table: Arc<RoutingTable>,
    /// In the order of `routing::ClusterId`.
    pub clusters: Vec<Planned>,
    /// Those of all clusters that are new.
    pub endpoints: EndpointsSpecs,
    /// Every port that a gateway must listen on.
    pub sockets: BTreeMap<SocketId, SocketSpec>,
    /// Sorted by object, then by place.
    pub diagnostics: Vec<Diagnostic>,
    /// What the next compilation is given, so that it knows what was served.
    pub certificates: Certificates,
    /// The same, so that it takes over what did not change.
    pub kept: Kept,
    /// What became of the Gateways that bindings name, in the order of the bindings.
    pub gateways: Vec<GatewayReport>,
    /// What became of all routes: the oldest first, then by namespace and name.
    pub routes: Vec<RouteReport>,
    /// What became of all policies.
    pub policies: Vec<PolicyReport>,
}

/// What a socket speaks.
#[derive(Debug, Clone)]
pub enum SocketSpec {
    /// HTTP/1.1 and HTTP/2 with prior knowledge.
    Http,
    /// TLS first. The listeners are told apart by SNI.
    Tls(Vec<TlsListener>),
    /// Bytes, which go to a backend.
    Tcp,
    /// Datagrams, which go to a backend.
    Udp,
}

/// What a snapshot means for the gateways that `bindings` name, with nothing served before.
pub fn compile(snapshot: &Snapshot, bindings: &[Binding]) -> Compiled {
    compile_after(snapshot, bindings, &Certificates::default(), Kept::default())
}

/// What a snapshot means, after a compilation that found `served` and left `before`. A Secret that became broken keeps
/// its last good certificate. All else is the same without a compilation before, and takes longer.
pub fn compile_after(
    snapshot: &Snapshot,
    bindings: &[Binding],
    served: &Certificates,
    before: Kept,
) -> Compiled {
    let mut findings = Findings::default();
    let mut reader = certificates::Reader { snapshot, before: served, now: Certificates::default() };
    admission::check(snapshot, &mut findings);
    let mut bound = gateways::bind(snapshot, bindings, &mut reader, &mut findings);
    let policies = BackendTlsPolicies::new(snapshot, &mut findings);
    let identities = identities(snapshot, &bound, &mut reader, &mut findings);
    let around = Around::new(snapshot, bindings, &bound, &identities);
    let may_stay = before.around.as_ref().is_some_and(|known| known.is_same(&around));
    let before = if may_stay { before } else { Kept::default() };
    let rules = rules::Rules {
        regexes: matches::Regexes::default(),
        backends: Resolver::new(snapshot, policies, identities),
        clusters: Vec::new(),
    };
    let mut filling = Filling::new(snapshot, &mut bound, rules);
    let mut former = Former::new(before.routes);
    for route in routes::in_order(snapshot) {
        filling.add(route, former.find(&route), &before.table, &mut findings);
    }
    former.gone().for_each(|gone| filling.touch(&gone));
    filling.index(&before.table);
    let Filling { rules: mut compiled, table, done, .. } = filling;
    let new = compiled.clusters.iter().filter_map(Planned::spec);
    let keys = new.flat_map(|cluster| &cluster.backends).map(|backend| &backend.endpoints);
    let endpoints = endpoints::of_slices(&mut compiled.backends.slices, keys);
    let names = bound.iter().map(|bound| bound.entry.object.metadata.key());
    let names: Vec<_> = names.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())).collect();
    let policies = compiled.backends.policies.report(&names);
    let gateways = bound.iter().map(|bound| report(snapshot, bound, &mut findings)).collect();
    let (sockets, tables) = sockets(bound, &before.table);
    let table = Arc::new(RoutingTable::new(tables, table));
    Compiled {
        table: Arc::clone(&table),
        clusters: compiled.clusters,
        endpoints,
        sockets,
        diagnostics: findings.sorted(&snapshot.diagnostics),
        certificates: reader.now,
        gateways,
        routes: done.iter().map(Done::report).collect(),
        policies,
        kept: Kept { around: Some(around), routes: done, table },
    }
}

/// Our own certificates, for backends that ask for one.
fn identities<'s>(
    snapshot: &'s Snapshot,
    bound: &[Bound<'_>],
    reader: &mut certificates::Reader<'_>,
    findings: &mut Findings,
) -> Identities<'s> {
    let of_gateways = bound.iter().map(|bound| (bound.binding.id, bound.identity.clone())).collect();
    let mut identities = Identities { of_gateways, ..Identities::default() };
    for entry in snapshot.backends.iter() {
        let tls = entry.object.spec.tls.as_deref();
        let Some(reference) = tls.and_then(|tls| tls.client_certificate_ref.as_ref()) else { continue };
        // A Backend refers on behalf of the Gateways whose routes use it.
        let from = grants::From { kind: "Gateway", namespace: &entry.object.metadata.namespace };
        let (certificate, fault) = reader.read(from, reference);
        if let Some(certificate) = certificate {
            let identity = ClientCertificate(certificate.key.clone());
            identities.of_backends.insert(entry.object.metadata.key(), identity);
        }
        if let Some(fault) = fault {
            findings.error(entry, "spec.tls.clientCertificateRef", &fault);
        }
    }
    identities
}

/// The sockets of all gateways with the listeners that share them. `before` has the paths of host names that nobody
/// touched.
fn sockets(
    bound: Vec<Bound<'_>>,
    before: &RoutingTable,
) -> (BTreeMap<SocketId, SocketSpec>, Vec<(SocketId, SocketTable)>) {
    let mut sockets = BTreeMap::new();
    let mut tables: BTreeMap<SocketId, SocketTable> = BTreeMap::new();
    for mut bound in bound {
        for mut listening in std::mem::take(&mut bound.listeners) {
            let (Some(family), Some(id)) = (listening.family(), socket_id(&bound, &listening)) else {
                continue;
            };
            let made = std::mem::take(&mut listening.hosts);
            listening.hosts = kept::merged(kept::paths(before, &bound, &listening), made);
            let name = name(&listening);
            let mode = (family == Family::Tls).then(|| tls_mode(&listening));
            let table = tables.entry(id).or_default();
            let speaks_http = listening.speaks_http();
            let Listening { hostname, grpc, hosts, streams, .. } = listening;
            if speaks_http {
                table.insert(&hostname, Listener { name, grpc, hosts });
            } else {
                table.insert_stream(&hostname, StreamListener { name, hosts: streams });
            }
            match (family, mode) {
                (Family::Tls, Some(mode)) => {
                    let spec = sockets.entry(id).or_insert_with(|| SocketSpec::Tls(Vec::new()));
                    if let SocketSpec::Tls(listeners) = spec {
                        listeners.push(TlsListener { hostname, mode });
                    }
                }
                (Family::Tcp, _) => drop(sockets.insert(id, SocketSpec::Tcp)),
                (Family::Udp, _) => drop(sockets.insert(id, SocketSpec::Udp)),
                (Family::ClearText | Family::Tls, _) => drop(sockets.insert(id, SocketSpec::Http)),
            }
        }
    }
    (sockets, tables.into_iter().collect())
}

fn tls_mode(listening: &Listening<'_>) -> TlsMode {
    if listening.passes_through() {
        return TlsMode::Passthrough;
    }
    TlsMode::Terminate(Termination {
        certificates: listening.certificates.clone(),
        clients: listening.clients.clone(),
        options: listening.options.clone(),
        carried: if listening.speaks_http() { Carried::Http } else { Carried::Bytes },
    })
}

/// Where a listener is served; `None` where it is not.
fn socket_id(bound: &Bound<'_>, listening: &Listening<'_>) -> Option<SocketId> {
    let family = listening.family().filter(|_| listening.accepted.holds)?;
    let transport = if family == Family::Udp { Transport::Udp } else { Transport::Tcp };
    Some(SocketId { gateway: bound.binding.id, port: listening.written.port, transport })
}

/// `namespace/gateway/listener`, or `ListenerSet namespace/set/listener`.
fn name(listening: &Listening<'_>) -> String {
    let (namespace, name) = listening.owner.metadata().key();
    let kind = if let Owner::Set(_) = listening.owner { "ListenerSet " } else { "" };
    format!("{kind}{namespace}/{name}/{}", listening.written.name)
}

fn report(snapshot: &Snapshot, bound: &Bound<'_>, findings: &mut Findings) -> GatewayReport {
    let Bound { binding, entry, listeners, sets: _, resolved_refs, identity: _, insecure_frontend } = bound;
    let metadata = &entry.object.metadata;
    let own = listeners.iter().filter(|listening| matches!(listening.owner, Owner::Gateway(_)));
    let listeners: Vec<_> = own.map(report_listener).collect();
    let valid = listeners.iter().filter(|listener| listener.accepted.holds).count();
    let programmed = listeners.iter().any(|listener| listener.programmed.holds);
    let message = format!("{} of {} listeners are not served", listeners.len() - valid, listeners.len());
    let accepted = match valid {
        0 => Verdict::no("ListenersNotValid", message),
        _ if valid == listeners.len() => Verdict::yes("Accepted"),
        _ => Verdict { holds: true, reason: "ListenersNotValid", message: message.into() },
    };
    let programmed = match programmed {
        true => Verdict::yes("Programmed"),
        false => Verdict::no("Invalid", "none of its listeners can be served"),
    };
    let parameters = parameters::of_gateway(snapshot, &entry.object, findings);
    let (accepted, programmed) = match &parameters {
        Ok(_) => (accepted, programmed),
        Err(message) => {
            let fault = findings::Fault::new("InvalidParameters", message.clone());
            findings.error(entry, "spec.infrastructure.parametersRef", &fault);
            (Verdict::no("InvalidParameters", message.clone()), Verdict::no("Invalid", message.clone()))
        }
    };
    GatewayReport {
        id: binding.id,
        binding: binding.name.clone(),
        namespace: metadata.namespace.to_string(),
        name: metadata.name.to_string(),
        generation: metadata.generation(),
        accepted,
        programmed,
        resolved_refs: resolved_refs.clone(),
        insecure_frontend: insecure_frontend.then(|| Verdict {
            holds: true,
            reason: "ConfigurationChanged",
            message: "clients without a valid certificate are let in (AllowInsecureFallback)".into(),
        }),
        listeners,
        listener_sets: listener_sets::reports(bound),
        parameters: parameters.ok(),
    }
}

fn report_listener(listening: &Listening<'_>) -> ListenerReport {
    ListenerReport {
        name: listening.written.name.to_string(),
        port: listening.written.port,
        protocol: listening.written.protocol.to_string(),
        attached_routes: listening.attached,
        supported_kinds: listening.kinds.clone(),
        accepted: listening.accepted.clone(),
        programmed: listening.programmed(),
        resolved_refs: listening.resolved_refs.clone(),
        conflicted: listening.conflicted.clone(),
        overlapping: listening.overlapping.clone(),
    }
}
