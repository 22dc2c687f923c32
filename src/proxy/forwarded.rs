//! The request's head as the upstream gets it: hop-by-hop fields gone, forwarding fields set by whom is trusted.

use super::{ClientCertificate, Gateway};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRAILER, TRANSFER_ENCODING,
};
use std::net::IpAddr;
use std::time::Duration;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const X_ENVOY_EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const X_ENVOY_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const X_ENVOY_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What a field is to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `Connection`, which ends at this hop with the fields that it names (RFC 9110 7.6.1).
    Connection,
    /// It ends at this hop whatever `Connection` says (RFC 9110 7.6.1, RFC 9113 8.2.2).
    Hop,
    /// How a body is framed at this hop.
    Coding,
    Te,
    /// `X-Forwarded-For`, which is a claim, too.
    ForwardedFor,
    /// It says who the client is, or what it asked for; from a peer that is not trusted it is a lie.
    Claim,
    /// Only a gateway in front of an upstream may set it.
    Envoy,
    Other,
}

/// Kinds of which a head has fields.
#[derive(Debug, Clone, Copy, Default)]
struct Kinds(u8);

impl Kinds {
    fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u8;
    }

    fn have(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

impl Kind {
    fn of(name: &HeaderName) -> Self {
        match name.as_str() {
            "connection" => Self::Connection,
            "keep-alive" | "proxy-connection" | "http2-settings" | "upgrade" => Self::Hop,
            "transfer-encoding" => Self::Coding,
            "te" => Self::Te,
            "x-forwarded-for" => Self::ForwardedFor,
            "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-proto"
            | "x-forwarded-client-cert"
            | "x-real-ip"
            | "x-request-id"
            | "forwarded" => Self::Claim,
            name if name.starts_with("x-envoy-") => Self::Envoy,
            _ => Self::Other,
        }
    }
}

/// Removes the fields of some kinds, and those that `Connection` names. Returns what kinds there were: one look at
/// each name is cheaper than looking for each field.
fn remove(headers: &mut HeaderMap, doomed: impl Fn(Kind) -> bool) -> Kinds {
    let mut kinds = Kinds::default();
    let mut names = Vec::new();
    for name in headers.keys() {
        let kind = Kind::of(name);
        kinds.add(kind);
        if doomed(kind) {
            names.push(name.clone());
        }
    }
    if kinds.have(Kind::Connection) {
        names.extend(nominated(headers));
    }
    for name in names {
        headers.remove(name);
    }
    kinds
}

/// Who sent a request, as far as headers tell it.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The address that the connection came from.
    pub peer: IpAddr,
    /// The same as a field has it.
    pub address: &'a HeaderValue,
    pub tls: bool,
    /// The host that was asked for, as it stood in the request.
    pub host: &'a HeaderValue,
    pub certificate: &'a ClientCertificate,
}

/// Prepares the request's headers for the upstream. Returns the client's address.
pub fn prepare_request(headers: &mut HeaderMap, gateway: &Gateway, hop: Hop<'_>) -> IpAddr {
    let trusted = gateway.trusted_hops > 0 || gateway.trusts(hop.peer);
    // What is not believed is not looked for.
    let client = if trusted { client_address(headers, gateway, hop.peer) } else { hop.peer };
    let kinds = remove(headers, |kind| match kind {
        Kind::Connection | Kind::Hop | Kind::Envoy => true,
        Kind::Claim | Kind::ForwardedFor => !trusted,
        // The framing of what is sent on is decided elsewhere.
        Kind::Coding | Kind::Te | Kind::Other => false,
    });
    if kinds.have(Kind::Te) {
        restrict_te(headers);
    }
    match hop.certificate {
        ClientCertificate::NotTold => {}
        ClientCertificate::Absent => drop(headers.remove(&X_FORWARDED_CLIENT_CERT)),
        ClientCertificate::Told(certificate) => {
            headers.insert(X_FORWARDED_CLIENT_CERT, certificate.clone());
        }
    }
    if trusted && kinds.have(Kind::ForwardedFor) {
        append_forwarded_for(headers, hop.address);
    } else {
        headers.insert(X_FORWARDED_FOR, hop.address.clone());
    }
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert_with(|| HeaderValue::from_static(if hop.tls { "https" } else { "http" }));
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| hop.host.clone());
    headers.entry(X_REQUEST_ID).or_insert_with(request_id);
    client
}

/// Takes back `X-Forwarded-Host` where it is the host that was asked for, and not what a proxy before us said.
pub fn hide_host(headers: &mut HeaderMap, host: &HeaderValue) {
    if headers.get(&X_FORWARDED_HOST) == Some(host) {
        headers.remove(&X_FORWARDED_HOST);
    }
}

