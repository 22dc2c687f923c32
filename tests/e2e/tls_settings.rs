//! What is agreed on in handshakes, by `[tls]`, a gateway's own table and a listener's options; clients are OpenSSL
//! and rustls.

use crate::HOST;
use crate::harness::certificate::Leaf;
use crate::harness::eventually;
use crate::harness::manifest::{gateway, https_listener, route, secret, service};
use crate::harness::openssl::{Openssl, openssl};
use crate::harness::trigate::{Builder, Trigate};
use crate::harness::upstream::Upstream;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// `external` with these HTTPS listeners on 443, each with a certificate of its name, and a route for all of them.
async fn listeners(builder: Builder, listeners: &[(&str, Value)], upstream: &Upstream) -> Trigate {
    let mut builder = builder.without_gateways();
    let mut specs = Vec::new();
    for (index, (hostname, options)) in listeners.iter().enumerate() {
        let names = if hostname.is_empty() { HOST } else { *hostname };
        let leaf = builder.leaf(&[names]);
        let name = format!("tls-{index}");
        let mut listener = https_listener(&name, 443, hostname, &name);
        listener["tls"]["options"] = options.clone();
        specs.push(listener);
        builder = builder.with(secret(&name, &leaf.chain_pem, &leaf.key_pem));
    }
    let objects = service("app", &[upstream.address]);
    builder = builder.with(gateway("external", &specs)).with_all(objects);
    builder.with(route("app").on("external").to("app")).start().await
}

fn client(address: SocketAddr, arguments: &[&str]) -> Openssl {
    openssl(address, arguments)
}

#[tokio::test]
async fn versions_are_those_of_the_listener_or_the_gateway_or_all() {
    let upstream = Upstream::echo("app").await;
    let options = [
        ("old.test", json!({ "trigate.dev/min-version": "1.2", "trigate.dev/max-version": "1.2" })),
        ("new.test", json!({ "trigate.dev/min-version": "1.3" })),
        (HOST, json!({})),
    ];
    for (key, of_gateway) in [("tls", "1.3"), ("gateways.external.tls", "1.3"), ("tls", "1.2")] {
        let builder = Builder::new().set(&format!("{key}.min_version"), of_gateway);
        let trigate = listeners(builder, &options, &upstream).await;
        for (name, version, is_spoken) in [
            ("old.test", "-tls1_2", true),
            ("old.test", "-tls1_3", false),
            ("new.test", "-tls1_2", false),
            ("new.test", "-tls1_3", true),
            (HOST, "-tls1_2", of_gateway == "1.2"),
            (HOST, "-tls1_3", true),
            (HOST, "-tls1_1", false),
        ] {
            let said = client(trigate.external.https, &["-servername", name, version]);
            assert_eq!(said.agreed(), is_spoken, "{key} = {of_gateway}: {name} {version}: {said:?}");
        }
    }
}

