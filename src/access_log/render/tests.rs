//! Every operator, and what cannot break out of a line.

use crate::access_log::{Format, Record, Routed, Trace};
use crate::reply::{Flag, Outcome};
use crate::routing::{Backends, Rule, RuleName, Terms};
use crate::upstream::Address;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

fn rule() -> Rule {
    let terms = Terms { name: Some("checkout".to_owned()), ..Terms::default() };
    Rule {
        name: RuleName::new("HTTPRoute", "default", "app", 2),
        backends: Backends::default(),
        terms: Some(Box::new(terms)),
    }
}

fn record() -> Record {
    let field = |name: &'static str, value: &'static str| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    let mut record = Record::new(UNIX_EPOCH + Duration::from_millis(1_763_978_251_412));
    record.duration = Duration::from_micros(12_900);
    record.request_duration = Some(Duration::from_millis(1));
    record.response_duration = Some(Duration::from_millis(8));
    record.method = Some(Method::POST);
    record.version = Some(Version::HTTP_2);
    record.secure = true;
    record.authority = Some(HeaderValue::from_static("app.test"));
    record.path = Some(PathAndQuery::from_static("/new?q=1"));
    record.original_path = Some(PathAndQuery::from_static("/old?q=1"));
    record.request = vec![field("user-agent", "curl/8"), field("x-a", "a"), field("x-b", "b")];
    record.response = vec![field("server", "nginx"), field("grpc-status", "7")];
    record.trailers = vec![field("x-sum", "abc")];
    record.status = 503;
    let outcome = Outcome::new(
        Flag::UpstreamConnectionFailure,
        "upstream_reset_before_response_started{remote_connection_failure}",
    );
    record.outcome = Outcome { flags: outcome.flags.with(Flag::UpstreamRetryLimitExceeded), ..outcome };
    (record.received, record.sent, record.connection) = (5, 98, 17);
    record.client = Some(([203, 0, 113, 9], 0).into());
    record.peer = Some(([10, 42, 0, 5], 40_000).into());
    record.local = Some(([10, 42, 0, 9], 10_443).into());
    record.server_name = Some("app.test".into());
    record.tls = Some(("TLSv1.3", "TLS13_AES_128_GCM_SHA256"));
    record.gateway = "external".into();
    record.route = Some(Routed { rule: Arc::new(rule()), place: 1, host: "*.app.test".into() });
    record.upstream.endpoint = Some(Address::Ip(([10, 0, 0, 7], 8080).into()));
    record.upstream.local = Some(([10, 0, 0, 1], 50_000).into());
    record.upstream.version = Some(Version::HTTP_11);
    record.upstream.attempts = 3;
    record.upstream.failure = Some("delayed_connect_error:_Connection_refused".into());
    record.trace = Some(Trace { trace: 1, span: 2, upstream: None, parent: 0, sampled: true });
    record
}

fn line(format: &Format, record: &Record) -> String {
    let mut out = Vec::new();
    format.line(record, &mut out);
    String::from_utf8(out).expect("lines are UTF-8")
}

/// What a text says, without its line feed.
fn text(text: &str, record: &Record) -> String {
    line(&Format::text(text).expect(text), record).trim_end_matches('\n').to_owned()
}

/// The value of a JSON field with this text.
fn field(text: &str, record: &Record) -> Value {
    let format = Format::json(&BTreeMap::from([("x".to_owned(), text.to_owned())])).expect(text);
    let object: Value = serde_json::from_str(&line(&format, record)).expect("an object");
    object["x"].clone()
}

