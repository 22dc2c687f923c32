//! The request's head towards the upstream: target, host, framing.

use super::asked::Asked;
use super::target;
use crate::filter::Filters;
use crate::reply::Reply;
use crate::upstream::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri, Version};
use std::borrow::Cow;

/// Host and target as the upstream gets them.
#[derive(Debug, Clone)]
pub struct Address {
    pub host: HeaderValue,
    pub target: PathAndQuery,
}

impl Address {
    /// As it was asked for, or as the rewrites say, each after the one before.
    ///
    /// # Errors
    /// [`Reply::BadRequest`] when the client has a rewrite make a host or a path that is none.
    pub fn new(
        asked: &Asked,
        filters: [Option<&Filters>; 2],
        matched: usize,
        headers: &HeaderMap,
    ) -> Result<Self, Reply> {
        let mut host = asked.host.clone();
        let mut path = Cow::Borrowed(asked.path());
        for rewrite in filters.into_iter().flatten().filter_map(|filters| filters.rewrite.as_deref()) {
            if let Some(other) = rewrite.hostname.as_ref().and_then(|edit| edit.apply(headers, &path)) {
                target::host(other.to_str().map_err(|_| Reply::BadRequest)?)?;
                host = other;
            }
            if let Some(edit) = &rewrite.path {
                path = edit.apply(&path, matched).into_owned().into();
            }
        }
        let target = match path {
            Cow::Borrowed(_) => asked.target.clone(),
            Cow::Owned(path) => path_and_query(&path, asked.query())?,
        };
        Ok(Self { host, target })
    }
}

/// A target of two parts, the second with its `?`, or empty.
///
/// # Errors
/// [`Reply::BadRequest`] for what cannot stand in a request.
pub fn path_and_query(path: &str, query: &str) -> Result<PathAndQuery, Reply> {
    PathAndQuery::try_from([path, query].concat()).map_err(|_| Reply::BadRequest)
}

/// What the upstream is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub address: &'a Address,
    pub tls: bool,
    pub protocol: Protocol,
    /// Whether the request ends with its head.
    pub end: bool,
    /// The `Upgrade` that the client asks for, where the upstream can do it.
    pub upgrade: Option<&'a HeaderValue>,
}

/// Makes the head one that the upstream's protocol can carry.
///
/// # Errors
/// When host or path cannot stand in a request of that protocol.
pub fn address(head: &mut Parts, target: &Target<'_>) -> http::Result<()> {
    let Address { host, target: path } = target.address;
    match target.protocol {
        Protocol::Http1 | Protocol::Opaque => {
            head.version = Version::HTTP_11;
            head.uri = path.clone().into();
            head.headers.insert(HOST, host.clone());
            // What follows a request for an upgrade belongs to the tunnel, so it has no body to be framed.
            let fields = SpecialFields::of(&head.headers);
            frame(head, &fields, target.end || target.upgrade.is_some());
            if fields.cookie {
                join_cookies(&mut head.headers);
            }
            if let Some(upgrade) = target.upgrade {
                head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                head.headers.insert(UPGRADE, upgrade.clone());
            }
        }
        Protocol::Http2 => {
            head.version = Version::HTTP_2;
            let authority = Authority::try_from(host.as_bytes())?;
            let scheme = if target.tls { Scheme::HTTPS } else { Scheme::HTTP };
            head.uri =
                Uri::builder().scheme(scheme).authority(authority).path_and_query(path.clone()).build()?;
            head.headers.remove(HOST);
            head.headers.remove(TRANSFER_ENCODING);
        }
    }
    Ok(())
}

/// Which fields a head has that say more over one protocol than over the other.
#[derive(Debug, Default)]
struct SpecialFields {
    length: bool,
    coding: bool,
    cookie: bool,
}

impl SpecialFields {
    fn of(headers: &HeaderMap) -> Self {
        let mut fields = Self::default();
        for name in headers.keys() {
            fields.length |= *name == CONTENT_LENGTH;
            fields.coding |= *name == TRANSFER_ENCODING;
            fields.cookie |= *name == COOKIE;
        }
        fields
    }
}

/// HTTP/2 splits a cookie for compression; HTTP/1 has one line of it (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if let (Some(_), Some(_)) = (crumbs.next(), crumbs.next()) {
        let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let whole = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).expect("parts of values make a value");
        headers.insert(COOKIE, whole);
    }
}

