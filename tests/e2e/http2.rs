//! HTTP/2 on both sides: agreed on by ALPN, with prior knowledge, many requests on one connection.

use crate::harness::client::{Ask, Client, tls};
use crate::harness::manifest::{route, service, service_speaking};
use crate::harness::trigate::Trigate;
use crate::harness::upstream::{Upstream, full};
use crate::harness::{eventually, soon};
use crate::{HOST, in_front_of, in_front_of_http2};
use futures::future::join_all;
use http::Response;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[tokio::test]
async fn http2_is_agreed_on_over_tls_and_known_before_in_clear_text() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let over_tls = Client::https2(&trigate, trigate.external, HOST).await;
    let clear = Client::http2(trigate.external.http).await;
    for mut client in [over_tls, clear] {
        let answer = client.send(Ask::post(HOST, "/a?b", "hello")).await;
        let seen = answer.seen();
        assert_eq!(answer.version, http::Version::HTTP_2);
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str(), seen.body.as_str()),
            ("POST", "/a?b", "hello")
        );
        assert_eq!((seen.version.as_str(), seen.header("host")), ("HTTP/1.1", Some(HOST)));
    }
}

#[tokio::test]
async fn a_client_that_offers_only_http1_or_nothing_gets_http1() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    for alpn in [&["http/1.1"][..], &[]] {
        let stream = tls(&trigate, trigate.external, HOST, alpn).await.expect("the name is served");
        let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(agreed.as_deref(), alpn.first().map(|protocol| protocol.as_bytes()));
        let mut client = Client::http1_on(stream).await.expect("HTTP/1 is spoken");
        assert_eq!(client.send(Ask::get(HOST, "/")).await.status, 200);
    }
}

#[tokio::test]
async fn a_hundred_requests_share_one_connection_at_once() {
    let waiting = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&waiting);
    let upstream = Upstream::serve(move |request| {
        let waiting = Arc::clone(&counter);
        async move {
            waiting.fetch_add(1, Relaxed);
            // Nobody is answered before all have come, which proves that they were under way together.
            eventually("a hundred requests", || async { (waiting.load(Relaxed) == 100).then_some(()) }).await;
            Response::new(full(request.uri().path().to_owned()))
        }
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let Client::Http2(sender) = Client::https2(&trigate, trigate.external, HOST).await else {
        panic!("HTTP/2 was agreed on")
    };
    let ask = |n: usize| {
        let mut client = Client::Http2(sender.clone());
        async move { client.send(Ask::get(HOST, &format!("/{n}"))).await.text() }
    };
    let answers = join_all((0..100).map(ask)).await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, format!("/{number}"));
    }
}

#[tokio::test]
async fn a_service_that_says_h2c_is_spoken_to_in_http2() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of_http2(&upstream).await;
    let http1 = Client::http1(trigate.external.http).await;
    let http2 = Client::http2(trigate.external.http).await;
    for mut client in [http1, http2] {
        for number in 0..20 {
            let seen = client.send(Ask::post(HOST, &format!("/{number}"), "hello")).await.seen();
            assert_eq!((seen.version.as_str(), seen.header("host")), ("HTTP/2.0", Some(HOST)));
            assert_eq!((seen.target, seen.body.as_str()), (format!("/{number}"), "hello"));
        }
    }
    assert!(upstream.accepted() <= 2, "{} connections to the upstream", upstream.accepted());
}

#[tokio::test]
async fn an_app_protocol_that_nobody_knows_is_ignored() {
    let upstream = Upstream::echo("app").await;
    let mut objects = service_speaking("app", &[upstream.address], Some("HTTPS"));
    objects.push(route("app").on("external").host(HOST).to("app").object());
    let trigate = Trigate::serving(objects).await;
    assert_eq!(trigate.external.get(HOST, "/").await.seen().version, "HTTP/1.1");
}

#[tokio::test]
async fn the_crumbs_of_a_cookie_are_put_together_for_http1() {
    let upstream = Upstream::echo("app").await;
    let trigate = in_front_of(&upstream).await;
    let mut client = Client::http2(trigate.external.http).await;
    let ask = Ask::get(HOST, "/").header("cookie", "a=1").header("cookie", "b=2");
    // RFC 9113 8.2.3
    assert_eq!(client.send(ask).await.seen().header("cookie"), Some("a=1; b=2"));
}

#[tokio::test]
async fn a_request_that_the_client_gives_up_ends_at_the_upstream_too() {
    struct Gone(Arc<AtomicUsize>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let (gone, came) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (left, arrived) = (Arc::clone(&gone), Arc::clone(&came));
    let upstream = Upstream::serve(move |request| {
        let (left, arrived) = (Arc::clone(&left), Arc::clone(&arrived));
        async move {
            if request.uri().path() == "/slow" {
                let _gone = Gone(left);
                arrived.fetch_add(1, Relaxed);
                std::future::pending::<()>().await;
            }
            Response::new(full("quick"))
        }
    })
    .await;
    let trigate = in_front_of(&upstream).await;
    let Client::Http2(sender) = Client::http2(trigate.external.http).await else { panic!("it is HTTP/2") };
    let mut slow = Client::Http2(sender.clone());
    let given_up = tokio::spawn(async move { slow.try_begin(Ask::get(HOST, "/slow")).await.map(|_| ()) });
    eventually("the request", || async { (came.load(Relaxed) == 1).then_some(()) }).await;
    given_up.abort();
    eventually("the end at the upstream", || async { (gone.load(Relaxed) == 1).then_some(()) }).await;
    let mut other = Client::Http2(sender);
    assert_eq!(soon("another request", other.send(Ask::get(HOST, "/"))).await.text(), "quick");
}

#[tokio::test]
async fn both_versions_are_served_by_services_with_several_endpoints() {
    let (one, two) = (Upstream::echo("one").await, Upstream::echo("two").await);
    let mut objects = service("app", &[one.address, two.address]);
    objects.push(route("app").on("external").host(HOST).to("app").object());
    let trigate = Trigate::serving(objects).await;
    let mut client = Client::http2(trigate.external.http).await;
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(client.send(Ask::get(HOST, "/")).await.seen().upstream);
    }
    let ones = answers.iter().filter(|name| *name == "one").count();
    assert!((1..40).contains(&ones), "both endpoints get requests: {answers:?}");
}
