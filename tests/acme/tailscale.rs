//! Certificates of a tailnet's names: a server on a Unix socket that answers as tailscaled does.

use crate::harness::certificate::Authority;
use crate::harness::eventually;
use crate::pebble::Builder;
use crate::{order, ordering, own_address};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio::net::UnixListener;

const NAME: &str = "host.tail1234.ts.net";

/// A pair that is valid for so many seconds: the key, then the chain, as tailscaled sends it.
fn pair(authority: &Authority, seconds: u64) -> String {
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    params.not_before = SystemTime::now().into();
    params.not_after = (SystemTime::now() + Duration::from_secs(seconds)).into();
    let key = KeyPair::generate().expect("a key");
    format!("{}{}", key.serialize_pem(), authority.sign(&params, &key).pem())
}

/// Answers as tailscaled's local API; counts what it was asked for.
async fn tailscaled(socket: &Path, authority: Arc<Authority>, seconds: u64) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(socket).expect("the folder is ours");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (authority, counted) = (Arc::clone(&authority), Arc::clone(&counted));
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&request, &authority, &counted, seconds);
                async move { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    asked
}

fn answer(
    request: &Request<Incoming>,
    authority: &Authority,
    asked: &AtomicUsize,
    seconds: u64,
) -> Response<Full<Bytes>> {
    let refuse = |status, text: &str| {
        let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
        *response.status_mut() = status;
        response
    };
    // tailscaled takes no other host, so that no web page reaches it through a browser.
    if request.headers().get("host").is_none_or(|host| host != "local-tailscaled.sock") {
        return refuse(StatusCode::FORBIDDEN, "invalid localapi request");
    }
    if request.uri().path() != format!("/localapi/v0/cert/{NAME}")
        || request.uri().query() != Some("type=pair")
    {
        return refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "invalid domain; must be one of [\"host.tail1234.ts.net\"]",
        );
    }
    asked.fetch_add(1, Relaxed);
    Response::new(Full::new(Bytes::from(pair(authority, seconds))))
}

#[tokio::test]
async fn a_name_of_the_tailnet_has_its_certificate_from_tailscaled_renewed_in_time() {
    let pebble = Builder::debian(own_address()).start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let socket = folder.path().join("tailscaled.sock");
    let authority = Arc::new(Authority::new());
    let client = Arc::new(authority.client(&[]));
    let asked = tailscaled(&socket, authority, 9).await;
    let trigate = ordering(&pebble, &folder.path().join("acme"), &[NAME])
        .set("acme.tailscale_socket", socket.display().to_string())
        .start()
        .await;
    crate::trusted(&client, trigate.external.https, NAME).await;
    let renewed = || async { (asked.load(Relaxed) >= 2).then_some(()) };
    eventually("it is renewed", renewed).await;
    assert!(!pebble.log().contains("sign-me-up"), "no account is made for it");
}

#[tokio::test]
async fn what_tailscaled_does_not_give_is_told_with_its_words() {
    let pebble = Builder::debian(own_address()).start().await;
    let folder = tempfile::tempdir().expect("a folder for the test");
    let socket = folder.path().join("tailscaled.sock");
    let trigate = ordering(&pebble, &folder.path().join("acme"), &["other.tail1234.ts.net"])
        .set("acme.tailscale_socket", socket.display().to_string())
        .start()
        .await;
    let why = |word: &'static str| {
        let trigate = &trigate;
        eventually("a reason is told", move || async move {
            let order = order(trigate, "network/ordered-0").await;
            order["last_error"].as_str().filter(|why| why.contains(word)).map(str::to_owned)
        })
    };
    why("is it running").await;
    let _asked = tailscaled(&socket, Arc::new(Authority::new()), 9).await;
    why("invalid domain").await;
}