/// Says how the body ends: by the length that the client gave, else in chunks.
fn frame(head: &mut Parts, fields: &SpecialFields, end: bool) {
    if end {
        if fields.coding {
            head.headers.remove(TRANSFER_ENCODING);
        }
        // Servers answer 411 to these methods without a length (RFC 9110 8.6).
        if !fields.length && matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if !fields.length {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// The protocol that an HTTP/1.1 client asks to change to. HTTP/2 by upgrade is not among them: RFC 9113 3.1 took
/// it back, and a tunnel of it would carry requests past the routes.
pub fn wanted_upgrade(head: &Parts) -> Option<HeaderValue> {
    if head.method != Method::GET || head.version != Version::HTTP_11 {
        return None;
    }
    let upgrade = head.headers.get(UPGRADE)?;
    let asked = head.headers.get_all(CONNECTION).iter().any(|line| {
        line.to_str().is_ok_and(|line| line.split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade")))
    });
    let http2 = upgrade.to_str().is_ok_and(|names| {
        names.split(',').any(|name| {
            let name = name.trim();
            name.eq_ignore_ascii_case("h2c") || name.get(..5).is_some_and(|n| n.eq_ignore_ascii_case("http/"))
        })
    });
    // With a body on its way nobody could say where the tunnel begins.
    let bodiless = !head.headers.contains_key(TRANSFER_ENCODING)
        && head.headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
    (asked && !http2 && bodiless).then(|| upgrade.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/old");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn addressed(
        method: &str,
        end: bool,
        protocol: Protocol,
        fields: &[(&'static str, &'static str)],
    ) -> Parts {
        let mut head = request(method, fields);
        let there = Address {
            host: HeaderValue::from_static("b.test:8080"),
            target: PathAndQuery::from_static("/new?q=1"),
        };
        let target = Target { address: &there, tls: false, protocol, end, upgrade: None };
        address(&mut head, &target).unwrap();
        head
    }

    #[test]
    fn http1_gets_origin_form_and_a_host() {
        let head = addressed("GET", true, Protocol::Http1, &[]);
        assert_eq!(head.uri.to_string(), "/new?q=1");
        assert_eq!(head.headers[HOST], "b.test:8080");
    }

    #[test]
    fn http2_gets_an_authority_and_no_host() {
        let head =
            addressed("POST", false, Protocol::Http2, &[("host", "x"), ("transfer-encoding", "chunked")]);
        assert_eq!(head.uri.to_string(), "http://b.test:8080/new?q=1");
        assert!(head.headers.is_empty(), "{:?}", head.headers);
    }

    #[test]
    fn an_upgrade_has_no_body_to_frame() {
        let mut head = request("GET", &[]);
        let there =
            Address { host: HeaderValue::from_static("b.test"), target: PathAndQuery::from_static("/") };
        let upgrade = HeaderValue::from_static("websocket");
        let target = Target {
            address: &there,
            tls: false,
            protocol: Protocol::Http1,
            end: false,
            upgrade: Some(&upgrade),
        };
        address(&mut head, &target).unwrap();
        assert_eq!(head.headers[UPGRADE], "websocket");
        assert!(!head.headers.contains_key(TRANSFER_ENCODING), "{:?}", head.headers);
    }

    #[test]
    fn http1_has_one_line_of_cookies() {
        let crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")];
        let head = addressed("GET", true, Protocol::Http1, &crumbs);
        let cookies: Vec<_> = head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn a_body_has_one_framing() {
        for (method, end, fields, length, chunked) in [
            ("POST", false, &[("content-length", "5")][..], Some("5"), false),
            ("POST", false, &[("transfer-encoding", "chunked")], None, true),
            ("POST", false, &[], None, true),
            ("POST", true, &[], Some("0"), false),
            ("GET", true, &[("transfer-encoding", "chunked")], None, false),
        ] {
            let head = addressed(method, end, Protocol::Http1, fields);
            let got = head.headers.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap());
            assert_eq!(got, length, "{method} {fields:?}");
            assert_eq!(head.headers.contains_key(TRANSFER_ENCODING), chunked, "{method} {fields:?}");
        }
    }

    #[test]
    fn only_a_tunnel_past_no_route_is_an_upgrade() {
        for (fields, want) in [
            (&[("connection", "Upgrade"), ("upgrade", "websocket")][..], true),
            (&[("connection", "keep-alive, upgrade"), ("upgrade", "foo")], true),
            (&[("upgrade", "websocket")], false),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], false),
            (&[("connection", "upgrade"), ("upgrade", "websocket, HTTP/2.0")], false),
            (&[("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "5")], false),
            (&[("connection", "upgrade"), ("upgrade", "websocket"), ("transfer-encoding", "chunked")], false),
        ] {
            assert_eq!(wanted_upgrade(&request("GET", fields)).is_some(), want, "{fields:?}");
        }
    }
}
