//! The certificates of listeners, from Secrets.
//!
//! A Secret that becomes broken, or whose certificate is not valid at this moment, keeps its last good pair:
//! `compile` is given what it made before, so it stays a function of what it is given. The same memory saves reading
//! keys again that did not change, and tells the moment.

use super::findings::{Fault, Findings, called, there_is};
use super::grants::{From, To, allows};
use super::owner::Owner;
use super::report::Verdict;
use crate::resource::{Entry, Listener, ObjectReference, Secret, Severity, Snapshot};
use crate::tls::{Age, Certificate, Staple, date};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The certificates of one compilation, by `namespace/secret`.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    known: BTreeMap<String, Known>,
    moment: Option<i64>,
}

/// A Secret with what it means.
#[derive(Debug, Clone)]
struct Known {
    secret: Arc<Secret>,
    holds: Result<Held, String>,
    /// What is served: its certificate, or an earlier one that is better.
    served: Option<Arc<Certificate>>,
    fault: Option<String>,
}

/// What a Secret holds.
#[derive(Debug, Clone)]
struct Held {
    certificate: Arc<Certificate>,
    /// The same with the word of its authority, if there is one, and until when that holds.
    stapled: Option<(Arc<Certificate>, Option<i64>)>,
    /// Why the word of the authority that is there cannot be used.
    no_staple: Option<String>,
}

impl Certificates {
    /// The same, to judge by at this moment, in seconds since 1970. Without a moment every certificate is as good
    /// as its dates.
    #[must_use]
    pub fn at(self, moment: i64) -> Self {
        Self { moment: Some(moment), ..self }
    }

    /// When one of them has to be judged anew: it becomes valid, or it expires. In seconds since 1970.
    pub fn next_change(&self) -> Option<i64> {
        let now = self.moment?;
        let held = self.known.values().filter_map(|known| known.holds.as_ref().ok());
        let dates = held.flat_map(|held| {
            let (from, until) = held.certificate.validity;
            let staple = held.stapled.as_ref().and_then(|(_, until)| *until);
            [Some(from), Some(until.saturating_add(1)), staple.map(|until| until.saturating_add(1))]
        });
        dates.flatten().filter(|date| *date > now).min()
    }

    /// All certificates that listeners use, sorted by the name of their Secret.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.known.values().filter_map(|known| known.served.as_ref())
    }
}

impl Held {
    fn read(name: &str, secret: &Secret) -> Result<Self, String> {
        let value = |key| secret.get(key).ok_or_else(|| format!("it has no `{key}`"));
        let (chain, key) = (value("tls.crt")?.reveal(), value("tls.key")?.reveal());
        let certificate = Certificate::from_pem(name, chain, key).map_err(|error| error.to_string())?;
        let certificate = Arc::new(certificate);
        let staple = secret.get(STAPLE).filter(|staple| !staple.reveal().is_empty());
        let staple = staple.map(|der| Staple::from_der(der.reveal(), &certificate.serial));
        let (stapled, no_staple) = match staple {
            None => (None, None),
            Some(Ok(staple)) => (Some((Arc::new(certificate.stapled(&staple)), staple.next_update)), None),
            Some(Err(fault)) => (None, Some(format!("its `{STAPLE}` is not stapled: {fault}"))),
        };
        Ok(Self { certificate, stapled, no_staple })
    }

    /// What is served of it at a moment, and what is wrong with it.
    fn at(&self, now: Option<i64>, before: Option<&Arc<Certificate>>) -> (Arc<Certificate>, Option<String>) {
        let age = |certificate: &Certificate| now.map_or(Age::Valid, |now| certificate.age(now));
        let fault = match age(&self.certificate) {
            Age::Valid => return self.valid_at(now),
            Age::Expired => "has expired",
            Age::NotYetValid => "is not valid yet",
        };
        let fault = format!("the certificate {} {fault}", self.certificate.words());
        let is_other = |before: &&Arc<Certificate>| before.key.cert != self.certificate.key.cert;
        match before.filter(is_other).filter(|before| age(before) == Age::Valid) {
            Some(before) => (before.clone(), Some(format!("{fault}{KEPT}"))),
            None => {
                let fault = format!("{fault}; it is served all the same, because there is no better one");
                (self.certificate.clone(), Some(fault))
            }
        }
    }

    fn valid_at(&self, now: Option<i64>) -> (Arc<Certificate>, Option<String>) {
        match &self.stapled {
            Some((stapled, until)) if until.zip(now).is_none_or(|(until, now)| now <= until) => {
                (stapled.clone(), None)
            }
            Some((_, until)) => {
                let until = date(until.unwrap_or_default());
                let fault = format!("its `{STAPLE}` is not stapled any more: it was good until {until}");
                (self.certificate.clone(), Some(fault))
            }
            None => (self.certificate.clone(), self.no_staple.clone()),
        }
    }
}

