//! "Did you mean": the name that a misspelt one was probably meant to be.

/// The field names of the kinds whose unknown fields are reported.
const FIELDS: &[&str] = &[
    "absoluteTimeout",
    "add",
    "addresses",
    "allowCredentials",
    "allowHeaders",
    "allowMethods",
    "allowOrigins",
    "allowedHeaders",
    "allowedListeners",
    "allowedResponseHeaders",
    "allowedRoutes",
    "appProtocols",
    "attempts",
    "backend",
    "backendRef",
    "backendRefs",
    "backendRequest",
    "backoff",
    "caCertificateRefs",
    "certificateRefs",
    "clientCertificateRef",
    "codes",
    "controllerName",
    "cookieConfig",
    "cors",
    "default",
    "description",
    "endpoints",
    "exposeHeaders",
    "extensionRef",
    "externalAuth",
    "filters",
    "forwardBody",
    "fqdn",
    "fraction",
    "from",
    "frontend",
    "gatewayClassName",
    "group",
    "grpc",
    "headers",
    "hostname",
    "hostnames",
    "http",
    "infrastructure",
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
    "method",
    "mode",
    "name",
    "namespace",
    "namespaces",
    "numerator",
    "options",
    "parametersRef",
    "parentRefs",
    "path",
    "perPort",
    "percent",
    "port",
    "protocol",
    "queryParams",
    "remove",
    "replaceFullPath",
    "replacePrefixMatch",
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
    "spec",
    "statusCode",
    "timeouts",
    "tls",
    "to",
    "type",
    "unix",
    "urlRewrite",
    "validation",
    "value",
    "values",
    "weight",
    "wellKnownCACertificates",
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
}
