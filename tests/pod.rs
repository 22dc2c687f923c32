//! A pod as Envoy Gateway describes it: the arguments and the environment of its container, its probes, and the
//! shutdown manager beside it.

mod harness;

use harness::client::{Ask, Client};
use harness::manifest::{route, service};
use harness::raw::Raw;
use harness::trigate::{Builder, Trigate};
use harness::upstream::Upstream;
use harness::{eventually, soon};
use serde_json::Value;
use std::time::{Duration, Instant};

const HOST: &str = "app.example.test";

/// Those of its Envoy container, one a line.
const ARGUMENTS: &str = include_str!("pod/arguments.txt");

/// Envoy Gateway's bootstrap in short, with the admin server elsewhere.
const BOOTSTRAP: &str = r#"
admin:
  access_log:
  - name: envoy.access_loggers.file
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
      path: /dev/null
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds_cluster}}]}
overload_manager:
  refresh_interval: 0.25s
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: 50000
"#;

fn builder(upstream: &Upstream) -> Builder {
    Builder::new()
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").host(HOST).to("app"))
}

#[tokio::test]
async fn the_arguments_of_envoy_gateways_container_start_it() {
    let upstream = Upstream::echo("app").await;
    let trigate = builder(&upstream)
        .arguments(&ARGUMENTS.lines().collect::<Vec<_>>())
        .environment("ENVOY_POD_NAMESPACE", "network")
        .environment("ENVOY_POD_NAME", "envoy-network-external-7d9f")
        .environment("ENVOY_SERVICE_ZONE", "zone-a")
        .start()
        .await;
    assert_eq!(trigate.external.get(HOST, "/").await.status, 200);
    let log = trigate.log();
    let ignored: Vec<_> = log.lines().filter(|line| line.contains("ignored of Envoy's arguments")).collect();
    assert_eq!(ignored.len(), 1, "{log}");
    assert!(ignored[0].ends_with("--component-log-level (RUST_LOG sets levels of parts)"), "{}", ignored[0]);
    assert!(!log.contains("INFO"), "the level of the log is that of the argument: {log}");
    let page = Client::http1(trigate.admin).await.send(Ask::get("localhost", "/server_info")).await.text();
    let told: Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!(told["node"]["id"], "envoy-network-external-7d9f", "{page}");
    assert_eq!(told["node"]["cluster"], "network/external", "{page}");
    assert_eq!(told["node"]["locality"]["zone"], "zone-a", "{page}");
}

#[tokio::test]
async fn a_bootstrap_says_where_operators_ask_and_what_of_it_is_ignored() {
    let upstream = Upstream::echo("app").await;
    let trigate = builder(&upstream).arguments(&["--config-yaml", BOOTSTRAP]).start().await;
    assert_eq!(trigate.external.get(HOST, "/").await.status, 200);
    let log = trigate.log();
    let line = "ignored of Envoy's arguments: --config-yaml's dynamic_resources \
                (routes come from Gateway API objects, not from an xDS server)";
    assert!(log.contains(line), "{log}");
    assert!(Client::try_http1(trigate.admin).await.is_err(), "it is where the bootstrap says");
}

#[tokio::test]
async fn a_pod_is_ready_after_little_work() {
    let upstream = Upstream::echo("app").await;
    let start = Instant::now();
    let trigate = builder(&upstream).start().await;
    let (wall, cpu) = (start.elapsed(), trigate.cpu_time());
    println!("ready {wall:?} after exec, with {cpu:?} of CPU time");
    // CPU time and not the clock's, for other tests run on the same cores; built without optimisation at that.
    assert!(cpu <= Duration::from_millis(200), "{cpu:?} of CPU time until it is ready");
}

/// What Envoy Gateway's shutdown manager does to the Envoy beside it.
struct ShutdownManager<'a>(&'a Trigate);

impl ShutdownManager<'_> {
    async fn post(&self, path: &str) {
        let answer = Client::http1(self.0.admin).await.send(Ask::post("localhost:19000", path, "")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "OK\n"), "{path}");
    }

    /// Open connections of the sockets that serve, in the way in which the manager reads them: two slashes, an
    /// expression that is not escaped, and an empty list for an error.
    async fn connections(&self) -> u64 {
        let mut admin = Raw::connect(self.0.admin).await;
        let target = r"//stats?filter=^listener\..*\.downstream_cx_active$&format=json";
        admin
            .send(format!(
                "GET {target} HTTP/1.1\r\nHost: localhost:19000\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"
            ))
            .await;
        let answer = soon("the stats", admin.response()).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{answer:?}");
        let page: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let stats = page["stats"].as_array().expect("a list");
        assert!(!stats.is_empty(), "the manager takes an empty list for an error: {page}");
        let ours = stats.iter().filter(|stat| {
            let name = stat["name"].as_str().expect("a name");
            !["admin", "19001", "19003", "worker"].iter().any(|part| name.contains(part))
        });
        ours.map(|stat| stat["value"].as_u64().expect("a number")).sum()
    }
}

