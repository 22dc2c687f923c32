//! What a GatewayClass of ours is told, and the features that trigate claims.

use super::condition::conditions;
use crate::compile::Verdict;
use crate::resource::GatewayClass;
use serde_json::{Value, json};

/// The minor versions of the Gateway API whose objects are understood.
const KNOWN_MINORS: std::ops::RangeInclusive<u32> = 0..=6;

/// What the conformance run proves, sorted. A feature that is listed here and not proved fails that run.
const FEATURES: &[&str] = &[
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructurePropagation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

/// The status of a class; `bundle` is the version of the Gateway API that is installed, as far as it is known, and
/// `fault` what is wrong with its parameters.
pub(super) fn class(class: &GatewayClass, bundle: Option<&str>, fault: Option<String>) -> Value {
    let accepted = match fault {
        Some(message) => Verdict::no("InvalidParameters", message),
        None => Verdict::yes("Accepted"),
    };
    let version = bundle.map(version);
    let verdicts = [("Accepted", &accepted)].into_iter();
    let verdicts = verdicts.chain(version.iter().map(|version| ("SupportedVersion", version)));
    let features: Vec<Value> = FEATURES.iter().map(|name| json!({ "name": name })).collect();
    json!({
        "conditions": conditions(class.metadata.generation(), verdicts),
        "supportedFeatures": features,
    })
}

fn version(bundle: &str) -> Verdict {
    let mut numbers = bundle.trim_start_matches('v').split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if KNOWN_MINORS.contains(&minor) => Verdict::yes("SupportedVersion"),
        _ => Verdict::no(
            "UnsupportedVersion",
            format!(
                "version {bundle} of the Gateway API is served as far as it is like v1.{}",
                KNOWN_MINORS.end()
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::class_parameters;
    use crate::source::read_text;
    use std::path::Path;

    #[test]
    fn features_are_sorted_as_the_api_wants_them() {
        assert!(FEATURES.is_sorted());
    }

    #[test]
    fn parameters_that_nobody_knows_are_not_accepted() {
        let proxy = "{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: EnvoyProxy, metadata: {name: p, namespace: n}}";
        let snapshot = read_text(Path::new("proxy.yaml"), proxy);
        let class_with = |parameters: &str| {
            let text = format!(
                "{{metadata: {{name: c}}, spec: {{controllerName: c, parametersRef: {parameters}}}}}"
            );
            let of: GatewayClass = serde_saphyr::from_str(&text).unwrap();
            let status = class(&of, None, class_parameters(&snapshot, &of).err());
            let accepted = &status["conditions"][0];
            format!("{}={}/{}", accepted["type"], accepted["status"], accepted["reason"]).replace('"', "")
        };
        let known = "group: gateway.envoyproxy.io, kind: EnvoyProxy";
        for (parameters, want) in [
            (format!("{{{known}, name: p, namespace: n}}"), "Accepted=True/Accepted"),
            (format!("{{{known}, name: p}}"), "Accepted=False/InvalidParameters"),
            (format!("{{{known}, name: other, namespace: n}}"), "Accepted=False/InvalidParameters"),
            (
                "{group: example.test, kind: Parameters, name: p}".to_owned(),
                "Accepted=False/InvalidParameters",
            ),
            ("{group: '', kind: ConfigMap, name: p}".to_owned(), "Accepted=False/InvalidParameters"),
        ] {
            assert_eq!(class_with(&parameters), want, "{parameters}");
        }
    }

    #[test]
    fn versions_of_the_future_are_said_to_be_unsupported() {
        assert!(version("v1.6.1").holds);
        assert!(!version("v1.9.0").holds && !version("v2.0.0").holds && !version("x").holds);
    }
}
