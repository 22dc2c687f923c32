//! Whether an object may refer to one in another namespace (ReferenceGrant, GEP-709).

use crate::resource::{
    ENVOY_GATEWAY_GROUP, GATEWAY_GROUP, GrantFrom, GrantTo, HttpRouteFilter, Resource, Snapshot,
};

/// Who refers: a kind of the Gateway API, or of Envoy Gateway's, in a namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct From<'a> {
    pub kind: &'a str,
    pub namespace: &'a str,
}

/// What is referred to.
#[derive(Debug, Clone, Copy)]
pub(super) struct To<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

/// Whether the reference stays in its namespace or a grant of the other one allows it.
pub(super) fn allows(snapshot: &Snapshot, from: From<'_>, to: To<'_>) -> bool {
    from.namespace == to.namespace
        || snapshot.reference_grants.in_namespace(to.namespace).iter().any(|grant| {
            let spec = &grant.object.spec;
            spec.from.iter().any(|allowed| covers_from(allowed, from))
                && spec.to.iter().any(|allowed| covers_to(allowed, to))
        })
}

fn covers_from(allowed: &GrantFrom, from: From<'_>) -> bool {
    let GrantFrom { group, kind, namespace } = allowed;
    let own = if from.kind == HttpRouteFilter::KIND { ENVOY_GATEWAY_GROUP } else { GATEWAY_GROUP };
    &**group == own && &**kind == from.kind && &**namespace == from.namespace
}

fn covers_to(allowed: &GrantTo, to: To<'_>) -> bool {
    let GrantTo { group, kind, name } = allowed;
    // An empty name is none: every object of the kind.
    let named = name.as_deref().filter(|name| !name.is_empty());
    &**group == to.group && &**kind == to.kind && named.is_none_or(|name| name == to.name)
}
