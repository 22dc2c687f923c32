//! From filters as they are written to those that run.
//!
//! A filter that cannot be applied is never left out: its rule answers 500 instead (`HTTPRouteRule.filters`).

use super::aside::Aside;
use super::cors;
use super::extension;
use super::findings::Fault;
use crate::filter::{Filters, HeaderEdits, HostEdit, Mirror, PathEdit, Redirect, Rewrite, Scheme};
use crate::host::HostPattern;
use crate::reply::Reply;
use crate::resource::{self, GrpcRoute, HeaderModifier, HttpFilter, PathModifier, Resource, UrlRewrite};
use http::{HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;

/// Headers that say where a message ends: with one of them changed the next request would be somebody else's.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];
/// Headers of one connection (RFC 9110 7.6.1), which the data path makes for each side by itself.
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"];

/// The types that a GRPCRoute may have.
const OF_CALLS: [&str; 4] =
    ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"];

/// What is remarkable about a list of filters.
#[derive(Default)]
pub(super) struct Remarks {
    /// Filters that cannot be applied: their place in the list, and why.
    pub broken: Vec<(usize, Fault)>,
    /// Filters that can be, but hardly mean what they say.
    pub odd: Vec<(usize, Fault)>,
    /// References that lead nowhere. A mirror is left out then; an authorizer or an extension lets nobody pass.
    pub unresolved: Vec<(usize, Fault)>,
    /// Whether the host becomes the name of the backend that is chosen, where it has one.
    pub host_of_backend: bool,
}

/// Filters in the making.
#[derive(Default)]
pub(super) struct Draft {
    pub filters: Filters,
    mirrors: Vec<Mirror>,
    /// What can be applied, but hardly means what it says.
    pub odd: Vec<Fault>,
    pub host_of_backend: bool,
}

impl Draft {
    /// Adds a rewrite. Several are one where each changes something else.
    pub fn rewrite(&mut self, new: Rewrite) -> Result<(), Fault> {
        let empty = Rewrite { hostname: None, path: None };
        let known = self.filters.rewrite.get_or_insert_with(|| Box::new(empty));
        let hosts = [known.hostname.is_some(), new.hostname.is_some(), self.host_of_backend];
        if (known.path.is_some() && new.path.is_some()) || hosts.into_iter().filter(|is| *is).count() > 1 {
            return Err(Fault::new("IncompatibleFilters", "a second URLRewrite; put both into one"));
        }
        known.hostname = known.hostname.take().or(new.hostname);
        known.path = known.path.take().or(new.path);
        Ok(())
    }
}

/// The filters of a rule or of a backend. `prefixes` says whether every match of the rule is by path prefix.
pub(super) fn compile(
    written: &[HttpFilter],
    prefixes: bool,
    aside: &mut Aside<'_, '_>,
) -> (Filters, Remarks) {
    let mut draft = Draft::default();
    let mut remarks = Remarks::default();
    for (i, filter) in written.iter().enumerate() {
        match add(&mut draft, filter, prefixes, aside) {
            Ok(()) => {}
            Err(fault) if is_reference(&fault) => {
                if filter.request_mirror.is_none() {
                    draft.filters.broken = Some(Reply::BrokenRule);
                }
                remarks.unresolved.push((i, fault));
            }
            Err(fault) => remarks.broken.push((i, fault)),
        }
        remarks.odd.extend(draft.odd.drain(..).map(|fault| (i, fault)));
        let modifier = filter.request_header_modifier.as_ref().or(filter.response_header_modifier.as_ref());
        if let Some(name) = modifier.and_then(|modifier| hop_by_hop(modifier)) {
            let message = format!(
                "`{name}` belongs to one connection and is made for each side anew; it is left alone"
            );
            remarks.odd.push((i, Fault::new("NoEffect", message)));
        }
        if filter.request_redirect.as_deref().is_some_and(changes_nothing) {
            let message = "the redirect leads back to where the request came from; give it a scheme, hostname, port or path";
            remarks.odd.push((i, Fault::new("NoEffect", message)));
        }
    }
    let Draft { mut filters, mirrors, odd: _, host_of_backend } = draft;
    remarks.host_of_backend = host_of_backend;
    if filters.redirect.is_some() && filters.rewrite.is_some() {
        let message = "RequestRedirect and URLRewrite exclude each other; use one of them";
        remarks.broken.push((written.len() - 1, Fault::new("IncompatibleFilters", message)));
    }
    filters.rewrite.take_if(|rewrite| rewrite.hostname.is_none() && rewrite.path.is_none());
    filters.mirrors = mirrors.into();
    if !remarks.broken.is_empty() {
        filters = Filters { broken: Some(Reply::BrokenRule), ..Filters::default() };
    }
    (filters, remarks)
}

fn add(
    draft: &mut Draft,
    written: &HttpFilter,
    prefixes: bool,
    aside: &mut Aside<'_, '_>,
) -> Result<(), Fault> {
    let HttpFilter {
        r#type,
        request_header_modifier,
        response_header_modifier,
        request_redirect,
        url_rewrite,
        request_mirror,
        cors,
        external_auth,
        extension_ref,
    } = written;
    if aside.from.kind == GrpcRoute::KIND && !OF_CALLS.contains(&&**r#type) {
        return Err(unsupported(format!(
            "a GRPCRoute has no filter of type `{type}`, so what it belongs to answers 500; there are {}",
            OF_CALLS.join(", ")
        )));
    }
    let filters = &mut draft.filters;
    match &**r#type {
        "RequestHeaderModifier" => {
            let edits = edits(required(request_header_modifier, "requestHeaderModifier")?)?;
            once(&mut filters.request_headers, edits, r#type)
        }
        "ResponseHeaderModifier" => {
            let edits = edits(required(response_header_modifier, "responseHeaderModifier")?)?;
            once(&mut filters.response_headers, edits, r#type)
        }
        "RequestRedirect" => {
            let redirect = redirect(required(request_redirect, "requestRedirect")?, prefixes)?;
            once(&mut filters.redirect, redirect, r#type)
        }
        "URLRewrite" => draft.rewrite(rewrite(required(url_rewrite, "urlRewrite")?, prefixes)?),
        "RequestMirror" => {
            draft.mirrors.push(aside.mirror(required(request_mirror, "requestMirror")?)?);
            Ok(())
        }
        "CORS" => {
            if filters.cors.is_some() {
                return Err(Fault::new("IncompatibleFilters", "a second CORS; put both into one"));
            }
            filters.cors = Some(Arc::new(cors::compile(required(cors, "cors")?)?));
            Ok(())
        }
        "ExternalAuth" => {
            let auth = aside.external_auth(required(external_auth, "externalAuth")?)?;
            once(&mut filters.external_auth, auth, r#type)
        }
        "ExtensionRef" => extension::add(draft, required(extension_ref, "extensionRef")?, aside),
        other => Err(unsupported(format!(
            "there is no filter of type `{other}`, so what it belongs to answers 500"
        ))),
    }
}

/// Whether a fault is one of a reference, which the condition ResolvedRefs tells.
fn is_reference(fault: &Fault) -> bool {
    matches!(fault.reason, "BackendNotFound" | "RefNotPermitted" | "InvalidKind" | "UnsupportedProtocol")
}

pub(super) fn unsupported(message: impl Into<String>) -> Fault {
    Fault::new("UnsupportedValue", message)
}

fn required<'f, T>(field: &'f Option<Box<T>>, name: &str) -> Result<&'f T, Fault> {
    field
        .as_deref()
        .ok_or_else(|| unsupported(format!("the filter has no `{name}`, which its type asks for")))
}

fn once<T>(place: &mut Option<Box<T>>, filter: T, kind: &str) -> Result<(), Fault> {
    if place.is_some() {
        return Err(Fault::new("IncompatibleFilters", format!("a second {kind}; put both into one")));
    }
    *place = Some(Box::new(filter));
    Ok(())
}

pub(super) fn edits(written: &HeaderModifier) -> Result<HeaderEdits, Fault> {
    let HeaderModifier { set, add, remove } = written;
    let pairs = |headers: &[resource::Header]| -> Result<_, Fault> {
        let ours = headers.iter().filter(|header| !is_hop_by_hop(&header.name));
        ours.map(|header| Ok((name(&header.name)?, value(&header.name, &header.value)?))).collect()
    };
    let remove = remove.iter().filter(|text| !is_hop_by_hop(text));
    Ok(HeaderEdits {
        set: pairs(set)?,
        add: pairs(add)?,
        remove: remove.map(|text| name(text)).collect::<Result<_, _>>()?,
    })
}

fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The first name in a modifier that is not the user's to change.
fn hop_by_hop(modifier: &HeaderModifier) -> Option<&str> {
    let HeaderModifier { set, add, remove } = modifier;
    let edited = set.iter().chain(add).map(|header| &*header.name).chain(remove.iter().map(|name| &**name));
    edited.into_iter().find(|name| is_hop_by_hop(name))
}

pub(super) fn name(text: &str) -> Result<HeaderName, Fault> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| unsupported(format!("`{}` is no header name", text.escape_default())))?;
    if FRAMING.contains(&name.as_str()) {
        return Err(unsupported(format!("`{name}` says where a message ends and cannot be edited")));
    }
    Ok(name)
}

