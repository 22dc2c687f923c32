//! A certificate authority: pebble, with the DNS server of its own tests. Each test has its own.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use crate::harness::bound::Bound;
use crate::harness::certificate::Authority;
use crate::harness::client::{Answer, Ask, Client};
use crate::harness::{eventually, soon};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Settings of a pebble.
pub struct Builder {
    binary: PathBuf,
    config: Value,
    environment: Vec<(&'static str, String)>,
    dns: Option<SocketAddr>,
    gateway: IpAddr,
}

/// A running pebble; it ends when this is dropped.
pub struct Pebble {
    _children: Vec<Bound>,
    folder: TempDir,
    authority: Authority,
    address: SocketAddr,
    management: SocketAddr,
    dns_management: SocketAddr,
    pub gateway: IpAddr,
    /// The name server that it asks.
    pub dns: SocketAddr,
    /// Where it looks for HTTP-01 and TLS-ALPN-01.
    pub http: u16,
    pub tls: u16,
}

impl Builder {
    /// Debian's pebble, which looks for every name at this address.
    pub fn debian(gateway: IpAddr) -> Self {
        let config = json!({ "externalAccountBindingRequired": false, "ocspResponderURL": "" });
        let environment =
            vec![("PEBBLE_VA_NOSLEEP", "1".to_owned()), ("PEBBLE_WFE_NONCEREJECT", "0".to_owned())];
        Self { binary: "pebble".into(), config, environment, dns: None, gateway }
    }

    /// One that knows renewal information and profiles; `None` where it cannot be built.
    pub fn newer(gateway: IpAddr) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/acme/build-pebble");
        let built = Command::new(script).output().expect("bash is there");
        if !built.status.success() {
            eprintln!("skipped: {}", String::from_utf8_lossy(&built.stderr));
            return None;
        }
        let binary = PathBuf::from(String::from_utf8_lossy(&built.stdout).trim());
        let builder = Self { binary, ..Self::debian(gateway) };
        let profile = |seconds: u32| json!({ "description": "for tests", "validityPeriod": seconds });
        let day = 24 * 3600;
        let builder =
            builder.set("profiles", json!({ "default": profile(90 * day), "shortlived": profile(6 * day) }));
        Some(builder.set("retryAfter", json!({ "authz": 1, "order": 1 })))
    }

    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    pub fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.retain(|(other, _)| *other != name);
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Wants every name to be proved for every order.
    pub fn forgetful(self) -> Self {
        self.environment("PEBBLE_AUTHZREUSE", "0")
    }

    /// Asks this name server instead of one that knows every name.
    pub fn dns(mut self, server: SocketAddr) -> Self {
        self.dns = Some(server);
        self
    }

    pub async fn start(self) -> Pebble {
        let Self { binary, mut config, environment, dns, gateway } = self;
        let folder = tempfile::tempdir().expect("a folder for the test");
        let authority = Authority::new();
        let leaf = authority.leaf(&["localhost"]);
        let path = |name: &str| folder.path().join(name);
        fs::write(path("ca.pem"), authority.pem()).expect("the folder is ours");
        fs::write(path("leaf.pem"), &leaf.chain_pem).expect("the folder is ours");
        fs::write(path("leaf.key"), &leaf.key_pem).expect("the folder is ours");
        let [address, management, dns_server, dns_management] =
            [(); 4].map(|()| free(Ipv4Addr::LOCALHOST.into()));
        let [http, tls] = [(); 2].map(|()| free(gateway).port());
        config["listenAddress"] = address.to_string().into();
        config["managementListenAddress"] = management.to_string().into();
        config["certificate"] = path("leaf.pem").display().to_string().into();
        config["privateKey"] = path("leaf.key").display().to_string().into();
        config["httpPort"] = http.into();
        config["tlsPort"] = tls.into();
        fs::write(path("config.json"), json!({ "pebble": config }).to_string()).expect("the folder is ours");
        let log =
            || Stdio::from(fs::File::options().create(true).append(true).open(path("log")).expect("a log"));
        let mut children = Vec::new();
        if dns.is_none() {
            let mut command = Command::new("pebble-challtestsrv");
            command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
            command.args(["-defaultIPv4", &gateway.to_string(), "-dns01", &dns_server.to_string()]);
            command.args(["-management", &dns_management.to_string()]);
            let child = command.stdout(log()).stderr(log()).spawn().expect("the package pebble is installed");
            children.push(Bound(child));
        }
        let mut command = Command::new(&binary);
        command.arg("-config").arg(path("config.json"));
        command.args(["-dnsserver", &dns.unwrap_or(dns_server).to_string()]).envs(environment);
        let child = command.stdout(log()).stderr(log()).spawn().expect("the package pebble is installed");
        children.push(Bound(child));
        let pebble = Pebble {
            _children: children,
            folder,
            authority,
            address,
            management,
            dns_management,
            gateway,
            dns: dns.unwrap_or(dns_server),
            http,
            tls,
        };
        for socket in [Some(address), Some(management), dns.is_none().then_some(dns_management)] {
            let Some(socket) = socket else { continue };
            eventually("pebble listens", || async { TcpStream::connect(socket).await.ok() }).await;
        }
        pebble
    }
}

impl Pebble {
    /// Its directory.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    /// The file with the authority of its own certificate.
    pub fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("it is ours")
    }

    /// Asks its management interface.
    pub async fn manage(&self, ask: Ask) -> Answer {
        let stream = TcpStream::connect(self.management).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(self.authority.client(&[])));
        let stream =
            soon("a handshake", connector.connect(name, stream)).await.expect("its certificate is good");
        Client::http1_on(stream).await.expect("it speaks HTTP").send(ask).await
    }

    /// Tells its name server something.
    pub async fn tell_dns(&self, path: &str, body: Value) {
        let mut client = Client::http1(self.dns_management).await;
        let answer = client.send(Ask::post("localhost", path, body.to_string())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A client that trusts what it issues, and nothing else.
    pub async fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let answer = self.manage(Ask::get("localhost", "/roots/0")).await;
        for root in CertificateDer::pem_slice_iter(&answer.body) {
            roots.add(root.expect("PEM")).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of pebble:\n{}----", self.log());
        }
    }
}

/// A port that nobody has at this moment.
pub fn free(address: IpAddr) -> SocketAddr {
    TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}

/// An address for one gateway of one test.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    Ipv4Addr::new(127, 251 + high % 4, low, NEXT.fetch_add(1, Relaxed)).into()
}

/// The certificate that a client gets which trusts what this configuration trusts.
pub async fn handshake(
    config: &Arc<ClientConfig>,
    socket: SocketAddr,
    name: &str,
) -> io::Result<CertificateDer<'static>> {
    let stream = TcpStream::connect(socket).await?;
    let server_name = ServerName::try_from(name.to_owned()).expect("a DNS name");
    let stream = TlsConnector::from(Arc::clone(config)).connect(server_name, stream).await?;
    Ok(stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned())
}

/// Waits until a name has a trusted certificate.
pub async fn trusted(config: &Arc<ClientConfig>, socket: SocketAddr, name: &str) -> CertificateDer<'static> {
    let what = format!("a trusted certificate for {name}");
    eventually(&what, || async { handshake(config, socket, name).await.ok() }).await.0
}
