//! What an EnvoyProxy is told: which Gateways and classes of ours use it. Its status has no `controllerName`.

use super::condition::{AncestorStatus, PolicyStatus, conditions};
use super::publication::Publication;
use crate::compile::{Verdict, class_parameters};
use crate::resource::{EnvoyProxy, GATEWAY_GROUP, Gateway, GatewayClass, ParentRef, Resource};
use serde_json::Value;

/// The entries of an EnvoyProxy's status that are ours: one for each Gateway and each class that names it.
pub(super) fn proxy(proxy: &EnvoyProxy, publication: &Publication, controller: &str) -> PolicyStatus {
    let snapshot = &publication.snapshot;
    let gateways = publication.gateways.iter().filter_map(|report| {
        let gateway = snapshot.gateways.get(&report.namespace, &report.name)?;
        // Otherwise it is that of the class.
        gateway.object.spec.infrastructure.as_ref()?.parameters_ref.as_ref()?;
        let used = report.parameters.as_ref()?.proxy.as_ref()?;
        (used.metadata.key() == proxy.metadata.key())
            .then(|| reference("Gateway", Some(&report.namespace), &report.name))
    });
    let classes = snapshot.gateway_classes.iter().map(|entry| &entry.object).filter_map(|class| {
        let used = class_parameters(snapshot, class).ok()??;
        let is_meant =
            *class.spec.controller_name == *controller && used.object.metadata.key() == proxy.metadata.key();
        is_meant.then(|| reference(GatewayClass::KIND, None, &class.metadata.name))
    });
    let accepted = Verdict::yes("Accepted");
    let ancestors = gateways.chain(classes).map(|ancestor_ref| AncestorStatus {
        ancestor_ref,
        controller_name: None,
        conditions: conditions(proxy.metadata.generation(), [("Accepted", &accepted)]),
    });
    PolicyStatus { ancestors: ancestors.collect() }
}

/// Whether an entry of an EnvoyProxy's status is ours to keep. It does not say whose it is, but what it is about: what
/// is not there any more is nobody else's, either.
pub(super) fn is_about_ours(entry: &Value, publication: &Publication, controller: &str) -> bool {
    let snapshot = &publication.snapshot;
    let text = |field: &str| entry["ancestorRef"][field].as_str().unwrap_or_default();
    // We write all of it; what leaves something out is somebody else's.
    if text("group") != GATEWAY_GROUP || (text("kind") == Gateway::KIND && text("namespace").is_empty()) {
        return false;
    }
    let class = match text("kind") {
        GatewayClass::KIND => text("name"),
        _ => match snapshot.gateways.get(text("namespace"), text("name")) {
            Some(gateway) => &*gateway.object.spec.gateway_class_name,
            None => return true,
        },
    };
    let class = snapshot.gateway_classes.get("", class);
    class.is_none_or(|class| *class.object.spec.controller_name == *controller)
}

/// What an entry of `status.ancestors` is about.
pub(super) fn reference(kind: &str, namespace: Option<&str>, name: &str) -> ParentRef {
    ParentRef {
        group: Some(GATEWAY_GROUP.into()),
        kind: Some(kind.into()),
        namespace: namespace.map(Into::into),
        name: name.into(),
        section_name: None,
        port: None,
    }
}
