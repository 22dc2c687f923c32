//! The raw HTTP/1 attack cases of `../shared/torture`: what a hostile client or upstream sends, and what must not
//! come of it. Skipped where that folder or Python is missing.

mod harness;

use harness::manifest::{path_prefix, route, service};
use harness::trigate::Trigate;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

fn torture_folder() -> Option<PathBuf> {
    let shared = std::env::var_os("TRIGATE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("torture");
    folder.join("h1run.py").exists().then_some(folder)
}

/// The script's recording upstream is part of the script; its port must be known to both.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback address can be bound");
    listener.local_addr().expect("it is bound").port()
}

#[tokio::test]
async fn no_raw_http1_attack_of_the_first_quarter_succeeds() {
    attack("[0-2]").await;
}

#[tokio::test]
async fn no_raw_http1_attack_of_the_second_quarter_succeeds() {
    attack("[3-4]").await;
}

#[tokio::test]
async fn no_raw_http1_attack_of_the_third_quarter_succeeds() {
    attack("[5-7]").await;
}

#[tokio::test]
async fn no_raw_http1_attack_of_the_fourth_quarter_succeeds() {
    attack("[8-9]").await;
}

/// Runs the cases whose number ends in one of these digits; most of their time is waiting, so the quarters run at
/// once, each with a gateway of its own.
async fn attack(last_digit: &str) {
    let Some(folder) = torture_folder() else {
        println!("skipped: no ../shared/torture (TRIGATE_SHARED names another place)");
        return;
    };
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: no python3");
        return;
    }
    let upstream: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
    let trigate = in_front_of(upstream).await;
    let results = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut script = Command::new("python3");
    script
        .arg(folder.join("h1run.py"))
        .args(["--proxy", &trigate.external.http.to_string(), "--int", &trigate.internal.http.to_string()])
        .args(["--upstream-port", &upstream.port().to_string()])
        .args(["--only", &format!(r"^\S+{last_digit}\s")])
        .arg("--cases")
        .arg(folder.join("h1_cases.json"))
        .arg("--json")
        .arg(results.path());
    let output = tokio::task::spawn_blocking(move || script.output().expect("the script runs")).await;
    let output = output.expect("the script ends");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(results.path()).expect("the script writes its results");
    let report: Value = serde_json::from_str(&text).expect("the results are JSON");
    let cases = report["results"].as_array().expect("a list of results");
    assert!(cases.len() > 30, "only {} cases ran", cases.len());
    let critical: Vec<_> = cases
        .iter()
        .filter(|case| {
            case["verdict"] == "ERROR" || case["verdict"] == "FAIL" && case["severity"] == "critical"
        })
        .collect();
    assert!(critical.is_empty(), "{} critical failures: {critical:#?}", critical.len());
}

/// As the script's README asks: `app.test` and `api.test` outside, `internal.test` inside, all else 404.
async fn in_front_of(upstream: SocketAddr) -> Trigate {
    // `/admin` must be refused by the gateway itself, whatever it is written like: a rule without a backend.
    let refused = json!({ "matches": [path_prefix("/admin")] });
    let outside = route("app").on("external").host("app.test").host("api.test");
    let mut objects = service("app", &[upstream]);
    objects.push(outside.prefix_to("/", "app").rule(refused).object());
    objects.push(route("internal").on("internal").host("internal.test").to("app").object());
    Trigate::serving(objects).await
}
