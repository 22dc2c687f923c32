//! What is told of exchanges, over real sockets.

use super::HOST;
use crate::harness::client::{Ask, Client, tls};
use crate::harness::manifest::{gateway, http_listener, route, service, stream_listener, stream_route};
use crate::harness::raw::Raw;
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::{Upstream, refusing};
use crate::harness::{eventually, soon};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::AsyncWriteExt;

/// A gateway with a log, `/ok` of whose host is served, `/refused` is not, and nothing else is there.
async fn logging(more: impl FnOnce(Builder) -> Builder) -> (Trigate, Upstream) {
    let upstream = Upstream::echo("app").await;
    let mut builder = Builder::new().set("access_log.enabled", true);
    for (name, address) in [("app", upstream.address), ("refused", refusing().await)] {
        builder = builder.with_all(service(name, &[address]));
        builder = builder.with(
            route(name)
                .on("external")
                .on("internal")
                .host(HOST)
                .prefix_to(&format!("/{name}"), name)
                .object(),
        );
    }
    (more(builder).start().await, upstream)
}

/// The lines of the default log so far.
fn objects(trigate: &Trigate) -> Vec<Value> {
    trigate
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .collect()
}

async fn lines(trigate: &Trigate, count: usize) -> Vec<Value> {
    until("lines in the log", || objects(trigate).len() >= count).await;
    objects(trigate)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    eventually(what, || {
        let held = holds();
        async move { held.then_some(()) }
    })
    .await;
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

#[tokio::test]
async fn the_default_line_of_the_log_says_what_became_of_a_request() {
    let (trigate, upstream) = logging(|builder| builder).await;
    let mut client = Client::http1(trigate.external.http).await;
    let ask = Ask::post(HOST, "/app/a?b=c", "12345")
        .header("user-agent", "probe \"1\"")
        .header("x-request-id", "forged");
    assert_eq!(client.send(ask).await.status, 200);
    assert_eq!(client.send(Ask::get(HOST, "/nothing")).await.status, 404);
    assert_eq!(client.send(Ask::get(HOST, "/refused")).await.status, 503);
    let lines = lines(&trigate, 3).await;
    let said = |line: usize, name: &str| lines[line][name].clone();
    for (name, want) in [
        (":authority", json!(HOST)),
        ("method", json!("POST")),
        ("protocol", json!("HTTP/1.1")),
        ("response_code", json!(200)),
        ("response_code_details", json!("via_upstream")),
        ("response_flags", json!("-")),
        ("bytes_received", json!(5)),
        ("upstream_cluster", json!("httproute/apps/app/rule/0")),
        ("upstream_host", json!(upstream.address.to_string())),
        ("route_name", json!("httproute/apps/app/rule/0/match/0/app_example_test")),
        ("user-agent", json!("probe \"1\"")),
        ("x-envoy-origin-path", json!("/app/a?b=c")),
        ("requested_server_name", Value::Null),
        ("downstream_local_address", json!(trigate.external.http.to_string())),
    ] {
        assert_eq!(said(0, name), want, "{name} in {}", lines[0]);
    }
    assert!(said(0, "bytes_sent").as_u64().is_some_and(|sent| sent > 0), "{}", lines[0]);
    assert!(said(0, "x-request-id").as_str().is_some_and(|id| id.len() == 36), "{}", lines[0]);
    let local: SocketAddr =
        said(0, "upstream_local_address").as_str().and_then(|text| text.parse().ok()).expect("one");
    assert!(local.ip().is_loopback() && local.port() > 0 && local != upstream.address, "{local}");
    assert_eq!(lines[0].as_object().map(serde_json::Map::len), Some(24));
    assert_eq!((said(1, "response_code"), said(1, "response_flags")), (json!(404), json!("NR")));
    assert_eq!(said(1, "response_code_details"), "route_not_found");
    assert_eq!((said(1, "route_name"), said(1, "upstream_local_address")), (Value::Null, Value::Null));
    assert_eq!((said(1, "upstream_cluster"), said(1, "upstream_host")), (Value::Null, Value::Null));
    assert_eq!((said(2, "response_code"), said(2, "response_flags")), (json!(503), json!("UF")));
    assert_eq!(
        said(2, "response_code_details"),
        "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
    );
    assert_eq!(trigate.metric("trigate_access_log_written_total", &[]).await, 3.0);
    assert_eq!(trigate.metric("trigate_access_log_dropped_total", &[]).await, 0.0);
}

#[tokio::test]
async fn requests_over_http2_and_tls_are_told_with_both() {
    let (trigate, _upstream) = logging(|builder| {
        builder.set("access_log.text", "%PROTOCOL% %REQUESTED_SERVER_NAME% %DOWNSTREAM_TLS_VERSION% %REQ(:SCHEME)% %RESPONSE_CODE% %BYTES_SENT%|")
    })
    .await;
    let mut client = Client::https2(&trigate, trigate.external, HOST).await;
    assert_eq!(client.send(Ask::get(HOST, "/nothing")).await.status, 404);
    let want = format!("HTTP/2 {HOST} TLSv1.3 https 404 0|");
    until("the line", || trigate.log().lines().any(|line| line == want)).await;
}

#[tokio::test]
async fn what_is_no_request_is_told_without_one() {
    let (trigate, _upstream) = logging(|builder| builder).await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection.send("nonsense\r\n\r\n").await;
    let answer = connection.response().await.expect("an answer");
    assert_eq!(answer.status(), 400);
    let line = lines(&trigate, 1).await.remove(0);
    assert_eq!((&line["method"], &line[":authority"]), (&Value::Null, &Value::Null));
    assert_eq!((&line["response_code"], &line["response_flags"]), (&json!(400), &json!("DPE")));
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_without_a_status() {
    let upstream = Upstream::raw(|mut connection| async move {
        connection.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut objects = service("app", &[upstream.address]);
    objects.push(route("app").on("external").host(HOST).to("app").object());
    let trigate = Builder::new().set("access_log.enabled", true).with_all(objects).start().await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    drop(connection);
    let line = lines(&trigate, 1).await.remove(0);
    assert_eq!((&line["response_code"], &line["response_flags"]), (&json!(0), &json!("DC")));
    assert_eq!(line["response_code_details"], "downstream_remote_disconnect");
}

#[tokio::test]
async fn a_file_takes_what_its_conditions_let_through_and_is_opened_again_on_sighup() {
    let (trigate, _upstream) = logging(|builder| {
        builder
            .set("access_log.path", "log.txt")
            .set("access_log.text", "%REQ(:PATH)% %RESPONSE_CODE% %REQ(X-TENANT)%")
            .set("access_log.only.status_from", 400)
            .set("access_log.only.headers", vec!["!x-quiet".to_owned()])
            .set("gateways.internal.access_log", false)
    })
    .await;
    let file = trigate.path("log.txt");
    assert_eq!(trigate.external.get(HOST, "/app").await.status, 200);
    assert_eq!(trigate.internal.get(HOST, "/elsewhere").await.status, 404);
    let quiet = Ask::get(HOST, "/quiet").header("x-quiet", "1");
    assert_eq!(Client::http1(trigate.external.http).await.send(quiet).await.status, 404);
    let tenant = Ask::get(HOST, "/b").header("x-tenant", "a\"b");
    assert_eq!(Client::http1(trigate.external.http).await.send(tenant).await.status, 404);
    until("the line", || text(&file) == "/b 404 a\\x22b\n").await;
    let moved = file.with_extension("old");
    std::fs::rename(&file, &moved).expect("the folder is ours");
    trigate.signal(Signal::HUP);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(trigate.external.get(HOST, "/c").await.status, 404);
    until("the line in the new file", || text(&file) == "/c 404 -\n").await;
    assert_eq!(text(&moved), "/b 404 a\\x22b\n");
    std::fs::rename(&file, &moved).expect("the folder is ours");
    let ordered = Client::http1(trigate.admin).await.send(Ask::post("localhost", "/reopen_logs", "")).await;
    assert_eq!((ordered.status, ordered.text().as_str()), (200, "OK\n"));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(trigate.external.get(HOST, "/d").await.status, 404);
    until("the line in the third file", || text(&file) == "/d 404 -\n").await;
}

#[tokio::test]
async fn the_last_request_is_in_the_log_when_the_process_ends() {
    let (mut trigate, _upstream) = logging(|builder| builder.set("access_log.path", "log.txt")).await;
    let file = trigate.path("log.txt");
    assert_eq!(trigate.external.get(HOST, "/app").await.status, 200);
    trigate.signal(Signal::TERM);
    trigate.ended(std::time::Duration::from_secs(10)).await;
    assert_eq!(text(&file).lines().count(), 1, "{}", text(&file));
}

#[tokio::test]
async fn what_a_client_sends_cannot_forge_a_line() {
    let (trigate, _upstream) = logging(|builder| builder.set("access_log.path", "log.json")).await;
    let file = trigate.path("log.json");
    let attacks: [&[u8]; 4] = [
        b"a\",\"response_code\":200,\"b\":\"",
        b"x\t\\\"}{\"forged\":true}",
        b"\xff\xfe\xe2\x80\xa8next",
        b"%RESPONSE_CODE% \\n \\u000a",
    ];
    for attack in attacks {
        let mut connection = Raw::connect(trigate.external.http).await;
        let head = format!("GET /%0d%0a%22forged%22 HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: ");
        connection.send([head.as_bytes(), attack, b"\r\n\r\n"].concat()).await;
        assert!(connection.response().await.is_some());
    }
    until("the lines", || text(&file).lines().count() >= attacks.len()).await;
    for line in text(&file).lines() {
        let object: Value = serde_json::from_str(line).expect("one object in each line");
        assert_eq!(object.as_object().map(serde_json::Map::len), Some(24), "{line}");
        assert!(matches!(object["response_code"].as_u64(), Some(400 | 404)), "{line}");
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{2028}'), "{line:?}");
    }
    assert_eq!(text(&file).lines().count(), attacks.len());
}

#[tokio::test]
async fn connections_and_flows_that_are_carried_are_told_with_their_bytes() {
    let upstream = Upstream::raw(|mut connection| async move {
        let all = connection.rest().await;
        let _ = connection.try_send(all).await;
    })
    .await;
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let of_udp = udp.local_addr().expect("it is bound");
    let mut objects = service("one", &[upstream.address]);
    let mut of_udp = service("two", &[of_udp]);
    of_udp[0]["spec"]["ports"][0]["protocol"] = "UDP".into();
    of_udp[1]["ports"][0]["protocol"] = "UDP".into();
    objects.extend(of_udp);
    objects.push(stream_route("TCPRoute", "a", "tcp", &[("one", 1)]));
    objects.push(stream_route("UDPRoute", "b", "udp", &[("two", 1)]));
    let (builder, tcp) = Builder::new().without_gateways().listen("external", 9000);
    let builder = builder.set("access_log.enabled", true).with_all(objects);
    let listeners = [stream_listener("tcp", 9000, "TCP"), stream_listener("udp", 9000, "UDP")];
    let mut trigate = builder.with(gateway("external", &listeners)).start().await;
    let mut client = Raw::connect(tcp).await;
    client.send("hello").await;
    client.stream.shutdown().await.expect("it is open");
    assert_eq!(soon("the echo", client.rest()).await, b"hello");
    let line = lines(&trigate, 1).await.remove(0);
    assert_eq!((&line["bytes_received"], &line["bytes_sent"]), (&json!(5), &json!(5)));
    assert_eq!((&line["method"], &line["response_code"]), (&Value::Null, &json!(0)));
    assert_eq!(line["upstream_cluster"], "tcproute/apps/a/rule/0");
    assert_eq!(line["upstream_host"], json!(upstream.address.to_string()));
    let flow = tokio::net::UdpSocket::bind((tcp.ip(), 0)).await.expect("a free port");
    flow.send_to(b"ping", tcp).await.expect("it is sent");
    soon("a datagram", udp.recv(&mut [0; 8])).await.expect("it comes");
    trigate.terminate();
    trigate.ended(std::time::Duration::from_secs(20)).await;
    let line = lines(&trigate, 2).await.remove(1);
    assert_eq!((&line["bytes_received"], &line["bytes_sent"]), (&json!(4), &json!(0)));
    assert_eq!(line["upstream_cluster"], "udproute/apps/b/rule/0");
}

#[tokio::test]
async fn a_handshake_that_no_listener_is_for_is_told() {
    let (trigate, _upstream) = logging(|builder| builder).await;
    let refused = tls(&trigate, trigate.external, "nobody.invalid", &["h2"]).await;
    assert!(refused.is_err(), "no listener is for this name");
    let line = lines(&trigate, 1).await.remove(0);
    assert_eq!((&line["response_code"], &line["response_flags"]), (&json!(0), &json!("NR")));
    assert_eq!(line["response_code_details"], "filter_chain_not_found");
}

#[tokio::test]
async fn the_envoy_proxy_of_a_gateway_says_what_is_logged_of_it() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new().with_all(service("app", &[upstream.address]));
    let builder = builder.environment("POD_NAME", "pod-1").environment("TOKEN", "secret");
    let file = builder.path("envoy.log");
    let trigate = builder.with(route("app").on("external").on("internal").host(HOST).to("app")).start().await;
    let settings = json!({
        "format": { "type": "Text", "text": "%RESPONSE_CODE% %REQ(:PATH)% %ENVIRONMENT(POD_NAME)% %ENVIRONMENT(TOKEN)%\n" },
        "sinks": [{ "type": "File", "file": { "path": file } }],
        "matches": ["response.code < 300", "request.url_path.startsWith('/') && !('x-quiet' in request.headers)"],
    });
    trigate.apply(json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyProxy",
        "metadata": { "name": "logs", "namespace": "network" },
        "spec": { "telemetry": { "accessLog": { "settings": [settings] } } },
    }));
    let mut gateway = gateway("external", &[http_listener("http", 80)]);
    gateway["spec"]["infrastructure"] = json!({ "parametersRef": {
        "group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "logs",
    } });
    trigate.apply(gateway);
    let mut n = 0;
    eventually("a line of the log that the EnvoyProxy asks for", || {
        n += 1;
        let (trigate, file, path) = (&trigate, &file, format!("/{n}"));
        async move {
            assert_eq!(trigate.internal.get(HOST, "/elsewhere").await.status, 200);
            assert_eq!(trigate.external.get(HOST, &path).await.status, 200);
            text(file).contains("200 /").then_some(())
        }
    })
    .await;
    assert!(!text(&file).contains("elsewhere"), "it is another gateway's");
    let mut client = Client::http1(trigate.external.http).await;
    for (path, header, status) in [("/quiet", "x-quiet", 200), ("/said", "x-loud", 200)] {
        assert_eq!(client.send(Ask::get(HOST, path).header(header, "1")).await.status, status);
    }
    until("the line after the quiet one", || text(&file).contains("200 /said pod-1 -\n")).await;
    let told =
        "EnvoyProxy network/logs spec.telemetry.accessLog.settings[0].format: the variable TOKEN may not be";
    assert!(trigate.log().contains(told), "{}", trigate.log());
    assert!(!text(&file).contains("/quiet"), "{}", text(&file));
}
