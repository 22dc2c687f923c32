//! Certificates that the gateway orders itself, from a real certificate authority: pebble.

#[path = "../harness/mod.rs"]
mod harness;

mod dns;
mod pebble;
mod proofs;
mod renewal;
mod tailscale;
mod trouble;

use harness::client::{Ask, Client};
use harness::eventually;
use harness::manifest::{gateway, http_listener, https_listener, route, service};
use harness::trigate::{Builder, Trigate};
use harness::upstream::Upstream;
use pebble::Pebble;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An address for one gateway of one test.
fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    Ipv4Addr::new(127, 251 + high % 4, low, NEXT.fetch_add(1, Relaxed)).into()
}

/// A gateway that orders from this authority, at the address that the authority looks for every name; its account
/// and certificates are in `folder`. It has the Gateway `external` with a listener for each name.
fn ordering(pebble: &Pebble, folder: &Path, names: &[&str]) -> Builder {
    at(pebble.gateway, pebble, folder, names)
}

/// The same at another address.
fn at(address: IpAddr, pebble: &Pebble, folder: &Path, names: &[&str]) -> Builder {
    let listeners = names.iter().enumerate().map(|(index, name)| {
        let secret = format!("ordered-{index}");
        https_listener(&format!("https-{index}"), 443, name, &secret)
    });
    let listeners: Vec<Value> = std::iter::once(http_listener("http", 80)).chain(listeners).collect();
    Builder::new()
        .without_gateways()
        .set("gateways.external.bind", vec![address.to_string()])
        .set("gateways.external.ports.80", i64::from(pebble.http))
        .set("gateways.external.ports.443", i64::from(pebble.tls))
        .set("acme.directory", pebble.directory())
        .set("acme.ca", pebble.ca())
        .set("acme.contact", vec!["someone@example.test".to_owned()])
        .set("acme.folder", folder.display().to_string())
        .set("acme.gateways", vec!["external".to_owned()])
        .set("acme.retry", "1s")
        .with(gateway("external", &listeners))
}

/// Sends everything to this upstream.
fn to(builder: Builder, upstream: &Upstream) -> Builder {
    builder.with_all(service("app", &[upstream.address])).with(route("app").on("external").to("app"))
}

/// The certificate that a client gets which trusts what this configuration trusts.
async fn handshake(
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
async fn trusted(config: &Arc<ClientConfig>, socket: SocketAddr, name: &str) -> CertificateDer<'static> {
    let what = format!("a trusted certificate for {name}");
    eventually(&what, || async { handshake(config, socket, name).await.ok() }).await.0
}

/// What `/certs` says of an order.
async fn order(trigate: &Trigate, secret: &str) -> Value {
    let answer = Client::http1(trigate.admin).await.send(Ask::get("localhost", "/certs")).await;
    let page: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let orders = page["orders"].as_array().cloned().unwrap_or_default();
    orders.into_iter().find(|order| order["path"] == secret).unwrap_or(Value::Null)
}
