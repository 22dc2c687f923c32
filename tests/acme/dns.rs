//! DNS-01: a real name server (Knot) that takes signed updates, and Cloudflare's API.

use crate::harness::bound::Bound;
use crate::harness::eventually;
use crate::harness::upstream::Upstream;
use crate::pebble::{Builder, Pebble, free};
use crate::{cloudflare, handshake, order, ordering, own_address, to, trusted};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpStream;

const KEY: &str = "bm90IGEgc2VjcmV0LCBidXQgbG9uZyBlbm91Z2g=";

/// Knot with the zone `example.test`, whose names are all at one address.
struct Knot {
    _child: Bound,
    folder: TempDir,
    address: SocketAddr,
}

impl Knot {
    async fn start(gateway: IpAddr) -> Self {
        Self::serving(gateway, free(Ipv4Addr::LOCALHOST.into()), "", "").await
    }

    /// The same at this address, with more records and lesser rights.
    async fn serving(gateway: IpAddr, address: SocketAddr, records: &str, rights: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = |name: &str| folder.path().join(name);
        let here = folder.path().display();
        let zone = format!(
            "$TTL 60\n@ SOA ns hostmaster 1 60 60 60 5\n@ NS ns\nns A {}\n* A {gateway}\n@ A {gateway}\n{records}",
            address.ip()
        );
        fs::write(path("example.test.zone"), zone).expect("the folder is ours");
        let config = format!(
            "server:\n  rundir: {here}\n  listen: {ip}@{port}\n\
             database:\n  storage: {here}\n\
             log:\n  - target: stderr\n    any: info\n\
             key:\n  - id: trigate\n    algorithm: hmac-sha256\n    secret: {KEY}\n\
             acl:\n  - id: update\n    key: trigate\n    action: update\n    update-type: [TXT]\n{rights}\
             zone:\n  - domain: example.test\n    storage: {here}\n    file: example.test.zone\n    \
             zonefile-load: difference-no-serial\n    journal-content: all\n    acl: update\n",
            ip = address.ip(),
            port = address.port()
        );
        fs::write(path("knot.conf"), config).expect("the folder is ours");
        let log = fs::File::create(path("log")).expect("the folder is ours");
        let mut command = Command::new("knotd");
        command.arg("-c").arg(path("knot.conf")).stdout(Stdio::null()).stderr(log);
        let child = Bound(command.spawn().expect("the package knot is installed"));
        let knot = Self { _child: child, folder, address };
        let listens = || async { TcpStream::connect(address).await.ok() };
        eventually("knot listens", listens).await;
        knot
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("it is ours")
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of knot:\n{}----", self.log());
        }
    }
}

/// A pebble that asks this server alone, and a gateway that updates it.
async fn pebble_with(knot: &Knot, gateway: IpAddr) -> Pebble {
    Builder::debian(gateway).dns(knot.address).start().await
}

#[tokio::test]
async fn from_an_empty_folder_a_wildcard_is_trusted_soon_by_dns_01_through_signed_updates() {
    let gateway = own_address();
    let knot = Knot::start(gateway).await;
    let pebble = pebble_with(&knot, gateway).await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let upstream = Upstream::echo("app").await;
    let client = Arc::new(pebble.client().await);
    fs::write(folder.path().join("key"), format!("{KEY}\n")).expect("the folder is ours");
    // The name and the wildcard have their records at one name, at the same time.
    let names = vec!["example.test".to_owned(), "*.example.test".to_owned()];
    let builder = to(ordering(&pebble, &folder.path().join("acme"), &["*.example.test"]), &upstream)
        .set("acme.gateways", Vec::<String>::new())
        .set("acme.certificates.all.secret", "network/ordered-0")
        .set("acme.certificates.all.names", names)
        .set("acme.challenge", "dns-01/home")
        .set("acme.dns.home.rfc2136.server", knot.address.to_string())
        .set("acme.dns.home.rfc2136.key", "trigate")
        .set("acme.dns.home.rfc2136.key_file", folder.path().join("key").display().to_string())
        .set("acme.propagation.servers", vec![knot.address.to_string()]);
    let began = Instant::now();
    let trigate = builder.start().await;
    trusted(&client, trigate.external.https, "any.example.test").await;
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    // Both records were there, and are taken away again.
    let updates = || async { (knot.log().matches("DDNS").count() >= 4).then_some(()) };
    eventually("the records are taken away", updates).await;
    assert!(!trigate.log().contains(KEY), "the key is nowhere in the log");
}

#[tokio::test]
async fn a_challenge_that_is_an_alias_is_proved_where_it_leads_on_the_servers_that_its_zone_names() {
    // Name servers have a port of their own, so this one has an address of its own.
    let server = SocketAddr::new(own_address(), 53);
    if let Err(error) = std::net::UdpSocket::bind(server) {
        return eprintln!("skipped: {server} cannot be bound: {error}");
    }
    let gateway = own_address();
    let rights = "    update-owner: name\n    update-owner-match: sub\n    update-owner-name: [delegated]\n";
    let knot = Knot::serving(gateway, server, "_acme-challenge CNAME all.delegated\n", rights).await;
    let pebble = pebble_with(&knot, gateway).await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    fs::write(folder.path().join("key"), KEY).expect("the folder is ours");
    let trigate = ordering(&pebble, &folder.path().join("acme"), &["*.example.test"])
        .set("acme.challenge", "dns-01")
        .set("acme.dns.home.rfc2136.server", server.to_string())
        .set("acme.dns.home.rfc2136.key", "trigate")
        .set("acme.dns.home.rfc2136.key_file", folder.path().join("key").display().to_string())
        .set("acme.propagation.resolvers", vec![server.to_string()])
        .start()
        .await;
    trusted(&Arc::new(pebble.client().await), trigate.external.https, "any.example.test").await;
}

