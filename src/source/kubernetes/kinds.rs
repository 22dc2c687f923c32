//! The kinds that are watched, and what of each.

use crate::resource::{ENVOY_GATEWAY_GROUP, GATEWAY_GROUP, ObjectHeader, Standing, standing};

/// A kind of object with the part of it that is watched. A kind may be watched in two parts.
#[derive(Debug)]
pub(super) struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub kind: &'static str,
    /// The best first. Versions of one kind hold the same objects.
    pub versions: &'static [&'static str],
    pub plural: Plural,
    pub part: Part,
}

/// How the API calls objects of the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plural {
    /// Part of every Kubernetes.
    BuiltIn(&'static str),
    /// The API server says it, where the kind is installed.
    Installed,
}

/// What is watched of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    All,
    /// Objects that this field selector chooses.
    Fields(&'static str),
    /// Objects that this label selector chooses.
    Labels(&'static str),
    /// Of those that the field selector chooses the names only; the rest is read when somebody refers to it.
    Referenced(&'static str),
}

/// All of them, those included that are not served, so that it can be said of each object.
pub(super) fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter()
}

const KINDS: &[Kind] = &[
    gateway_api("GatewayClass", &["v1", "v1beta1"]),
    gateway_api("Gateway", &["v1", "v1beta1"]),
    gateway_api("ListenerSet", &["v1"]),
    gateway_api("HTTPRoute", &["v1", "v1beta1"]),
    gateway_api("GRPCRoute", &["v1"]),
    gateway_api("TLSRoute", &["v1", "v1alpha3", "v1alpha2"]),
    gateway_api("TCPRoute", &["v1", "v1alpha2"]),
    gateway_api("UDPRoute", &["v1", "v1alpha2"]),
    gateway_api("ReferenceGrant", &["v1", "v1beta1"]),
    gateway_api("BackendTLSPolicy", &["v1", "v1alpha3"]),
    envoy_gateway("Backend"),
    envoy_gateway("HTTPRouteFilter"),
    envoy_gateway("EnvoyProxy"),
    envoy_gateway("ClientTrafficPolicy"),
    envoy_gateway("BackendTrafficPolicy"),
    envoy_gateway("SecurityPolicy"),
    envoy_gateway("EnvoyExtensionPolicy"),
    envoy_gateway("EnvoyPatchPolicy"),
    built_in("", "Service", "services", Part::All),
    built_in("", "Namespace", "namespaces", Part::All),
    // Slices that belong to no Service are somebody's own, and nobody can refer to them.
    built_in(
        "discovery.k8s.io",
        "EndpointSlice",
        "endpointslices",
        Part::Labels("kubernetes.io/service-name"),
    ),
    built_in("", "Secret", "secrets", Part::Fields("type=kubernetes.io/tls")),
    // Helm's releases are the largest Secrets of a cluster, and the most frequently written.
    built_in("", "Secret", "secrets", Part::Referenced("type!=kubernetes.io/tls,type!=helm.sh/release.v1")),
    built_in("", "ConfigMap", "configmaps", Part::Referenced("metadata.name!=kube-root-ca.crt")),
];

const fn gateway_api(kind: &'static str, versions: &'static [&'static str]) -> Kind {
    Kind { group: GATEWAY_GROUP, kind, versions, plural: Plural::Installed, part: Part::All }
}

const fn envoy_gateway(kind: &'static str) -> Kind {
    Kind {
        group: ENVOY_GATEWAY_GROUP,
        kind,
        versions: &["v1alpha1"],
        plural: Plural::Installed,
        part: Part::All,
    }
}

const fn built_in(group: &'static str, kind: &'static str, plural: &'static str, part: Part) -> Kind {
    Kind { group, kind, versions: &["v1"], plural: Plural::BuiltIn(plural), part }
}

impl Kind {
    /// What an object of this version says of itself.
    pub fn header(&self, version: &str) -> ObjectHeader {
        ObjectHeader {
            api_version: Some(self.api_version(version)),
            kind: Some(self.kind.to_owned()),
            metadata: None,
        }
    }

    /// `gateway.networking.k8s.io/v1`, or `v1` in the core group.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// Whether it can be missing from a cluster.
    pub fn is_installed(&self) -> bool {
        self.plural == Plural::Installed
    }

    /// Whether its objects are served. Of others it is only said that they are not.
    pub fn is_served(&self) -> bool {
        standing(&self.header(self.versions[0])) == Standing::Read
    }

    /// Whether there is nothing to serve without it, or nothing to serve safely: certificates, and which backends are
    /// spoken to over TLS. A replica that may not read it does not start, so that those before it go on; without any
    /// other kind the rest is served.
    pub fn is_vital(&self) -> bool {
        const SERVED: [&str; 5] = ["GatewayClass", "Gateway", "HTTPRoute", "Service", "EndpointSlice"];
        const SECURE: [&str; 2] = ["Secret", "BackendTLSPolicy"];
        SERVED.contains(&self.kind) || SECURE.contains(&self.kind)
    }

    /// Whether what we find out about objects is written to their status, or read from it.
    pub fn carries_status(&self) -> bool {
        self.is_installed() || self.kind == "Service"
    }
}
