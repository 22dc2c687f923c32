//! What observers see: the probe, the page of metrics under Envoy's names, and nothing on the clients' sockets.

use crate::HOST;
use crate::harness::client::{Ask, Client};
use crate::harness::eventually;
use crate::harness::manifest::{route, service};
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::{Upstream, refusing};
use std::io::Write;
use std::process::{Command, Stdio};

async fn used() -> (Trigate, Upstream) {
    let upstream = Upstream::echo("app").await;
    let mut objects = service("app", &[upstream.address]);
    objects.extend(service("down", &[refusing().await]));
    objects.push(route("app").on("external").host(HOST).to("app").object());
    objects.push(route("down").on("external").host("down.example.test").to("down").object());
    let trigate = Trigate::serving(objects).await;
    let mut client = Client::http1(trigate.external.http).await;
    for _ in 0..5 {
        assert_eq!(client.send(Ask::get(HOST, "/")).await.status, 200);
    }
    assert_eq!(client.send(Ask::get("nobody.test", "/")).await.status, 404);
    assert_eq!(client.send(Ask::get("down.example.test", "/")).await.status, 503);
    let mut over_tls = Client::https2(&trigate, trigate.external, HOST).await;
    assert_eq!(over_tls.send(Ask::get(HOST, "/")).await.status, 200);
    (trigate, upstream)
}

#[tokio::test]
async fn the_probe_answers_on_both_addresses() {
    let (trigate, _upstream) = used().await;
    for address in [trigate.ready, trigate.stats] {
        let mut client = Client::http1(address).await;
        let answer = client.send(Ask::get("probe", "/ready")).await;
        assert_eq!((answer.status, answer.text().trim()), (200, "LIVE"));
    }
}

#[tokio::test]
async fn promtool_accepts_the_page() {
    let (trigate, _upstream) = used().await;
    let page = trigate.stats_page("/stats/prometheus").await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")),
        "{:?}",
        page.headers
    );
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        println!("skipped: promtool is not installed (Debian package `prometheus`)");
        return;
    };
    promtool.stdin.take().expect("piped").write_all(&page.body).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    // Status 3 is advice about names, which are Envoy's; 1 is a page that cannot be read.
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}: {said}", output.status);
}

