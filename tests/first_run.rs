//! A fresh clone: the shipped proxy.toml and example, run by the real binary, on other ports than a real one's.

#[path = "harness/bound.rs"]
mod bound;

use bound::Bound;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TRIGATE: &str = env!("CARGO_BIN_EXE_trigate");
const PORTS: [u16; 10] = [10080, 10443, 11080, 11443, 12080, 12443, 19000, 19001, 19003, 19080];
const PATIENCE: Duration = Duration::from_secs(20);

/// A copy of what a clone has, its ports moved to free ones.
struct Clone {
    folder: TempDir,
    ports: Vec<u16>,
}

impl Clone {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().expect("a folder for the test");
        let held: Vec<_> =
            PORTS.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let ports: Vec<_> = held.iter().map(|one| one.local_addr().expect("it is bound").port()).collect();
        let moved = |text: String| {
            let moved = PORTS
                .iter()
                .zip(&ports)
                .fold(text, |text, (from, to)| text.replace(&from.to_string(), &to.to_string()));
            moved.replace("[\"0.0.0.0\", \"[::]\"]", "[\"127.0.0.1\"]").replace("0.0.0.0", "127.0.0.1")
        };
        let copy = |file: &str| {
            let to = folder.path().join(file);
            fs::create_dir_all(to.parent().expect("a folder")).expect("the folder is ours");
            fs::write(to, moved(fs::read_to_string(root.join(file)).expect("it is shipped")))
                .expect("the folder is ours");
        };
        [
            "proxy.toml",
            "deploy/example/gateways.yaml",
            "deploy/example/routes.yaml",
            "deploy/example/echo.yaml",
        ]
        .into_iter()
        .for_each(copy);
        Self { folder, ports }
    }

    fn port(&self, shipped: u16) -> u16 {
        self.ports[PORTS.iter().position(|port| *port == shipped).expect("a shipped port")]
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn trigate(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(TRIGATE);
        command.args(arguments).current_dir(self.folder.path()).output().expect("the binary is built")
    }

    /// Starts it without arguments; returns it with what it printed.
    fn run(&self) -> (Bound, String) {
        let mut child = Command::new(TRIGATE)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary is built");
        let mut printed = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let running = Bound(child);
        while !printed.contains("to try:") || printed.matches("  curl ").count() < 3 {
            let read = lines.read_line(&mut printed).expect("it prints text");
            assert!(read > 0, "it ended early and printed only:\n{printed}");
        }
        (running, printed)
    }

    fn get(&self, shipped: u16, host: &str, path: &str) -> String {
        get(([127, 0, 0, 1], self.port(shipped)).into(), host, path)
    }
}

