//! BackendTLSPolicy (GEP-1897): TLS to the backends of a Service, or of one of its ports.
//!
//! Of two policies for one target the oldest wins, and one for a port beats one for the whole Service. A policy
//! that cannot be obeyed still wins: its backends are not spoken to at all, rather than in clear text.

use super::super::findings::{Fault, Findings, called, listed, there_is};
use super::super::grants::To;
use super::super::report::{PolicyReport, Verdict};
use super::super::trust::{self, authorities};
use crate::host::HostPattern;
use crate::resource::{
    Backend, BackendTlsPolicy, BackendTlsValidation, ENVOY_GATEWAY_GROUP, Entry, LocalRef, PolicyTarget,
    Resource, Service, Snapshot, WrittenAltName,
};
use crate::upstream::{Roots, SubjectAltName, TlsSpec};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a policy can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) struct Target<'a> {
    /// `Service` or `Backend`.
    pub kind: &'static str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// The name of a Service's port.
    pub section: Option<&'a str>,
}

/// All policies, and whose targets are whose.
pub(in super::super) struct BackendTlsPolicies<'s> {
    /// The oldest first, then by namespace and name.
    judged: Vec<Judged<'s>>,
    winners: HashMap<Target<'s>, usize>,
    /// Policies that were used since somebody last asked, and for which Gateways: by their places.
    used: BTreeSet<(usize, usize)>,
}

struct Judged<'s> {
    entry: &'s Entry<BackendTlsPolicy>,
    accepted: Verdict,
    resolved_refs: Verdict,
    tls: TlsSpec,
    targets: Vec<Target<'s>>,
    /// Gateways whose routes use a target, by their places among the bound ones.
    ancestors: BTreeSet<usize>,
}

impl<'s> BackendTlsPolicies<'s> {
    /// Judges all policies of a snapshot.
    pub fn new(snapshot: &'s Snapshot, findings: &mut Findings) -> Self {
        let mut entries: Vec<_> = snapshot.backend_tls_policies.iter().collect();
        entries.sort_by_key(|entry| {
            let metadata = &entry.object.metadata;
            (metadata.creation_timestamp, metadata.key())
        });
        let mut policies = Self { judged: Vec::new(), winners: HashMap::new(), used: BTreeSet::new() };
        for entry in entries {
            policies.add(snapshot, entry, findings);
        }
        policies
    }

    fn add(&mut self, snapshot: &'s Snapshot, entry: &'s Entry<BackendTlsPolicy>, findings: &mut Findings) {
        let metadata = &entry.object.metadata;
        let (tls, accepted, resolved_refs) = judge(snapshot, entry, findings);
        let mut judged =
            Judged { entry, accepted, resolved_refs, tls, targets: Vec::new(), ancestors: BTreeSet::new() };
        let (mut won, mut lost, mut missing) = (0, None, None);
        for (i, written) in entry.object.spec.target_refs.iter().enumerate() {
            let field = format!("spec.targetRefs[{i}]");
            let target = match target(snapshot, &metadata.namespace, written) {
                Ok(target) => target,
                Err(fault) => {
                    findings.error(entry, field, &fault);
                    missing.get_or_insert(fault);
                    continue;
                }
            };
            judged.targets.push(target);
            match self.winners.get(&target) {
                Some(&other) => {
                    let other = &self.judged[other].entry.object.metadata;
                    let message = format!(
                        "BackendTLSPolicy {}/{} is for the same target, and is older or comes first by name",
                        other.namespace, other.name
                    );
                    let fault = Fault::new("Conflicted", message);
                    findings.error(entry, field, &fault);
                    lost.get_or_insert(fault);
                }
                None => {
                    won += 1;
                    self.winners.insert(target, self.judged.len());
                }
            }
        }
        if let (0, Some(fault)) = (won, lost.or(missing)) {
            judged.accepted = Verdict::no(fault.reason, fault.message);
        }
        self.judged.push(judged);
    }