#[tokio::test]
async fn every_promised_metric_is_there() {
    let (trigate, _upstream) = used().await;
    let page = trigate.stats_page("/stats/prometheus").await.text();
    for name in [
        "envoy_server_live",
        "envoy_server_state",
        "envoy_server_uptime",
        "envoy_server_memory_allocated",
        "envoy_http_downstream_rq_total",
        "envoy_http_downstream_rq_xx",
        "envoy_http_downstream_rq_time_bucket",
        "envoy_http_downstream_rq_time_sum",
        "envoy_http_downstream_rq_time_count",
        "envoy_http_downstream_rq_active",
        "envoy_http_downstream_cx_total",
        "envoy_http_downstream_cx_active",
        "envoy_cluster_membership_healthy",
        "envoy_cluster_membership_total",
        "envoy_cluster_upstream_rq_total",
        "envoy_cluster_upstream_rq_xx",
        "envoy_cluster_upstream_rq_time_bucket",
        "envoy_cluster_upstream_cx_active",
        "envoy_listener_downstream_cx_total",
        "envoy_listener_downstream_cx_active",
    ] {
        let line = page
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        assert!(line.is_some(), "{name} is not on the page:\n{page}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_socket_and_class() {
    let (trigate, _upstream) = used().await;
    // Named by the bound port, as Envoy Gateway's `http-10080`.
    let clear = format!("http-{}", trigate.external.http.port());
    let over_tls = format!("https-{}", trigate.external.https.port());
    // A request is counted when it has ended, which may be a moment after its answer is here.
    let total = || async {
        let prefix = format!(r#"envoy_http_conn_manager_prefix="{}""#, clear);
        (trigate.metric("envoy_http_downstream_rq_total", &[&prefix]).await >= 7.0).then_some(())
    };
    eventually("seven requests on the page", total).await;
    for (prefix, class, count) in
        [(&clear, "2", 5.0), (&clear, "4", 1.0), (&clear, "5", 1.0), (&over_tls, "2", 1.0)]
    {
        let labels = [
            format!(r#"envoy_http_conn_manager_prefix="{prefix}""#),
            format!(r#"envoy_response_code_class="{class}""#),
        ];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let counted = || async {
            (trigate.metric("envoy_http_downstream_rq_xx", &labels).await == count).then_some(())
        };
        eventually(&format!("{count} requests of {prefix} in class {class}"), counted).await;
    }
}

#[tokio::test]
async fn clusters_are_named_as_envoy_gateway_names_them() {
    let (trigate, _upstream) = used().await;
    let app = r#"envoy_cluster_name="httproute/apps/app/rule/0""#;
    let counted =
        || async { (trigate.metric("envoy_cluster_upstream_rq_total", &[app]).await == 6.0).then_some(()) };
    eventually("six requests of the cluster", counted).await;
    assert_eq!(trigate.metric("envoy_cluster_membership_total", &[app]).await, 1.0);
    assert_eq!(trigate.metric("envoy_cluster_membership_healthy", &[app]).await, 1.0);
    let two_xx =
        trigate.metric("envoy_cluster_upstream_rq_xx", &[app, r#"envoy_response_code_class="2""#]).await;
    assert_eq!(two_xx, 6.0);
}

#[tokio::test]
async fn gauges_rise_and_fall_with_connections() {
    let (trigate, _upstream) = used().await;
    let active = || async { trigate.metric("envoy_http_downstream_cx_active", &[]).await };
    eventually("no connection", || async { (active().await == 0.0).then_some(()) }).await;
    let client = Client::http1(trigate.external.http).await;
    eventually("one connection", || async { (active().await == 1.0).then_some(()) }).await;
    drop(client);
    eventually("no connection again", || async { (active().await == 0.0).then_some(()) }).await;
}

#[tokio::test]
async fn a_cluster_counts_its_connections_and_the_replies_that_stand_for_it() {
    let (trigate, upstream) = used().await;
    let (app, down) = (
        r#"envoy_cluster_name="httproute/apps/app/rule/0""#,
        r#"envoy_cluster_name="httproute/apps/down/rule/0""#,
    );
    let five_xx = r#"envoy_response_code_class="5""#;
    let refused = || async {
        (trigate.metric("envoy_cluster_upstream_rq_xx", &[down, five_xx]).await == 1.0).then_some(())
    };
    eventually("the 503 of the cluster that refuses", refused).await;
    assert!(trigate.metric("envoy_cluster_upstream_cx_connect_fail", &[down]).await >= 1.0);
    assert!(trigate.metric("envoy_cluster_upstream_cx_active", &[app]).await >= 1.0);
    assert!(trigate.metric("envoy_cluster_upstream_cx_rx_bytes_total", &[app]).await > 0.0);
    drop(upstream);
    let closed =
        || async { (trigate.metric("envoy_cluster_upstream_cx_active", &[app]).await == 0.0).then_some(()) };
    eventually("no connection to an upstream that is gone", closed).await;
}

#[tokio::test]
async fn connections_that_upstreams_say_they_close_are_counted() {
    let upstream = Upstream::recording(|request| {
        let close = if request.start.contains("/last") { "Connection: close\r\n" } else { "" };
        format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 0\r\n\r\n").into()
    })
    .await;
    let trigate = crate::in_front_of(&upstream).await;
    let mut client = Client::http1(trigate.external.http).await;
    for path in ["/", "/", "/last", "/"] {
        assert_eq!(client.send(Ask::get(HOST, path)).await.status, 200);
    }
    assert_eq!(trigate.metric("envoy_cluster_upstream_cx_close_notify", &[]).await, 1.0);
    assert_eq!(trigate.metric("envoy_cluster_upstream_cx_total", &[]).await, 2.0);
}

#[tokio::test]
async fn it_says_what_it_serves() {
    let (trigate, _upstream) = used().await;
    let log = trigate.log();
    for what in ["external", "internal", "tailscale", &trigate.external.http.to_string(), "curl"] {
        assert!(log.contains(what), "{what} is not in the log:\n{log}");
    }
}

#[tokio::test]
async fn before_the_first_revision_nothing_is_ready_and_a_wrong_file_is_said_at_once() {
    let mut trigate = Builder::new().set("gateways.external.unknown_key", true).start_unready();
    let start = std::time::Instant::now();
    while trigate.log().is_empty() && start.elapsed() < crate::harness::PATIENCE {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let log = trigate.log();
    assert!(log.contains("unknown_key") && log.contains("proxy.toml"), "{log}");
    assert_eq!(trigate.ask_ready().await, None);
    assert!(!trigate.ended(std::time::Duration::from_secs(5)).await.success());
    trigate.expect_failure();
}
