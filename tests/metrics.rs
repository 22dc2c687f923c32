//! The page of metrics: what Prometheus makes of it, and whether it is what Envoy would have printed.

#[path = "metrics/rig.rs"]
mod rig;

use rig::registry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use trigate::telemetry::{Format, Registry, Revised, Selection, Server};

fn page() -> String {
    registry().page(&Selection::default(), Format::Text)
}

/// The value of the one series with this name and these labels, as written.
fn value<'a>(page: &'a str, series: &str) -> &'a str {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not on the page:\n{page}"))
}

#[test]
fn promtool_reads_the_page_and_complains_of_names_that_are_envoys_only() {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        println!("skipped: promtool is not installed (Debian package `prometheus`)");
        return;
    };
    promtool.stdin.take().expect("piped").write_all(page().as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // 1 is a page that cannot be read, 3 is advice.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}: {said}", output.status);
    let ours: Vec<_> = said.lines().filter(|line| !line.starts_with("envoy_")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[test]
fn every_family_is_announced_once_and_every_series_is_there_once() {
    let page = page();
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    for line in page.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(family) => assert!(families.insert(family), "{family} twice"),
            None if line.starts_with('#') => {}
            None => {
                let (name, _) = line.rsplit_once(' ').expect("a value");
                assert!(series.insert(name), "{name} twice");
            }
        }
    }
    assert!(families.len() > 90 && series.len() > 300, "{} {}", families.len(), series.len());
}

