//! Which listeners of which Gateways are served.

use super::Binding;
use super::certificates::Reader;
use super::conflicts::Conflicts;
use super::findings::{Fault, Findings, listed, nearest};
use super::frontend::Frontend;
use super::listener_sets::{self, AttachedSet};
use super::overlaps::overlap;
use super::owner::Owner;
use super::report::Verdict;
use super::tls_options;
use crate::host::{HostIndex, HostPattern};
use crate::resource::{Diagnostic, Entry, GATEWAY_GROUP, Gateway, Listener, ObjectRef, Severity, Snapshot};
use crate::routing::PathIndex;
use crate::tls::{Certificate, ClientValidation, TlsOptions};
use crate::upstream::ClientCertificate;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A Gateway has 64 listeners at most, and as many sets as there are may add as many each. Sockets are no endless
/// supply.
const MOST_LISTENERS: usize = 512;

/// A Gateway that a binding names.
pub(super) struct Bound<'s> {
    pub binding: &'s Binding,
    pub entry: &'s Entry<Gateway>,
    /// As in `spec.listeners`, and then those of its ListenerSets.
    pub listeners: Vec<Listening<'s>>,
    /// All that name it as their parent, in the order in which they win over each other.
    pub sets: Vec<AttachedSet<'s>>,
    /// On the references of the Gateway itself.
    pub resolved_refs: Verdict,
    /// What it shows to backends.
    pub identity: Option<ClientCertificate>,
    /// Whether clients without a valid certificate are let in where others are asked for one.
    pub insecure_frontend: bool,
}

/// A listener with what is known of it, and with the routes that attach to it later.
pub(super) struct Listening<'s> {
    pub owner: Owner<'s>,
    pub written: &'s Listener,
    pub hostname: HostPattern,
    /// Kinds of the Gateway API that may attach.
    pub kinds: Vec<&'static str>,
    pub accepted: Verdict,
    pub resolved_refs: Verdict,
    /// Holds when it is in conflict.
    pub conflicted: Verdict,
    /// Set when a client may take its TLS settings for another listener's.
    pub overlapping: Option<Verdict>,
    /// Empty for a listener in clear text.
    pub certificates: Vec<Arc<Certificate>>,
    /// What is asked of clients.
    pub clients: Option<ClientValidation>,
    /// What is agreed on with them in handshakes.
    pub options: TlsOptions,
    /// Accepted routes.
    pub attached: u32,
    pub grpc: bool,
    pub hosts: HostIndex<Arc<PathIndex>>,
    /// Rules of TLSRoutes, TCPRoutes and UDPRoutes, by their places in the table.
    pub streams: HostIndex<u32>,
}

/// The protocols that can share a port with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    ClearText,
    Tls,
    Tcp,
    Udp,
}

impl Listening<'_> {
    /// What it speaks; `None` for a listener that is not accepted.
    pub fn family(&self) -> Option<Family> {
        family(&self.written.protocol)
    }

    /// Whether a backend ends TLS.
    pub fn passes_through(&self) -> bool {
        is_passthrough(self.written)
    }

    /// Whether TLS is terminated here.
    pub fn terminates(&self) -> bool {
        self.family() == Some(Family::Tls) && !self.passes_through()
    }

    /// Whether HTTP is spoken here, in TLS or in clear text.
    pub fn speaks_http(&self) -> bool {
        matches!(&*self.written.protocol, "HTTP" | "HTTPS")
    }

    /// Whether requests can reach it.
    pub fn programmed(&self) -> Verdict {
        if self.conflicted.holds {
            Verdict::no(self.conflicted.reason, self.conflicted.message.clone())
        } else if !self.accepted.holds {
            Verdict::no("Invalid", self.accepted.message.clone())
        } else if self.terminates() && self.certificates.is_empty() {
            Verdict::no("Invalid", "it has no certificate")
        } else {
            Verdict::yes("Programmed")
        }
    }
}

/// The Gateways of all bindings, with their listeners judged.
pub(super) fn bind<'s>(
    snapshot: &'s Snapshot,
    bindings: &'s [Binding],
    certificates: &mut Reader<'_>,
    findings: &mut Findings,
) -> Vec<Bound<'s>> {
    for entry in snapshot.gateways.iter() {
        if !bindings.iter().any(|binding| names(binding, entry)) {
            let message = format!("no gateway of proxy.toml serves it; {}", gateways_of(bindings));
            findings.warning(entry, "", &Fault::new("NotBound", message));
        }
    }
    let mut bound = Vec::new();
    for binding in bindings {
        match snapshot.gateways.get(&binding.namespace, &binding.object) {
            Some(entry) => {
                note_not_served(entry, findings);
                let (identity, resolved_refs) = identity(entry, certificates, findings);
                let frontend = Frontend::read(snapshot, entry, &binding.tls, findings);
                let insecure_frontend = frontend.is_insecure();
                let (listeners, sets) = listeners(snapshot, entry, &frontend, certificates, findings);
                bound.push(Bound {
                    binding,
                    entry,
                    listeners,
                    sets,
                    resolved_refs,
                    identity,
                    insecure_frontend,
                });
            }
            None => findings.push(unbound(snapshot, binding)),
        }
    }
    listener_sets::note_unbound(snapshot, &bound, findings);
    bound
}