#[tokio::test]
async fn suites_and_curves_are_those_that_are_listed_in_their_order() {
    let upstream = Upstream::echo("app").await;
    let options = [
        ("default.test", json!({})),
        (
            "chosen.test",
            json!({
                "trigate.dev/cipher-suites":
                    "TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "trigate.dev/curves": "P-256",
            }),
        ),
    ];
    let trigate = listeners(Builder::new(), &options, &upstream).await;
    for (name, arguments, want) in [
        ("default.test", &["-tls1_3"][..], "TLS_AES_128_GCM_SHA256"),
        ("default.test", &["-tls1_2"], "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("default.test", &["-groups", "P-384"], "TLS_AES_128_GCM_SHA256"),
        ("chosen.test", &["-tls1_3"], "TLS_AES_256_GCM_SHA384"),
        ("chosen.test", &["-tls1_2"], "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("chosen.test", &["-tls1_3", "-groups", "X25519"], ""),
        ("chosen.test", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], ""),
    ] {
        let arguments: Vec<&str> = ["-servername", name].iter().chain(arguments).copied().collect();
        let said = client(trigate.external.https, &arguments);
        assert_eq!(said.suite(), want, "{name} {arguments:?}: {said:?}");
    }
}

#[tokio::test]
async fn protocols_are_those_of_the_listener_and_others_are_refused() {
    let upstream = Upstream::echo("app").await;
    let options = [("old.test", json!({ "trigate.dev/alpn": "http/1.1" })), (HOST, json!({}))];
    let trigate = listeners(Builder::new(), &options, &upstream).await;
    for (name, offered, agreed) in [
        ("old.test", "h2,http/1.1", Some("http/1.1")),
        ("old.test", "h2", None),
        (HOST, "http/1.1,h2", Some("h2")),
        (HOST, "spdy/3", None),
    ] {
        let said = client(trigate.external.https, &["-servername", name, "-alpn", offered]);
        assert_eq!(said.protocol().as_deref(), agreed, "{name} {offered}: {said:?}");
        assert_eq!(said.agreed(), agreed.is_some(), "{name} {offered}: {said:?}");
    }
}

#[tokio::test]
async fn clients_without_a_server_name_get_what_the_gateway_says() {
    let upstream = Upstream::echo("app").await;
    for (setting, name, value, served) in [
        ("tls.require_server_name", "", toml::Value::from(true), false),
        ("tls.require_server_name", "", toml::Value::from(false), true),
        ("tls.default_server_name", HOST, toml::Value::from(HOST), true),
        ("gateways.external.tls.default_server_name", HOST, toml::Value::from("other.test"), false),
    ] {
        let builder = Builder::new().set(setting, value);
        let trigate = listeners(builder, &[(name, json!({}))], &upstream).await;
        let said = client(trigate.external.https, &["-noservername"]);
        assert_eq!(said.agreed(), served, "{setting}: {said:?}");
        if !name.is_empty() {
            let wrong = client(trigate.external.https, &["-servername", "wrong.test"]);
            assert!(!wrong.agreed(), "a name that nobody has stays unknown: {wrong:?}");
        }
        let right = client(trigate.external.https, &["-servername", HOST]);
        assert!(right.agreed(), "{setting}: {right:?}");
    }
}

#[tokio::test]
async fn who_verifies_only_rsa_gets_the_rsa_certificate() {
    let upstream = Upstream::echo("app").await;
    let builder = Builder::new().without_gateways();
    let ecdsa = builder.leaf(&[HOST]);
    let rsa = Leaf::rsa(&[HOST]);
    let mut listener = https_listener("https", 443, HOST, "rsa");
    listener["tls"]["certificateRefs"] = json!([{ "name": "rsa" }, { "name": "ecdsa" }]);
    let trigate = builder
        .with(secret("rsa", &rsa.chain_pem, &rsa.key_pem))
        .with(secret("ecdsa", &ecdsa.chain_pem, &ecdsa.key_pem))
        .with(gateway("external", &[listener]))
        .with_all(service("app", &[upstream.address]))
        .with(route("app").on("external").to("app"))
        .start()
        .await;
    for (arguments, kind) in [
        (&["-tls1_3"][..], "id-ecPublicKey"),
        (&["-tls1_2"], "id-ecPublicKey"),
        (&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "rsaEncryption"),
        (&["-tls1_2", "-sigalgs", "RSA+SHA256:RSA-PSS+SHA256"], "rsaEncryption"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "rsaEncryption"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "id-ecPublicKey"),
    ] {
        let arguments: Vec<&str> = ["-servername", HOST].iter().chain(arguments).copied().collect();
        let said = client(trigate.external.https, &arguments);
        assert_eq!(said.key_kind(), kind, "{arguments:?}: {said:?}");
    }
}

#[tokio::test]
async fn options_that_cannot_be_are_named_and_take_only_their_listener() {
    let upstream = Upstream::echo("app").await;
    let options = [
        ("bad.test", json!({ "trigate.dev/curves": "P-512" })),
        ("worse.test", json!({ "trigate.dev/min-version": "1.3", "trigate.dev/max-version": "1.2" })),
        (HOST, json!({})),
    ];
    let trigate = listeners(Builder::new(), &options, &upstream).await;
    for words in ["trigate.dev/curves: unknown variant `P-512`", "min_version is newer than max_version"] {
        eventually(words, || async { trigate.log().contains(words).then_some(()) }).await;
    }
    for (name, served) in [("bad.test", false), ("worse.test", false), (HOST, true)] {
        let said = client(trigate.external.https, &["-servername", name]);
        assert_eq!(said.agreed(), served, "{name}: {said:?}");
    }
}