pub(super) fn value(name: &str, text: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| unsupported(format!("the value of `{name}` has characters that a header cannot have")))
}

fn changes_nothing(redirect: &resource::Redirect) -> bool {
    let resource::Redirect { scheme, hostname, path, port, status_code: _ } = redirect;
    scheme.is_none() && hostname.is_none() && path.is_none() && port.is_none()
}

fn redirect(written: &resource::Redirect, prefixes: bool) -> Result<Redirect, Fault> {
    let resource::Redirect { scheme, hostname, path, port, status_code } = written;
    let scheme = match scheme.as_deref() {
        None => None,
        Some("http") => Some(Scheme::Http),
        Some("https") => Some(Scheme::Https),
        Some(other) => {
            return Err(unsupported(format!("there is no scheme `{other}`; there are http and https")));
        }
    };
    let status = match status_code.unwrap_or(302) {
        301 => StatusCode::MOVED_PERMANENTLY,
        302 => StatusCode::FOUND,
        303 => StatusCode::SEE_OTHER,
        307 => StatusCode::TEMPORARY_REDIRECT,
        308 => StatusCode::PERMANENT_REDIRECT,
        other => {
            return Err(unsupported(format!(
                "status {other} is no redirect; there are 301, 302, 303, 307 and 308"
            )));
        }
    };
    if *port == Some(0) {
        return Err(unsupported("there is no port 0; leave it out, or use one from 1 to 65535"));
    }
    let hostname = hostname.as_deref().map(host).transpose()?;
    Ok(Redirect { scheme, hostname, port: *port, path: path_edit(path.as_ref(), prefixes)?, status })
}

