//! Envoy's command operators in the body of a direct response: `%REQ(x-id?:PATH):80%`, `%PROTOCOL%`.

use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// A text with operators in it. A percent sign that begins none stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Box<[Part]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// The first of the fields that the request has, and no more bytes of it than this.
    Request(Box<[Field]>, usize),
    Protocol,
    ResponseCode,
    StartTime,
    ServerName,
    Address(Whose, Shown),
}

/// Whose address it is: the client's, or that of whom the connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Client,
    Peer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Whole,
    WithoutPort,
}

/// A header, or what HTTP/2 has a pseudo-header for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Header(HeaderName),
    Method,
    Path,
    Authority,
    Scheme,
}

/// What of a request operators may tell.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    pub method: &'a Method,
    pub version: Version,
    pub headers: &'a HeaderMap,
    /// Of the TLS handshake; `None` in clear text.
    pub server_name: Option<&'a str>,
    /// As it stood in the request.
    pub host: &'a str,
    pub path: &'a str,
    /// With its `?`, or empty.
    pub query: &'a str,
    pub peer: SocketAddr,
    /// Whom the proxies that are trusted name, else the peer.
    pub client: IpAddr,
    /// Of the response.
    pub status: StatusCode,
}

impl Template {
    /// The template that a text is, or `None` where there is no operator in it; with the operators that are none of
    /// ours, which stay as they are written.
    pub fn parse(text: &str) -> (Option<Self>, Vec<&str>) {
        let (mut parts, mut unknown) = (Vec::new(), Vec::new());
        let (mut literal, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let Some((operator, after)) = operator(rest) else {
                literal.push('%');
                continue;
            };
            match part(operator) {
                Some(part) => {
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal).into()));
                    }
                    parts.push(part);
                }
                None => {
                    unknown.push(operator);
                    let _ = write!(literal, "%{operator}%");
                }
            }
            rest = after;
        }
        if parts.is_empty() {
            return (None, unknown);
        }
        literal.push_str(rest);
        parts.push(Part::Text(literal.into()));
        (Some(Self(parts.into())), unknown)
    }

    /// The text for a request. What the request does not have is `-`, as in Envoy.
    pub fn fill(&self, told: &Told<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            // Writing to a string cannot fail.
            let _ = match part {
                Part::Text(text) => out.write_str(text),
                Part::Request(fields, most) => {
                    let found = fields.iter().find_map(|field| field.of(told));
                    let text = found.unwrap_or_else(|| "-".to_owned());
                    let end = (0..=(*most).min(text.len())).rev().find(|&end| text.is_char_boundary(end));
                    out.write_str(&text[..end.unwrap_or_default()])
                }
                Part::Protocol => write!(out, "{:?}", told.version),
                Part::ResponseCode => write!(out, "{}", told.status.as_u16()),
                Part::StartTime => write!(out, "{:.3}", jiff::Timestamp::now()),
                Part::ServerName => {
                    out.write_str(told.server_name.filter(|name| !name.is_empty()).unwrap_or("-"))
                }
                Part::Address(whose, shown) => {
                    let address = told.address(*whose);
                    match shown {
                        Shown::Whole => write!(out, "{address}"),
                        Shown::WithoutPort => write!(out, "{}", address.ip()),
                    }
                }
            };
        }
        out
    }
}

impl Told<'_> {
    fn address(&self, whose: Whose) -> SocketAddr {
        match whose {
            Whose::Peer => self.peer,
            Whose::Client if self.client == self.peer.ip() => self.peer,
            // Envoy prints port 0 for a client that a header names.
            Whose::Client => SocketAddr::new(self.client, 0),
        }
    }
}

/// The operator at the start of a text, after its percent sign: its name, arguments and length; and what follows it.
fn operator(text: &str) -> Option<(&str, &str)> {
    let name = text.bytes().take_while(|byte| byte.is_ascii_uppercase() || *byte == b'_').count();
    if name < 3 {
        return None;
    }
    let mut end = name;
    if text[end..].starts_with('(') {
        end += text[end..].find(')')? + 1;
    }
    if text[end..].starts_with(':') {
        end += 1 + text[end + 1..].bytes().take_while(u8::is_ascii_digit).count();
    }
    text[end..].strip_prefix('%').map(|after| (&text[..end], after))
}