/// The listeners of a Gateway and of the ListenerSets that it lets attach, the stronger first, with those sets.
fn listeners<'s>(
    snapshot: &'s Snapshot,
    entry: &'s Entry<Gateway>,
    frontend: &Frontend,
    certificates: &mut Reader<'_>,
    findings: &mut Findings,
) -> (Vec<Listening<'s>>, Vec<AttachedSet<'s>>) {
    let mut conflicts = Conflicts::default();
    let mut judge = |owner: Owner<'s>| {
        let conflicts = conflicts.next(owner);
        Judge { owner, certificates, frontend, findings }.listeners(conflicts)
    };
    let mut listeners = judge(Owner::Gateway(entry));
    let is_accepted = listeners.iter().any(|listener| listener.accepted.holds);
    let sets = listener_sets::of_gateway(snapshot, entry, is_accepted);
    for set in sets.iter().filter(|set| set.refusal.is_none()) {
        listeners.extend(judge(Owner::Set(set.entry)));
    }
    listener_sets::note_refused(&sets, findings);
    for listening in listeners.iter_mut().skip(MOST_LISTENERS) {
        let Listening { owner, written, .. } = listening;
        let message =
            format!("the Gateway has more than {MOST_LISTENERS} listeners; `{}` is not served", written.name);
        let fault = Fault::new("TooManyListeners", message.clone());
        owner.note(findings, Severity::Error, "spec.listeners", &fault);
        listening.accepted = Verdict::no(fault.reason, message);
    }
    let overlaps: Vec<_> = listeners.iter().map(|one| overlap(one, &listeners)).collect();
    listeners.iter_mut().zip(overlaps).for_each(|(one, found)| one.overlapping = found);
    (listeners, sets)
}

fn names(binding: &Binding, entry: &Entry<Gateway>) -> bool {
    entry.object.metadata.key() == (binding.namespace.as_str(), binding.object.as_str())
}

fn gateways_of(bindings: &[Binding]) -> String {
    let served: Vec<String> =
        bindings.iter().map(|binding| format!("{}/{}", binding.namespace, binding.object)).collect();
    if served.is_empty() { "it names none".to_owned() } else { format!("it names {}", listed(&served)) }
}

fn unbound(snapshot: &Snapshot, binding: &Binding) -> Diagnostic {
    let wanted = format!("{}/{}", binding.namespace, binding.object);
    let names: Vec<String> = snapshot
        .gateways
        .iter()
        .map(|entry| format!("{}/{}", entry.object.metadata.namespace, entry.object.metadata.name))
        .collect();
    let there = match nearest(&wanted, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "there is no Gateway at all".to_owned(),
        None => format!("there are {}", listed(&names)),
    };
    Diagnostic {
        severity: Severity::Warning,
        object: ObjectRef {
            kind: "Gateway".to_owned(),
            namespace: binding.namespace.clone(),
            name: binding.object.clone(),
        },
        place: None,
        field: String::new(),
        reason: "GatewayNotFound",
        message: format!(
            "gateway `{}` of proxy.toml serves it, and it does not exist; {there}",
            binding.name
        ),
    }
}

/// The certificate that a Gateway shows to backends (`spec.tls.backend`, GEP-3155), and the verdict on its
/// reference. A Gateway whose certificate is broken shows none.
fn identity(
    entry: &Entry<Gateway>,
    certificates: &mut Reader<'_>,
    findings: &mut Findings,
) -> (Option<ClientCertificate>, Verdict) {
    let backend = entry.object.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
    let Some(reference) = backend.and_then(|backend| backend.client_certificate_ref.as_ref()) else {
        return (None, Verdict::yes("ResolvedRefs"));
    };
    let (certificate, fault) = certificates.read(Owner::Gateway(entry).refers(), reference);
    let identity = certificate.map(|certificate| ClientCertificate(certificate.key.clone()));
    let verdict = match fault {
        None => Verdict::yes("ResolvedRefs"),
        Some(Fault { reason, message }) => {
            let reason =
                if reason == "InvalidCertificateRef" { "InvalidClientCertificateRef" } else { reason };
            let fault = Fault::new(reason, message);
            findings.error(entry, "spec.tls.backend.clientCertificateRef", &fault);
            Verdict::no(fault.reason, fault.message)
        }
    };
    (identity, verdict)
}

