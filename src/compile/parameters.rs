//! `parametersRef` of Gateways and classes: the EnvoyProxy that a Gateway has, and what it says of the drain.
//!
//! That of the Gateway counts, else that of its class (they are not merged, as Envoy Gateway does it by default).
//! One that cannot be had leaves everything as proxy.toml has it, and is told as `InvalidParameters`.

use super::durations;
use super::findings::{Fault, Findings, called, there_is};
use crate::resource::{
    ENVOY_GATEWAY_GROUP, Entry, EnvoyProxy, EnvoyShutdown, Gateway, GatewayClass, ParametersRef, Resource,
    Snapshot,
};
use std::sync::Arc;
use std::time::Duration;

/// What a Gateway's parameters come to.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    /// Where everything else that is in it can be read: the Service, telemetry.
    pub proxy: Option<Arc<EnvoyProxy>>,
    /// How long its sockets accept during a drain, if it says that.
    pub drain_grace: Option<Duration>,
    /// How long its requests may take to finish, if it says that.
    pub drain_timeout: Option<Duration>,
}

/// The parameters of a Gateway.
///
/// # Errors
/// Its own reference leads nowhere; the sentence says why. A class whose reference does has no parameters.
pub(super) fn of_gateway(
    snapshot: &Snapshot,
    gateway: &Gateway,
    findings: &mut Findings,
) -> Result<Parameters, String> {
    let infrastructure = gateway.spec.infrastructure.as_deref();
    let own = infrastructure.and_then(|infrastructure| infrastructure.parameters_ref.as_ref());
    let entry = match own {
        Some(reference) => Some(find(snapshot, reference, &gateway.metadata.namespace)?),
        None => {
            let class = snapshot.gateway_classes.get("", &gateway.spec.gateway_class_name);
            class.and_then(|class| of_class(snapshot, &class.object).ok().flatten())
        }
    };
    let Some(entry) = entry else { return Ok(Parameters::default()) };
    check(entry, findings);
    let shutdown = entry.object.spec.shutdown.as_deref();
    let said = |of: fn(&EnvoyShutdown) -> &Option<Box<str>>| {
        shutdown.and_then(|shutdown| durations::parse(of(shutdown).as_deref()?))
    };
    Ok(Parameters {
        proxy: Some(entry.object.clone()),
        drain_grace: said(|shutdown| &shutdown.min_drain_duration),
        drain_timeout: said(|shutdown| &shutdown.drain_timeout),
    })
}

/// The EnvoyProxy of a class.
///
/// # Errors
/// Its reference leads nowhere; the sentence says why.
pub fn of_class<'s>(
    snapshot: &'s Snapshot,
    class: &GatewayClass,
) -> Result<Option<&'s Entry<EnvoyProxy>>, String> {
    let Some(reference) = class.spec.parameters_ref.as_deref() else { return Ok(None) };
    match reference.namespace.as_deref() {
        None if is_known(reference) => {
            Err("parametersRef of a class needs a namespace, for an EnvoyProxy is in one".to_owned())
        }
        namespace => find(snapshot, reference, namespace.unwrap_or_default()).map(Some),
    }
}

fn is_known(reference: &ParametersRef) -> bool {
    *reference.group == *ENVOY_GATEWAY_GROUP && *reference.kind == *EnvoyProxy::KIND
}

fn find<'s>(
    snapshot: &'s Snapshot,
    reference: &ParametersRef,
    namespace: &str,
) -> Result<&'s Entry<EnvoyProxy>, String> {
    let ParametersRef { group, kind, name, namespace: _ } = reference;
    if !is_known(reference) {
        return Err(format!(
            "parameters of kind {kind} ({group}) are not known here, only EnvoyProxy ({ENVOY_GATEWAY_GROUP})"
        ));
    }
    snapshot.envoy_proxies.get(namespace, name).ok_or_else(|| {
        let instead = there_is(&snapshot.envoy_proxies, namespace, name, "EnvoyProxies");
        format!("there is no {}; {instead}", called(kind, namespace, name))
    })
}

/// Says what of an EnvoyProxy's values means nothing.
fn check(entry: &Entry<EnvoyProxy>, findings: &mut Findings) {
    let mut note = |field: &str, message: String| {
        findings.warning(entry, format!("spec.{field}"), &Fault::new("UnsupportedValue", message));
    };
    let spec = &entry.object.spec;
    let choice = |text: &Option<Box<str>>, known: &[&str]| {
        let strange = text.as_deref().filter(|text| !known.contains(text))?;
        Some(format!("`{strange}` is none of {}; it is as if it were not there", known.join(", ")))
    };
    let kind = spec.provider.as_ref().and_then(|provider| choice(&provider.r#type, &["Kubernetes"]));
    if let Some(message) = kind {
        note("provider.type", message);
    }
    if let Some(service) = entry.object.service() {
        let patch = service.patch.as_ref();
        let faults = [
            ("type", choice(&service.r#type, &["LoadBalancer", "NodePort", "ClusterIP"])),
            ("externalTrafficPolicy", choice(&service.external_traffic_policy, &["Local", "Cluster"])),
            ("patch.type", patch.and_then(|patch| choice(&patch.r#type, &["StrategicMerge", "JSONMerge"]))),
            (
                "patch.value",
                patch
                    .filter(|patch| !patch.value.is_object())
                    .map(|_| "a patch is a part of a Service; it is not applied".to_owned()),
            ),
        ];
        for (field, message) in faults {
            if let Some(message) = message {
                note(&format!("provider.kubernetes.envoyService.{field}"), message);
            }
        }
    }
    if let Some(EnvoyShutdown { drain_timeout, min_drain_duration }) = spec.shutdown.as_deref() {
        for (field, text) in [("drainTimeout", drain_timeout), ("minDrainDuration", min_drain_duration)] {
            let wrong = text.as_deref().filter(|text| durations::parse(text).is_none());
            if let Some(text) = wrong {
                let message = format!("`{text}` is no duration like `180s`; that of proxy.toml counts");
                note(&format!("shutdown.{field}"), message);
            }
        }
    }
}
