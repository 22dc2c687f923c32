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
async fn no_raw_http1_attack_succeeds() {
    let Some(folder) = torture_folder() else {
        println!("skipped: no ../shared/torture (TRIGATE_SHARED names another place)");
        return;
    };
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: no python3");
        return;
    }
    let upstream: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
    // `/admin` must be refused by the gateway itself, whatever it is written like: a rule without a backend.
    let refused = json!({ "matches": [path_prefix("/admin")] });
    let mut objects = service("app", &[upstream]);
    objects.push(
        route("app")
            .on("external")
            .host("app.test")
            .host("api.test")
            .prefix_to("/", "app")
            .rule(refused)
            .object(),
    );
    objects.push(route("internal").on("internal").host("internal.test").to("app").object());
    let trigate = Trigate::serving(objects).await;

    let results = std::env::temp_dir().join(format!("trigate-torture-{}.json", std::process::id()));
    let (external, internal) = (trigate.external.http.to_string(), trigate.internal.http.to_string());
    let script = folder.join("h1run.py");
    let (cases, json_path) = (folder.join("h1_cases.json"), results.clone());
    let output = tokio::task::spawn_blocking(move || {
        Command::new("python3")
            .arg(script)
            .args(["--proxy", &external, "--int", &internal])
            .args(["--upstream-port", &upstream.port().to_string()])
            .arg("--cases")
            .arg(cases)
            .arg("--json")
            .arg(json_path)
            .output()
            .expect("the script runs")
    })
    .await
    .expect("the script ends");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&results).expect("the script writes its results");
    // What is left over is a file in the system's temporary folder.
    let _ = std::fs::remove_file(&results);
    let report: Value = serde_json::from_str(&text).expect("the results are JSON");
    let cases = report["results"].as_array().expect("a list of results");
    assert!(cases.len() > 200, "only {} cases ran", cases.len());
    let critical: Vec<_> = cases
        .iter()
        .filter(|case| {
            case["verdict"] == "ERROR" || case["verdict"] == "FAIL" && case["severity"] == "critical"
        })
        .collect();
    assert!(critical.is_empty(), "{} critical failures: {critical:#?}", critical.len());
}