#[test]
fn every_operator_about_an_exchange_says_what_envoy_says() {
    let details = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}";
    for (operator, want) in [
        ("REQ(:METHOD)", json!("POST")),
        ("REQ(:SCHEME)", json!("https")),
        ("REQ(:AUTHORITY)", json!("app.test")),
        ("REQ(HOST)", json!("app.test")),
        ("REQ(:PATH)", json!("/new?q=1")),
        ("REQ(X-ENVOY-ORIGINAL-PATH?:PATH)", json!("/old?q=1")),
        ("REQ(X-A)", json!("a")),
        ("REQ(X-NO?X-B)", json!("b")),
        ("REQ(X-NO?X-NEITHER)", json!(null)),
        ("REQUEST_HEADER(USER-AGENT):4", json!("curl")),
        ("RESP(SERVER)", json!("nginx")),
        ("RESPONSE_HEADER(X-NO?SERVER):2", json!("ng")),
        ("TRAILER(X-SUM)", json!("abc")),
        ("RESPONSE_TRAILER(X-NO)", json!(null)),
        ("START_TIME", json!("2025-11-24T09:57:31.412Z")),
        ("START_TIME(%Y/%m/%dT%H:%M:%S%z %s)", json!("2025/11/24T09:57:31+0000 1763978251")),
        ("START_TIME(%s.%3f)", json!("1763978251.412")),
        ("PROTOCOL", json!("HTTP/2")),
        ("UPSTREAM_PROTOCOL", json!("HTTP/1.1")),
        ("RESPONSE_CODE", json!(503)),
        ("RESPONSE_CODE_DETAILS", json!(details)),
        ("RESPONSE_FLAGS", json!("URX,UF")),
        ("RESPONSE_FLAGS_LONG", json!("UpstreamRetryLimitExceeded,UpstreamConnectionFailure")),
        ("GRPC_STATUS_NUMBER", json!(7)),
        ("GRPC_STATUS(NUMBER)", json!(7)),
        ("GRPC_STATUS", json!("PermissionDenied")),
        ("GRPC_STATUS()", json!("PermissionDenied")),
        ("GRPC_STATUS(SNAKE_STRING)", json!("PERMISSION_DENIED")),
        ("BYTES_RECEIVED", json!(5)),
        ("BYTES_SENT", json!(98)),
        ("DURATION", json!(12)),
        ("REQUEST_DURATION", json!(1)),
        ("REQUEST_TX_DURATION", json!(1)),
        ("RESPONSE_DURATION", json!(8)),
        ("RESPONSE_TX_DURATION", json!(4)),
        ("EMIT_TIME", json!("2025-11-24T09:57:31.424Z")),
        ("COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)", json!(12_900)),
        ("COMMON_DURATION(DS_RX_END:US_RX_BEG:ms)", json!(7)),
        ("PATH", json!("/old?q=1")),
        ("PATH(NQ)", json!("/old")),
        ("PATH(WQ:ORIG)", json!("/old?q=1")),
        ("PATH(NQ:PATH)", json!("/new")),
        ("QUERY_PARAMS", json!("q=1")),
        ("QUERY_PARAM(q)", json!("1")),
        ("QUERY_PARAM(p)", json!(null)),
        ("ACCESS_LOG_TYPE", json!("DownstreamEnd")),
        ("CEL(request.path)", json!("/new?q=1")),
        ("CEL(size(request.headers['x-a']) + response.code)", json!("504")),
        ("CEL(request.headers['x-no'])", json!(null)),
        ("CEL(response.code == 503)", json!("true")),
        ("STREAM_ID", json!("187ae8df-aaed-4d00-8000-001100000000")),
        ("ENVIRONMENT(CARGO_PKG_NAME)", json!("trigate")),
        ("ENVIRONMENT(TRIGATE_NO_SUCH)", json!("-")),
    ] {
        assert_eq!(field(&format!("%{operator}%"), &record()), want, "{operator}");
    }
}

#[test]
fn every_operator_about_either_side_says_what_envoy_says() {
    for (operator, want) in [
        ("UPSTREAM_REQUEST_ATTEMPT_COUNT", json!(3)),
        ("ROUTE_NAME", json!("httproute/default/app/rule/2/match/1/*_app_test")),
        ("RULE_NAME", json!("checkout")),
        ("UPSTREAM_CLUSTER", json!(null)),
        ("UPSTREAM_HOST", json!("10.0.0.7:8080")),
        ("UPSTREAM_REMOTE_ADDRESS", json!("10.0.0.7:8080")),
        ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", json!("10.0.0.7")),
        ("UPSTREAM_REMOTE_PORT", json!(8080)),
        ("UPSTREAM_LOCAL_ADDRESS", json!("10.0.0.1:50000")),
        ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", json!("10.0.0.1")),
        ("UPSTREAM_LOCAL_PORT", json!(50_000)),
        ("UPSTREAM_TRANSPORT_FAILURE_REASON", json!("delayed_connect_error:_Connection_refused")),
        ("DOWNSTREAM_REMOTE_ADDRESS", json!("203.0.113.9:0")),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", json!("203.0.113.9")),
        ("DOWNSTREAM_REMOTE_PORT", json!(0)),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(24)", json!("203.0.113.0/24")),
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", json!("10.42.0.5:40000")),
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", json!("10.42.0.5")),
        ("DOWNSTREAM_DIRECT_REMOTE_PORT", json!(40_000)),
        ("DOWNSTREAM_LOCAL_ADDRESS", json!("10.42.0.9:10443")),
        ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", json!("10.42.0.9")),
        ("DOWNSTREAM_LOCAL_PORT", json!(10_443)),
        ("REQUESTED_SERVER_NAME", json!("app.test")),
        ("DOWNSTREAM_TLS_VERSION", json!("TLSv1.3")),
        ("DOWNSTREAM_TLS_CIPHER", json!("TLS_AES_128_GCM_SHA256")),
        ("CONNECTION_ID", json!(17)),
        ("TRACE_ID", json!("00000000000000000000000000000001")),
        ("SPAN_ID", json!("0000000000000002")),
        ("FILTER_CHAIN_NAME", json!("external")),
        ("CONNECTION_TERMINATION_DETAILS", json!(null)),
        ("DYNAMIC_METADATA(envoy.lua:x)", json!(null)),
    ] {
        assert_eq!(field(&format!("%{operator}%"), &record()), want, "{operator}");
    }
    assert!(field("%HOSTNAME%", &record()).is_string());
}

