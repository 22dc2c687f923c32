//! From what a compilation found to the conditions that the Gateway API prescribes. Pure: nothing is written
//! here, and no clock is asked, so a condition's `lastTransitionTime` is for the writer to add. What is written
//! to the API server, by whom and when, is in `writer`, `keeper` and `lease`.

mod address;
mod class;
mod condition;
mod difference;
mod keeper;
mod lease;
mod merge;
mod pace;
mod proxies;
mod publication;
mod publish;
mod services;
mod trouble;
mod writer;

pub use address::reported;
pub use condition::{
    AncestorStatus, Condition, GatewayStatus, ListenerSetStatus, ListenerStatus, ParentStatus, PolicyStatus,
    RouteKindStatus, RouteStatus,
};
pub use lease::Leadership;
pub use publication::{Publication, Publisher};
pub use publish::Writing;

use crate::compile::{
    GatewayReport, ListenerReport, ListenerSetReport, ParentReport, PolicyReport, RouteReport, RouteVerdicts,
    Verdict,
};
use crate::resource::GATEWAY_GROUP;
use condition::conditions;
use serde_json::{Value, json};

/// The status of a Gateway; its addresses are for the writer to add.
pub fn gateway(report: &GatewayReport) -> GatewayStatus {
    let GatewayReport {
        id: _,
        binding: _,
        namespace: _,
        name: _,
        generation,
        accepted,
        programmed,
        resolved_refs,
        insecure_frontend,
        listeners,
        listener_sets,
        parameters: _,
    } = report;
    let always = [("Accepted", accepted), ("Programmed", programmed), ("ResolvedRefs", resolved_refs)];
    // This one exists only when it is true.
    let insecure = insecure_frontend.iter().map(|verdict| ("InsecureFrontendValidationMode", verdict));
    // None attaches to a Gateway that is not accepted, whatever the reason.
    let attached = listener_sets.iter().filter(|set| accepted.holds && set.accepted.holds).count();
    GatewayStatus {
        conditions: conditions(*generation, always.into_iter().chain(insecure)),
        listeners: listeners.iter().map(|report| listener(report, *generation)).collect(),
        attached_listener_sets: u32::try_from(attached).unwrap_or(u32::MAX),
    }
}

/// The status of a Gateway or a ListenerSet that nobody serves, as the API server has it before anybody does.
fn unclaimed(kind: &str) -> Value {
    let pending = |kind: &str| json!({ "type": kind, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller" });
    let mut status = json!({ "conditions": [pending("Accepted"), pending("Programmed")], "listeners": [] });
    if kind == "Gateway" {
        status["addresses"] = json!([]);
        status["attachedListenerSets"] = json!(0);
    }
    status
}

/// The status of a ListenerSet of this Gateway.
pub fn listener_set(report: &ListenerSetReport, gateway: &GatewayReport) -> ListenerSetStatus {
    let ListenerSetReport { namespace: _, name: _, generation, accepted, programmed, listeners } = report;
    let (mut accepted, mut programmed) = (accepted.clone(), programmed.clone());
    if accepted.holds && !gateway.accepted.holds {
        accepted = Verdict::no("ParentNotAccepted", "its Gateway is not accepted");
    }
    if programmed.holds && !gateway.programmed.holds {
        programmed = Verdict::no("ParentNotProgrammed", "its Gateway is not programmed");
    }
    ListenerSetStatus {
        conditions: conditions(*generation, [("Accepted", &accepted), ("Programmed", &programmed)]),
        listeners: listeners.iter().map(|report| listener(report, *generation)).collect(),
    }
}

fn listener(report: &ListenerReport, generation: Option<i64>) -> ListenerStatus {
    let ListenerReport {
        name,
        port: _,
        protocol: _,
        attached_routes,
        supported_kinds,
        accepted,
        programmed,
        resolved_refs,
        conflicted,
        overlapping,
    } = report;
    let always = [
        ("Accepted", accepted),
        ("Programmed", programmed),
        ("ResolvedRefs", resolved_refs),
        ("Conflicted", conflicted),
    ];
    // This one exists only when it is true.
    let overlapping = overlapping.iter().map(|verdict| ("OverlappingTLSConfig", verdict));
    ListenerStatus {
        name: name.clone(),
        supported_kinds: supported_kinds
            .iter()
            .map(|&kind| RouteKindStatus { group: GATEWAY_GROUP, kind })
            .collect(),
        attached_routes: *attached_routes,
        conditions: conditions(generation, always.into_iter().chain(overlapping)),
    }
}

/// The entries of a route's status that are ours, one for each parent that is; those of other controllers are
/// for the writer to keep.
pub fn route(report: &RouteReport, controller: &str) -> RouteStatus {
    let RouteReport { route, verdicts } = report;
    let RouteVerdicts { parents, resolved_refs, partially_invalid } = &**verdicts;
    let parent = |ParentReport { place, accepted }: &ParentReport| {
        let always = [("Accepted", accepted), ("ResolvedRefs", resolved_refs)];
        // This one exists only when it is true.
        let partial = partially_invalid.as_ref().filter(|_| accepted.holds);
        let partial = partial.map(|verdict| ("PartiallyInvalid", verdict));
        ParentStatus {
            parent_ref: route.parent_refs()[*place].clone(),
            controller_name: controller.to_owned(),
            conditions: conditions(route.generation(), always.into_iter().chain(partial)),
        }
    };
    RouteStatus { parents: parents.iter().map(parent).collect() }
}

/// The entries of a policy's status that are ours, one for each Gateway that uses what it is for.
pub fn policy(report: &PolicyReport, controller: &str) -> PolicyStatus {
    let PolicyReport { kind: _, namespace: _, name: _, generation, ancestors, accepted, resolved_refs } =
        report;
    let ancestor = |(namespace, name): &(String, String)| AncestorStatus {
        ancestor_ref: proxies::reference("Gateway", Some(namespace), name),
        controller_name: Some(controller.to_owned()),
        conditions: conditions(*generation, [("Accepted", accepted), ("ResolvedRefs", resolved_refs)]),
    };
    PolicyStatus { ancestors: ancestors.iter().map(ancestor).collect() }
}