/// Notes what a Gateway asks for and does not get, where its listeners are served all the same.
fn note_not_served(entry: &Entry<Gateway>, findings: &mut Findings) {
    let spec = &entry.object.spec;
    let mut note = |field: &str, message: &str| {
        findings.warning(entry, field, &Fault::new("UnsupportedValue", message));
    };
    if spec.default_scope.as_deref() == Some("All") {
        note("spec.defaultScope", "routes attach only to Gateways that they name");
    }
    if !spec.addresses.is_empty() && entry.place.is_some() {
        note("spec.addresses", "without a cluster the addresses are those that proxy.toml binds");
    }
}

/// Judges the listeners of a Gateway, or of a ListenerSet that attaches to it.
struct Judge<'a, 'r, 's> {
    owner: Owner<'s>,
    certificates: &'a mut Reader<'r>,
    /// Of the Gateway.
    frontend: &'a Frontend,
    findings: &'a mut Findings,
}

/// Why a listener is not accepted: the first reason counts, and every one is noted.
struct Acceptance {
    place: usize,
    verdict: Verdict,
}

impl<'s> Judge<'_, '_, 's> {
    fn listeners(&mut self, conflicts: Vec<Option<Fault>>) -> Vec<Listening<'s>> {
        self.note_options();
        let mut seen = BTreeSet::new();
        let mut listeners = Vec::new();
        for (place, (written, conflict)) in self.owner.listeners().iter().zip(conflicts).enumerate() {
            if seen.insert(&written.name) {
                listeners.push(self.listener(place, written, conflict));
            } else {
                let message =
                    format!("another listener is called `{}`; this one is not served", written.name);
                let fault = Fault::new("Duplicate", message);
                self.error(format!("spec.listeners[{place}]"), &fault);
            }
        }
        listeners
    }

    fn note_options(&mut self) {
        let tls = self.owner.listeners().iter().filter_map(|listener| listener.tls.as_ref());
        if tls.flat_map(|tls| tls.options.iter()).any(|(name, _)| !tls_options::KNOWN.contains(&name)) {
            let fault = tls_options::unknown();
            self.owner.note(self.findings, Severity::Warning, "spec.listeners", &fault);
        }
    }

    fn listener(&mut self, place: usize, written: &'s Listener, conflict: Option<Fault>) -> Listening<'s> {
        let mut acceptance = Acceptance { place, verdict: Verdict::yes("Accepted") };
        if let Some(fault) = &conflict {
            self.refuse(&mut acceptance, "", fault);
        }
        if let Some(fault) = unsupported_protocol(&written.protocol) {
            self.refuse(&mut acceptance, ".protocol", &fault);
        }
        if let Some(fault) = unsupported_mode(written) {
            self.refuse(&mut acceptance, ".tls.mode", &fault);
        }
        let hostname = self.hostname(&mut acceptance, written);
        let (kinds, invalid) = kinds(written);
        let mut resolved_refs = Verdict::yes("ResolvedRefs");
        for fault in invalid {
            let field = format!("spec.listeners[{place}].allowedRoutes.kinds");
            self.error(field, &fault);
            resolved_refs = Verdict::no(fault.reason, fault.message);
        }
        let mut certificates = Vec::new();
        if family(&written.protocol) == Some(Family::Tls) && !is_passthrough(written) {
            let (found, verdict) = self.certificates.of_listener(self.owner, place, written, self.findings);
            certificates = found;
            if !verdict.holds {
                resolved_refs = verdict;
            }
        }
        let clients = self.clients(&mut acceptance, written, &mut resolved_refs);
        let options = tls_options::read(written, &self.frontend.options)
            .map_err(|fault| self.refuse(&mut acceptance, ".tls.options", &fault))
            .unwrap_or_default();
        Listening {
            owner: self.owner,
            written,
            hostname,
            kinds,
            accepted: acceptance.verdict,
            resolved_refs,
            conflicted: match conflict {
                Some(Fault { reason, message }) => Verdict { holds: true, reason, message: message.into() },
                None => Verdict::no("NoConflicts", ""),
            },
            overlapping: None,
            certificates,
            clients,
            options,
            attached: 0,
            grpc: false,
            hosts: HostIndex::default(),
            streams: HostIndex::default(),
        }
    }

    /// What is asked of a listener's clients. Where that is not clear, nobody is let in.
    fn clients(
        &mut self,
        acceptance: &mut Acceptance,
        written: &Listener,
        resolved_refs: &mut Verdict,
    ) -> Option<ClientValidation> {
        let asked = self.frontend.of(written)?.clone();
        if let (Some(fault), true) = (&asked.unresolved, resolved_refs.holds) {
            *resolved_refs = Verdict::no(fault.reason, fault.message.clone());
        }
        // It stands where the fault is, once for all listeners.
        if let (Some(fault), true) = (&asked.fault, acceptance.verdict.holds) {
            acceptance.verdict = Verdict::no(fault.reason, fault.message.clone());
        }
        asked.validation(written).map_err(|fault| self.refuse(acceptance, ".tls.options", &fault)).ok()
    }

    fn hostname(&mut self, acceptance: &mut Acceptance, written: &Listener) -> HostPattern {
        // The names of connections without TLS are not known (`hostname` is ignored then, the Gateway API says).
        let named = !matches!(family(&written.protocol), Some(Family::Tcp | Family::Udp));
        let Some(text) = written.hostname.as_deref().filter(|name| named && !name.is_empty()) else {
            return HostPattern::Any;
        };
        HostPattern::parse(text).unwrap_or_else(|| {
            let message = format!("`{text}` is no host name; write `www.example.com` or `*.example.com`");
            self.refuse(acceptance, ".hostname", &Fault::new("UnsupportedValue", message));
            HostPattern::Any
        })
    }

    fn error(&mut self, field: String, fault: &Fault) {
        self.owner.note(self.findings, Severity::Error, field, fault);
    }

    fn refuse(&mut self, acceptance: &mut Acceptance, field: &str, fault: &Fault) {
        let field = format!("spec.listeners[{}]{field}", acceptance.place);
        self.error(field, fault);
        if acceptance.verdict.holds {
            acceptance.verdict = Verdict::no(fault.reason, fault.message.clone());
        }
    }
}

