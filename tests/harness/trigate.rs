//! The real binary as a child process, in a folder and on a loopback address of its own.

use super::bound::Bound;
use super::certificate::{Authority, Leaf};
use super::client::{Answer, Ask, Client};
use super::{PATIENCE, eventually, manifest};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A gateway process before its start.
pub struct Builder {
    settings: toml::Table,
    objects: Vec<Value>,
    address: IpAddr,
    folder: TempDir,
    authority: Authority,
    default_gateways: bool,
    /// What stands in place of `run`.
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// The sockets of one gateway.
#[derive(Debug, Clone, Copy)]
pub struct Sockets {
    pub http: SocketAddr,
    pub https: SocketAddr,
}

/// A running gateway process; it ends when this is dropped, and prints its log when the test fails.
pub struct Trigate {
    child: Bound,
    folder: TempDir,
    log: Arc<Mutex<String>>,
    may_fail: bool,
    pub authority: Authority,
    pub external: Sockets,
    pub internal: Sockets,
    pub tailscale: Sockets,
    pub admin: SocketAddr,
    pub stats: SocketAddr,
    pub ready: SocketAddr,
}

const GATEWAYS: [&str; 3] = ["external", "internal", "tailscale"];

impl Builder {
    /// Three gateways, each with a listener `http` on 80 and `https` on 443 for `*.example.test`.
    pub fn new() -> Self {
        let address = own_address();
        let mut settings = toml::Table::new();
        let mut put = |path: &str, value: toml::Value| set(&mut settings, path, value);
        for gateway in GATEWAYS {
            put(&format!("gateways.{gateway}.object"), format!("network/{gateway}").into());
            put(&format!("gateways.{gateway}.bind"), vec![address.to_string()].into());
            for port in ["80", "443"] {
                put(&format!("gateways.{gateway}.ports.{port}"), i64::from(free_port(address)).into());
            }
        }
        for socket in ["admin", "stats", "ready"] {
            put(&format!("{socket}.address"), format!("{address}:{}", free_port(address)).into());
        }
        put("source.files.paths", vec!["manifests".to_owned()].into());
        put("runtime.threads", 2.into());
        put("drain.grace", "300ms".into());
        put("drain.timeout", "10s".into());
        let folder = tempfile::Builder::new().prefix("trigate-test-").tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("manifests")).expect("a new folder");
        Self {
            settings,
            objects: manifest::basics(),
            address,
            folder,
            authority: Authority::new(),
            default_gateways: true,
            arguments: vec!["run".to_owned()],
            environment: Vec::new(),
        }
    }

