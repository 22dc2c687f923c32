//! The filters of a rule or a backend in a dump, in the order in which they run.

use super::Page;
use crate::filter::{
    AuthPath, AuthProtocol, ExternalAuth, Fields, Filters, HeaderEdits, HostEdit, OnFailure, PathEdit,
    Redirect, RegexEdit, Rewrite,
};
use std::fmt::Write;

/// Writes those that there are.
pub(super) fn dump_filters(filters: &Filters, depth: usize, page: &mut Page) {
    let Filters {
        broken,
        cors,
        external_auth,
        redirect,
        direct_response,
        request_headers,
        credential,
        rewrite,
        hides_host,
        mirrors,
        response_headers,
    } = filters;
    let mut entry = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            page.entry(depth, key, value);
        }
    };
    entry("answers", broken.map(|reply| format!("{} {reply:?}", reply.status().as_u16())));
    entry("cors", cors.as_ref().map(ToString::to_string));
    entry("external auth", external_auth.as_deref().map(auth_words));
    entry("redirect", redirect.as_deref().map(redirect_words));
    let direct = direct_response.as_deref();
    entry(
        "direct response",
        direct.map(|it| {
            let filled = if it.template.is_some() { ", filled in for each request" } else { "" };
            format!("{} with {} bytes{filled}", it.status().as_u16(), it.body().len())
        }),
    );
    entry("request headers", request_headers.as_deref().map(edit_words));
    entry("credential", credential.as_deref().map(|credential| format!("in {}", credential.header())));
    entry("rewrite", rewrite.as_deref().map(rewrite_words));
    entry("x-forwarded-host", hides_host.then(|| "not sent".to_owned()));
    for (i, mirror) in mirrors.iter().enumerate() {
        entry(&format!("mirror {i}"), Some(format!("{} to {}", mirror.share, mirror.to)));
    }
    entry("response headers", response_headers.as_deref().map(edit_words));
}

fn auth_words(auth: &ExternalAuth) -> String {
    let ExternalAuth { to, protocol, asks_with, body, timeout, on_failure } = auth;
    let mut words = match protocol {
        AuthProtocol::Http { path: AuthPath::Prefix(prefix), to_backend } => {
            format!("HTTP at {to}, below {prefix}/, {} to the backend", field_words(to_backend))
        }
        AuthProtocol::Http { path: AuthPath::Full(path), to_backend } => {
            format!("HTTP at {to}, {path}, {} to the backend", field_words(to_backend))
        }
        AuthProtocol::Grpc { authority, .. } => {
            format!("gRPC at {to}, {}", String::from_utf8_lossy(authority.as_bytes()))
        }
    };
    let _ = write!(words, ", asked with {}, within {timeout:?}", field_words(asks_with));
    if let Some(most) = body {
        let _ = write!(words, ", and a body of up to {most} bytes");
    }
    // Writing to a string cannot fail.
    let _ = match on_failure {
        OnFailure::Deny(status) => write!(words, ", else {}", status.as_u16()),
        OnFailure::Allow => write!(words, ", else allowed"),
    };
    words
}

fn field_words(fields: &Fields) -> String {
    match fields {
        Fields::All => "all headers".to_owned(),
        Fields::Only(names) => format!("{names:?}"),
    }
}

fn redirect_words(redirect: &Redirect) -> String {
    let Redirect { scheme, hostname, port, path, status } = redirect;
    let mut words = status.as_u16().to_string();
    if let Some(scheme) = scheme {
        let _ = write!(words, ", scheme {scheme:?}");
    }
    if let Some(hostname) = hostname {
        let _ = write!(words, ", host {hostname}");
    }
    if let Some(port) = port {
        let _ = write!(words, ", port {port}");
    }
    if let Some(path) = path {
        let _ = write!(words, ", {}", path_words(path));
    }
    words
}

fn rewrite_words(rewrite: &Rewrite) -> String {
    let Rewrite { hostname, path } = rewrite;
    let host = hostname.as_ref().map(|host| match host {
        HostEdit::Literal(host) => format!("host {}", String::from_utf8_lossy(host.as_bytes())),
        HostEdit::Header(name) => format!("host from header {name}"),
        HostEdit::Path(edit) => format!("host from path {}", regex_words(edit)),
    });
    let path = path.as_ref().map(path_words);
    host.into_iter().chain(path).collect::<Vec<_>>().join(", ")
}

fn path_words(edit: &PathEdit) -> String {
    match edit {
        PathEdit::Full(path) => format!("whole path {path}"),
        PathEdit::Prefix(path) if path.is_empty() => "prefix /".to_owned(),
        PathEdit::Prefix(path) => format!("prefix {path}"),
        PathEdit::Regex(edit) => format!("path {}", regex_words(edit)),
    }
}

fn regex_words(edit: &RegexEdit) -> String {
    format!("{} to {}", edit.pattern(), edit.substitution())
}

fn edit_words(edits: &HeaderEdits) -> String {
    let HeaderEdits { set, add, remove } = edits;
    let value = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let set = set.iter().map(|(name, text)| format!("set {name}={}", value(text)));
    let add = add.iter().map(|(name, text)| format!("add {name}={}", value(text)));
    let remove = remove.iter().map(|name| format!("remove {name}"));
    set.chain(add).chain(remove).collect::<Vec<_>>().join(", ")
}
