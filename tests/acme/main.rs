//! Certificates that the gateway orders itself, from a real certificate authority: pebble.

#[path = "../harness/mod.rs"]
mod harness;

mod cloudflare;
mod dns;
mod pebble;
mod proofs;
mod renewal;
mod tailscale;
mod trouble;

use harness::client::{Ask, Client};
use harness::manifest::{gateway, http_listener, https_listener, route, service};
use harness::trigate::{Builder, Trigate};
use harness::upstream::Upstream;
use pebble::{Pebble, handshake, own_address, trusted};
use serde_json::Value;
use std::net::IpAddr;
use std::path::Path;

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

/// What `/certs` says of an order.
async fn order(trigate: &Trigate, secret: &str) -> Value {
    let answer = Client::http1(trigate.admin).await.send(Ask::get("localhost", "/certs")).await;
    let page: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let orders = page["orders"].as_array().cloned().unwrap_or_default();
    orders.into_iter().find(|order| order["path"] == secret).unwrap_or(Value::Null)
}