    /// Starts it with these arguments, beside that for its configuration, and without a command.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self
    }

    /// Sets a variable of its environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a key of `proxy.toml`, `limits.idle_timeout`.
    pub fn set(mut self, path: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.settings, path, value.into());
        self
    }

    /// Reads its objects from the API server of this kubeconfig instead of from files.
    pub fn in_cluster(mut self, kubeconfig: &Path) -> Self {
        self.settings.remove("source");
        self.default_gateways = false;
        self.set("source.kubernetes.kubeconfig", kubeconfig.display().to_string())
    }

    /// Binds one more port of a gateway's listeners; returns where, for TCP and for UDP.
    pub fn listen(mut self, gateway: &str, port: u16) -> (Self, SocketAddr) {
        let bound = free_port(self.address);
        set(&mut self.settings, &format!("gateways.{gateway}.ports.{port}"), i64::from(bound).into());
        let address = SocketAddr::new(self.address, bound);
        (self, address)
    }

    /// Leaves the three Gateways and their certificate to the test.
    pub fn without_gateways(mut self) -> Self {
        self.default_gateways = false;
        self
    }

    /// The path of a file in the gateway's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate of the authority that the gateway's clients trust.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.authority.leaf(names)
    }

    /// The authority that the gateway's clients trust.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    pub fn with(mut self, object: impl Into<Value>) -> Self {
        self.objects.push(object.into());
        self
    }

    pub fn with_all(mut self, objects: impl IntoIterator<Item = Value>) -> Self {
        self.objects.extend(objects);
        self
    }

    /// Starts it, and waits until it says that it is ready.
    pub async fn start(self) -> Trigate {
        let mut trigate = self.start_unready();
        let start = Instant::now();
        while trigate.ask_ready().await != Some(200) {
            if let Some(status) = trigate.child.try_wait().expect("a child can be asked") {
                panic!("trigate ended at its start: {status}\n{}", trigate.log());
            }
            assert!(start.elapsed() < PATIENCE, "trigate is not ready after {PATIENCE:?}\n{}", trigate.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        trigate
    }

    /// Starts it and does not wait.
    pub fn start_unready(mut self) -> Trigate {
        if self.default_gateways {
            let leaf = self.authority.leaf(&["*.example.test"]);
            self.objects.push(manifest::secret("wildcard", &leaf.chain_pem, &leaf.key_pem));
            self.objects.extend(GATEWAYS.map(|name| {
                let https = manifest::https_listener("https", 443, "*.example.test", "wildcard");
                manifest::gateway(name, &[manifest::http_listener("http", 80), https])
            }));
        }
        for object in &self.objects {
            write_object(self.folder.path(), object);
        }
        let config = self.folder.path().join("proxy.toml");
        let text = toml::to_string_pretty(&self.settings).expect("a table can be written");
        fs::write(&config, text).expect("the folder is ours");
        let binary = std::env::var_os("TRIGATE").unwrap_or_else(|| env!("CARGO_BIN_EXE_trigate").into());
        let mut child = Command::new(binary)
            .args(&self.arguments)
            .arg("--config")
            .arg(&config)
            .current_dir(self.folder.path())
            .env("NO_COLOR", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let log = Arc::new(Mutex::new(String::new()));
        copy_lines(child.stdout.take().expect("piped"), Arc::clone(&log));
        copy_lines(child.stderr.take().expect("piped"), Arc::clone(&log));
        let sockets = |gateway: &str| Sockets {
            http: SocketAddr::new(self.bind(gateway), self.port(&format!("gateways.{gateway}.ports.80"))),
            https: SocketAddr::new(self.bind(gateway), self.port(&format!("gateways.{gateway}.ports.443"))),
        };
        Trigate {
            child: Bound(child),
            log,
            may_fail: false,
            external: sockets("external"),
            internal: sockets("internal"),
            tailscale: sockets("tailscale"),
            admin: self.socket("admin.address"),
            stats: self.socket("stats.address"),
            ready: self.socket("ready.address"),
            folder: self.folder,
            authority: self.authority,
        }
    }

    fn value(&self, path: &str) -> &toml::Value {
        let mut parts = path.split('.');
        let first = self.settings.get(parts.next().expect("a path has a part")).expect("it was set");
        parts.fold(first, |value, part| value.get(part).expect("it was set"))
    }

    fn bind(&self, gateway: &str) -> IpAddr {
        let bind = self.value(&format!("gateways.{gateway}.bind"));
        bind.get(0).and_then(|first| first.as_str()?.parse().ok()).expect("an address")
    }

    fn port(&self, path: &str) -> u16 {
        self.value(path).as_integer().and_then(|port| port.try_into().ok()).expect("a port")
    }

    fn socket(&self, path: &str) -> SocketAddr {
        self.value(path).as_str().and_then(|text| text.parse().ok()).expect("a socket address")
    }
}

impl Trigate {
    /// A gateway process with these objects beside the usual ones, ready to serve.
    pub async fn serving(objects: impl IntoIterator<Item = Value>) -> Self {
        Builder::new().with_all(objects).start().await
    }

    /// Writes an object as `kubectl apply` would; the gateway sees it soon.
    pub fn apply(&self, object: impl Into<Value>) {
        write_object(self.folder.path(), &object.into());
    }

    /// Writes several.
    pub fn apply_all(&self, objects: impl IntoIterator<Item = Value>) {
        objects.into_iter().for_each(|object| self.apply(object));
    }

    /// Removes an object.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        fs::remove_file(object_path(self.folder.path(), kind, namespace, name))
            .expect("the object was applied");
    }

    /// The path of a file in the gateway's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the child is ours");
    }

    /// Puts any text into a file of the watched folder.
    pub fn write_manifest(&self, file: &str, text: &str) {
        replace(&self.folder.path().join("manifests").join(file), text);
    }

    /// The status of `/ready` on the ready address; `None` when nobody answers.
    pub async fn ask_ready(&self) -> Option<u16> {
        Client::try_http1(self.ready)
            .await
            .ok()?
            .try_send(Ask::get("ready", "/ready"))
            .await
            .ok()
            .map(|a| a.status)
    }

    /// A page of the stats address.
    pub async fn stats_page(&self, path: &str) -> Answer {
        Client::http1(self.stats).await.send(Ask::get("stats", path)).await
    }

    /// The sum of a metric's samples that have all of these labels, `name="value"`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.stats_page("/stats/prometheus").await.text();
        let samples = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a request is answered with this status, and tells how long it took.
    pub async fn until_status(&self, socket: SocketAddr, host: &str, path: &str, status: u16) -> Duration {
        let what = format!("status {status} for {host}{path}");
        let ask = || async {
            let answer = Client::http1(socket).await.try_send(Ask::get(host, path)).await.ok()?;
            (answer.status == status).then_some(())
        };
        eventually(&what, ask).await.1
    }

    /// CPU time that it has used so far, of all its threads.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // After the name, which may have spaces: state is the first field, user and system time the 12th and 13th.
        let fields =
            stat.rsplit_once(") ").expect("a name").1.split(' ').map(|field| field.parse::<u64>().ok());
        let ticks: u64 = fields.skip(11).take(2).flatten().sum();
        // Linux tells them in hundredths of a second.
        Duration::from_millis(ticks * 10)
    }

    /// Bytes of memory that are in RAM now.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(start.elapsed() < within, "trigate still runs after {within:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Says that it is right when this process ends with an error.
    pub fn expect_failure(&mut self) {
        self.may_fail = true;
    }

    /// All it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for Trigate {
    fn drop(&mut self) {
        let crashed =
            !self.may_fail && matches!(self.child.try_wait(), Ok(Some(status)) if !status.success());
        self.child.end();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("---- log of trigate ({}):\n{log}----", self.external.http);
        } else {
            assert!(!crashed && !log.contains("panicked at"), "trigate did not end well:\n{log}");
        }
    }
}