fn part(operator: &str) -> Option<Part> {
    if let Some(rest) = operator.strip_prefix("REQ(") {
        let (names, limit) = rest.split_once(')')?;
        let most = match limit.strip_prefix(':') {
            Some(digits) => digits.parse().ok()?,
            None => usize::MAX,
        };
        let fields = names.split('?').map(Field::parse).collect::<Option<Vec<_>>>()?;
        return (fields.len() <= 2).then(|| Part::Request(fields.into(), most));
    }
    match operator {
        "PROTOCOL" => Some(Part::Protocol),
        "RESPONSE_CODE" => Some(Part::ResponseCode),
        "START_TIME" => Some(Part::StartTime),
        "REQUESTED_SERVER_NAME" => Some(Part::ServerName),
        "DOWNSTREAM_REMOTE_ADDRESS" => Some(Part::Address(Whose::Client, Shown::Whole)),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Some(Part::Address(Whose::Client, Shown::WithoutPort)),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Some(Part::Address(Whose::Peer, Shown::Whole)),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Some(Part::Address(Whose::Peer, Shown::WithoutPort))
        }
        _ => None,
    }
}

impl Field {
    fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            ":method" => Some(Self::Method),
            ":path" => Some(Self::Path),
            ":authority" | "host" => Some(Self::Authority),
            ":scheme" => Some(Self::Scheme),
            name => name.parse().ok().map(Self::Header),
        }
    }

    fn of(&self, told: &Told<'_>) -> Option<String> {
        match self {
            Self::Header(name) => {
                told.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            }
            Self::Method => Some(told.method.to_string()),
            Self::Path => Some(format!("{}{}", told.path, told.query)),
            Self::Authority => Some(told.host.to_owned()),
            Self::Scheme => Some(if told.server_name.is_some() { "https" } else { "http" }.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Option<String> {
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static("x-id"), http::HeaderValue::from_static("i-1"))]);
        let told = Told {
            method: &Method::POST,
            version: Version::HTTP_11,
            headers: &headers,
            server_name: Some("a.test"),
            host: "a.test:8443",
            path: "/a",
            query: "?b",
            peer: ([10, 0, 0, 1], 4000).into(),
            client: [192, 0, 2, 1].into(),
            status: StatusCode::FORBIDDEN,
        };
        Template::parse(text).0.map(|template| template.fill(&told))
    }

    #[test]
    fn operators_become_what_the_request_says() {
        for (text, want) in [
            ("%REQ(X-Id)%", "i-1"),
            ("<%REQ(x-id):2%>", "<i->"),
            ("%REQ(x-none)%", "-"),
            ("%REQ(x-none?:PATH)% by %REQ(:METHOD)%", "/a?b by POST"),
            ("%REQ(:SCHEME)%://%REQ(:AUTHORITY)%", "https://a.test:8443"),
            ("%PROTOCOL% %RESPONSE_CODE%", "HTTP/1.1 403"),
            ("from %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "from 10.0.0.1"),
            ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "10.0.0.1:4000"),
            ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "192.0.2.1:0 192.0.2.1"),
            ("%REQUESTED_SERVER_NAME%", "a.test"),
            ("100% %PROTOCOL%, %", "100% HTTP/1.1, %"),
        ] {
            assert_eq!(filled(text).as_deref(), Some(want), "{text}");
        }
        let time = filled("%START_TIME%").expect("there is an operator");
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn a_text_without_operators_of_ours_is_none_and_says_which_it_has() {
        for (text, unknown) in [
            ("100% of it", &[][..]),
            ("a%20b %A% %ABC", &[]),
            ("%REQ(x", &[]),
            ("%UPSTREAM_HOST% and %REQ(a?b?c)%", &["UPSTREAM_HOST", "REQ(a?b?c)"]),
        ] {
            let (template, found) = Template::parse(text);
            assert_eq!((template, found.as_slice()), (None, unknown), "{text}");
        }
        assert_eq!(filled("%UPSTREAM_HOST% %PROTOCOL%").as_deref(), Some("%UPSTREAM_HOST% HTTP/1.1"));
    }
}
