//! `extensionRef` to Envoy Gateway's HTTPRouteFilter: a direct response, rewrites by regular expression, a credential.
//!
//! A reference that leads nowhere breaks what it belongs to, as the Gateway API demands of it: it may name
//! an access check.

use super::aside::Aside;
use super::filters::{Draft, edits, name, unsupported, value};
use super::findings::{Fault, called, there_is};
use super::grants::{From, To, allows};
use crate::filter::{Credential, DirectResponse, HostEdit, PathEdit, RegexEdit, Rewrite, Template};
use crate::resource::{
    Backend, BodySource, ConfigMap, CredentialInjection, CredentialSource, ENVOY_GATEWAY_GROUP, ExtraMatch,
    FixedAnswer, HostRewrite, HttpBackendRef, HttpFilter, HttpRouteFilter, HttpRouteFilterSpec, LocalRef,
    Objects, PathRewrite, RegexReplacement, Resource, Secret, Service, Snapshot, UrlRewriteExtension,
};
use bytes::Bytes;
use http::HeaderValue;

/// The key of a ConfigMap whose value is a body; without it the first value is.
const BODY_KEY: &str = "response.body";
/// The key of a Secret whose value is a credential.
const CREDENTIAL_KEY: &str = "credential";

/// Adds what the reference names to the filters.
pub(super) fn add(draft: &mut Draft, reference: &LocalRef, aside: &Aside<'_, '_>) -> Result<(), Fault> {
    let LocalRef { group, kind, name } = reference;
    if (&**group, &**kind) != (ENVOY_GATEWAY_GROUP, HttpRouteFilter::KIND) {
        let message = format!(
            "{kind} of group `{group}` is no filter; there is HTTPRouteFilter of {ENVOY_GATEWAY_GROUP}"
        );
        return Err(Fault::new("InvalidKind", message));
    }
    let snapshot = aside.backends.snapshot();
    let namespace = aside.from.namespace;
    let filter = found(&snapshot.http_route_filters, namespace, name, "HTTPRouteFilters")?;
    apply(draft, &filter.spec, snapshot, aside.from).map_err(|Fault { reason, message }| {
        Fault::new(reason, format!("{}: {message}", called(HttpRouteFilter::KIND, namespace, name)))
    })
}

fn apply(
    draft: &mut Draft,
    spec: &HttpRouteFilterSpec,
    snapshot: &Snapshot,
    from: From<'_>,
) -> Result<(), Fault> {
    let HttpRouteFilterSpec { url_rewrite, direct_response, credential_injection, matches } = spec;
    let filters = url_rewrite.is_some() || direct_response.is_some() || credential_injection.is_some();
    // What they ask of requests belongs to the matches of the rule.
    if !filters && matches.is_empty() {
        draft.odd.push(Fault::new("NoEffect", "the HTTPRouteFilter asks for nothing"));
    }
    if let Some(written) = url_rewrite {
        rewrite(draft, written)?;
    }
    if let Some(written) = direct_response {
        let answer = direct(draft, written, snapshot, from)?;
        once(&mut draft.filters.direct_response, Box::new(answer), "directResponse")?;
    }
    if let Some(written) = credential_injection {
        let secret = credential(written, snapshot, from.namespace)?;
        once(&mut draft.filters.credential, Box::new(secret), "credentialInjection")?;
    }
    Ok(())
}

/// What the HTTPRouteFilters among these filters ask of cookies: the place of each, and its matches.
pub(super) fn asked<'s>(
    snapshot: &'s Snapshot,
    namespace: &str,
    filters: &[HttpFilter],
) -> Vec<(usize, &'s [ExtraMatch])> {
    let asked = filters.iter().enumerate().filter_map(|(i, filter)| {
        let LocalRef { group, kind, name } = filter.extension_ref.as_deref()?;
        let ours = (&**group, &**kind) == (ENVOY_GATEWAY_GROUP, HttpRouteFilter::KIND);
        let found = snapshot.http_route_filters.get(namespace, name).filter(|_| ours)?;
        Some((i, &*found.object.spec.matches)).filter(|(_, matches)| !matches.is_empty())
    });
    asked.collect()
}

