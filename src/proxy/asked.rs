//! What a request asks for: read from its head once, and needed after the head has become the upstream's.

use super::answer::Answer;
use super::exchange::Ended;
use super::{Connection, answer, outgoing, target};
use crate::filter::Origin;
use crate::reply::Reply;
use crate::routing::Request;
use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, request};
use std::borrow::Cow;

/// Who and what is asked for.
pub struct Asked {
    /// As it stood in the request.
    pub host: HeaderValue,
    name: Name,
    /// Path and query, the path normalised.
    pub target: PathAndQuery,
    /// The protocol that the client wants to change to.
    pub upgrade: Option<HeaderValue>,
    /// Whether the request may be sent twice without harm (RFC 9110 9.2.2).
    pub idempotent: bool,
}

/// The host that is asked for: lower case, without port.
enum Name {
    /// It stands so at the beginning of the field.
    Written(usize),
    Lowered(String),
}

impl Asked {
    /// Reads a head, and refuses what is ambiguous.
    pub fn read(head: &request::Parts) -> Result<Self, Ended> {
        if head.method == Method::CONNECT {
            return Err(Reply::MethodNotServed.into());
        }
        // A target with an authority counts more than `Host` (RFC 9112 3.2.2, RFC 9113 8.3.1).
        let host = match head.uri.authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(|_| Reply::BadRequest)?,
            None => head.headers.get(HOST).cloned().unwrap_or(HeaderValue::from_static("")),
        };
        let name = match target::host(host.to_str().map_err(|_| Reply::BadRequest)?)? {
            Cow::Borrowed(name) => Name::Written(name.len()),
            Cow::Owned(name) => Name::Lowered(name),
        };
        Ok(Self {
            name,
            target: normalised(head.uri.path_and_query())?,
            upgrade: outgoing::wanted_upgrade(head),
            idempotent: head.method.is_idempotent(),
            host,
        })
    }

    /// The host, lower case and without port.
    pub fn name(&self) -> &str {
        match &self.name {
            Name::Written(length) => self.host.to_str().map_or("", |host| &host[..*length]),
            Name::Lowered(name) => name,
        }
    }

    /// The path, normalised.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// With its `?`, or empty.
    pub fn query(&self) -> &str {
        &self.target.as_str()[self.target.path().len()..]
    }

    /// What of it decides who serves the request.
    pub fn request<'a>(&'a self, connection: &'a Connection, head: &'a request::Parts) -> Request<'a> {
        Request {
            host: self.name(),
            server_name: connection.server_name.as_deref(),
            path: self.path(),
            query: self.target.query().unwrap_or_default(),
            method: &head.method,
            headers: &head.headers,
        }
    }

    /// What of it a redirect is made of; `matched` is the length of the prefix that the rule matched.
    pub fn origin<'a>(&'a self, connection: &Connection, matched: usize) -> Origin<'a> {
        Origin {
            tls: connection.server_name.is_some(),
            port: connection.socket.port,
            host: self.name(),
            path: self.path(),
            query: self.query(),
            matched,
        }
    }
}

/// A target whose path is what it means.
fn normalised(target: Option<&PathAndQuery>) -> Result<PathAndQuery, Ended> {
    let Some(target) = target else { return Ok(PathAndQuery::from_static("/")) };
    match target::normalise(target.path()) {
        Ok(Cow::Borrowed(_)) => Ok(target.clone()),
        Ok(Cow::Owned(path)) => {
            let query = &target.as_str()[target.path().len()..];
            Ok(outgoing::path_and_query(&path, query)?)
        }
        Err(Reply::EscapedSlash) => {
            let location = target::unescape_slashes(target.as_str());
            let redirect = Answer::redirect(Reply::EscapedSlash.status(), &location)?;
            Err(redirect.because(Reply::EscapedSlash).into())
        }
        Err(reply) => Err(reply.into()),
    }
}

/// How a client wants answers that no upstream gives.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Errors travel in `grpc-status`.
    pub grpc: bool,
    /// The answer is its head alone.
    pub head: bool,
}

impl Manner {
    /// The manner that a request asks for.
    pub fn of(head: &request::Parts) -> Self {
        Self { grpc: answer::is_grpc(&head.headers), head: head.method == Method::HEAD }
    }
}