/// The key of a Secret under which Envoy Gateway finds the OCSP response to staple too.
const STAPLE: &str = "tls.ocsp-staple";
const KEPT: &str = "; its last good certificate is still served";

/// Reads Secrets for listeners.
pub(super) struct Reader<'s> {
    pub snapshot: &'s Snapshot,
    pub before: &'s Certificates,
    pub now: Certificates,
}

impl Reader<'_> {
    /// The certificates of a listener that terminates TLS, and the verdict on its references. A broken
    /// reference is reported and takes nothing from the others.
    pub fn of_listener(
        &mut self,
        owner: Owner<'_>,
        place: usize,
        listener: &Listener,
        findings: &mut Findings,
    ) -> (Vec<Arc<Certificate>>, Verdict) {
        let mut verdict = Verdict::yes("ResolvedRefs");
        let mut certificates = Vec::new();
        let references = listener.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs);
        let mut refuse = |field: String, fault: Fault| {
            owner.note(findings, Severity::Error, field, &fault);
            if verdict.holds {
                verdict = Verdict::no(fault.reason, fault.message);
            }
        };
        if references.is_empty() {
            let message =
                "terminates TLS and names no certificate, so no handshake can succeed; add certificateRefs";
            refuse(format!("spec.listeners[{place}].tls"), Fault::new("InvalidCertificateRef", message));
        }
        for (i, reference) in references.iter().enumerate() {
            let (certificate, fault) = self.read(owner.refers(), reference);
            certificates.extend(certificate);
            if let Some(fault) = fault {
                refuse(format!("spec.listeners[{place}].tls.certificateRefs[{i}]"), fault);
            }
        }
        if let Some(fault) = not_for(listener, &certificates) {
            let field = format!("spec.listeners[{place}].tls.certificateRefs");
            owner.note(findings, Severity::Warning, field, &fault);
        }
        (certificates, verdict)
    }

    /// The certificate that an object refers to, and what is wrong with it. Both, when an earlier one is still good.
    pub fn read(
        &mut self,
        from: From<'_>,
        reference: &ObjectReference,
    ) -> (Option<Arc<Certificate>>, Option<Fault>) {
        let ObjectReference { group, kind, namespace, name } = reference;
        let (group, kind) = (group.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or("Secret"));
        let namespace = namespace.as_deref().unwrap_or(from.namespace);
        if !group.is_empty() || kind != "Secret" {
            let message = format!("a certificate comes from a Secret, not from a {kind} of group `{group}`");
            return (None, Some(Fault::new("InvalidCertificateRef", message)));
        }
        let to = To { group, kind, namespace, name };
        if !allows(self.snapshot, from, to) {
            let message = format!(
                "no ReferenceGrant in namespace {namespace} lets a {} of namespace {} use {}",
                from.kind,
                from.namespace,
                called(kind, namespace, name)
            );
            return (None, Some(Fault::new("RefNotPermitted", message)));
        }
        let Some(entry) = self.snapshot.secrets.get(namespace, name) else {
            let there = there_is(&self.snapshot.secrets, namespace, name, "Secrets");
            let message = format!("there is no {}; {there}", called(kind, namespace, name));
            return (None, Some(Fault::new("InvalidCertificateRef", message)));
        };
        let Known { served, fault, .. } = self.known(entry);
        let fault = fault.as_ref().map(|fault| {
            let message = format!("{}: {fault}", called(kind, namespace, name));
            Fault::new("InvalidCertificateRef", message)
        });
        (served.clone(), fault)
    }

    /// What a Secret means, read once and only when it changed.
    fn known(&mut self, entry: &Entry<Secret>) -> &Known {
        let secret = &entry.object;
        let name = format!("{}/{}", secret.metadata.namespace, secret.metadata.name);
        let before = self.before.known.get(&name);
        let moment = self.before.moment;
        self.now.moment = moment;
        self.now.known.entry(name).or_insert_with_key(|name| {
            let holds = match before {
                Some(known) if Arc::ptr_eq(&known.secret, secret) || known.secret.same_content(secret) => {
                    known.holds.clone()
                }
                _ => Held::read(name, secret),
            };
            let before = before.and_then(|known| known.served.as_ref());
            let (served, fault) = match &holds {
                Ok(held) => {
                    let (served, fault) = held.at(moment, before);
                    (Some(served), fault)
                }
                Err(fault) if before.is_some() => (before.cloned(), Some(format!("{fault}{KEPT}"))),
                Err(fault) => (None, Some(fault.clone())),
            };
            Known { secret: secret.clone(), holds, served, fault }
        })
    }
}