/// The client: the peer, or what the proxies that are trusted say of it.
fn client_address(headers: &HeaderMap, gateway: &Gateway, peer: IpAddr) -> IpAddr {
    if let Some(hops) = usize::from(gateway.trusted_hops).checked_sub(1) {
        return entries_from_the_right(headers).nth(hops).flatten().unwrap_or(peer);
    }
    let mut client = peer;
    let mut entries = entries_from_the_right(headers);
    // What is no address ends what can be believed.
    while gateway.trusts(client)
        && let Some(Some(address)) = entries.next()
    {
        client = address;
    }
    client
}

fn entries_from_the_right(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|line| line.to_str().unwrap_or_default().rsplit(','))
        .map(|entry| entry.trim().parse().ok())
}

fn append_forwarded_for(headers: &mut HeaderMap, peer: &HeaderValue) {
    let lines = headers.get_all(&X_FORWARDED_FOR).iter().filter(|line| line.to_str().is_ok());
    let entries: Vec<&[u8]> = lines.chain([peer]).map(HeaderValue::as_bytes).collect();
    let all = HeaderValue::from_bytes(&entries.join(&b", "[..])).expect("values make a value");
    headers.insert(X_FORWARDED_FOR, all);
}

/// A version 4 UUID. It names a request in logs and keeps no secret, so a fast generator will do.
fn request_id() -> HeaderValue {
    let random = fastrand::u128(..);
    let random = random & !(0xf << 76) | 4 << 76;
    let random = random & !(0x3 << 62) | 2 << 62;
    let mut id = [b'-'; 36];
    const HEX: &[u8; 16] = b"0123456789abcdef";
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    for (byte, at) in random.to_be_bytes().into_iter().zip(PLACES) {
        id[at] = HEX[usize::from(byte >> 4)];
        id[at + 1] = HEX[usize::from(byte & 0xf)];
    }
    HeaderValue::from_bytes(&id).expect("hexadecimal digits can stand in a header")
}

