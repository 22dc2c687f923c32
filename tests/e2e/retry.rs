//! Passive retry: a connection that cannot be opened, and a kept one that the upstream closed meanwhile.

use crate::harness::client::{Ask, Client};
use crate::harness::manifest::{route, service};
use crate::harness::trigate::Trigate;
use crate::harness::upstream::{Upstream, refusing, response};
use crate::{HOST, in_front_of};

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over_and_no_request_fails() {
    let upstream = Upstream::echo("app").await;
    let mut objects = service("app", &[refusing().await, upstream.address]);
    objects.push(route("app").on("external").host(HOST).to("app").object());
    let trigate = Trigate::serving(objects).await;
    for number in 0..30 {
        let answer = trigate.external.ask(Ask::post(HOST, "/", format!("body {number}"))).await;
        assert_eq!(answer.seen().body, format!("body {number}"));
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_upstream_closed_costs_no_request() {
    // Answers once, keeps the connection open as far as the gateway can tell, and closes on the next request.
    let upstream = Upstream::raw(|mut connection| async move {
        if let Some(request) = connection.request().await {
            connection.send(response(200, &request.text())).await;
            connection.request_head().await;
        }
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let mut client = Client::http1(trigate.external.http).await;
    for number in 0..20 {
        let ask = if number % 2 == 0 { Ask::get(HOST, "/") } else { Ask::new("PUT", HOST, "/") };
        assert_eq!(client.send(ask).await.status, 200, "request {number}");
    }
}

#[tokio::test]
async fn an_upstream_that_closes_a_kept_connection_at_once_costs_no_request() {
    let upstream = Upstream::raw(|mut connection| async move {
        if connection.request().await.is_some() {
            connection.send(response(200, "once")).await;
        }
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let mut client = Client::http1(trigate.external.http).await;
    for number in 0..20 {
        assert_eq!(client.send(Ask::get(HOST, "/")).await.text(), "once", "request {number}");
    }
}

#[tokio::test]
async fn a_request_on_a_new_connection_that_fails_is_not_sent_again() {
    let upstream = Upstream::raw(|mut connection| async move {
        connection.request().await;
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let answer = trigate.external.ask(Ask::post(HOST, "/", "charge my card")).await;
    assert_eq!(answer.status, 503);
    let sent = upstream.records().iter().filter(|record| !record.is_empty()).count();
    assert_eq!(sent, 1, "the upstream may have acted on it");
}
