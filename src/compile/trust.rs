//! Whom to trust at the other end of a TLS connection.

use super::findings::{Fault, called, there_is};
use super::grants::To;
use crate::resource::{LocalRef, Snapshot};
use crate::tls;
use crate::upstream::Roots;
use rustls_pki_types::CertificateDer;

/// The authorities that these references of a namespace name, or the system's.
pub(super) fn roots(
    snapshot: &Snapshot,
    namespace: &str,
    references: &[LocalRef],
    well_known: Option<&str>,
) -> Result<Roots, Fault> {
    if let Some(name) = well_known {
        return self::well_known(name);
    }
    if references.is_empty() {
        return Ok(Roots::System);
    }
    let mut certificates = Vec::new();
    for LocalRef { group, kind, name } in references {
        certificates.extend(authorities(snapshot, To { group, kind, namespace, name })?);
    }
    Ok(Roots::Given(certificates))
}

/// `wellKnownCACertificates`.
pub(super) fn well_known(name: &str) -> Result<Roots, Fault> {
    match name {
        "System" => Ok(Roots::System),
        other => {
            let message = format!("there are no well-known certificates `{other}`; there is System");
            Err(Fault::new("InvalidCACertificateRef", message))
        }
    }
}

/// The certificates under `ca.crt` of a ConfigMap or a Secret.
pub(super) fn authorities(snapshot: &Snapshot, to: To<'_>) -> Result<Vec<CertificateDer<'static>>, Fault> {
    const KEY: &str = "ca.crt";
    let To { group, kind, namespace, name } = to;
    let called = called(kind, namespace, name);
    let invalid = |message: String| Fault::new("InvalidCACertificateRef", message);
    let pem: Option<Vec<u8>> = match (group, kind) {
        ("", "ConfigMap") => {
            let there = || there_is(&snapshot.config_maps, namespace, name, "ConfigMaps");
            let entry = snapshot.config_maps.get(namespace, name);
            let entry = entry.ok_or_else(|| invalid(format!("there is no {called}; {}", there())))?;
            entry.object.data.get(KEY).map(|text| text.as_bytes().to_vec())
        }
        ("", "Secret") => {
            let there = || there_is(&snapshot.secrets, namespace, name, "Secrets");
            let entry = snapshot.secrets.get(namespace, name);
            let entry = entry.ok_or_else(|| invalid(format!("there is no {called}; {}", there())))?;
            entry.object.get(KEY).map(|value| value.reveal().to_vec())
        }
        _ => {
            let message = format!(
                "certificates of authorities come from a ConfigMap or a Secret, not from a {kind} of group `{group}`"
            );
            return Err(Fault::new("InvalidKind", message));
        }
    };
    let pem = pem.ok_or_else(|| invalid(format!("{called} has no `{KEY}`")))?;
    tls::authorities(&pem).map_err(|error| invalid(format!("`{KEY}` of {called}: {error}")))
}