fn rewrite(draft: &mut Draft, written: &UrlRewriteExtension) -> Result<(), Fault> {
    let UrlRewriteExtension { hostname, path, append_forwarded_host } = written;
    if *append_forwarded_host == Some(false) {
        if hostname.is_none() {
            let message = "appendXForwardedHost counts where the hostname is rewritten, and it is not";
            draft.odd.push(Fault::new("NoEffect", message));
        }
        draft.filters.hides_host |= hostname.is_some();
    }
    let hostname = hostname.as_ref().map(|hostname| host(draft, hostname)).transpose()?.flatten();
    let path = path.as_ref().map(path_edit).transpose()?;
    draft.rewrite(Rewrite { hostname, path })
}

/// The new host; `None` where each backend gives it its own name.
fn host(draft: &mut Draft, written: &HostRewrite) -> Result<Option<HostEdit>, Fault> {
    let HostRewrite { r#type, header, path_regex } = written;
    match (&**r#type, header, path_regex) {
        ("Header", Some(header), _) => Ok(Some(HostEdit::Header(name(header)?))),
        ("PathRegex", _, Some(replacement)) => Ok(Some(HostEdit::Path(regex(replacement)?))),
        ("Backend", _, _) => {
            draft.host_of_backend = true;
            Ok(None)
        }
        ("Header", None, _) => Err(unsupported("the hostname has no `header`, which its type asks for")),
        ("PathRegex", _, None) => {
            Err(unsupported("the hostname has no `pathRegex`, which its type asks for"))
        }
        (other, _, _) => Err(unsupported(format!(
            "there is no type `{other}` of hostname; there are Header, Backend and PathRegex"
        ))),
    }
}

fn path_edit(written: &PathRewrite) -> Result<PathEdit, Fault> {
    let PathRewrite { r#type, replace_regex_match } = written;
    match (&**r#type, replace_regex_match) {
        ("ReplaceRegexMatch", Some(replacement)) => Ok(PathEdit::Regex(regex(replacement)?)),
        ("ReplaceRegexMatch", None) => {
            Err(unsupported("the path has no `replaceRegexMatch`, which its type asks for"))
        }
        (other, _) => {
            Err(unsupported(format!("there is no type `{other}` of path; there is ReplaceRegexMatch")))
        }
    }
}

fn regex(written: &RegexReplacement) -> Result<RegexEdit, Fault> {
    let RegexReplacement { pattern, substitution } = written;
    RegexEdit::new(pattern, substitution).map_err(|error| unsupported(error.to_string()))
}

fn direct(
    draft: &mut Draft,
    written: &FixedAnswer,
    snapshot: &Snapshot,
    from: From<'_>,
) -> Result<DirectResponse, Fault> {
    let FixedAnswer { status_code, content_type, body: source, header } = written;
    let status = status_code.unwrap_or(200);
    if from.kind == "GRPCRoute" && (200..300).contains(&status) {
        // A gRPC client takes it for success and waits for a message.
        return Err(unsupported(format!(
            "status {status} is no answer to a gRPC call; use one that is an error"
        )));
    }
    let content_type = content_type.as_deref().map(|text| value("content-type", text)).transpose()?;
    let text = source.as_ref().map(|source| body(source, snapshot, from.namespace)).transpose()?;
    let text = text.unwrap_or_default();
    let (template, unknown) = Template::parse(text);
    if let Some(operator) = unknown.first() {
        let message = format!("there is no operator `%{operator}%` here; it is sent as it stands");
        draft.odd.push(Fault::new("UnsupportedValue", message));
    }
    let body = Bytes::copy_from_slice(text.as_bytes());
    let mut answer = DirectResponse::new(status, content_type, body)
        .map_err(|error| unsupported(format!("directResponse: {error}")))?;
    answer.template = template.map(Box::new);
    if let Some(header) = header {
        answer.headers = edits(header)?;
    }
    Ok(answer)
}

fn body<'s>(source: &'s BodySource, snapshot: &'s Snapshot, namespace: &str) -> Result<&'s str, Fault> {
    let BodySource { r#type, inline, value_ref } = source;
    match (r#type.as_deref().unwrap_or("Inline"), inline, value_ref) {
        ("Inline", Some(text), _) => Ok(text),
        ("Inline", None, _) => Err(unsupported("the body has no `inline`, which its type asks for")),
        ("ValueRef", _, Some(LocalRef { group, kind, name })) => {
            if (&**group, &**kind) != ("", ConfigMap::KIND) {
                let message = format!("a body cannot be in a {kind} of group `{group}`; use a ConfigMap");
                return Err(Fault::new("InvalidKind", message));
            }
            let map = found(&snapshot.config_maps, namespace, name, "ConfigMaps")?;
            let first = || map.data.iter().next().map(|(_, text)| text);
            map.data.get(BODY_KEY).or_else(first).ok_or_else(|| {
                let called = called(ConfigMap::KIND, namespace, name);
                Fault::new("BackendNotFound", format!("{called} is empty; put the body under `{BODY_KEY}`"))
            })
        }
        ("ValueRef", _, None) => Err(unsupported("the body has no `valueRef`, which its type asks for")),
        (other, _, _) => {
            Err(unsupported(format!("there is no type `{other}` of body; there are Inline and ValueRef")))
        }
    }
}

fn credential(
    written: &CredentialInjection,
    snapshot: &Snapshot,
    own_namespace: &str,
) -> Result<Credential, Fault> {
    let CredentialInjection { header, overwrite, credential: CredentialSource { value_ref } } = written;
    let (group, kind) =
        (value_ref.group.as_deref().unwrap_or_default(), value_ref.kind.as_deref().unwrap_or(Secret::KIND));
    let (namespace, secret) = (value_ref.namespace.as_deref().unwrap_or(own_namespace), &*value_ref.name);
    if (group, kind) != ("", Secret::KIND) {
        let message = format!("a credential cannot be in a {kind} of group `{group}`; use a Secret");
        return Err(Fault::new("InvalidKind", message));
    }
    let from = From { kind: HttpRouteFilter::KIND, namespace: own_namespace };
    let called = called(Secret::KIND, namespace, secret);
    if !allows(snapshot, from, To { group, kind, namespace, name: secret }) {
        let message = format!(
            "no ReferenceGrant in namespace {namespace} lets an HTTPRouteFilter of namespace {own_namespace} use {called}"
        );
        return Err(Fault::new("RefNotPermitted", message));
    }
    let content = found(&snapshot.secrets, namespace, secret, "Secrets")?.get(CREDENTIAL_KEY);
    let content = content.ok_or_else(|| {
        Fault::new(
            "BackendNotFound",
            format!("{called} has no key `{CREDENTIAL_KEY}`, which is the header's value"),
        )
    })?;
    let value = HeaderValue::from_bytes(content.reveal()).map_err(|_| {
        unsupported(format!(
            "`{CREDENTIAL_KEY}` of {called} cannot be in a header, maybe it ends in a line break"
        ))
    })?;
    let header = header.as_deref().map(name).transpose()?;
    Ok(Credential::new(header, value, overwrite.unwrap_or_default()))
}

fn found<'s, T: Resource>(
    objects: &'s Objects<T>,
    namespace: &str,
    name: &str,
    plural: &str,
) -> Result<&'s T, Fault> {
    objects.get(namespace, name).map(|entry| &*entry.object).ok_or_else(|| {
        let there = there_is(objects, namespace, name, plural);
        Fault::new("BackendNotFound", format!("there is no {}; {there}", called(T::KIND, namespace, name)))
    })
}

fn once<T>(place: &mut Option<T>, filter: T, kind: &str) -> Result<(), Fault> {
    if place.is_some() {
        return Err(Fault::new("IncompatibleFilters", format!("a second {kind}; put both into one")));
    }
    *place = Some(filter);
    Ok(())
}

/// The name that a backend has of its own, which `hostname` of type `Backend` asks for. `None` for addresses.
pub(super) fn own_name<'s>(
    snapshot: &'s Snapshot,
    from: From<'_>,
    reference: &HttpBackendRef,
) -> Option<&'s str> {
    let namespace = reference.namespace.as_deref().unwrap_or(from.namespace);
    if reference.kind.as_deref() == Some(Backend::KIND) {
        let backend = snapshot.backends.get(namespace, &reference.name)?;
        let endpoint = backend.object.spec.endpoints.first()?;
        let fqdn = || endpoint.fqdn.as_ref().map(|fqdn| &*fqdn.address);
        return endpoint.hostname.as_deref().or_else(fqdn);
    }
    let spec = &snapshot.services.get(namespace, &reference.name)?.object.spec;
    let external = spec.r#type.as_deref() == Some("ExternalName");
    spec.external_name
        .as_deref()
        .filter(|_| external && reference.kind.as_deref().is_none_or(|kind| kind == Service::KIND))
}
