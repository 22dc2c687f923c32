//! Envoy's `envoy.service.auth.v3.Authorization/Check`: what of its messages is told and understood here.
//!
//! Written by hand: the generated messages would bring all of Envoy's API along for one call.

use super::Connection;
use super::asked::Asked;
use super::authorize::{AuthError, Changes, Verdict};
use super::call::Called;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, request};
use prost::Message;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where it is asked.
pub const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// A message's prefix in gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What is told of a request.
pub struct Told<'a> {
    pub connection: &'a Connection,
    pub asked: &'a Asked,
    pub head: &'a request::Parts,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub context: &'a [(String, String)],
}

/// The question as a gRPC message.
pub fn message(told: Told<'_>) -> Bytes {
    let Told { connection, asked, head, headers, body, context } = told;
    let scheme = if connection.server_name.is_some() { "https" } else { "http" };
    let path = format!("{}{}", asked.path, asked.query);
    let host = String::from_utf8_lossy(asked.host.as_bytes()).into_owned();
    let mut fields = joined(&headers);
    for (name, value) in [
        (":authority", host.as_str()),
        (":method", head.method.as_str()),
        (":path", &path),
        (":scheme", scheme),
    ] {
        fields.insert(name.to_owned(), value.to_owned());
    }
    let (body, raw_body) = match String::from_utf8(body.into()) {
        Ok(text) => (text, Vec::new()),
        Err(error) => (String::new(), error.into_bytes()),
    };
    let size = (body.len() + raw_body.len()) as i64;
    let id = head.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let http = HttpRequest {
        id: id.to_owned(),
        method: head.method.to_string(),
        headers: fields,
        path,
        host,
        scheme: scheme.to_owned(),
        size,
        protocol: protocol(head.version).to_owned(),
        body,
        raw_body,
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 };
    let check = CheckRequest {
        attributes: Some(Attributes {
            source: Some(Peer::new(connection.peer)),
            destination: Some(Peer::new(connection.local)),
            request: Some(AttributesRequest { time: Some(time), http: Some(http) }),
            context_extensions: context.iter().cloned().collect(),
            tls_session: connection.server_name.as_deref().map(|sni| TlsSession { sni: sni.to_owned() }),
        }),
    };
    let mut out = BytesMut::with_capacity(PREFIX + check.encoded_len());
    out.put_u8(0);
    out.put_u32(check.encoded_len() as u32);
    out.put_slice(&check.encode_to_vec());
    out.freeze()
}

/// What the answer means.
///
/// # Errors
/// When the call failed, which is no verdict.
pub fn verdict(called: &Called) -> Result<Verdict, AuthError> {
    if called.head.status != StatusCode::OK {
        return Err(AuthError::Failed(called.head.status));
    }
    let status = called.trailers.get("grpc-status").or(called.head.headers.get("grpc-status"));
    if status.is_none_or(|status| status != "0") {
        return Err(AuthError::NotExtAuthz(format!("grpc-status {status:?}")));
    }
    let message = unframed(&called.body).ok_or_else(|| AuthError::NotExtAuthz("no whole message".into()))?;
    let response =
        CheckResponse::decode(message).map_err(|error| AuthError::NotExtAuthz(error.to_string()))?;
    Ok(match (response.status.map_or(0, |status| status.code), response.http_response) {
        (0, Some(HttpResponse::Ok(ok))) => Verdict::Allowed(ok.changes()),
        (0, _) => Verdict::Allowed(Changes::default()),
        (_, Some(HttpResponse::Denied(denied))) => denied.verdict(),
        (_, _) => DeniedHttpResponse::default().verdict(),
    })
}

/// The one message of a unary answer.
fn unframed(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (message.len() == length as usize).then_some(message)
}