    /// How TLS to a target is done, if a policy says so. Notes that a route of these Gateways uses it.
    pub fn find(&mut self, target: Target<'_>, gateways: &[usize]) -> Option<&TlsSpec> {
        if self.judged.is_empty() {
            return None;
        }
        let whole = Target { section: None, ..target };
        for (place, judged) in self.judged.iter().enumerate() {
            if judged.targets.iter().any(|of| *of == target || *of == whole) {
                self.used.extend(gateways.iter().map(|gateway| (place, *gateway)));
            }
        }
        let winner = self.winners.get(&target).or_else(|| self.winners.get(&whole))?;
        Some(&self.judged[*winner].tls)
    }

    /// What was used since somebody last asked.
    pub fn used(&mut self) -> Vec<(usize, usize)> {
        std::mem::take(&mut self.used).into_iter().collect()
    }

    /// Remembers that routes of these Gateways use these policies.
    pub fn credit(&mut self, used: &[(usize, usize)]) {
        for &(place, gateway) in used {
            self.judged[place].ancestors.insert(gateway);
        }
    }

    /// What became of all policies, for each of the Gateways (namespace and name, by place) that uses one.
    pub fn report(self, gateways: &[(String, String)]) -> Vec<PolicyReport> {
        /// As many as the API takes.
        const MOST: usize = 16;
        let report = |judged: Judged<'_>| {
            let Judged { entry, accepted, resolved_refs, tls: _, targets: _, ancestors } = judged;
            let metadata = &entry.object.metadata;
            let names = ancestors.into_iter().filter_map(|place| gateways.get(place).cloned());
            let names: BTreeMap<_, _> = names.map(|name| (name, ())).collect();
            PolicyReport {
                kind: BackendTlsPolicy::KIND,
                namespace: metadata.namespace.to_string(),
                name: metadata.name.to_string(),
                generation: metadata.generation(),
                ancestors: names.into_keys().take(MOST).collect(),
                accepted,
                resolved_refs,
            }
        };
        self.judged.into_iter().map(report).collect()
    }
}

fn target<'s>(
    snapshot: &'s Snapshot,
    namespace: &'s str,
    written: &'s PolicyTarget,
) -> Result<Target<'s>, Fault> {
    let PolicyTarget { group, kind, name, section_name } = written;
    let missing = |there: String| {
        Fault::new("TargetNotFound", format!("there is no {}; {there}", called(kind, namespace, name)))
    };
    let section = section_name.as_deref();
    match (&**group, &**kind) {
        ("", Service::KIND) => {
            let entry = snapshot
                .services
                .get(namespace, name)
                .ok_or_else(|| missing(there_is(&snapshot.services, namespace, name, "services")))?;
            let ports = || entry.object.spec.ports.iter().filter_map(|port| port.name.as_deref());
            if let Some(section) = section
                && !ports().any(|port| port == section)
            {
                let ports: Vec<_> = ports().collect();
                let there = if ports.is_empty() {
                    "none".to_owned()
                } else {
                    format!("the ports {}", listed(&ports))
                };
                let message = format!(
                    "{} has no port called `{section}`; it has {there}",
                    called(kind, namespace, name)
                );
                return Err(Fault::new("TargetNotFound", message));
            }
            Ok(Target { kind: Service::KIND, namespace, name, section })
        }
        (ENVOY_GATEWAY_GROUP, Backend::KIND) => match snapshot.backends.get(namespace, name) {
            Some(_) => Ok(Target { kind: Backend::KIND, namespace, name, section: None }),
            None => Err(missing(there_is(&snapshot.backends, namespace, name, "Backends"))),
        },
        _ => {
            let message = format!("a {kind} of group `{group}` is no target; there is Service");
            Err(Fault::new("Invalid", message))
        }
    }
}

