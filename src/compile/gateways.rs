//! Which listeners of which Gateways are served.

use super::Binding;
use super::certificates::Reader;
use super::findings::{Fault, Findings, listed, nearest};
use super::report::Verdict;
use crate::host::{HostIndex, HostPattern};
use crate::resource::{
    Diagnostic, Entry, GATEWAY_GROUP, Gateway, GatewaySpec, Listener, ListenerTls, ObjectRef, Severity,
    Snapshot,
};
use crate::routing::PathIndex;
use crate::tls::Certificate;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A Gateway that a binding names.
pub(super) struct Bound<'s> {
    pub binding: &'s Binding,
    pub entry: &'s Entry<Gateway>,
    /// As in `spec.listeners`.
    pub listeners: Vec<Listening<'s>>,
}

/// A listener with what is known of it, and with the routes that attach to it later.
pub(super) struct Listening<'s> {
    pub written: &'s Listener,
    pub hostname: HostPattern,
    /// Kinds of the Gateway API that may attach.
    pub kinds: Vec<&'static str>,
    pub accepted: Verdict,
    pub resolved_refs: Verdict,
    /// Holds when it is in conflict.
    pub conflicted: Verdict,
    /// Empty for a listener in clear text.
    pub certificates: Vec<Arc<Certificate>>,
    /// Accepted routes.
    pub attached: u32,
    pub grpc: bool,
    pub hosts: HostIndex<PathIndex>,
}

/// The protocols that can share a port with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    ClearText,
    Tls,
    Tcp,
    Udp,
}

impl Listening<'_> {
    /// Whether TLS is terminated here.
    pub fn terminates(&self) -> bool {
        family(&self.written.protocol) == Some(Family::Tls)
    }

    /// Whether requests can reach it.
    pub fn programmed(&self) -> Verdict {
        if !self.accepted.holds {
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
                let listeners = Judge { entry, certificates, findings }.listeners();
                bound.push(Bound { binding, entry, listeners });
            }
            None => findings.push(unbound(snapshot, binding)),
        }
    }
    bound
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

/// Notes what a Gateway asks for and does not get, where its listeners are served all the same.
fn note_not_served(entry: &Entry<Gateway>, findings: &mut Findings) {
    let spec = &entry.object.spec;
    let mut note = |field: &str, message: &str| {
        findings.warning(entry, field, &Fault::new("UnsupportedValue", message));
    };
    if spec.tls.as_ref().is_some_and(|tls| tls.backend.is_some()) {
        note("spec.tls.backend", "a certificate of our own is not sent to backends yet");
    }
    if spec.default_scope.as_deref() == Some("All") {
        note("spec.defaultScope", "routes attach only to Gateways that they name");
    }
    if !spec.addresses.is_empty() && entry.place.is_some() {
        note("spec.addresses", "without a cluster the addresses are those that proxy.toml binds");
    }
    let options =
        |listener: &Listener| listener.tls.as_ref().and_then(|tls| tls.options.iter().next().map(|_| ()));
    if spec.listeners.iter().any(|listener| options(listener).is_some()) {
        note("spec.listeners", "no option under `tls.options` is known; they are ignored");
    }
}

/// Judges the listeners of one Gateway.
struct Judge<'a, 'r, 's> {
    entry: &'s Entry<Gateway>,
    certificates: &'a mut Reader<'r>,
    findings: &'a mut Findings,
}

/// Why a listener is not accepted: the first reason counts, and every one is noted.
struct Acceptance {
    place: usize,
    verdict: Verdict,
}

impl<'s> Judge<'_, '_, 's> {
    fn listeners(&mut self) -> Vec<Listening<'s>> {
        let spec = &self.entry.object.spec;
        let mut seen = BTreeSet::new();
        let mut listeners = Vec::new();
        for (place, (written, conflict)) in spec.listeners.iter().zip(conflicts(spec)).enumerate() {
            if seen.insert(&written.name) {
                listeners.push(self.listener(place, written, conflict));
            } else {
                let message =
                    format!("another listener is called `{}`; this one is not served", written.name);
                let fault = Fault::new("Duplicate", message);
                self.findings.error(self.entry, format!("spec.listeners[{place}]"), &fault);
            }
        }
        listeners
    }

    fn listener(&mut self, place: usize, written: &'s Listener, conflict: Option<Fault>) -> Listening<'s> {
        let mut acceptance = Acceptance { place, verdict: Verdict::yes("Accepted") };
        if let Some(fault) = &conflict {
            self.refuse(&mut acceptance, "", fault);
        }
        if let Some(fault) = unsupported_protocol(&written.protocol) {
            self.refuse(&mut acceptance, ".protocol", &fault);
        }
        for (field, fault) in unsupported_tls(&self.entry.object.spec, written) {
            self.refuse(&mut acceptance, field, &fault);
        }
        let hostname = self.hostname(&mut acceptance, written);
        let (kinds, invalid) = kinds(written);
        let mut resolved_refs = Verdict::yes("ResolvedRefs");
        for fault in invalid {
            let field = format!("spec.listeners[{place}].allowedRoutes.kinds");
            self.findings.error(self.entry, field, &fault);
            resolved_refs = Verdict::no(fault.reason, fault.message);
        }
        let mut certificates = Vec::new();
        if family(&written.protocol) == Some(Family::Tls) && !is_passthrough(written.tls.as_deref()) {
            let (found, verdict) = self.certificates.of_listener(self.entry, place, written, self.findings);
            certificates = found;
            if !verdict.holds {
                resolved_refs = verdict;
            }
        }
        Listening {
            written,
            hostname,
            kinds,
            accepted: acceptance.verdict,
            resolved_refs,
            conflicted: match conflict {
                Some(Fault { reason, message }) => Verdict { holds: true, reason, message: message.into() },
                None => Verdict::no("NoConflicts", ""),
            },
            certificates,
            attached: 0,
            grpc: false,
            hosts: HostIndex::default(),
        }
    }

    fn hostname(&mut self, acceptance: &mut Acceptance, written: &Listener) -> HostPattern {
        let Some(text) = written.hostname.as_deref().filter(|name| !name.is_empty()) else {
            return HostPattern::Any;
        };
        HostPattern::parse(text).unwrap_or_else(|| {
            let message = format!("`{text}` is no host name; write `www.example.com` or `*.example.com`");
            self.refuse(acceptance, ".hostname", &Fault::new("UnsupportedValue", message));
            HostPattern::Any
        })
    }

    fn refuse(&mut self, acceptance: &mut Acceptance, field: &str, fault: &Fault) {
        let field = format!("spec.listeners[{}]{field}", acceptance.place);
        self.findings.error(self.entry, field, fault);
        if acceptance.verdict.holds {
            acceptance.verdict = Verdict::no(fault.reason, fault.message.clone());
        }
    }
}