fn set(table: &mut toml::Table, path: &str, value: toml::Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| toml::Table::new().into());
            set(inner.as_table_mut().expect("a table"), rest, value);
        }
    }
}

/// A loopback address that no other gateway process of the tests has: SO_REUSEPORT would share a port silently.
fn own_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let next = NEXT.fetch_add(1, Relaxed);
    Ipv4Addr::new(127, 1 + high % 250, low, 1 + (next % 250) as u8).into()
}

fn free_port(address: IpAddr) -> u16 {
    static TAKEN: Mutex<Vec<(IpAddr, u16)>> = Mutex::new(Vec::new());
    loop {
        let listener = TcpListener::bind((address, 0)).expect("a loopback address can be bound");
        let port = listener.local_addr().expect("it is bound").port();
        let mut taken = TAKEN.lock().expect("nobody panics with it");
        if !taken.contains(&(address, port)) {
            taken.push((address, port));
            return port;
        }
    }
}

fn object_path(folder: &Path, kind: &str, namespace: &str, name: &str) -> PathBuf {
    folder.join("manifests").join(format!("{}.{namespace}.{name}.yaml", kind.to_lowercase()))
}

fn write_object(folder: &Path, object: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let path =
        object_path(folder, &text(&object["kind"]), &text(&metadata["namespace"]), &text(&metadata["name"]));
    replace(&path, &serde_json::to_string_pretty(object).expect("JSON can be written"));
}

/// As an editor or a Kubernetes volume does it: nobody sees half a file.
fn replace(path: &Path, text: &str) {
    let folder = path.parent().and_then(Path::parent).expect("manifests are in a folder");
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let new = folder.join(format!("new-{}", NEXT.fetch_add(1, Relaxed)));
    fs::write(&new, text).expect("the folder is ours");
    fs::rename(new, path).expect("the folder is ours");
}

fn copy_lines(from: impl Read + Send + 'static, to: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            writeln!(to.lock().expect("nobody panics with it"), "{line}").expect("a string takes it");
        }
    });
}