/// Fields of one name are joined by commas (RFC 9110 5.3).
fn joined(headers: &HeaderMap) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = HashMap::with_capacity(headers.keys_len() + 4);
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match all.get_mut(name.as_str()) {
            Some(joined) => {
                joined.push(',');
                joined.push_str(&value);
            }
            None => {
                all.insert(name.to_string(), value.into_owned());
            }
        }
    }
    all
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

impl OkHttpResponse {
    fn changes(self) -> Changes {
        let mut changes = Changes::default();
        for option in self.headers {
            let append = option.append == Some(BoolValue { value: true });
            let Some((name, value)) = option.field() else { continue };
            let whither = if append { &mut changes.append } else { &mut changes.set };
            whither.append(name, value);
        }
        let removable = |name: &HeaderName| *name != http::header::HOST;
        changes.remove =
            self.headers_to_remove.iter().filter_map(|name| name.parse().ok()).filter(removable).collect();
        for (name, value) in self.response_headers_to_add.into_iter().filter_map(HeaderValueOption::field) {
            changes.response.append(name, value);
        }
        changes
    }
}

impl DeniedHttpResponse {
    fn verdict(self) -> Verdict {
        let code = self.status.and_then(|status| StatusCode::from_u16(u16::try_from(status.code).ok()?).ok());
        // A refusal that says it is a success would hide that it is one, and 1xx is no answer.
        let status = code.filter(|code| code.as_u16() >= 300).unwrap_or(StatusCode::FORBIDDEN);
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.into_iter().filter_map(HeaderValueOption::field) {
            headers.append(name, value);
        }
        super::forwarded::remove_hop_by_hop_response(&mut headers);
        headers.remove(http::header::CONTENT_LENGTH);
        Verdict::Denied { status, headers, body: self.body.into() }
    }
}

impl HeaderValueOption {
    /// The field, if it is one; pseudo-headers are none.
    fn field(self) -> Option<(HeaderName, HeaderValue)> {
        let HeaderField { key, value, raw_value } = self.header?;
        let value = if value.is_empty() { raw_value } else { value.into_bytes() };
        Some((key.parse().ok()?, HeaderValue::try_from(value).ok()?))
    }
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        let socket_address =
            SocketAddress { address: address.ip().to_string(), port_value: Some(address.port().into()) };
        Self { address: Some(PeerAddress { socket_address: Some(socket_address) }) }
    }
}

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<AttributesRequest>,
    #[prost(map = "string, string", tag = "10")]
    context_extensions: HashMap<String, String>,
    #[prost(message, optional, tag = "12")]
    tls_session: Option<TlsSession>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(message, optional, tag = "1")]
    address: Option<PeerAddress>,
}

#[derive(Clone, PartialEq, Message)]
struct PeerAddress {
    #[prost(message, optional, tag = "1")]
    socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
struct SocketAddress {
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, optional, tag = "3")]
    port_value: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributesRequest {
    #[prost(message, optional, tag = "1")]
    time: Option<Timestamp>,
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
    /// With the query.
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "6")]
    scheme: String,
    #[prost(int64, tag = "9")]
    size: i64,
    #[prost(string, tag = "10")]
    protocol: String,
    #[prost(string, tag = "11")]
    body: String,
    #[prost(bytes = "vec", tag = "12")]
    raw_body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct TlsSession {
    #[prost(string, tag = "1")]
    sni: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RpcStatus>,
    #[prost(oneof = "HttpResponse", tags = "2, 3")]
    http_response: Option<HttpResponse>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum HttpResponse {
    #[prost(message, tag = "2")]
    Denied(DeniedHttpResponse),
    #[prost(message, tag = "3")]
    Ok(OkHttpResponse),
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, Message)]
struct HttpStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    headers_to_remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    response_headers_to_add: Vec<HeaderValueOption>,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    header: Option<HeaderField>,
    /// Unset is no.
    #[prost(message, optional, tag = "2")]
    append: Option<BoolValue>,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderField {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(bytes = "vec", tag = "3")]
    raw_value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct BoolValue {
    #[prost(bool, tag = "1")]
    value: bool,
}
