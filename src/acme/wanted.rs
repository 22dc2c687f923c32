//! Which certificates to have: those that proxy.toml names, and those of the listeners of some Gateways. Pure.

use crate::config::{Acme, ObjectName, Proof};
use crate::resource::{Gateway, Listener, ListenerSet, Metadata, Snapshot};
use std::collections::BTreeMap;

/// On a Gateway: get certificates for its HTTPS listeners. The value is a challenge as in `[acme]`, or `true` for
/// what `[acme]` says, or `false` for none where `[acme] gateways` names it.
pub const ANNOTATION: &str = "trigate.dev/acme";

/// The label of a Secret that trigate keeps up.
pub const LABEL: &str = "trigate.dev/acme";

/// On a Gateway or ListenerSet: cert-manager orders the certificates of its listeners.
const CERT_MANAGERS: [&str; 2] = ["cert-manager.io/issuer", "cert-manager.io/cluster-issuer"];

/// A certificate to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The Secret that it is.
    pub secret: ObjectName,
    /// Its names, sorted, each with how it is proved.
    pub names: BTreeMap<String, Proof>,
    pub profile: Option<String>,
}

/// A Gateway that this process serves, and whether proxy.toml asks for its certificates.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub listed: bool,
}

/// What there is to have.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct List {
    pub wanted: BTreeMap<ObjectName, Wanted>,
    /// What cannot be had, and why; each a sentence.
    pub faults: Vec<String>,
}

impl Wanted {
    /// Whether tailscaled has it.
    pub fn is_tailscales(&self) -> bool {
        self.names.values().any(|proof| *proof == Proof::Tailscale)
    }

    fn fault(&self) -> Option<String> {
        let ObjectName { namespace, name } = &self.secret;
        if ![namespace, name].into_iter().all(|part| is_plain(part)) {
            return Some("its Secret has a name that Kubernetes does not allow".to_owned());
        }
        if self.names.len() > 1 && self.is_tailscales() {
            return Some(
                "a name of tailscaled needs a certificate of its own; use another Secret".to_owned(),
            );
        }
        self.names.iter().find_map(|(name, proof)| match proof {
            Proof::Http | Proof::TlsAlpn if name.starts_with("*.") => {
                Some(format!("a wildcard such as {name} can be proved by DNS-01 only (RFC 8555 7.1.3)"))
            }
            _ if !is_hostname(name) => Some(format!("`{name}` is no name for a certificate")),
            _ => None,
        })
    }
}

