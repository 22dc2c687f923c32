//! The admin, stats and ready sockets, over real connections.

#[path = "metrics/rig.rs"]
mod rig;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use trigate::admin::{Admin, Operations, Order, Surface};
use trigate::live::Revision;
use trigate::telemetry::{Observers, Registry, Server};

struct Rig {
    address: SocketAddr,
    orders: mpsc::Receiver<Order>,
}

async fn serving(surface: Surface) -> Rig {
    serving_from(surface, Arc::new(rig::registry())).await
}

async fn serving_from(surface: Surface, registry: Arc<Registry>) -> Rig {
    let (sender, orders) = mpsc::channel(1);
    let level = Mutex::new("info".to_owned());
    let operations = Operations {
        orders: sender,
        revision: Box::new(|| {
            let (table, tls, observers) = (Arc::default(), Vec::new(), Observers::default());
            Some(Arc::new(Revision { number: 7, table, clusters: rig::clusters(2), tls, observers }))
        }),
        dump: Box::new(|| "revision 7\n".to_owned()),
        log_level: Box::new(move |wanted| {
            let mut level = level.lock().expect("nobody panics");
            if let Some(wanted) = wanted {
                wanted.clone_into(&mut level);
            }
            Ok(level.clone())
        }),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(trigate::admin::serve(listener, surface, Arc::new(Admin::new(registry, operations))));
    Rig { address, orders }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

impl Rig {
    async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("it accepts");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("it closes");
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text").to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }

    async fn ask(&self, method: &str, target: &str) -> Answer {
        self.ask_with(method, target, "").await
    }

    async fn ask_with(&self, method: &str, target: &str, fields: &str) -> Answer {
        let close = "Connection: close\r\n";
        self.send(&format!("{method} {target} HTTP/1.1\r\nHost: localhost:19000\r\n{close}{fields}\r\n"))
            .await
    }
}

#[tokio::test]
async fn readiness_follows_the_state_on_every_socket() {
    for surface in [Surface::Admin, Surface::Stats, Surface::Ready] {
        let server = Arc::new(Server::new());
        let rig = serving_from(surface, Arc::new(Registry::new(Arc::clone(&server), 1))).await;
        let mut seen = Vec::new();
        for step in [|_: &Server| {}, Server::initialized, Server::draining] {
            step(&server);
            let answer = rig.ask("GET", "/ready").await;
            seen.push((answer.status, answer.text().to_owned()));
        }
        let want = [(503, "PRE_INITIALIZING\n"), (200, "LIVE\n"), (503, "DRAINING\n")];
        assert_eq!(seen, want.map(|(status, body)| (status, body.to_owned())), "{surface:?}");
    }
}

#[tokio::test]
async fn the_stats_and_ready_sockets_answer_nothing_else() {
    for (surface, served) in [(Surface::Stats, "/stats/prometheus"), (Surface::Ready, "/ready")] {
        let rig = serving(surface).await;
        assert_eq!(rig.ask("GET", served).await.status, 200);
        assert_eq!(rig.ask("HEAD", served).await.body, b"");
        for (method, target) in [
            ("POST", served),
            ("GET", "/stats"),
            ("GET", "/"),
            ("POST", "/quitquitquit"),
            ("GET", "/config_dump"),
        ] {
            assert_eq!(rig.ask(method, target).await.status, 404, "{surface:?} {method} {target}");
        }
    }
}

#[tokio::test]
async fn the_page_is_compressed_for_who_takes_gzip() {
    let rig = serving(Surface::Stats).await;
    let plain = rig.ask("GET", "/stats/prometheus?filter=downstream_rq_xx").await;
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4"), "{}", plain.head);
    assert!(plain.text().starts_with("# TYPE envoy_http_downstream_rq_xx counter\n"), "{}", plain.text());
    let zipped =
        rig.ask_with("GET", "/stats/prometheus?filter=downstream_rq_xx", "Accept-Encoding: gzip\r\n").await;
    assert!(zipped.head.contains("content-encoding: gzip"), "{}", zipped.head);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*zipped.body).read_to_string(&mut text).expect("gzip");
    assert_eq!(text, plain.text());
    let shorter = rig
        .ask_with("GET", "/stats/prometheus?filter=downstream_rq_xx", "Accept-Encoding: gzip, zstd\r\n")
        .await;
    assert!(shorter.head.contains("content-encoding: zstd"), "{}", shorter.head);
    let text = zstd::decode_all(&*shorter.body).expect("zstd");
    assert_eq!(String::from_utf8(text).expect("text"), plain.text());
}

#[tokio::test]
async fn openmetrics_is_given_to_who_asks_for_it() {
    let rig = serving(Surface::Stats).await;
    let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let open = rig.ask_with("GET", "/stats/prometheus", accept).await;
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", open.head);
    assert!(open.text().ends_with("\n# EOF\n"), "{}", open.text());
}

#[tokio::test]
async fn the_dump_has_the_messages_that_egctl_reads() {
    let rig = serving(Surface::Admin).await;
    let json = async |target: &str| -> serde_json::Value {
        serde_json::from_slice(&rig.ask("GET", target).await.body).expect("JSON")
    };
    let kinds = |dump: &serde_json::Value| -> Vec<String> {
        let configs = dump["configs"].as_array().expect("a list").iter();
        let kinds = configs
            .map(|one| one["@type"].as_str().expect("a type").rsplit("v3.").next().unwrap_or("").to_owned());
        kinds.collect()
    };
    let dumps = [
        "BootstrapConfigDump",
        "ClustersConfigDump",
        "ListenersConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",
    ];
    let dump = json("/config_dump").await;
    assert_eq!(kinds(&dump), dumps);
    let cluster = &dump["configs"][1]["dynamic_active_clusters"][0]["cluster"];
    assert_eq!(cluster["name"], "httproute/default/app-0/rule/0");
    let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][1]["endpoint"]["address"];
    assert_eq!(endpoint["socket_address"]["port_value"], 2);
    assert!(kinds(&json("/config_dump?include_eds").await).contains(&"EndpointsConfigDump".to_owned()));
    let listeners = json("/config_dump?resource=dynamic_listeners").await;
    assert_eq!(kinds(&listeners), ["ListenersConfigDump.DynamicListener"; 2]);
    let secret = &json("/config_dump?resource=dynamic_active_secrets").await["configs"][0]["secret"];
    assert_eq!(secret["name"], "network/home-tls");
    let key = &secret["tls_certificate"]["private_key"];
    assert_eq!(*key, serde_json::json!({ "inline_bytes": "W3JlZGFjdGVkXQ==" }), "no key is ever shown");
    let clusters = json("/clusters?format=json").await;
    let host = &clusters["cluster_statuses"][2]["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["address"], "127.0.0.1");
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
}

#[tokio::test]
async fn a_selection_is_honoured_and_a_bad_filter_is_refused() {
    let rig = serving(Surface::Admin).await;
    let used = rig.ask("GET", "/stats?usedonly&filter=app-0.*upstream_rq_").await;
    assert!(
        used.text().contains("cluster.httproute/default/app-0/rule/0.upstream_rq_200: 2\n"),
        "{}",
        used.text()
    );
    assert!(used.text().contains("app-0/rule/0.retry.upstream_rq_5xx: 1\n"), "{}", used.text());
    assert!(!used.text().contains("rule/0.upstream_rq_5xx"), "{}", used.text());
    for target in ["/stats?filter=(", "/stats/prometheus?filter=((a{999}){999}){999}", "/stats?format=html"] {
        assert_eq!(rig.ask("GET", target).await.status, 400, "{target}");
    }
}

#[tokio::test]
async fn the_shutdown_manager_gets_what_it_parses() {
    let rig = serving(Surface::Admin).await;
    assert_eq!(rig.ask("POST", "/healthcheck/fail").await.text(), "OK\n");
    assert_eq!(rig.ask("GET", "/ready").await.status, 503);
    let answer = rig.ask("GET", r"//stats?filter=^listener\..*\.downstream_cx_active$&format=json").await;
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let names: Vec<_> = json["stats"].as_array().expect("a list").iter().map(|stat| &stat["name"]).collect();
    assert_eq!(
        names,
        ["listener.0.0.0.0_10080.downstream_cx_active", "listener.0.0.0.0_10443.downstream_cx_active"]
    );
    assert!(json["stats"][0]["value"].is_u64());
    assert_eq!(rig.ask("POST", "/healthcheck/ok").await.text(), "OK\n");
    assert_eq!(rig.ask("GET", "/ready").await.status, 200);
}

#[tokio::test]
async fn orders_are_taken_by_post_and_handed_on() {
    let mut rig = serving(Surface::Admin).await;
    for (target, order) in [
        ("/drain_listeners?graceful&skip_exit", Order::Drain { graceful: true, stay: true }),
        ("/drain_listeners?graceful", Order::Drain { graceful: true, stay: false }),
        ("/drain_listeners", Order::Drain { graceful: false, stay: false }),
        ("/reopen_logs", Order::ReopenLogs),
        ("/quitquitquit", Order::Quit),
    ] {
        let refused = rig.ask("GET", target).await;
        assert_eq!((refused.status, refused.text()), (405, "Method GET not allowed, POST required."));
        assert!(rig.orders.try_recv().is_err());
        assert_eq!(rig.ask("POST", target).await.text(), "OK\n");
        assert_eq!(rig.orders.recv().await, Some(order));
    }
    assert_eq!(rig.ask("POST", "/quitquitquit").await.status, 200);
    assert_eq!(rig.ask("POST", "/quitquitquit").await.status, 503, "the first one is not done yet");
}

#[tokio::test]
async fn pages_in_a_browser_are_refused() {
    let mut rig = serving(Surface::Admin).await;
    let rebound = "GET /config_dump HTTP/1.1\r\nHost: evil.example:19000\r\nConnection: close\r\n\r\n";
    assert_eq!(rig.send(rebound).await.status, 403);
    let form = rig.ask_with("POST", "/quitquitquit", "Origin: https://evil.example\r\n").await;
    assert_eq!(form.status, 403);
    assert!(rig.orders.try_recv().is_err());
}

#[tokio::test]
async fn the_log_level_is_shown_and_changed() {
    let rig = serving(Surface::Admin).await;
    assert_eq!(rig.ask("POST", "/logging").await.text(), "active loggers:\n  trigate: info\n");
    assert_eq!(rig.ask("POST", "/logging?level=warning").await.text(), "active loggers:\n  trigate: warn\n");
    for refused in ["level=loud", "paths=admin:debug", "admin=debug", "a=b&c=d"] {
        let answer = rig.ask("POST", &format!("/logging?{refused}")).await;
        assert!(
            answer.status == 400 && answer.text().starts_with("error: unknown"),
            "{refused}: {}",
            answer.text()
        );
    }
    assert_eq!(rig.ask("POST", "/logging").await.text(), "active loggers:\n  trigate: warn\n");
    for (query, level) in [("paths=trigate:debug", "debug"), ("trigate=critical", "error")] {
        let told = format!("active loggers:\n  trigate: {level}\n");
        assert_eq!(rig.ask("POST", &format!("/logging?{query}")).await.text(), told, "{query}");
    }
}

#[tokio::test]
async fn what_is_asked_for_wrongly_or_is_not_there_is_answered_as_by_envoy() {
    let rig = serving(Surface::Admin).await;
    for (target, status, said) in [
        ("/stats?filter=((", 400, "Invalid re2 regex: "),
        ("/stats?type=Texts", 400, "invalid &type= param"),
        ("/stats?format=xml", 400, "format is one of"),
        ("/clusters?filter=((", 400, "Invalid re2 regex: "),
        ("/config_dump?resource=nope", 404, "nope not found in config dump"),
        ("/config_dump?resource=static_clusters", 200, "{"),
        ("/stats?usedonly&format=json&filter=nothing", 200, "{\"stats\":[]}"),
        ("/hot_restart_version", 200, "disabled"),
        ("/contention", 200, "Mutex contention tracing is not enabled."),
        ("/stats/recentlookups", 200, "Lookup tracking is not enabled."),
        ("/runtime", 200, "{\n \"entries\": {}"),
        ("/init_dump", 200, "{}"),
    ] {
        let answer = rig.ask("GET", target).await;
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.text().starts_with(said), "{target}: {}", answer.text());
    }
    let gauges = rig.ask("GET", "/stats?type=Gauges&filter=downstream_rq_(active|total|time)$").await;
    assert!(gauges.text().lines().all(|line| line.contains("rq_active")), "{}", gauges.text());
    let one = rig.ask("GET", "/clusters?filter=app-1/").await;
    assert!(one.text().lines().all(|line| line.contains("app-1/")) && !one.body.is_empty(), "{}", one.text());
}

