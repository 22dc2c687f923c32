//! What a GatewayClass of ours is told, and the features that trigate claims.

use super::condition::conditions;
use crate::compile::Verdict;
use crate::resource::{ENVOY_GATEWAY_GROUP, GatewayClass, ParametersRef};
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

/// The status of a class; `bundle` is the version of the Gateway API that is installed, as far as it is known.
pub(super) fn class(class: &GatewayClass, bundle: Option<&str>) -> Value {
    let accepted = match class.spec.parameters_ref.as_deref().and_then(strange) {
        Some(message) => Verdict::no("InvalidParameters", message),
        None => Verdict::yes("Accepted"),
    };
    let version = bundle.map(version);
    let verdicts = [("Accepted", &accepted)].into_iter();
    let verdicts = verdicts.chain(version.iter().map(|version| ("SupportedVersion", version)));
    let features: Vec<Value> = FEATURES.iter().map(|name| json!({ "name": name })).collect();
    json!({
        "conditions": conditions(class.metadata.generation, verdicts),
        "supportedFeatures": features,
    })
}

/// What is wrong with parameters: of all kinds we read Envoy Gateway's only.
pub(super) fn strange(parameters: &ParametersRef) -> Option<String> {
    let known = *parameters.group == *ENVOY_GATEWAY_GROUP && *parameters.kind == *"EnvoyProxy";
    (!known).then(|| {
        let ParametersRef { group, kind, .. } = parameters;
        format!(
            "parameters of kind {kind} ({group}) are not known here, only EnvoyProxy ({ENVOY_GATEWAY_GROUP})"
        )
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

    #[test]
    fn features_are_sorted_as_the_api_wants_them() {
        assert!(FEATURES.is_sorted());
    }

    #[test]
    fn parameters_that_nobody_knows_are_not_accepted() {
        let class_with = |parameters: &str| {
            let text = format!(
                "{{metadata: {{name: c}}, spec: {{controllerName: c, parametersRef: {parameters}}}}}"
            );
            let status = class(&serde_saphyr::from_str(&text).unwrap(), None);
            let accepted = &status["conditions"][0];
            format!("{}={}/{}", accepted["type"], accepted["status"], accepted["reason"]).replace('"', "")
        };
        for (parameters, want) in [
            ("{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: p}", "Accepted=True/Accepted"),
            ("{group: example.test, kind: Parameters, name: p}", "Accepted=False/InvalidParameters"),
            ("{group: '', kind: ConfigMap, name: p}", "Accepted=False/InvalidParameters"),
        ] {
            assert_eq!(class_with(parameters), want, "{parameters}");
        }
    }

    #[test]
    fn versions_of_the_future_are_said_to_be_unsupported() {
        assert!(version("v1.6.1").holds);
        assert!(!version("v1.9.0").holds && !version("v2.0.0").holds && !version("x").holds);
    }
}
