//! What goes wrong: answers, nonces, restarts, many names, several replicas.

use crate::harness::certificate::Authority;
use crate::harness::eventually;
use crate::harness::manifest::{gateway, http_listener, https_listener};
use crate::harness::upstream::Upstream;
use crate::pebble::Builder;
use crate::{at, handshake, order, ordering, own_address, to, trusted};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[tokio::test]
async fn a_name_that_is_not_ours_is_told_everywhere_and_tried_again_and_harms_no_other() {
    let pebble = Builder::debian(own_address()).start().await;
    let elsewhere = own_address();
    pebble.tell_dns("/add-a", json!({ "host": "theirs.example.test.", "addresses": [elsewhere] })).await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let trigate =
        ordering(&pebble, folder.path(), &["ours.example.test", "theirs.example.test"]).start().await;
    trusted(&client, trigate.external.https, "ours.example.test").await;
    let (told, _) = eventually("the failure is told", || async {
        let order = order(&trigate, "network/ordered-1").await;
        (order["failed"].as_u64()? >= 2).then_some(order)
    })
    .await;
    let why = told["last_error"].as_str().expect("a reason");
    assert!(why.contains("theirs.example.test"), "{why}");
    let failing = |secret: &str| format!("certificate=\"network/{secret}\"");
    let metric = "trigate_certificate_order_failing";
    assert_eq!(trigate.metric(metric, &[&failing("ordered-1")]).await, 1.0);
    assert_eq!(trigate.metric(metric, &[&failing("ordered-0")]).await, 0.0);
    assert!(trigate.log().contains("there is no new certificate network/ordered-1"), "{}", trigate.log());

    // Once the name leads here, the next try succeeds.
    pebble.tell_dns("/clear-a", json!({ "host": "theirs.example.test." })).await;
    trusted(&client, trigate.external.https, "theirs.example.test").await;
    let order = order(&trigate, "network/ordered-1").await;
    assert!(order["last_error"].is_null(), "{order}");
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_certificate_in_use() {
    let pebble = Builder::debian(own_address()).set("certificateValidityPeriod", 60.into());
    let pebble = pebble.forgetful().start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let builder = ordering(&pebble, folder.path(), &["app.example.test"]).set("acme.renew_at_percent", 8);
    let trigate = builder.start().await;
    let first = trusted(&client, trigate.external.https, "app.example.test").await;
    let elsewhere = own_address();
    pebble.tell_dns("/add-a", json!({ "host": "app.example.test.", "addresses": [elsewhere] })).await;
    let failed = eventually("the renewal fails", || async {
        (order(&trigate, "network/ordered-0").await["failed"].as_u64()? >= 2).then_some(())
    });
    failed.await;
    let now = handshake(&client, trigate.external.https, "app.example.test").await.expect("it is served");
    assert_eq!(now, first, "the last good one is served");
}

#[tokio::test]
async fn nonces_that_the_authority_rejects_are_replaced() {
    let pebble = Builder::debian(own_address()).environment("PEBBLE_WFE_NONCEREJECT", "25").start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let names = ["a.example.test", "b.example.test", "c.example.test", "d.example.test"];
    let trigate = ordering(&pebble, folder.path(), &names).start().await;
    for name in names {
        trusted(&client, trigate.external.https, name).await;
    }
    assert!(pebble.log().contains("reject 25% of good nonces"), "{}", pebble.log());
    assert_eq!(trigate.metric("trigate_certificate_orders_total", &["result=\"failure\""]).await, 0.0);
}

/// An authority that is too busy for anything for an hour; says where its directory is.
async fn busy(authority: &Authority) -> String {
    let acceptor = TlsAcceptor::from(Arc::new(authority.leaf(&["localhost"]).server(&[])));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let problem = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many orders"}"#;
            let head = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nConnection: close\r\n";
            let answer = format!("{head}Content-Length: {}\r\n\r\n{problem}", problem.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    format!("https://localhost:{port}/dir")
}

#[tokio::test]
async fn an_authority_that_is_busy_is_left_alone_for_as_long_as_it_says() {
    let pebble = Builder::debian(own_address()).start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let authority = Authority::new();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the folder is ours");
    let builder = ordering(&pebble, &folder.path().join("acme"), &["app.example.test"])
        .set("acme.directory", busy(&authority).await)
        .set("acme.ca", folder.path().join("ca.pem").display().to_string());
    let trigate = builder.start().await;
    let (order, _) = eventually("the refusal is told", || async {
        let order = order(&trigate, "network/ordered-0").await;
        (order["state"] == "failed").then_some(order)
    })
    .await;
    let why = order["last_error"].as_str().expect("a reason");
    assert!(why.contains("too many orders"), "{why}");
    let next: jiff::Timestamp =
        order["next_order"].as_str().and_then(|text| text.parse().ok()).expect("a time");
    let wait = next.as_second() - jiff::Timestamp::now().as_second();
    assert!(
        (3500..=3601).contains(&wait),
        "acme.retry is a second, and it waits {wait} s: {}",
        trigate.log()
    );
}

#[tokio::test]
async fn a_process_that_is_killed_in_mid_order_goes_on_with_it() {
    let pebble = Builder::debian(own_address())
        .environment("PEBBLE_VA_NOSLEEP", "0")
        .environment("PEBBLE_VA_SLEEPTIME", "4")
        .start()
        .await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let started = || ordering(&pebble, folder.path(), &["app.example.test"]);
    let trigate = started().start().await;
    let file = folder.path().join("orders/network/ordered-0.json");
    let (pending, _) = eventually("the order is kept", || async {
        let text = std::fs::read_to_string(&file).ok()?;
        let kept: serde_json::Value = serde_json::from_str(&text).ok()?;
        kept["order"]["url"].as_str().map(str::to_owned)
    })
    .await;
    // It is killed: nothing is put in order at the end.
    drop(trigate);
    let trigate = started().set("acme.retry", "200ms").start().await;
    trusted(&client, trigate.external.https, "app.example.test").await;
    let path = pending.rsplit('/').next().expect("an order has a name").to_owned();
    // The certificate is served before what led to it is put away.
    eventually("what is over is forgotten", || async {
        let kept = std::fs::read_to_string(&file).expect("it is there");
        let challenges = std::fs::read_dir(folder.path().join("challenges")).expect("a folder").count();
        (!kept.contains(&path) && challenges == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_hundred_names_get_their_certificates() {
    const NAMES: usize = 200;
    let pebble = Builder::debian(own_address()).start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let mut builder = ordering(&pebble, folder.path(), &["app.example.test"]);
    for index in 0..NAMES {
        let table = format!("acme.certificates.c{index}");
        builder = builder
            .set(&format!("{table}.secret"), format!("network/many-{index}"))
            .set(&format!("{table}.names"), vec![format!("n{index}.example.test")]);
    }
    let trigate = builder.start().await;
    let began = std::time::Instant::now();
    let file = |index: usize| folder.path().join(format!("certificates/network/many-{index}.pem"));
    while !(0..NAMES).all(|index| file(index).exists()) {
        assert!(began.elapsed() < Duration::from_secs(240), "{}", trigate.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{NAMES} certificates after {:?}", began.elapsed());
    trusted(&client, trigate.external.https, "app.example.test").await;
    assert_eq!(trigate.metric("trigate_certificate_orders_total", &["result=\"failure\""]).await, 0.0);
}

#[tokio::test]
async fn of_two_replicas_one_orders_and_the_other_answers_the_authority_too() {
    // The authority looks for names at the second replica only.
    let pebble = Builder::debian(own_address()).start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let upstream = Upstream::echo("app").await;
    let client = Arc::new(pebble.client().await);
    let names = ["http.example.test", "alpn.example.test"];
    let replica = |address| {
        let builder = to(at(address, &pebble, folder.path(), &names), &upstream);
        let challenges: toml::Table =
            [("alpn.example.test".to_owned(), "tls-alpn-01".into())].into_iter().collect();
        builder.set("acme.challenges", challenges)
    };
    let first = replica(own_address()).start().await;
    let log = || async { first.log().contains("this replica orders").then_some(()) };
    eventually("the first replica orders", log).await;
    let second = replica(pebble.gateway).start().await;
    for name in names {
        let one = trusted(&client, first.external.https, name).await;
        let other = trusted(&client, second.external.https, name).await;
        assert_eq!(one, other, "{name}");
    }
    assert_eq!(order(&second, "network/ordered-0").await["state"], "elsewhere");
    drop(first);
    let log = || async { second.log().contains("this replica orders").then_some(()) };
    eventually("the second replica takes over", log).await;
}

#[tokio::test]
async fn a_name_that_is_corrected_is_ordered_at_once_however_long_the_wrong_one_would_wait() {
    let pebble = Builder::debian(own_address()).start().await;
    let elsewhere = own_address();
    pebble.tell_dns("/add-a", json!({ "host": "wrong.example.test.", "addresses": [elsewhere] })).await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let client = Arc::new(pebble.client().await);
    let trigate =
        ordering(&pebble, folder.path(), &["wrong.example.test"]).set("acme.retry", "1h").start().await;
    eventually("the failure is told", || async {
        (order(&trigate, "network/ordered-0").await["failed"].as_u64()? >= 1).then_some(())
    })
    .await;
    let listener = https_listener("https-0", 443, "right.example.test", "ordered-0");
    trigate.apply(gateway("external", &[http_listener("http", 80), listener]));
    trusted(&client, trigate.external.https, "right.example.test").await;
}
