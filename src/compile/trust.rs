//! Whom to trust at the other end of a TLS connection to a backend.

use super::findings::{Fault, called};
use crate::resource::{LocalRef, Snapshot};
use crate::upstream::Roots;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The authorities that these references of a namespace name, or the system's.
pub(super) fn roots(
    snapshot: &Snapshot,
    namespace: &str,
    references: &[LocalRef],
    well_known: Option<&str>,
) -> Result<Roots, Fault> {
    match well_known {
        Some("System") => return Ok(Roots::System),
        Some(other) => {
            let message = format!("there are no well-known certificates `{other}`; there is System");
            return Err(Fault::new("InvalidCACertificateRef", message));
        }
        None if references.is_empty() => return Ok(Roots::System),
        None => {}
    }
    let mut certificates = Vec::new();
    for reference in references {
        certificates.extend(authorities(snapshot, namespace, reference)?);
    }
    Ok(Roots::Given(certificates))
}

fn authorities(
    snapshot: &Snapshot,
    namespace: &str,
    reference: &LocalRef,
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let LocalRef { group, kind, name } = reference;
    let called = called(kind, namespace, name);
    let invalid = |message: String| Fault::new("InvalidCACertificateRef", message);
    let pem: Option<Vec<u8>> = match (&**group, &**kind) {
        ("", "ConfigMap") => snapshot
            .config_maps
            .get(namespace, name)
            .ok_or_else(|| invalid(format!("there is no {called}")))?
            .object
            .data
            .get("ca.crt")
            .map(|text| text.as_bytes().to_vec()),
        ("", "Secret") => snapshot
            .secrets
            .get(namespace, name)
            .ok_or_else(|| invalid(format!("there is no {called}")))?
            .object
            .get("ca.crt")
            .map(|value| value.reveal().to_vec()),
        _ => {
            let message =
                format!("certificates of authorities come from a ConfigMap or a Secret, not from a {kind}");
            return Err(Fault::new("InvalidKind", message));
        }
    };
    let pem = pem.ok_or_else(|| invalid(format!("{called} has no `ca.crt`")))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(format!("`ca.crt` of {called} is no PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(invalid(format!("`ca.crt` of {called} holds no certificate")));
    }
    Ok(certificates)
}
