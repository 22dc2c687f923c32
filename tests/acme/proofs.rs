//! Every challenge, from an empty folder to a trusted certificate.

use crate::harness::openssl::openssl;
use crate::harness::upstream::Upstream;
use crate::pebble::Builder;
use crate::{order, ordering, own_address, to, trusted};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the issue promises for each challenge.
const SOON: Duration = Duration::from_secs(15);

fn mode(file: &Path) -> u32 {
    file.metadata().expect("it is there").permissions().mode() & 0o777
}

async fn a_name_is_trusted_soon(challenge: &str) {
    let pebble = Builder::debian(own_address()).start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let upstream = Upstream::echo("app").await;
    let client = Arc::new(pebble.client().await);
    let builder = to(ordering(&pebble, folder.path(), &["app.example.test"]), &upstream);
    let began = Instant::now();
    let trigate = builder.set("acme.challenge", challenge).start().await;
    trusted(&client, trigate.external.https, "app.example.test").await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    let answer = trigate.external.get("app.example.test", "/.well-known/acme-challenge/unknown").await;
    assert_eq!(answer.seen().upstream, "app", "a token of nobody is a route's");
    let asked = ["-servername", "app.example.test", "-alpn", "acme-tls/1"];
    let refused = openssl(trigate.external.https, &asked);
    assert!(!refused.agreed(), "no order is pending: {refused:?}");
    assert_eq!(mode(&folder.path().join("certificates/network/ordered-0.pem")), 0o600);
    let account = std::fs::read_dir(folder.path()).expect("a folder").flatten();
    let account =
        account.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "json"));
    assert_eq!(mode(&account.expect("an account")), 0o600);
    let order = order(&trigate, "network/ordered-0").await;
    assert_eq!((&order["state"], &order["succeeded"]), (&"waiting".into(), &1.into()), "{order}");
    let succeeded = ["certificate=\"network/ordered-0\"", "result=\"success\""];
    assert_eq!(trigate.metric("trigate_certificate_orders_total", &succeeded).await, 1.0);
}

#[tokio::test]
async fn from_an_empty_folder_a_name_is_trusted_soon_by_http_01() {
    a_name_is_trusted_soon("http-01").await;
}

#[tokio::test]
async fn from_an_empty_folder_a_name_is_trusted_soon_by_tls_alpn_01() {
    a_name_is_trusted_soon("tls-alpn-01").await;
}

#[tokio::test]
async fn an_account_is_bound_to_one_that_the_operator_has() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Builder::debian(own_address())
        .set("externalAccountBindingRequired", true.into())
        .set("externalAccountMACKeys", serde_json::json!({ "kid-1": KEY }))
        .start()
        .await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let key = folder.path().join("mac.key");
    std::fs::write(&key, KEY).expect("the folder is ours");
    let trigate = ordering(&pebble, &folder.path().join("acme"), &["app.example.test"])
        .set("acme.external_account.key_id", "kid-1")
        .set("acme.external_account.key_file", key.display().to_string())
        .start()
        .await;
    trusted(&client, trigate.external.https, "app.example.test").await;
    assert!(!trigate.log().contains(KEY), "the key is nowhere in the log");
}

#[tokio::test]
async fn a_gateway_is_annotated_and_its_listeners_get_one_certificate_for_their_secret() {
    use crate::harness::manifest::{gateway, http_listener, https_listener};
    let pebble = Builder::debian(own_address()).start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let https = |name: &str| https_listener(name, 443, &format!("{name}.example.test"), "both");
    let mut object = gateway("external", &[http_listener("http", 80), https("a"), https("b")]);
    object["metadata"]["annotations"] = serde_json::json!({ "trigate.dev/acme": "tls-alpn-01" });
    let trigate = ordering(&pebble, folder.path(), &[])
        .set("acme.gateways", Vec::<String>::new())
        .with(object)
        .start()
        .await;
    let one = trusted(&client, trigate.external.https, "a.example.test").await;
    let two = trusted(&client, trigate.external.https, "b.example.test").await;
    assert_eq!(one, two);
}

#[tokio::test]
async fn a_check_finds_nothing_wrong_with_certificates_that_are_still_to_be_ordered() {
    let pebble = Builder::debian(own_address()).start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let upstream = Upstream::echo("app").await;
    let trigate = to(ordering(&pebble, folder.path(), &["a.example.test"]), &upstream).start().await;
    std::fs::remove_dir_all(folder.path().join("certificates")).expect("the folder is ours");
    let config = trigate.path("proxy.toml");
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_trigate"));
    let output = check.args(["check", "--config"]).arg(config).output().expect("the binary is built");
    assert!(output.status.success(), "{output:?}");
}
