//! "Did you mean": the name that a misspelt one was probably meant to be.

use crate::resource::{ENVOY_GATEWAY_GROUP, GATEWAY_GROUP};

/// The field names of the kinds whose unknown fields are reported.
const FIELDS: &[&str] = &[
    "absoluteTimeout",
    "add",
    "address",
    "addresses",
    "allowCredentials",
    "allowHeaders",
    "allowMethods",
    "allowOrigins",
    "allowedHeaders",
    "allowedListeners",
    "allowedResponseHeaders",
    "allowedRoutes",
    "alpnProtocols",
    "appProtocols",
    "appendXForwardedHost",
    "attempts",
    "autoSNIFromEndpointHostname",
    "backend",
    "backendRef",
    "backendRefs",
    "backendRequest",
    "backoff",
    "body",
    "caCertificateRefs",
    "certificateRefs",
    "ciphers",
    "clientCertificateRef",
    "codes",
    "contentType",
    "controllerName",
    "cookieConfig",
    "cookies",
    "cors",
    "credential",
    "credentialInjection",
    "default",
    "defaultScope",
    "denominator",
    "description",
    "directResponse",
    "endpoints",
    "exposeHeaders",
    "extensionRef",
    "externalAuth",
    "fallback",
    "filters",
    "forwardBody",
    "fqdn",
    "fraction",
    "from",
    "frontend",
    "gatewayClassName",
    "group",
    "grpc",
    "header",
    "headers",
    "hostname",
    "hostnames",
    "http",
    "idleTimeout",
    "infrastructure",
    "inline",
    "insecureSkipVerify",
    "kind",
    "kinds",
    "lifetimeType",
    "listeners",
    "matchExpressions",
    "matchLabels",
    "matches",
    "maxAge",
    "maxSize",
    "maxVersion",
    "method",
    "minVersion",
    "mode",
    "name",
    "namespace",
    "namespaces",
    "numerator",
    "options",
    "overwrite",
    "parametersRef",
    "parentRefs",
    "path",
    "pathRegex",
    "pattern",
    "perPort",
    "percent",
    "port",
    "protocol",
    "queryParams",
    "remove",
    "replaceFullPath",
    "replacePrefixMatch",
    "replaceRegexMatch",
    "request",
    "requestHeaderModifier",
    "requestMirror",
    "requestRedirect",
    "responseHeaderModifier",
    "retry",
    "rules",
    "scheme",
    "sectionName",
    "selector",
    "service",
    "sessionName",
    "sessionPersistence",
    "set",
    "sni",
    "spec",
    "statusCode",
    "subjectAltNames",
    "substitution",
    "targetRefs",
    "timeouts",
    "tls",
    "to",
    "type",
    "unix",
    "urlRewrite",
    "useDefaultGateways",
    "validation",
    "value",
    "valueRef",
    "values",
    "weight",
    "wellKnownCACertificates",
    "zone",
];

/// The known field that is spelt most like `unknown`.
pub(super) fn field(unknown: &str) -> Option<&'static str> {
    let lower = unknown.to_ascii_lowercase();
    FIELDS
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, &known.to_ascii_lowercase()), *known))
        .filter(|(distance, known)| *known != unknown && *distance <= 1 + known.len() / 5)
        .min()
        .map(|(_, known)| known)
}

/// The kinds that are read, with the versions in which they are written, the best first.
const KINDS: &[(&str, &str, &[&str])] = &[
    (GATEWAY_GROUP, "GatewayClass", &["v1", "v1beta1"]),
    (GATEWAY_GROUP, "Gateway", &["v1", "v1beta1"]),
    (GATEWAY_GROUP, "ListenerSet", &["v1"]),
    (GATEWAY_GROUP, "HTTPRoute", &["v1", "v1beta1"]),
    (GATEWAY_GROUP, "GRPCRoute", &["v1", "v1alpha2"]),
    (GATEWAY_GROUP, "TLSRoute", &["v1", "v1alpha3", "v1alpha2"]),
    (GATEWAY_GROUP, "TCPRoute", &["v1", "v1alpha2"]),
    (GATEWAY_GROUP, "UDPRoute", &["v1", "v1alpha2"]),
    (GATEWAY_GROUP, "ReferenceGrant", &["v1", "v1beta1"]),
    (GATEWAY_GROUP, "BackendTLSPolicy", &["v1", "v1alpha3"]),
    (ENVOY_GATEWAY_GROUP, "Backend", &["v1alpha1"]),
    (ENVOY_GATEWAY_GROUP, "HTTPRouteFilter", &["v1alpha1"]),
    ("discovery.k8s.io", "EndpointSlice", &["v1", "v1beta1"]),
    ("", "Service", &["v1"]),
    ("", "Secret", &["v1"]),
    ("", "ConfigMap", &["v1"]),
    ("", "Namespace", &["v1"]),
];