/// What is wanted in all.
pub fn list(acme: &Acme, snapshot: &Snapshot, gateways: &[Asked<'_>]) -> List {
    let mut list = List::default();
    for certificate in acme.certificates.values() {
        for name in &certificate.names {
            let proof = certificate.challenge.clone().unwrap_or_else(|| acme.proof(name));
            let profile = certificate.profile.as_ref().or(acme.profile.as_ref());
            list.add(&certificate.secret, name, proof, profile);
        }
    }
    for asked in gateways {
        let Some(entry) = snapshot.gateways.get(asked.namespace, asked.name) else { continue };
        let gateway = &entry.object;
        let annotation = gateway.metadata.annotations.get(ANNOTATION);
        let proof = match annotation {
            Some("false") => continue,
            None if !asked.listed => continue,
            None | Some("true") => None,
            Some(text) => match Proof::try_from(text.to_owned()) {
                Ok(proof) => Some(proof),
                Err(error) => {
                    list.faults.push(format!(
                        "Gateway {}/{}, annotation {ANNOTATION}: {error}",
                        asked.namespace, asked.name
                    ));
                    continue;
                }
            },
        };
        if let Some(Proof::Dns(provider)) = &proof
            && acme.provider(provider.as_deref()).is_none()
        {
            list.faults.push(format!(
                "Gateway {}/{}, annotation {ANNOTATION}: [acme.dns] of proxy.toml does not say who publishes its records",
                asked.namespace, asked.name
            ));
            continue;
        }
        if let Some(issuer) = cert_managers(&gateway.metadata) {
            list.faults.push(format!(
                "Gateway {}/{}: cert-manager orders its certificates (annotation {issuer}), so trigate does not; remove that annotation, or set {ANNOTATION} to \"false\"",
                asked.namespace, asked.name
            ));
            continue;
        }
        list.of_gateway(acme, gateway, proof.as_ref());
        let sets = snapshot.listener_sets.iter().map(|entry| &*entry.object);
        for set in sets.filter(|set| belongs(set, gateway) && cert_managers(&set.metadata).is_none()) {
            list.of_listeners(acme, &set.metadata.namespace, &set.spec.listeners, proof.as_ref());
        }
    }
    list.settle();
    list
}

impl List {
    fn of_gateway(&mut self, acme: &Acme, gateway: &Gateway, proof: Option<&Proof>) {
        self.of_listeners(acme, &gateway.metadata.namespace, &gateway.spec.listeners, proof);
    }

    /// The first Secret that a listener refers to is the one to have: others are somebody else's.
    fn of_listeners(&mut self, acme: &Acme, namespace: &str, listeners: &[Listener], proof: Option<&Proof>) {
        for listener in listeners {
            let Some(tls) = listener.tls.as_ref().filter(|_| terminates(listener)) else { continue };
            let Some(reference) = tls.certificate_refs.first() else { continue };
            // A Secret of another namespace is that namespace's to order.
            let own = reference.namespace.as_deref().is_none_or(|of| of == namespace);
            let is_secret = reference.kind.as_deref().is_none_or(|kind| kind == "Secret");
            let Some(hostname) = listener.hostname.as_deref().filter(|_| own && is_secret) else { continue };
            let hostname = hostname.to_ascii_lowercase();
            let secret = ObjectName { namespace: namespace.to_owned(), name: reference.name.to_string() };
            if acme.certificates.values().any(|certificate| certificate.secret == secret) {
                continue;
            }
            let proof = proof.cloned().filter(|_| !hostname.ends_with(".ts.net"));
            let proof = proof.unwrap_or_else(|| acme.proof(&hostname));
            self.add(&secret, &hostname, proof, acme.profile.as_ref());
        }
    }

    fn add(&mut self, secret: &ObjectName, name: &str, proof: Proof, profile: Option<&String>) {
        let wanted = self.wanted.entry(secret.clone()).or_insert_with(|| Wanted {
            secret: secret.clone(),
            names: BTreeMap::new(),
            profile: profile.cloned(),
        });
        wanted.names.insert(name.to_ascii_lowercase(), proof);
    }

    /// Leaves what no authority would give.
    fn settle(&mut self) {
        let faults = &mut self.faults;
        self.wanted.retain(|secret, wanted| {
            let fault = wanted.fault();
            faults.extend(
                fault.iter().map(|fault| format!("the certificate {secret} is not ordered: {fault}")),
            );
            fault.is_none()
        });
    }
}

fn cert_managers(metadata: &Metadata) -> Option<&'static str> {
    CERT_MANAGERS.into_iter().find(|annotation| metadata.annotations.get(annotation).is_some())
}

fn terminates(listener: &Listener) -> bool {
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref());
    matches!(&*listener.protocol, "HTTPS" | "TLS") && mode != Some("Passthrough")
}

fn belongs(set: &ListenerSet, gateway: &Gateway) -> bool {
    let parent = &set.spec.parent_ref;
    let namespace = parent.namespace.as_deref().unwrap_or(&set.metadata.namespace);
    (namespace, &*parent.name) == gateway.metadata.key()
}

/// Whether a part of a name can be that of an object, and so of a file.
fn is_plain(part: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    !part.is_empty() && part.len() < 254 && !part.starts_with('.') && part.bytes().all(fits)
}

fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.len() < 64 && label.bytes().all(fits)
    };
    let name = name.strip_prefix("*.").unwrap_or(name);
    name.contains('.') && name.len() < 254 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AcmeCertificate, Config};
    use crate::source::read_text;
    use std::path::Path;

    fn acme(lines: &str) -> Acme {
        let text = format!(
            "[source.files]\npaths = [\"x\"]\n[gateways.external]\nobject = \"network/external\"\n[acme]\n{lines}"
        );
        Config::parse(Path::new("proxy.toml"), &text).unwrap().acme.unwrap()
    }

    fn gateway(annotation: &str, listeners: &str) -> Snapshot {
        let text = format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: external, \
             namespace: network, annotations: {{trigate.dev/acme: '{annotation}'}}}}, \
             spec: {{gatewayClassName: trigate, listeners: [{listeners}]}}}}"
        );
        read_text(Path::new("gateway.yaml"), &text)
    }

    fn https(hostname: &str, secret: &str) -> String {
        format!(
            "{{name: l, port: 443, protocol: HTTPS, hostname: '{hostname}', tls: {{certificateRefs: [{{name: {secret}}}]}}}}"
        )
    }

    const EXTERNAL: Asked<'_> = Asked { namespace: "network", name: "external", listed: false };

    fn names(list: &List) -> Vec<(String, Vec<(&str, Proof)>)> {
        let names = list.wanted.iter().map(|(secret, wanted)| {
            let names = wanted.names.iter().map(|(name, proof)| (name.as_str(), proof.clone()));
            (secret.to_string(), names.collect())
        });
        names.collect()
    }

    #[test]
    fn an_annotated_gateway_gets_a_certificate_for_each_secret_of_its_listeners() {
        let listeners = [https("A.test", "tls"), https("b.test", "tls"), https("c.test", "other")].join(",");
        let list = list(&acme(""), &gateway("true", &listeners), &[EXTERNAL]);
        let found = names(&list);
        assert_eq!(
            found,
            [
                ("network/other".to_owned(), vec![("c.test", Proof::Http)]),
                ("network/tls".to_owned(), vec![("a.test", Proof::Http), ("b.test", Proof::Http)]),
            ]
        );
    }

    #[test]
    fn without_annotation_only_a_gateway_that_proxy_toml_lists_is_served() {
        let snapshot = gateway("", &https("a.test", "tls"));
        let faulty = list(&acme(""), &snapshot, &[EXTERNAL]);
        assert!(faulty.wanted.is_empty() && faulty.faults.len() == 1, "{faulty:?}");
        let off = gateway("false", &https("a.test", "tls"));
        assert_eq!(list(&acme(""), &off, &[Asked { listed: true, ..EXTERNAL }]), List::default());
    }

    #[test]
    fn the_annotation_names_a_challenge() {
        let alpn = list(&acme(""), &gateway("tls-alpn-01", &https("a.test", "tls")), &[EXTERNAL]);
        assert_eq!(names(&alpn), [("network/tls".to_owned(), vec![("a.test", Proof::TlsAlpn)])]);
        let dns = list(&acme(""), &gateway("dns-01", &https("a.test", "tls")), &[EXTERNAL]);
        assert!(dns.wanted.is_empty() && dns.faults[0].contains("[acme.dns]"), "{dns:?}");
    }

    #[test]
    fn a_gateway_of_cert_manager_is_left_to_it() {
        let text = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: external, namespace: \
                    network, annotations: {cert-manager.io/cluster-issuer: home}}, spec: {gatewayClassName: trigate, \
                    listeners: [LISTENER]}}";
        let snapshot =
            read_text(Path::new("gateway.yaml"), &text.replace("LISTENER", &https("a.test", "tls")));
        assert_eq!(list(&acme(""), &snapshot, &[EXTERNAL]), List::default());
        let list = list(&acme(""), &snapshot, &[Asked { listed: true, ..EXTERNAL }]);
        assert!(list.wanted.is_empty(), "{list:?}");
        assert!(list.faults[0].contains("(annotation cert-manager.io/cluster-issuer)"), "{list:?}");
    }

    #[test]
    fn what_no_authority_would_give_is_a_fault_and_not_ordered() {
        for (listeners, word) in [
            (https("*.a.test", "tls"), "wildcard"),
            ([https("a.tail.ts.net", "tls"), https("b.test", "tls")].join(","), "tailscaled"),
        ] {
            let list = list(&acme(""), &gateway("true", &listeners), &[EXTERNAL]);
            assert!(list.wanted.is_empty() && list.faults[0].contains(word), "{list:?}");
        }
    }

    #[test]
    fn a_certificate_of_proxy_toml_is_wanted_whatever_the_listeners_are() {
        let mut acme = acme("");
        let secret = ObjectName { namespace: "network".to_owned(), name: "tls".to_owned() };
        let certificate = AcmeCertificate {
            secret,
            names: vec!["z.test".to_owned()],
            challenge: Some(Proof::TlsAlpn),
            profile: Some("shortlived".to_owned()),
        };
        acme.certificates.insert("one".to_owned(), certificate);
        let list = list(&acme, &gateway("true", &https("a.test", "tls")), &[EXTERNAL]);
        assert_eq!(names(&list), [("network/tls".to_owned(), vec![("z.test", Proof::TlsAlpn)])]);
        assert_eq!(list.wanted.values().next().unwrap().profile.as_deref(), Some("shortlived"));
    }
}
