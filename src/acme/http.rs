//! How certificate authorities, DNS providers and tailscaled are asked: with a bound on time and size.

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore};
use std::cell::Cell;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, SystemTime};
use tokio::task::futures::TaskLocalFuture;
use tokio::time::timeout;

/// What one answer may take.
const TIME: Duration = Duration::from_secs(30);
/// A chain of certificates, the largest answer, has some kilobytes.
const SIZE: usize = 1 << 20;

/// In seconds, where an authority does not say how long its answer holds.
const ASKED_AGAIN: HeaderValue = HeaderValue::from_static("21600");

tokio::task_local! {
    /// Until when an authority wants to be left alone, as far as it said so within an order.
    static LEFT_ALONE: Cell<Option<SystemTime>>;
}

/// Runs an order; [`left_alone`] in it knows what the authority said during it.
pub fn listening<F: Future>(order: F) -> TaskLocalFuture<Cell<Option<SystemTime>>, F> {
    LEFT_ALONE.scope(Cell::new(None), order)
}

/// Until when the authority does not want to be asked again (`Retry-After` of a refusal, RFC 8555 6.6).
pub fn left_alone() -> Option<SystemTime> {
    LEFT_ALONE.try_with(Cell::get).ok().flatten()
}

/// A client for HTTPS.
#[derive(Debug, Clone)]
pub struct Https(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Https {
    /// Trusts the certificates in this file, or those of the system.
    ///
    /// # Errors
    /// There is no certificate to trust.
    pub fn new(ca: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(file) => {
                let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                let authorities =
                    crate::tls::authorities(&pem).with_context(|| file.display().to_string())?;
                roots.add_parsable_certificates(authorities);
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(anyhow!("this system trusts no authority; install ca-certificates"));
                }
            }
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// There is none in time, or it is too large.
    pub async fn ask(&self, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
        let asked = request.uri().clone();
        let asking = async {
            let response = self.0.request(request.map(Full::new)).await.map_err(reason)?;
            whole(response).await
        };
        let answer =
            timeout(TIME, asking).await.unwrap_or_else(|_| Err(anyhow!("no answer within {TIME:?}")));
        answer.with_context(|| format!("cannot ask {asked}"))
    }
}

/// Reads a response to its end.
///
/// # Errors
/// It broke off, or is too large.
pub async fn whole(response: Response<Incoming>) -> anyhow::Result<Response<Bytes>> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, SIZE).collect().await.map_err(|error| anyhow!("{error}"))?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}

/// hyper's own words say less than what is below them.
fn reason(error: hyper_util::client::legacy::Error) -> anyhow::Error {
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    anyhow!("{innermost}")
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let is_get = parts.method == Method::GET;
            let Ok(body) = body.collect().await;
            let answer = client.ask(Request::from_parts(parts, body.to_bytes())).await;
            let answer = answer.map_err(|error| Error::Other(format!("{error:#}").into()))?;
            if matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                if let Some(until) = retry_after(answer.headers(), SystemTime::now()) {
                    let _ = LEFT_ALONE.try_with(|left_alone| left_alone.set(Some(until)));
                }
                if is_get {
                    return Err(busy(&answer));
                }
            }
            let (mut parts, body) = answer.into_parts();
            if is_get {
                // When to ask again when to renew; without it the window itself would not be believed.
                parts.headers.entry(RETRY_AFTER).or_insert(ASKED_AGAIN);
            }
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

/// Why there is no directory: the library would say which of its fields the refusal does not have.
fn busy(answer: &Response<Bytes>) -> Error {
    match serde_json::from_slice(answer.body()) {
        Ok(problem) => Error::Api(problem),
        Err(_) => Error::Other(format!("the authority answers {}", answer.status()).into()),
    }
}

/// A time, or a number of seconds (RFC 9110 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<SystemTime> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => now.checked_add(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_says_in_two_ways_how_long_it_wants_to_be_left_alone() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_000);
        let after = |value: &'static str| {
            let headers = [(RETRY_AFTER, HeaderValue::from_static(value))].into_iter().collect();
            retry_after(&headers, now)
                .and_then(|time| time.duration_since(now).ok())
                .map(|time| time.as_secs())
        };
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(777));
        assert_eq!(after("soon"), None);
        assert_eq!(after("18446744073709551615"), None);
    }
}