#[test]
fn what_is_not_there_is_null_in_json_and_a_dash_in_text() {
    let empty = Record::new(UNIX_EPOCH);
    for operator in
        ["REQ(:PATH)", "PROTOCOL", "UPSTREAM_HOST", "ROUTE_NAME", "RESPONSE_CODE_DETAILS", "TRACE_ID"]
    {
        assert_eq!(field(&format!("%{operator}%"), &empty), Value::Null, "{operator}");
        assert_eq!(text(&format!("[%{operator}%]"), &empty), "[-]", "{operator}");
    }
    assert_eq!(field("a %PROTOCOL%", &empty), json!("a -"), "a text around it makes it one");
    assert_eq!(text("%RESPONSE_CODE% %RESPONSE_FLAGS%", &empty), "0 -");
}

#[test]
fn a_text_is_written_with_its_literals() {
    assert_eq!(
        text(
            r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" 100%%"#,
            &record()
        ),
        r#"[2025-11-24T09:57:31.412Z] "POST /old?q=1 HTTP/2" 100%"#
    );
    assert!(line(&Format::text("a\n").expect("valid"), &record()).ends_with("a\n"));
}

#[test]
fn the_default_line_is_envoy_gateways() {
    let line = line(&Format::envoy_gateway(), &record());
    assert!(line.starts_with(r#"{":authority":"app.test","bytes_received":5,"bytes_sent":98,"connection_termination_details":null,"#), "{line}");
    assert!(line.ends_with("\"x-request-id\":null}\n"), "{line}");
    let object: serde_json::Map<String, Value> = serde_json::from_str(&line).expect("an object");
    assert_eq!(object.len(), 24);
}

#[test]
fn nothing_that_a_client_sends_breaks_out_of_its_value() {
    let attacks: [&[u8]; 6] = [
        b"a\", \"response_code\": 200, \"b\": \"",
        b"tab\tand \x7f",
        b"back\\slash \\\" %DURATION%",
        "line\u{2028}paragraph\u{2029}next\u{85}line".as_bytes(),
        b"not utf-8 \xff\xfe \xc3",
        b"\xe2\x80",
    ];
    for attack in attacks {
        let mut record = record();
        record.request = vec![(
            http::header::USER_AGENT,
            HeaderValue::from_bytes(attack).unwrap_or_else(|_| HeaderValue::from_static("refused")),
        )];
        // What no codec would let pass.
        record.upstream.failure = Some("a\r\n{\"forged\": \"line\"}\r\n\u{1b}[31m\0".into());
        let default = line(&Format::envoy_gateway(), &record);
        let object: Value = serde_json::from_str(&default).expect("one object");
        assert_eq!(object.as_object().map(serde_json::Map::len), Some(24), "{default}");
        assert_eq!(object["response_code"], 503);
        let text = line(
            &Format::text("\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \"%REQ(USER-AGENT)%\" %RESPONSE_CODE%")
                .expect("valid"),
            &record,
        );
        for line in [&default, &text] {
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(line.trim_end_matches('\n').chars().all(|c| !c.is_control()), "{line:?}");
        }
        assert_eq!(text.matches('"').count(), 4, "{text}");
    }
}