pub(super) fn family(protocol: &str) -> Option<Family> {
    match protocol {
        "HTTP" => Some(Family::ClearText),
        "HTTPS" | "TLS" => Some(Family::Tls),
        "TCP" => Some(Family::Tcp),
        "UDP" => Some(Family::Udp),
        _ => None,
    }
}

fn unsupported_protocol(protocol: &str) -> Option<Fault> {
    family(protocol).is_none().then(|| {
        let message = format!("protocol `{protocol}` is not known; there are HTTP, HTTPS, TLS, TCP and UDP");
        Fault::new("UnsupportedProtocol", message)
    })
}

fn unsupported_mode(listener: &Listener) -> Option<Fault> {
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref()).unwrap_or("Terminate");
    let message = match (&*listener.protocol, mode) {
        ("HTTPS", "Passthrough") => {
            "an HTTPS listener cannot pass TLS through; use protocol TLS, or mode Terminate".to_owned()
        }
        ("HTTPS" | "TLS", other) if !matches!(other, "Terminate" | "Passthrough") => {
            format!("there is no mode `{other}`; there are Terminate and Passthrough")
        }
        _ => return None,
    };
    Some(Fault::new("UnsupportedValue", message))
}

fn is_passthrough(listener: &Listener) -> bool {
    listener.tls.as_ref().and_then(|tls| tls.mode.as_deref()) == Some("Passthrough")
}

/// The kinds of routes that may attach, and what is wrong with others that were asked for.
fn kinds(listener: &Listener) -> (Vec<&'static str>, Vec<Fault>) {
    let supported: &[&'static str] = match &*listener.protocol {
        "HTTP" | "HTTPS" => &["HTTPRoute", "GRPCRoute"],
        // A TCPRoute takes a listener's whole traffic, so it attaches to one that is told apart by names only
        // where that is asked for.
        "TLS" if is_passthrough(listener) || listener.allowed_routes.kinds.is_empty() => &["TLSRoute"],
        "TLS" => &["TLSRoute", "TCPRoute"],
        "TCP" => &["TCPRoute"],
        "UDP" => &["UDPRoute"],
        _ => &[],
    };
    let asked = &listener.allowed_routes.kinds;
    if asked.is_empty() {
        return (supported.to_vec(), Vec::new());
    }
    let mut faults = Vec::new();
    let mut kinds = Vec::new();
    for wanted in asked {
        let group = wanted.group.as_deref().unwrap_or(GATEWAY_GROUP);
        match supported.iter().find(|kind| group == GATEWAY_GROUP && **kind == &*wanted.kind) {
            Some(kind) if kinds.contains(kind) => {}
            Some(kind) => kinds.push(*kind),
            None => {
                let possible = if supported.is_empty() {
                    "it takes none".into()
                } else {
                    format!("it takes {}", listed(supported))
                };
                let message = format!(
                    "{} of group `{group}` cannot attach to a listener of protocol {}; {possible}",
                    wanted.kind, listener.protocol
                );
                faults.push(Fault::new("InvalidRouteKinds", message));
            }
        }
    }
    (kinds, faults)
}