fn rewrite(written: &UrlRewrite, prefixes: bool) -> Result<Rewrite, Fault> {
    let UrlRewrite { hostname, path } = written;
    let hostname = match hostname.as_deref() {
        Some(text) => Some(HostEdit::Literal(value("host", &host(text)?)?)),
        None => None,
    };
    Ok(Rewrite { hostname, path: path_edit(path.as_ref(), prefixes)? })
}

fn host(text: &str) -> Result<String, Fault> {
    match HostPattern::parse(text) {
        Some(HostPattern::Exact(name)) => Ok(name),
        _ => Err(unsupported(format!("`{}` is no host name", text.escape_default()))),
    }
}

fn path_edit(written: Option<&PathModifier>, prefixes: bool) -> Result<Option<PathEdit>, Fault> {
    let Some(PathModifier { r#type, replace_full_path, replace_prefix_match }) = written else {
        return Ok(None);
    };
    match (&**r#type, replace_full_path, replace_prefix_match) {
        ("ReplaceFullPath", Some(path), _) => Ok(Some(PathEdit::Full(sendable(path)?))),
        ("ReplacePrefixMatch", _, Some(_)) if !prefixes => Err(Fault::new(
            "IncompatibleFilters",
            "ReplacePrefixMatch needs PathPrefix matches, for only they say which prefix to replace",
        )),
        ("ReplacePrefixMatch", _, Some(prefix)) => Ok(Some(PathEdit::prefix(&sendable(prefix)?))),
        ("ReplaceFullPath", None, _) => {
            Err(unsupported("the path has no `replaceFullPath`, which its type asks for"))
        }
        ("ReplacePrefixMatch", _, None) => {
            Err(unsupported("the path has no `replacePrefixMatch`, which its type asks for"))
        }
        (other, _, _) => Err(unsupported(format!(
            "there is no type `{other}`; there are ReplaceFullPath and ReplacePrefixMatch"
        ))),
    }
}

/// A path that a request line can carry, with its leading slash. It may bring a query along, as some do.
fn sendable(path: &str) -> Result<String, Fault> {
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(unsupported(format!(
            "path `{}` has characters that must be percent-encoded in a path",
            path.escape_default()
        )));
    }
    Ok(if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

#[cfg(test)]
mod tests {
    use super::super::backends::{Identities, Resolver};
    use super::super::findings::Findings;
    use super::super::grants::From;
    use super::super::policies::BackendTlsPolicies;
    use super::*;
    use crate::resource::Snapshot;
    use crate::routing::RuleName;
    use std::time::Duration;

    fn filter(yaml: &str) -> HttpFilter {
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn compile(written: &[HttpFilter], prefixes: bool) -> (Filters, Remarks) {
        let snapshot = Snapshot::default();
        let mut findings = Findings::default();
        let policies = BackendTlsPolicies::new(&snapshot, &mut findings);
        let mut aside = Aside {
            backends: &mut Resolver::new(&snapshot, policies, Identities::default()),
            clusters: &mut Vec::new(),
            findings: &mut findings,
            from: From { kind: "HTTPRoute", namespace: "default" },
            rule: &RuleName::new("HTTPRoute", "default", "app", 0),
            connect_timeout: Duration::ZERO,
        };
        super::compile(written, prefixes, &mut aside)
    }

    #[test]
    fn a_filter_that_cannot_be_applied_breaks_its_rule() {
        for (yaml, reason, words) in [
            ("{type: ExtensionRef}", "UnsupportedValue", "no `extensionRef`"),
            ("{type: CORS, cors: {allowOrigins: ['a b']}}", "UnsupportedValue", "a b"),
            (
                "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 101}}",
                "UnsupportedValue",
                "more than all",
            ),
            (
                "{type: ExternalAuth, externalAuth: {protocol: SOAP, backendRef: {name: a, port: 1}}}",
                "UnsupportedValue",
                "SOAP",
            ),
            ("{type: Sepia}", "UnsupportedValue", "no filter of type `Sepia`"),
            ("{type: URLRewrite}", "UnsupportedValue", "no `urlRewrite`"),
            ("{type: RequestRedirect, requestRedirect: {statusCode: 304}}", "UnsupportedValue", "304"),
            ("{type: RequestRedirect, requestRedirect: {scheme: ftp}}", "UnsupportedValue", "ftp"),
            ("{type: RequestRedirect, requestRedirect: {port: 0}}", "UnsupportedValue", "port 0"),
            (
                "{type: RequestRedirect, requestRedirect: {hostname: '*.a.test'}}",
                "UnsupportedValue",
                "host name",
            ),
            (
                "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}",
                "IncompatibleFilters",
                "PathPrefix",
            ),
            (
                "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: '/a b'}}}",
                "UnsupportedValue",
                "percent-encoded",
            ),
            (
                "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: \"a\\r\\nb: c\"}]}}",
                "UnsupportedValue",
                "cannot have",
            ),
            (
                "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Content-Length]}}",
                "UnsupportedValue",
                "says where a message ends",
            ),
            (
                "{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: 'a b', value: c}]}}",
                "UnsupportedValue",
                "no header name",
            ),
        ] {
            let (filters, remarks) = compile(&[filter(yaml)], false);
            let (_, fault) = &remarks.broken[0];
            assert_eq!(fault.reason, reason, "{yaml}");
            assert!(fault.message.contains(words), "{yaml}: {}", fault.message);
            assert_eq!(filters.broken, Some(Reply::BrokenRule), "{yaml}");
            assert!(filters.request_headers.is_none() && filters.redirect.is_none(), "{yaml}");
        }
    }

    #[test]
    fn a_mirror_that_leads_nowhere_is_left_out_and_all_else_lets_nobody_pass() {
        let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}}}";
        let auth = "{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: gone, port: 80}}}";
        let filter_of_eg = "{type: ExtensionRef, extensionRef: {group: gateway.envoyproxy.io, kind: HTTPRouteFilter, name: gone}}";
        for (yaml, broken) in
            [(mirror, None), (auth, Some(Reply::BrokenRule)), (filter_of_eg, Some(Reply::BrokenRule))]
        {
            let (filters, remarks) = compile(&[filter(yaml)], true);
            assert_eq!(remarks.unresolved[0].1.reason, "BackendNotFound", "{yaml}");
            assert_eq!((filters.broken, filters.mirrors.len()), (broken, 0), "{yaml}");
        }
    }

    #[test]
    fn filters_that_exclude_each_other_break_the_rule() {
        let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https}}";
        let rewrite = "{type: URLRewrite, urlRewrite: {hostname: a.test}}";
        for pair in [[redirect, rewrite], [redirect, redirect]] {
            let (filters, remarks) = compile(&pair.map(filter), true);
            assert_eq!(remarks.broken[0].1.reason, "IncompatibleFilters", "{pair:?}");
            assert!(filters.broken.is_some(), "{pair:?}");
        }
    }

    #[test]
    fn an_empty_header_value_is_forwarded() {
        let yaml = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: ''}]}}";
        let (filters, remarks) = compile(&[filter(yaml)], true);
        assert!(remarks.broken.is_empty());
        let edits = filters.request_headers.unwrap();
        assert_eq!(edits.set, [(HeaderName::from_static("x-a"), HeaderValue::from_static(""))]);
    }
}