#[test]
fn what_was_counted_is_on_the_page() {
    let page = page();
    for (series, want) in [
        (r#"envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="http-10080"}"#, "3"),
        (
            r#"envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="https-10443"}"#,
            "2",
        ),
        (r#"envoy_http_downstream_rq_active{envoy_http_conn_manager_prefix="http-10080"}"#, "0"),
        (r#"envoy_http_no_route{envoy_http_conn_manager_prefix="http-10080"}"#, "1"),
        (r#"envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="http-10080",le="5"}"#, "3"),
        (
            r#"envoy_listener_http_downstream_rq_xx{envoy_response_code_class="4",envoy_http_conn_manager_prefix="http-10080",envoy_listener_address="0.0.0.0_10080"}"#,
            "1",
        ),
        (r#"envoy_cluster_upstream_rq_total{envoy_cluster_name="httproute/default/app-0/rule/0"}"#, "2"),
        (
            r#"envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="httproute/default/app-1/rule/0"}"#,
            "2",
        ),
        (r#"envoy_cluster_membership_healthy{envoy_cluster_name="httproute/default/app-2/rule/0"}"#, "2"),
        (
            r#"envoy_cluster_circuit_breakers_cx_open{priority="default",envoy_cluster_name="httproute/default/app-0/rule/0"}"#,
            "0",
        ),
        (
            r#"envoy_cluster_circuit_breakers_default_cx_open{envoy_cluster_name="httproute/default/app-0/rule/0"}"#,
            "0",
        ),
        ("envoy_server_live{}", "1"),
        ("envoy_server_state{}", "0"),
        ("envoy_cluster_manager_active_clusters{}", "3"),
        ("envoy_cluster_manager_cluster_added{}", "3"),
        ("envoy_cluster_manager_cds_update_success{}", "1"),
        (r#"envoy_cluster_manager_cds_update_duration_bucket{le="5"}"#, "1"),
        ("envoy_listener_manager_listener_added{}", "2"),
        ("trigate_revision", "7"),
        (
            r#"trigate_gateway_socket{gateway="external",envoy_http_conn_manager_prefix="http-10080",envoy_listener_address="0.0.0.0_10080"}"#,
            "1",
        ),
        (r#"trigate_host_exposed{gateway="external",host="app.home.test"}"#, "1"),
        (r#"trigate_hosts{gateway="external"}"#, "1"),
        (r#"trigate_rule_name{envoy_cluster_name="httproute/default/app-0/rule/0",rule="checkout"}"#, "1"),
        (r#"trigate_diagnostics{severity="warning"}"#, "2"),
    ] {
        assert_eq!(value(&page, series), want, "{series}");
    }
    assert!(value(&page, "envoy_server_memory_physical_size{}").parse::<u64>().is_ok_and(|bytes| bytes > 0));
    assert!(value(&page, "process_open_fds").parse::<u64>().is_ok_and(|files| files > 0));
}

#[test]
fn a_cluster_without_traffic_shows_the_zero_that_a_rate_starts_from_and_no_more() {
    let page = page();
    let idle = r#"envoy_cluster_name="httproute/default/app-2/rule/0""#;
    assert_eq!(value(&page, &format!("envoy_cluster_upstream_rq_total{{{idle}}}")), "0");
    let five_xx = format!("envoy_cluster_upstream_rq_xx{{envoy_response_code_class=\"5\",{idle}}}");
    assert_eq!(value(&page, &five_xx), "0");
    assert_eq!(page.lines().filter(|line| line.contains(idle)).count(), 11);
}

#[test]
fn a_reset_sets_counters_to_zero() {
    let registry = registry();
    registry.reset_counters();
    let page = registry.page(&Selection::default(), Format::Text);
    for series in [
        r#"envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="http-10080"}"#,
        r#"envoy_cluster_upstream_rq_total{envoy_cluster_name="httproute/default/app-0/rule/0"}"#,
    ] {
        assert_eq!(value(&page, series), "0");
    }
}

/// Whatever upstreams answer and however often: codes have a series each from a list, the rest of a class share one.
#[test]
fn the_page_does_not_grow_with_traffic() {
    let clusters = rig::clusters(1);
    let socket = rig::socket("0.0.0.0:10080", vec![]);
    let registry = Registry::new(Arc::new(Server::new()), 1);
    registry.revised(Revised { clusters: clusters.clone(), ..Revised::nothing() });
    registry.set_sockets(vec![socket.clone()]);
    let lines = || registry.page(&Selection::default(), Format::Text).lines().count();
    for code in 0..=u16::MAX {
        clusters[0].stats().request_began();
        clusters[0].stats().request_ended(Some(code), Duration::from_millis(u64::from(code)));
    }
    let after_every_code = lines();
    rig::request(&socket, &clusters[0]);
    assert_eq!(lines(), after_every_code);
    assert!(after_every_code < 800, "{after_every_code} lines for one cluster and one socket");
}

/// A family of a page.
#[derive(Debug, Default)]
struct Family<'a> {
    kind: &'a str,
    labels: BTreeSet<&'a str>,
    buckets: BTreeSet<&'a str>,
}

/// Families of the page.
fn families(page: &str) -> BTreeMap<&str, Family<'_>> {
    let mut families = BTreeMap::<&str, Family<'_>>::new();
    let mut current = "";
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|family| family.split_once(' ')) {
            current = name;
            families.entry(name).or_default().kind = kind;
        } else if let Some((labels, _)) = line.strip_prefix(current).and_then(|line| line.rsplit_once(' ')) {
            let family = families.get_mut(current).expect("announced");
            for (name, value) in labels.split("\",").filter_map(|pair| pair.rsplit_once("=\"")) {
                match name.rsplit('{').next().unwrap_or(name) {
                    "le" => drop(family.buckets.insert(value)),
                    name => drop(family.labels.insert(name)),
                }
            }
        }
    }
    families
}

/// Metrics that are marked and that belong to things which this process does not have, and why it has not.
const NOT_OURS: [(&str, &str); 23] = [
    ("envoy_cluster_health_check_", "no active health checks"),
    ("envoy_cluster_outlier_detection_ejections_", "no outlier detection"),
    ("envoy_cluster_ssl_certificate_", "trusted authorities have no name here"),
    ("envoy_cluster_ssl_fail_verify_", "certificates are not pinned by hash, and backends always show one"),
    ("envoy_cluster_ssl_no_certificate", "backends always show one"),
    ("envoy_cluster_ssl_ocsp_", "no OCSP towards backends"),
    ("envoy_listener_ssl_ocsp_", "rustls does not tell which clients ask for a staple"),
    ("envoy_cluster_ssl_sigalgs", "rustls does not tell"),
    ("envoy_listener_ssl_fail_verify_", "certificates are not pinned by hash or name"),
    ("envoy_cluster_manager_", "changes are not merged or put off"),
    ("envoy_cluster_upstream_cx_", "no such limit, and no buffers that are counted"),
    ("envoy_cluster_upstream_rq_per_cx", "a page longer by a sixth, and no dashboard asks for it"),
    ("envoy_cluster_upstream_rq_", "no such limit, and sizes are not recorded"),
    ("envoy_http_downstream_cx_http1_soft_drain", "not counted"),
    ("envoy_http_downstream_cx_http3", "no HTTP/3"),
    ("envoy_http_downstream_rq_http3", "no HTTP/3"),
    ("envoy_http_downstream_cx_max_", "no such limit"),
    ("envoy_http_downstream_rq_max_", "no such limit"),
    ("envoy_http_downstream_cx_overload", "no overload manager"),
    ("envoy_http_downstream_rq_overload", "no overload manager"),
    ("envoy_http_downstream_cx_rx_bytes_buffered", "not counted"),
    ("envoy_http_downstream_rq_ws_on_non_ws_route", "every route takes upgrades"),
    ("envoy_listener_", "no overload manager, no filter chains of their own, workers are not pinned"),
];

#[test]
fn names_types_labels_and_buckets_are_those_of_a_real_envoy() {
    let shared = std::env::var_os("TRIGATE_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let Ok(table) = std::fs::read_to_string(shared.join("envoy/metrics.tsv")) else {
        println!("skipped: {} has no envoy/metrics.tsv", shared.display());
        return;
    };
    let page = page();
    let families = families(&page);
    let mut known = BTreeSet::new();
    let mut faults = Vec::new();
    let (mut served, mut left) = (0, 0);
    for row in table.lines().skip(1) {
        let [mark, name, kind, labels, _, _, buckets, ..] = row.split('\t').collect::<Vec<_>>()[..] else {
            continue;
        };
        known.insert(name);
        let labels: BTreeSet<_> = labels.split(',').filter(|label| !label.is_empty()).collect();
        let marked = mark == "must" || mark == "should";
        match families.get(name) {
            Some(ours) if ours.kind != kind || ours.labels != labels => {
                faults.push(format!("{name}: {ours:?} instead of {kind} {labels:?}"));
            }
            Some(ours) if !buckets.is_empty() && ours.buckets.len().to_string() != buckets => {
                faults.push(format!("{name}: {} buckets instead of {buckets}", ours.buckets.len()));
            }
            Some(_) => served += usize::from(marked),
            None if mark == "must" => faults.push(format!("{name} is missing")),
            None if mark == "should" => match NOT_OURS.iter().find(|(prefix, _)| name.starts_with(prefix)) {
                Some((_, why)) => {
                    left += 1;
                    println!("{name} is not here: {why}");
                }
                None => faults.push(format!("{name} is missing")),
            },
            None => {}
        }
    }
    println!("{served} of the marked metrics are here, {left} are of things that are not");
    let invented = families.keys().filter(|name| name.starts_with("envoy_") && !known.contains(*name));
    // Public dashboards ask for the first; Envoy Gateway's own Envoy has a label instead. The second are those of UDP.
    let invented = invented.filter(|name| {
        !name.starts_with("envoy_cluster_circuit_breakers_default_") && !name.starts_with("envoy_udp_")
    });
    faults.extend(invented.map(|name| format!("{name} is not one of Envoy's")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What OpenMetrics 1.0 asks for beyond the text format: each family once, in one piece, and an end.
#[test]
fn openmetrics_has_every_series_of_the_text_page_and_ends() {
    let registry = registry();
    let (text, open) = (registry.page(&Selection::default(), Format::Text), {
        registry.page(&Selection::default(), Format::OpenMetrics)
    });
    assert!(open.ends_with("\n# EOF\n"));
    let mut families = BTreeSet::new();
    for family in open.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = family.split_once(' ').expect("a type");
        assert!(families.insert(name), "{name} twice");
        assert!(kind != "counter" || !name.ends_with("_total"), "{family}");
    }
    let names = |page: &str| {
        let series = page.lines().filter(|line| !line.starts_with('#') && !line.contains("le=\""));
        series.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&text), names(&open));
}