/// Only that trailers are welcome may go on (RFC 9110 10.1.4); gRPC servers ask for it.
fn restrict_te(headers: &mut HeaderMap) {
    if let Some(te) = headers.get(TE) {
        let trailers =
            te.to_str().is_ok_and(|te| te.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Tells an upstream how long it is waited for, and the address of a client that nobody speaks for.
pub fn tell_upstream(headers: &mut HeaderMap, timeout: Option<Duration>, client: Option<IpAddr>) {
    if let Some(timeout) = timeout {
        headers.insert(X_ENVOY_EXPECTED_TIMEOUT, milliseconds(timeout));
    }
    if let Some(Ok(client)) = client.map(|client| HeaderValue::try_from(client.to_string())) {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, client);
    }
}

/// Tells a client how long the upstream took.
pub fn tell_service_time(headers: &mut HeaderMap, took: Duration) {
    let _ = headers.try_insert(X_ENVOY_SERVICE_TIME, milliseconds(took));
}

/// Tells a client that it was not served because there were too many.
pub fn tell_overload(headers: &mut HeaderMap) {
    headers.insert(X_ENVOY_OVERLOADED, HeaderValue::from_static("true"));
}

fn milliseconds(duration: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Removes from a response what ends at this hop.
pub fn remove_hop_by_hop_response(headers: &mut HeaderMap) {
    remove(headers, |kind| matches!(kind, Kind::Connection | Kind::Hop | Kind::Coding));
}

/// Removes from a request's trailers what must stand before the body (RFC 9110 6.5.1): framing, routing, who the
/// client is. Whoever adds trailers to the head would take it for what the gateway said.
pub fn retain_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |kind| kind != Kind::Other);
    for name in [AUTHORIZATION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TRAILER] {
        trailers.remove(name);
    }
}

/// The fields that `Connection` names, without those whose removal would change who or what the message is.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for line in headers.get_all(CONNECTION) {
        let Ok(line) = line.to_str() else { continue };
        // The usual values name no field.
        if ["keep-alive", "close", "upgrade"].iter().any(|usual| line.eq_ignore_ascii_case(usual)) {
            continue;
        }
        let fields = line.split(',').filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
        names.extend(
            fields.filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING, COOKIE, TE].contains(name)),
        );
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::proxy::Habits;
    use crate::routing::GatewayId;

    fn gateway(trusted_hops: u8, trusted: &[&str]) -> Gateway {
        Gateway {
            id: GatewayId(0),
            name: "external".into(),
            trusted_proxies: trusted.iter().map(|net| net.parse().unwrap()).collect(),
            trusted_hops,
            habits: Habits::default(),
            limits: Limits::default(),
        }
    }

    fn request(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn prepared(
        gateway: &Gateway,
        peer: &str,
        fields: &[(&'static str, &'static str)],
    ) -> (IpAddr, HeaderMap) {
        let mut head = request(fields);
        let host = HeaderValue::from_static("a.test");
        let certificate = &ClientCertificate::NotTold;
        let address = &HeaderValue::from_str(peer).unwrap();
        let hop = Hop { peer: peer.parse().unwrap(), address, tls: true, host: &host, certificate };
        let client = prepare_request(&mut head, gateway, hop);
        (client, head)
    }

    fn text<'a>(head: &'a HeaderMap, name: &str) -> &'a str {
        head.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn a_stranger_cannot_say_who_he_is() {
        let gateway = gateway(0, &["10.0.0.0/8"]);
        let (client, head) = prepared(
            &gateway,
            "203.0.113.9",
            &[
                ("x-forwarded-for", "6.6.6.6"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "evil.test"),
                ("x-real-ip", "6.6.6.6"),
                ("x-request-id", "mine"),
                ("x-envoy-original-path", "/admin"),
            ],
        );
        assert_eq!(client, IpAddr::from([203, 0, 113, 9]));
        assert_eq!(text(&head, "x-forwarded-for"), "203.0.113.9");
        assert_eq!(text(&head, "x-forwarded-proto"), "https");
        assert_eq!(text(&head, "x-forwarded-host"), "a.test");
        assert_eq!(text(&head, "x-real-ip"), "");
        assert_ne!(text(&head, "x-request-id"), "mine");
        assert_eq!(text(&head, "x-envoy-original-path"), "");
    }

    #[test]
    fn a_trusted_proxy_is_believed_up_to_the_first_stranger() {
        let gateway = gateway(0, &["10.0.0.0/8"]);
        for (forwarded, want) in [
            ("6.6.6.6, 203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, 10.1.1.1", "203.0.113.7"),
            ("10.2.2.2, 10.1.1.1", "10.2.2.2"),
            ("203.0.113.7, unknown", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            let fields =
                [("x-forwarded-for", forwarded), ("x-request-id", "kept"), ("x-forwarded-proto", "http")];
            let (client, head) = prepared(&gateway, "10.0.0.1", &fields);
            assert_eq!(client.to_string(), want, "{forwarded}");
            assert!(text(&head, "x-forwarded-for").ends_with("10.0.0.1"), "{forwarded}");
            assert_eq!(text(&head, "x-request-id"), "kept");
            assert_eq!(text(&head, "x-forwarded-proto"), "http");
        }
    }

    #[test]
    fn only_this_gateway_says_which_certificate_its_client_showed() {
        let gateway = gateway(0, &["10.0.0.0/8"]);
        let told = ClientCertificate::Told(HeaderValue::from_static("Hash=1"));
        for (peer, certificate, want) in [
            ("203.0.113.9", &ClientCertificate::NotTold, ""),
            ("10.0.0.1", &ClientCertificate::NotTold, "Hash=0"),
            ("10.0.0.1", &ClientCertificate::Absent, ""),
            ("10.0.0.1", &told, "Hash=1"),
            ("203.0.113.9", &told, "Hash=1"),
        ] {
            let mut head = request(&[("x-forwarded-client-cert", "Hash=0")]);
            let host = HeaderValue::from_static("a.test");
            let address = &HeaderValue::from_str(peer).unwrap();
            let hop = Hop { peer: peer.parse().unwrap(), address, tls: true, host: &host, certificate };
            prepare_request(&mut head, &gateway, hop);
            assert_eq!(text(&head, "x-forwarded-client-cert"), want, "{peer} {certificate:?}");
        }
    }

    #[test]
    fn hops_count_from_the_right() {
        let gateway = gateway(2, &[]);
        let (client, _) = prepared(&gateway, "10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 2.2.2.2, 3.3.3.3")]);
        assert_eq!(client, IpAddr::from([2, 2, 2, 2]));
    }

    #[test]
    fn fields_of_the_hop_end_here() {
        let gateway = gateway(0, &[]);
        let (_, head) = prepared(
            &gateway,
            "10.0.0.1",
            &[
                ("connection", "close, X-Secret, Host"),
                ("x-secret", "1"),
                ("host", "a.test"),
                ("keep-alive", "timeout=5"),
                ("te", "gzip, trailers"),
                ("upgrade", "h2c"),
                ("proxy-connection", "close"),
            ],
        );
        let left: Vec<_> = head.keys().map(HeaderName::as_str).collect();
        for gone in ["connection", "x-secret", "keep-alive", "upgrade", "proxy-connection"] {
            assert!(!left.contains(&gone), "{gone} in {left:?}");
        }
        assert_eq!((text(&head, "host"), text(&head, "te")), ("a.test", "trailers"));
    }

    #[test]
    fn a_request_id_is_a_uuid_of_version_4() {
        let id = request_id();
        assert_eq!(id.len(), 36);
        let id = id.to_str().unwrap();
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
    }

    #[test]
    fn trailers_say_nothing_that_belongs_before_the_body() {
        let mut trailers = request(&[
            ("x-checksum", "1"),
            ("grpc-status", "0"),
            ("host", "b.test"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Basic x"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-envoy-original-path", "/admin"),
            ("connection", "x-checksum2"),
            ("x-checksum2", "2"),
        ]);
        retain_trailers(&mut trailers);
        let left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-checksum", "grpc-status"]);
    }
}