#[tokio::test]
async fn every_view_has_the_shape_that_tools_know() {
    let rig = serving(Surface::Admin).await;
    let json = async |target| -> serde_json::Value {
        serde_json::from_slice(&rig.ask("GET", target).await.body).expect("JSON")
    };
    let certificate = &json("/certs").await["certificates"][0]["cert_chain"][0];
    assert_eq!(certificate["path"], "network/home-tls");
    assert_eq!(certificate["subject_alt_names"][0]["dns"], "*.home.test");
    assert!(certificate["valid_from"].as_str().is_some_and(|time| time.ends_with('Z')), "{certificate}");
    assert_eq!(json("/server_info").await["state"], "LIVE");
    assert!(json("/memory").await["allocated"].as_str().is_some_and(|bytes| bytes.parse::<u64>().is_ok()));
    let status = &json("/listeners?format=json").await["listener_statuses"][0];
    assert_eq!(status["local_address"]["socket_address"]["port_value"], 10080);
    let text = async |target| rig.ask("GET", target).await.text().to_owned();
    assert_eq!(text("/listeners").await, "external/10080::0.0.0.0:10080\nexternal/10443::0.0.0.0:10443\n");
    assert_eq!(text("/config_dump?format=text").await, "revision 7\n");
    let clusters = text("/clusters").await;
    let line = "httproute/default/app-1/rule/0::127.0.0.1:2::health_flags::healthy\n";
    assert!(clusters.contains(line), "{clusters}");
    assert!(text("/help").await.contains("/stats/prometheus"));
    assert_eq!(rig.ask("GET", "/nowhere").await.status, 404);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_kept() {
    let rig = serving(Surface::Stats).await;
    let endless = format!("GET /ready HTTP/1.1\r\nX: {}", "a".repeat(64 * 1024));
    let mut stream = TcpStream::connect(rig.address).await.expect("it accepts");
    // It may close before it read everything.
    let _ = stream.write_all(endless.as_bytes()).await;
    let mut bytes = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await;
    assert!(closed.is_ok(), "the connection is still open");
    assert!(!bytes.starts_with(b"HTTP/1.1 200"));
}