fn family(protocol: &str) -> Option<Family> {
    match protocol {
        "HTTP" => Some(Family::ClearText),
        "HTTPS" | "TLS" => Some(Family::Tls),
        "TCP" => Some(Family::Tcp),
        "UDP" => Some(Family::Udp),
        _ => None,
    }
}

fn unsupported_protocol(protocol: &str) -> Option<Fault> {
    let message = match protocol {
        "HTTP" | "HTTPS" => return None,
        "TLS" | "TCP" | "UDP" => format!("{protocol} listeners are not served yet"),
        _ => format!("protocol `{protocol}` is not known; write HTTP or HTTPS"),
    };
    Some(Fault::new("UnsupportedProtocol", message))
}

/// What TLS settings ask for and cannot have: serving without them would be less safe than not serving.
fn unsupported_tls(spec: &GatewaySpec, listener: &Listener) -> Vec<(&'static str, Fault)> {
    if &*listener.protocol != "HTTPS" {
        return Vec::new();
    }
    let mut faults = Vec::new();
    if is_passthrough(listener.tls.as_deref()) {
        let message = "an HTTPS listener cannot pass TLS through; use protocol TLS, or mode Terminate";
        faults.push((".tls.mode", Fault::new("UnsupportedValue", message)));
    }
    let frontend = spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let asks_clients = frontend.is_some_and(|frontend| {
        let of_port = frontend.per_port.iter().find(|of_port| of_port.port == listener.port);
        let config = of_port.map(|of_port| &of_port.tls).or(frontend.default.as_ref());
        config.is_some_and(|config| config.validation.is_some())
    });
    if asks_clients {
        let message = "client certificates (spec.tls.frontend) cannot be validated yet, so nobody is let in";
        faults.push((".tls", Fault::new("UnsupportedValue", message)));
    }
    faults
}

fn is_passthrough(tls: Option<&ListenerTls>) -> bool {
    tls.and_then(|tls| tls.mode.as_deref()) == Some("Passthrough")
}

/// The kinds of routes that may attach, and what is wrong with others that were asked for.
fn kinds(listener: &Listener) -> (Vec<&'static str>, Vec<Fault>) {
    let supported: &[&'static str] = match &*listener.protocol {
        "HTTP" | "HTTPS" => &["HTTPRoute", "GRPCRoute"],
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

/// For each listener its conflict with another one of the Gateway. All that are in conflict lose (`Listener` in
/// the Gateway API: a port's listeners must be distinct by protocol and host name).
fn conflicts(spec: &GatewaySpec) -> Vec<Option<Fault>> {
    let of = |(i, one): (usize, &Listener)| {
        let family_of_one = family(&one.protocol)?;
        spec.listeners.iter().enumerate().filter(|(j, _)| *j != i).find_map(|(_, other)| {
            let family_of_other = family(&other.protocol)?;
            if one.port != other.port || one.name == other.name {
                return None;
            }
            // UDP has ports of its own.
            if (family_of_one == Family::Udp) != (family_of_other == Family::Udp) {
                return None;
            }
            let with = format!("listener `{}` of the same port {}", other.name, other.port);
            if family_of_one != family_of_other {
                let message = format!(
                    "{with} speaks {}, which {} cannot share a port with",
                    other.protocol, one.protocol
                );
                return Some(Fault::new("ProtocolConflict", message));
            }
            let host =
                |listener: &Listener| listener.hostname.as_deref().unwrap_or_default().to_ascii_lowercase();
            (host(one) == host(other)).then(|| {
                let message =
                    format!("{with} has the same host name, and neither is served; give them different ones");
                Fault::new("HostnameConflict", message)
            })
        })
    };
    spec.listeners.iter().enumerate().map(of).collect()
}