#[tokio::test]
async fn envoy_gateways_shutdown_manager_drains_a_pod() {
    let upstream = Upstream::echo("app").await;
    let mut trigate = builder(&upstream).set("drain.grace", "9s").set("drain.timeout", "30s").start().await;
    let manager = ShutdownManager(&trigate);
    let mut keeping = Raw::connect(trigate.external.http).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    keeping.send(&request).await;
    assert_eq!(keeping.response().await.expect("an answer").header("connection"), None);
    let mut many = Client::http2(trigate.external.http).await;
    assert_eq!(many.send(Ask::get(HOST, "/")).await.status, 200);
    assert_eq!(manager.connections().await, 2);

    manager.post("/healthcheck/fail").await;
    assert_eq!(trigate.ask_ready().await, Some(503));
    assert_eq!(trigate.stats_page("/ready").await.status, 503);
    // Whoever comes now is served, and told to come back elsewhere.
    keeping.send(&request).await;
    let told = soon("an answer", keeping.response()).await.expect("an answer");
    assert_eq!((told.status(), told.header("connection")), (200, Some("close")), "{told:?}");
    assert!(keeping.closed_within(Duration::from_secs(5)).await);
    let mut late = Raw::connect(trigate.external.http).await;
    late.send(&request).await;
    let told = soon("an answer", late.response()).await.expect("an answer");
    assert_eq!((told.status(), told.header("connection")), (200, Some("close")), "{told:?}");
    assert!(late.closed_within(Duration::from_secs(5)).await);
    // GOAWAY ends the other one.
    eventually("no connection left", || async { (manager.connections().await == 0).then_some(()) }).await;
    assert!(many.is_closed(), "HTTP/2 clients are told, too");

    let start = Instant::now();
    trigate.terminate();
    assert!(trigate.ended(Duration::from_secs(8)).await.success());
    assert!(start.elapsed() < Duration::from_secs(5), "clients were told before: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_health_check_that_is_restored_keeps_connections_again() {
    let upstream = Upstream::echo("app").await;
    let trigate = builder(&upstream).start().await;
    let manager = ShutdownManager(&trigate);
    manager.post("/healthcheck/fail").await;
    manager.post("/healthcheck/ok").await;
    assert_eq!(trigate.ask_ready().await, Some(200));
    eventually("a connection that is kept", || async {
        let mut connection = Raw::connect(trigate.external.http).await;
        connection.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let answer = soon("an answer", connection.response()).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.header("connection").is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_manager_with_a_delay_drains_connections_before_it_fails_the_health_check() {
    let upstream = Upstream::echo("app").await;
    let trigate = builder(&upstream).start().await;
    let manager = ShutdownManager(&trigate);
    manager.post("/drain_listeners?graceful&skip_exit").await;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    eventually("an answer that ends its connection", || async {
        let mut connection = Raw::connect(trigate.external.http).await;
        connection.send(&request).await;
        let answer = soon("an answer", connection.response()).await.expect("sockets stay open");
        assert_eq!(answer.status(), 200);
        (answer.header("connection") == Some("close")).then_some(())
    })
    .await;
    assert_eq!(trigate.ask_ready().await, Some(200), "the probe fails later");
    manager.post("/healthcheck/fail").await;
    manager.post("/healthcheck/ok").await;
    let mut connection = Raw::connect(trigate.external.http).await;
    connection.send(&request).await;
    let answer = soon("an answer", connection.response()).await.expect("sockets stay open");
    assert_eq!(answer.header("connection"), Some("close"), "the order to drain still holds");
}

#[tokio::test]
async fn envoys_fields_are_told_only_where_a_gateway_enables_them() {
    let upstream = Upstream::echo("app").await;
    let trigate = Builder::new()
        .set("gateways.internal.enable_envoy_headers", true)
        .set("limits.request_timeout", "15s")
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").on("internal").host(HOST).to("app"))
        .start()
        .await;
    for (gateway, told) in [(trigate.external, false), (trigate.internal, true)] {
        let answer = gateway.ask(Ask::get(HOST, "/").header("x-envoy-external-address", "6.6.6.6")).await;
        let took = answer.header("x-envoy-upstream-service-time").map(|took| took.parse::<u32>().is_ok());
        assert_eq!(took, told.then_some(true), "{answer:?}");
        assert_eq!(answer.header("server"), Some("echo"), "what the upstream says stays: {answer:?}");
        let seen = answer.seen();
        assert_eq!(seen.header("x-envoy-expected-rq-timeout-ms"), told.then_some("15000"), "{seen:?}");
        assert_eq!(seen.header("x-envoy-external-address"), told.then_some("127.0.0.1"), "{seen:?}");
    }
}
