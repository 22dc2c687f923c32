//! What a Gateway asks of the clients of its HTTPS listeners (`spec.tls.frontend`, GEP-91).

use super::findings::{Fault, Findings, called, listed};
use super::grants::{From, To, allows};
use super::trust::authorities;
use crate::resource::{
    ClientValidation as Written, Entry, FrontendTlsConfig, Gateway, Listener, ObjectReference, Snapshot,
};
use crate::tls::{CertificateDetails, ClientMode, ClientValidation, TlsOptions};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;

/// The option of a listener's `tls` that has backends told of client certificates. Its value names what they are
/// told beside the hash, in Envoy Gateway's words.
pub(super) const TELL: &str = "trigate.dev/forward-client-certificate";

/// Of one Gateway.
#[derive(Default)]
pub(super) struct Frontend {
    default: Option<Asked>,
    /// `None` asks nothing, whatever the default does.
    per_port: BTreeMap<u16, Option<Asked>>,
    /// What is agreed on in handshakes, where a listener says nothing else.
    pub options: TlsOptions,
}

/// What is asked of clients, and what is wrong with it.
#[derive(Clone)]
pub(super) struct Asked {
    authorities: Vec<CertificateDer<'static>>,
    mode: ClientMode,
    /// The first faulty reference.
    pub unresolved: Option<Fault>,
    /// Why nobody can be let in.
    pub fault: Option<Fault>,
}

impl Asked {
    /// What a listener is to do, with what its options ask for.
    pub fn validation(&self, listener: &Listener) -> Result<ClientValidation, Fault> {
        let told = told(listener)?;
        Ok(ClientValidation { authorities: self.authorities.clone(), mode: self.mode, told })
    }
}

impl Frontend {
    /// Reads what a Gateway asks for, and notes what is wrong with it.
    pub fn read(
        snapshot: &Snapshot,
        entry: &Entry<Gateway>,
        options: &TlsOptions,
        findings: &mut Findings,
    ) -> Self {
        let options = options.clone();
        let written = entry.object.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
        let Some(written) = written else { return Self { options, ..Self::default() } };
        let mut read = |field: &str, config: &FrontendTlsConfig| {
            let validation = config.validation.as_ref()?;
            Some(asked(
                snapshot,
                entry,
                &format!("spec.tls.frontend.{field}.validation"),
                validation,
                findings,
            ))
        };
        let default = written.default.as_ref().and_then(|config| read("default", config));
        let per_port = written.per_port.iter().enumerate();
        let per_port =
            per_port.map(|(i, of)| (of.port, read(&format!("perPort[{i}].tls"), &of.tls))).collect();
        Self { default, per_port, options }
    }

    /// What is asked of the clients of a listener; those of other protocols than HTTPS are asked nothing.
    pub fn of(&self, listener: &Listener) -> Option<&Asked> {
        if &*listener.protocol != "HTTPS" {
            return None;
        }
        match self.per_port.get(&listener.port) {
            Some(of_port) => of_port.as_ref(),
            None => self.default.as_ref(),
        }
    }

    /// Whether clients without a valid certificate are let in anywhere.
    pub fn is_insecure(&self) -> bool {
        let all = self.default.iter().chain(self.per_port.values().flatten());
        all.into_iter().any(|asked| asked.mode == ClientMode::InsecureFallback)
    }
}

fn asked(
    snapshot: &Snapshot,
    entry: &Entry<Gateway>,
    field: &str,
    written: &Written,
    findings: &mut Findings,
) -> Asked {
    let Written { ca_certificate_refs, mode } = written;
    let mut asked =
        Asked { authorities: Vec::new(), mode: ClientMode::ValidOnly, unresolved: None, fault: None };
    for (i, reference) in ca_certificate_refs.iter().enumerate() {
        match referred(snapshot, &entry.object.metadata.namespace, reference) {
            Ok(found) => asked.authorities.extend(found),
            Err(fault) => {
                findings.error(entry, format!("{field}.caCertificateRefs[{i}]"), &fault);
                asked.unresolved.get_or_insert(fault);
            }
        }
    }
    match mode.as_deref() {
        None | Some("AllowValidOnly") => {}
        Some("AllowInsecureFallback") => asked.mode = ClientMode::InsecureFallback,
        Some(other) => {
            let message =
                format!("there is no mode `{other}`; there are AllowValidOnly and AllowInsecureFallback");
            let fault = Fault::new("UnsupportedValue", message);
            findings.error(entry, format!("{field}.mode"), &fault);
            asked.fault = Some(fault);
        }
    }
    if asked.authorities.is_empty() {
        let message = "there is no certificate of an authority, so no client can be let in";
        let fault = Fault::new("NoValidCACertificate", message);
        findings.error(entry, field, &fault);
        asked.fault = Some(fault);
    }
    asked
}

fn referred(
    snapshot: &Snapshot,
    from: &str,
    reference: &ObjectReference,
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let ObjectReference { group, kind, namespace, name } = reference;
    let (group, kind) = (group.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or("ConfigMap"));
    let to = To { group, kind, namespace: namespace.as_deref().unwrap_or(from), name };
    if !allows(snapshot, From { kind: "Gateway", namespace: from }, to) {
        let message = format!(
            "no ReferenceGrant in namespace {} lets a Gateway of namespace {from} use {}",
            to.namespace,
            called(kind, to.namespace, name)
        );
        return Err(Fault::new("RefNotPermitted", message));
    }
    authorities(snapshot, to).map_err(|fault| match fault.reason {
        "InvalidKind" => Fault::new("InvalidCACertificateKind", fault.message),
        _ => fault,
    })
}

/// What backends are told of client certificates, if a listener asks for it.
fn told(listener: &Listener) -> Result<Option<CertificateDetails>, Fault> {
    const KNOWN: [&str; 5] = ["Subject", "Cert", "Chain", "DNS", "URI"];
    let Some(text) = listener.tls.as_ref().and_then(|tls| tls.options.get(TELL)) else { return Ok(None) };
    let mut told = CertificateDetails::default();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "Subject" => told.subject = true,
            "Cert" => told.certificate = true,
            "Chain" => told.chain = true,
            "DNS" => told.dns = true,
            "URI" => told.uri = true,
            "Hash" => {}
            other => {
                let message = format!("`{other}` is no part of a certificate; there are {}", listed(&KNOWN));
                return Err(Fault::new("UnsupportedValue", message));
            }
        }
    }
    Ok(Some(told))
}