fn get(address: SocketAddr, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

fn terminate(running: &Bound) {
    let pid = rustix::process::Pid::from_child(running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the child is ours");
}

#[test]
fn without_arguments_the_example_is_served_said_and_drained() {
    let clone = Clone::new();
    let (mut running, printed) = clone.run();
    for said in
        ["external", "internal", "tailscale", "network/external", "echo.localhost", "/stats/prometheus"]
    {
        assert!(printed.contains(said), "{said} is not in:\n{printed}");
    }
    let http = clone.port(10080);
    assert!(printed.contains(&format!("curl http://echo.localhost:{http}/")), "{printed}");
    let https = clone.port(10443);
    assert!(
        printed.contains(&format!("curl --cacert certs/ca.crt https://echo.localhost:{https}/")),
        "{printed}"
    );
    assert!(printed.contains("https://home.localhost:"), "{printed}");

    let answer = clone.get(10080, "echo.localhost", "/v1/users");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"path\": \"/users\""), "{answer}");
    let redirect = clone.get(11080, "anything.example.test", "/");
    assert!(redirect.starts_with("HTTP/1.1 301"), "{redirect}");
    assert!(clone.get(19003, "probe", "/ready").starts_with("HTTP/1.1 200"));
    assert!(clone.path("certs/tls.key").exists() && clone.path("certs/ca.crt").exists());

    let began = Instant::now();
    terminate(&running);
    let status = running.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn the_example_checks_without_a_word_and_without_writing_anything() {
    let clone = Clone::new();
    let output = clone.trigate(&["check"]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(!clone.path("certs").exists());
    let dump = clone.trigate(&["check", "--dump"]);
    let table = String::from_utf8_lossy(&dump.stdout);
    assert!(dump.status.success() && table.contains("echo.localhost"), "{table}");
}

#[test]
fn check_names_object_file_line_and_column_and_exits_with_1() {
    let clone = Clone::new();
    let broken = fs::read_to_string(clone.path("deploy/example/routes.yaml")).expect("it was copied");
    fs::write(
        clone.path("broken.yaml"),
        broken.replacen("name: echo\n          port: 80", "name: ecco\n          port: 80", 1),
    )
    .expect("the folder is ours");
    let rest = ["deploy/example/gateways.yaml", "deploy/example/echo.yaml"];
    let output = clone.trigate(&["check", "--config", "proxy.toml", "broken.yaml", rest[0], rest[1]]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("HTTPRoute apps/echo") && said.contains("ecco"), "{said}");
    let place = said.split("broken.yaml:").nth(1).expect("the file is named");
    let numbers: Vec<_> = place.splitn(3, [':', ')']).take(2).map(str::parse::<u32>).collect();
    assert!(numbers.iter().all(Result::is_ok), "line and column are named: {said}");
}

#[test]
fn check_says_what_of_logs_and_traces_cannot_be_done() {
    let clone = Clone::new();
    let gateways = fs::read_to_string(clone.path("deploy/example/gateways.yaml")).expect("it was copied");
    let parameters = "  infrastructure:\n    parametersRef:\n      {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: logs}\n";
    let class = "  gatewayClassName: trigate\n";
    fs::write(
        clone.path("deploy/example/gateways.yaml"),
        gateways.replace(class, &format!("{class}{parameters}")),
    )
    .expect("the folder is ours");
    let proxy = r#"
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: logs, namespace: network}
spec:
  telemetry:
    accessLog:
      settings:
      - format: {type: Text, text: "%DURATION% %UPSTREAM_TLS_VERSION%"}
        matches: ["request.nothing == 1"]
"#;
    fs::write(clone.path("deploy/example/proxy.yaml"), proxy).expect("the folder is ours");
    let output = clone.trigate(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout);
    for line in [
        "warning: EnvoyProxy network/logs spec.telemetry.accessLog.settings[0].format: %UPSTREAM_TLS_VERSION% stays empty",
        "warning: EnvoyProxy network/logs spec.telemetry.accessLog.settings[0].matches[0]: `request.nothing` is not known",
    ] {
        assert_eq!(said.matches(line).count(), 1, "{line}\n{said}");
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn a_configuration_that_cannot_be_used_ends_before_anything_is_made() {
    let clone = Clone::new();
    let text = fs::read_to_string(clone.path("proxy.toml")).expect("it was copied");
    fs::write(clone.path("proxy.toml"), text.replace("[drain]", "[drian]")).expect("the folder is ours");
    let output = clone.trigate(&["run", "--config", "proxy.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("proxy.toml:") && said.contains("did you mean `drain`?"), "{said}");
    assert!(!clone.path("certs").exists());
}

/// Binds a port that is free, or is about to be: the child of a test beside this one has it until it runs a program.
fn take(port: u16) -> TcpListener {
    let start = Instant::now();
    loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(taken) => return taken,
            Err(error) => assert!(start.elapsed() < PATIENCE, "port {port}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_port_that_is_taken_ends_the_start_with_the_address() {
    let clone = Clone::new();
    let port = clone.port(11443);
    let _taken = take(port);
    let output = clone.trigate(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains(&format!("cannot bind 127.0.0.1:{port}")), "{said}");
}

#[test]
fn two_gateways_that_turn_out_to_need_one_socket_end_the_start_at_their_line() {
    let clone = Clone::new();
    let text = fs::read_to_string(clone.path("proxy.toml")).expect("it was copied");
    let without_ports: Vec<_> = text.lines().filter(|line| !line.starts_with("ports")).collect();
    fs::write(clone.path("proxy.toml"), without_ports.join("\n")).expect("the folder is ours");
    for command in ["run", "check"] {
        let output = clone.trigate(&[command]);
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(said.contains("both bind 127.0.0.1:10080"), "{command}: {said}");
        let line = without_ports.iter().position(|line| line.starts_with("[gateways.internal]"));
        let place = format!("proxy.toml:{}:11:", line.expect("it is there") + 1);
        assert!(said.contains(&place), "{command}: {said}");
    }
}

#[test]
fn the_schema_is_json_and_the_version_is_told() {
    let clone = Clone::new();
    let schema = clone.trigate(&["schema"]).stdout;
    let schema: serde_json::Value = serde_json::from_slice(&schema).expect("it is JSON");
    assert!(schema["properties"]["gateways"].is_object());
    let version = clone.trigate(&["--version"]).stdout;
    assert_eq!(String::from_utf8_lossy(&version).trim(), concat!("trigate ", env!("CARGO_PKG_VERSION")));
}
