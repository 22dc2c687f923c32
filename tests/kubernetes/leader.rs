//! Several replicas: one writes, and when it dies another one goes on without a flicker.

use crate::cluster::{Place, condition, verdict};
use crate::harness::eventually;
use crate::{trigate, with_app};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn lease(place: &Place) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "trigate", "namespace": place.namespace },
    })
}

fn holder(lease: &Value) -> String {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn one_replica_writes_and_another_one_follows_when_it_is_killed() {
    let Some(place) = Place::shared().await else { return };
    let _upstream = with_app(&place).await;
    let route = place.route("app", "external", "app.test");
    place.apply(&route).await;
    let first = trigate(&place).start().await;
    let accepted =
        |found: &Value| verdict(&found["status"]["parents"][0]["conditions"], "Accepted") == "True/Accepted";
    let before = place.until(&route, "it is accepted", accepted).await;
    let second = trigate(&place).start().await;
    second.until_status(second.external.http, "app.test", "/", 200).await;
    assert!(second.log().matches("this replica leads").count() == 0, "{}", second.log());
    let held = holder(&place.get(&lease(&place)).await.expect("there is a Lease"));
    let killed = Instant::now();
    drop(first);
    let taken = || async {
        let lease = place.get(&lease(&place)).await?;
        (holder(&lease) != held).then_some(())
    };
    tokio::time::timeout(Duration::from_secs(15), eventually("the Lease moves", taken))
        .await
        .expect("it moves");
    assert!(killed.elapsed() < Duration::from_millis(10_500), "after {:?}", killed.elapsed());
    let late = place.route("late", "external", "late.test");
    place.apply(&late).await;
    place.until(&late, "the second one writes", accepted).await;
    // Nothing that was in order was written again.
    let after = place.get(&route).await.expect("it is there");
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    assert!(condition(&after["status"]["parents"][0]["conditions"], "Accepted").is_some());
}

#[tokio::test]
async fn a_replica_that_ends_in_order_gives_the_lease_back() {
    let Some(place) = Place::shared().await else { return };
    let mut first = trigate(&place).start().await;
    let led = || async { first.log().contains("this replica leads").then_some(()) };
    eventually("it leads", led).await;
    first.terminate();
    let free = || async { place.get(&lease(&place)).await.filter(|lease| holder(lease).is_empty()) };
    let (_, took) = eventually("the Lease is free", free).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    first.ended(Duration::from_secs(15)).await;
}