/// What a policy asks for, and what is wrong with it.
fn judge(
    snapshot: &Snapshot,
    entry: &Entry<BackendTlsPolicy>,
    findings: &mut Findings,
) -> (TlsSpec, Verdict, Verdict) {
    let spec = &entry.object.spec;
    if spec.options.iter().next().is_some() {
        let fault = Fault::new("UnsupportedValue", "no option is known; they are ignored");
        findings.warning(entry, "spec.options", &fault);
    }
    let (roots, mut accepted, resolved_refs) = roots(snapshot, entry, findings);
    let BackendTlsValidation { hostname, subject_alt_names, .. } = &spec.validation;
    let mut refuse = |field: String, message: String| {
        let fault = Fault::new("Invalid", message);
        findings.error(entry, field, &fault);
        if accepted.holds {
            accepted = Verdict::no(fault.reason, fault.message);
        }
    };
    if !matches!(HostPattern::parse(hostname), Some(HostPattern::Exact(_))) {
        let message = format!("`{hostname}` is no host name; nothing is sent to its targets");
        refuse("spec.validation.hostname".to_owned(), message);
    }
    let mut names = Vec::new();
    for (i, written) in subject_alt_names.iter().enumerate() {
        match alt_name(written) {
            Ok(name) => names.push(name),
            Err(message) => refuse(format!("spec.validation.subjectAltNames[{i}]"), message),
        }
    }
    // Were a name that cannot be wanted just left out, any certificate for the host name would do.
    let roots = if accepted.holds { roots } else { Roots::Given(Vec::new()) };
    let server_name = hostname.to_ascii_lowercase();
    (TlsSpec { server_name, roots, subject_alt_names: names, client: None }, accepted, resolved_refs)
}

fn alt_name(written: &WrittenAltName) -> Result<SubjectAltName, String> {
    let WrittenAltName { r#type, hostname, uri } = written;
    match (&**r#type, hostname, uri) {
        ("Hostname", Some(name), _) => match HostPattern::parse(name) {
            // A wildcard in a certificate covers one label, and so does one that is wanted.
            Some(HostPattern::Exact(name)) => Ok(SubjectAltName::Dns(name)),
            Some(HostPattern::Suffix(below)) => Ok(SubjectAltName::Dns(format!("*.{below}"))),
            _ => Err(format!("`{name}` is no host name")),
        },
        ("URI", _, Some(uri)) => Ok(SubjectAltName::Uri(uri.to_string())),
        ("Hostname" | "URI", _, _) => Err(format!("the name of type {type} is missing")),
        (other, _, _) => Err(format!("there is no type `{other}`; there are Hostname and URI")),
    }
}

/// Whom a policy trusts. Where it is nobody, the policy is not accepted.
fn roots(
    snapshot: &Snapshot,
    entry: &Entry<BackendTlsPolicy>,
    findings: &mut Findings,
) -> (Roots, Verdict, Verdict) {
    let BackendTlsValidation { ca_certificate_refs, well_known_ca_certificates, .. } =
        &entry.object.spec.validation;
    let (yes, resolved) = (Verdict::yes("Accepted"), Verdict::yes("ResolvedRefs"));
    if let Some(well_known) = well_known_ca_certificates.as_deref() {
        return match trust::well_known(well_known) {
            Ok(roots) => (roots, yes, resolved),
            Err(fault) => {
                findings.error(entry, "spec.validation.wellKnownCACertificates", &fault);
                (Roots::Given(Vec::new()), Verdict::no("Invalid", fault.message), resolved)
            }
        };
    }
    let namespace = &entry.object.metadata.namespace;
    let (mut certificates, mut first) = (Vec::new(), None);
    for (i, LocalRef { group, kind, name }) in ca_certificate_refs.iter().enumerate() {
        match authorities(snapshot, To { group, kind, namespace, name }) {
            Ok(found) => certificates.extend(found),
            Err(fault) => {
                findings.error(entry, format!("spec.validation.caCertificateRefs[{i}]"), &fault);
                first.get_or_insert(fault);
            }
        }
    }
    let resolved = first.map_or(resolved, |fault| Verdict::no(fault.reason, fault.message));
    let accepted = match certificates.is_empty() {
        false => yes,
        true => {
            let message = "there is no certificate of an authority, so requests to its targets get 503";
            let fault = Fault::new("NoValidCACertificate", message);
            findings.error(entry, "spec.validation", &fault);
            Verdict::no(fault.reason, fault.message)
        }
    };
    (Roots::Given(certificates), accepted, resolved)
}