/// What is wrong when no client accepts any of a listener's certificates for its names.
fn not_for(listener: &Listener, certificates: &[Arc<Certificate>]) -> Option<Fault> {
    let hostname = listener.hostname.as_deref().filter(|hostname| !hostname.is_empty())?;
    if certificates.is_empty() || certificates.iter().any(|certificate| certificate.covers(hostname)) {
        return None;
    }
    let each =
        certificates.iter().map(|certificate| format!("{} is {}", certificate.name, certificate.words()));
    let message = format!(
        "clients that ask for `{hostname}` will refuse the certificate: {}",
        each.collect::<Vec<_>>().join("; ")
    );
    Some(Fault::new("HostnameMismatch", message))
}

#[cfg(test)]
mod tests {
    use crate::compile::{Binding, Certificates, Compiled, Kept, compile_after};
    use crate::resource::{Entry, Object, Place, Snapshot};
    use crate::routing::GatewayId;
    use crate::tls::TlsOptions;
    use std::sync::Arc;

    fn object(yaml: &str) -> Object {
        let header = serde_saphyr::from_str(yaml).unwrap();
        let reading =
            serde_saphyr::with_deserializer_from_str(yaml, |source| crate::resource::read(&header, source));
        reading.unwrap().unwrap().object
    }

    fn secret(certificate: &str, key: &str) -> Object {
        let quoted = |pem: &str| serde_json::to_string(pem).unwrap();
        object(&format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: tls}}, stringData: {{tls.crt: {}, tls.key: {}}}}}",
            quoted(certificate),
            quoted(key)
        ))
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// Compiles one HTTPS listener with this Secret.
    fn compiled(secret: Option<Object>, before: &Certificates) -> Compiled {
        let gateway = object(
            "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g}, spec: {listeners: \
             [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: tls}]}}]}}",
        );
        let objects = [Some(gateway), secret].into_iter().flatten().map(|object| (object, None::<Place>));
        let snapshot = Snapshot::new(objects, Vec::new());
        let (id, name) = (GatewayId(0), "g".to_owned());
        let bindings = [Binding {
            id,
            name: name.clone(),
            namespace: "default".to_owned(),
            object: name,
            tls: TlsOptions::default(),
        }];
        compile_after(&snapshot, &bindings, before, Kept::default())
    }

    fn serials(compiled: &Compiled) -> Vec<&str> {
        compiled.certificates.iter().map(|certificate| certificate.serial.as_str()).collect()
    }

    #[test]
    fn a_secret_that_becomes_broken_keeps_its_last_good_certificate_and_says_so() {
        let (certificate, key) = pair();
        let good = compiled(Some(secret(&certificate, &key)), &Certificates::default());
        assert!(good.gateways[0].listeners[0].resolved_refs.holds, "{:?}", good.diagnostics);
        let broken = compiled(Some(secret(&certificate, "no key")), &good.certificates);
        let listener = &broken.gateways[0].listeners[0];
        assert_eq!((listener.resolved_refs.holds, listener.programmed.holds), (false, true));
        assert_eq!(listener.resolved_refs.reason, "InvalidCertificateRef");
        assert!(listener.resolved_refs.message.contains("still served"), "{:?}", listener.resolved_refs);
        assert_eq!(serials(&broken), serials(&good));
        let still = compiled(Some(secret(&certificate, "no key")), &broken.certificates);
        assert_eq!(serials(&still), serials(&good));
        let (certificate, key) = pair();
        let repaired = compiled(Some(secret(&certificate, &key)), &still.certificates);
        assert!(repaired.gateways[0].listeners[0].resolved_refs.holds);
        assert_ne!(serials(&repaired), serials(&good));
    }

    #[test]
    fn a_secret_that_is_gone_takes_its_certificate_along() {
        let (certificate, key) = pair();
        let good = compiled(Some(secret(&certificate, &key)), &Certificates::default());
        let gone = compiled(None, &good.certificates);
        assert!(serials(&gone).is_empty());
        assert!(!gone.gateways[0].listeners[0].programmed.holds);
    }

    #[test]
    fn a_secret_that_did_not_change_keeps_the_very_same_certificate() {
        let (certificate, key) = pair();
        let first = compiled(Some(secret(&certificate, &key)), &Certificates::default());
        let second = compiled(Some(secret(&certificate, &key)), &first.certificates);
        let of = |compiled: &Compiled| compiled.certificates.iter().next().unwrap().clone();
        assert!(Arc::ptr_eq(&of(&first), &of(&second)));
    }

    #[test]
    fn nothing_that_is_printed_shows_a_secret() {
        let Object::Secret(object) = secret("hush-certificate", "hush-key") else { panic!("a Secret") };
        let entry = Entry { object, place: None };
        let printed = format!("{entry:?}");
        assert!(!printed.contains("hush") && printed.contains("[redacted]"), "{printed}");
        let compiled = compiled(Some(Object::Secret(entry.object)), &Certificates::default());
        assert!(!compiled.dump().contains("hush"), "{}", compiled.dump());
    }
}
