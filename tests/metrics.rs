//! The page of metrics: what Prometheus makes of it, and whether it is what Envoy would have printed.

#[path = "metrics/rig.rs"]
mod rig;

use rig::registry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use trigate::telemetry::Selection;

fn page() -> String {
    registry().page(&Selection::default())
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
        ("trigate_revision", "7"),
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
    assert_eq!(page.lines().filter(|line| line.contains(idle)).count(), 10);
}

#[test]
fn a_reset_sets_counters_to_zero() {
    let registry = registry();
    registry.reset_counters();
    let page = registry.page(&Selection::default());
    for series in [
        r#"envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="http-10080"}"#,
        r#"envoy_cluster_upstream_rq_total{envoy_cluster_name="httproute/default/app-0/rule/0"}"#,
    ] {
        assert_eq!(value(&page, series), "0");
    }
}

/// Families of the page: their type, and the names of their labels.
fn families(page: &str) -> BTreeMap<&str, (&str, BTreeSet<&str>)> {
    let mut families = BTreeMap::new();
    let mut current = ("", "");
    for line in page.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            current = family.split_once(' ').expect("a type");
            families.entry(current.0).or_insert((current.1, BTreeSet::new()));
        } else if let Some((labels, _)) = line.strip_prefix(current.0).and_then(|line| line.rsplit_once(' '))
        {
            let names = labels.split("\",").filter_map(|pair| pair.rsplit_once("=\"").map(|(name, _)| name));
            let names = names.map(|name| name.rsplit('{').next().unwrap_or(name));
            let (_, known) = families.get_mut(current.0).expect("announced");
            known.extend(names.filter(|name| *name != "le"));
        }
    }
    families
}

/// Metrics that dashboards need and that belong to things which this process does not have yet.
const NOT_YET: [&str; 5] = [
    "envoy_http2_",
    "envoy_http_ext_authz_",
    "envoy_http_jwt_",
    "envoy_http_local_rate_limiter_",
    "envoy_tcp_",
];

#[test]
fn names_types_and_labels_are_those_of_a_real_envoy() {
    let shared = std::env::var_os("TRIGATE_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let Ok(table) = std::fs::read_to_string(shared.join("envoy/metrics.tsv")) else {
        println!("skipped: {} has no envoy/metrics.tsv", shared.display());
        return;
    };
    let page = page();
    let families = families(&page);
    let mut known = BTreeSet::new();
    let mut faults = Vec::new();
    for row in table.lines().skip(1) {
        let [mark, name, kind, labels, ..] = row.split('\t').collect::<Vec<_>>()[..] else { continue };
        known.insert(name);
        let labels: BTreeSet<_> = labels.split(',').filter(|label| !label.is_empty()).collect();
        match families.get(name) {
            Some((ours, with)) if *ours != kind || *with != labels => {
                faults.push(format!("{name}: {ours} {with:?} instead of {kind} {labels:?}"));
            }
            None if mark == "must" && !NOT_YET.iter().any(|later| name.starts_with(later)) => {
                faults.push(format!("{name} is missing"));
            }
            _ => {}
        }
    }
    let invented = families.keys().filter(|name| name.starts_with("envoy_") && !known.contains(*name));
    // Public dashboards ask for these; Envoy Gateway's own Envoy has a label instead.
    let invented = invented.filter(|name| !name.starts_with("envoy_cluster_circuit_breakers_default_"));
    faults.extend(invented.map(|name| format!("{name} is not one of Envoy's")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