#[tokio::test]
async fn a_challenge_that_is_an_alias_is_proved_in_another_zone_at_cloudflare() {
    let pebble = Arc::new(Builder::debian(own_address()).start().await);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let token = Arc::new(Mutex::new("token-1".to_owned()));
    let (api, zone) = cloudflare::serve("delegated.test", Arc::clone(&pebble), Arc::clone(&token)).await;
    fs::write(folder.path().join("token"), "token-1").expect("the folder is ours");
    let alias = json!({ "host": "_acme-challenge.example.test.", "target": "all.delegated.test." });
    pebble.tell_dns("/set-cname", alias).await;
    let trigate = ordering(&pebble, &folder.path().join("acme"), &["*.example.test"])
        .set("acme.challenge", "dns-01")
        .set("acme.dns.cf.cloudflare.api", format!("http://{api}/client/v4"))
        .set("acme.dns.cf.cloudflare.token_file", folder.path().join("token").display().to_string())
        .set("acme.propagation.servers", vec![pebble.dns.to_string()])
        .start()
        .await;
    trusted(&Arc::new(pebble.client().await), trigate.external.https, "any.example.test").await;
    assert_eq!(zone.lock().expect("nobody panics with it").last, "all.delegated.test");
}

#[tokio::test]
async fn a_name_server_that_does_not_know_the_key_refuses_and_that_is_told() {
    let gateway = own_address();
    let knot = Knot::start(gateway).await;
    let pebble = pebble_with(&knot, gateway).await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let wrong = STANDARD.encode("another key, as long as the right one");
    fs::write(folder.path().join("key"), &wrong).expect("the folder is ours");
    let trigate = ordering(&pebble, &folder.path().join("acme"), &["*.example.test"])
        .set("acme.challenge", "dns-01")
        .set("acme.dns.home.rfc2136.server", knot.address.to_string())
        .set("acme.dns.home.rfc2136.zone", "example.test")
        .set("acme.dns.home.rfc2136.key", "trigate")
        .set("acme.dns.home.rfc2136.key_file", folder.path().join("key").display().to_string())
        .start()
        .await;
    let (why, _) = eventually("the refusal is told", || async {
        order(&trigate, "network/ordered-0").await["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(why.contains("[acme.dns.home]") && why.contains(&knot.address.to_string()), "{why}");
    assert!(
        handshake(&Arc::new(pebble.client().await), trigate.external.https, "a.example.test").await.is_err()
    );
}

#[tokio::test]
async fn from_an_empty_folder_a_name_is_trusted_soon_by_dns_01_through_cloudflare() {
    let pebble = Arc::new(Builder::debian(own_address()).start().await);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let token = Arc::new(Mutex::new("token-1".to_owned()));
    let (api, zone) = cloudflare::serve("example.test", Arc::clone(&pebble), Arc::clone(&token)).await;
    let file = folder.path().join("token");
    fs::write(&file, "wrong\n").expect("the folder is ours");
    let began = Instant::now();
    let trigate = ordering(&pebble, &folder.path().join("acme"), &["*.example.test"])
        .set("acme.challenge", "dns-01")
        .set("acme.dns.cf.cloudflare.api", format!("http://{api}/client/v4"))
        .set("acme.dns.cf.cloudflare.token_file", file.display().to_string())
        .set("acme.propagation.servers", vec![pebble.dns.to_string()])
        .start()
        .await;
    let (why, _) = eventually("the refusal is told", || async {
        order(&trigate, "network/ordered-0").await["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(why.contains("Invalid access token (9109)"), "{why}");
    // The token is read for each change: a new one needs no restart.
    fs::write(&file, "token-1\n").expect("the folder is ours");
    trusted(&client, trigate.external.https, "app.example.test").await;
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    let empty = || async { zone.lock().expect("nobody panics with it").records.is_empty().then_some(()) };
    eventually("the record is taken away", empty).await;
    let zone = zone.lock().expect("nobody panics with it");
    assert!(zone.made >= 1 && zone.refused >= 1, "{} made, {} refused", zone.made, zone.refused);
    assert!(!trigate.log().contains("token-1"), "the token is nowhere in the log");
}

#[tokio::test]
async fn the_order_waits_until_the_record_is_on_the_servers_of_the_zone() {
    let pebble = Arc::new(Builder::debian(own_address()).start().await);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let token = Arc::new(Mutex::new("token-1".to_owned()));
    let (api, _zone) = cloudflare::serve("example.test", Arc::clone(&pebble), Arc::clone(&token)).await;
    fs::write(folder.path().join("token"), "token-1").expect("the folder is ours");
    // A server that has the zone and never the record.
    let stale = Knot::start(pebble.gateway).await;
    let trigate = ordering(&pebble, &folder.path().join("acme"), &["*.example.test"])
        .set("acme.challenge", "dns-01")
        .set("acme.dns.cf.cloudflare.api", format!("http://{api}/client/v4"))
        .set("acme.dns.cf.cloudflare.token_file", folder.path().join("token").display().to_string())
        .set("acme.propagation.servers", vec![pebble.dns.to_string(), stale.address.to_string()])
        .set("acme.propagation.timeout", "2s")
        .start()
        .await;
    let (why, _) = eventually("the wait is told", || async {
        order(&trigate, "network/ordered-0").await["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(why.contains(&stale.address.to_string()) && why.contains("no such TXT record"), "{why}");
    assert!(!pebble.log().contains("POST /chalZ/"), "the authority was not told to look");
}