/// What an object of a kind that is not read was probably meant to be: its `apiVersion` and `kind`.
pub(super) fn kind(group: &str, kind: &str) -> Option<(String, &'static str)> {
    let named =
        |name: &str| strsim::damerau_levenshtein(&kind.to_ascii_lowercase(), &name.to_ascii_lowercase());
    let (of, name, versions) = KINDS
        .iter()
        .filter(|(of, name, _)| match *of == group {
            // An `SCTPRoute` is none of ours, and as near to one as two letters.
            true => named(name) <= 1,
            false => kind == *name && is_near(group, of),
        })
        .min_by_key(|(_, name, _)| named(name))?;
    Some((api_version(of, versions[0]), name))
}

/// Whether `group` is `known`, misspelt: left out, in another order, or with other letters.
fn is_near(group: &str, known: &str) -> bool {
    let sorted = |text: &str| {
        let mut parts: Vec<_> = text.split('.').map(str::to_ascii_lowercase).collect();
        parts.sort();
        parts
    };
    let left_out = group.is_empty() && !known.is_empty();
    left_out || sorted(group) == sorted(known) || strsim::damerau_levenshtein(group, known) <= 4
}

/// The versions of a kind that is read, where `version` is none of them.
pub(super) fn versions(group: &str, kind: &str, version: &str) -> Option<&'static [&'static str]> {
    let (_, _, versions) = KINDS.iter().find(|(of, name, _)| (*of, *name) == (group, kind))?;
    (!versions.contains(&version)).then_some(*versions)
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_suggests_the_one_that_was_meant() {
        for (unknown, want) in [
            ("backendRef", Some("backendRefs")),
            ("hostName", Some("hostname")),
            ("hostanmes", Some("hostnames")),
            ("parentRef", Some("parentRefs")),
            ("match", Some("matches")),
            ("timeout", Some("timeouts")),
            ("wholly-other", None),
        ] {
            assert_eq!(field(unknown), want, "{unknown}");
        }
    }

    #[test]
    fn a_misspelt_kind_or_group_suggests_the_one_that_was_meant() {
        for (group, written, want) in [
            (GATEWAY_GROUP, "HttpRoute", Some(("gateway.networking.k8s.io/v1", "HTTPRoute"))),
            (GATEWAY_GROUP, "HTTPRoutes", Some(("gateway.networking.k8s.io/v1", "HTTPRoute"))),
            (GATEWAY_GROUP, "GrpcRoutes", Some(("gateway.networking.k8s.io/v1", "GRPCRoute"))),
            ("networking.gateway.k8s.io", "HTTPRoute", Some(("gateway.networking.k8s.io/v1", "HTTPRoute"))),
            ("", "HTTPRoute", Some(("gateway.networking.k8s.io/v1", "HTTPRoute"))),
            ("gateway.envoyproxy.oi", "Backend", Some(("gateway.envoyproxy.io/v1alpha1", "Backend"))),
            ("", "Sevice", Some(("v1", "Service"))),
            ("", "Pod", None),
            ("networking.istio.io", "Gateway", None),
            ("policy.linkerd.io", "HTTPRoute", None),
            (GATEWAY_GROUP, "SCTPRoute", None),
        ] {
            let found = kind(group, written);
            let found = found.as_ref().map(|(version, kind)| (version.as_str(), *kind));
            assert_eq!(found, want, "{group} {written}");
        }
    }

    #[test]
    fn a_version_that_is_none_is_told() {
        assert_eq!(versions(GATEWAY_GROUP, "HTTPRoute", "v1"), None);
        assert_eq!(versions(GATEWAY_GROUP, "HTTPRoute", "v2"), Some(&["v1", "v1beta1"][..]));
        assert_eq!(versions("apps", "Deployment", "v2"), None);
    }
}
