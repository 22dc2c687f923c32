//! A connection to a collector: one batch after the other, over gRPC or over HTTP/1.

use super::exporter::{Collector, Endpoint, Kind, Protocol};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::io;
use std::sync::{Arc, LazyLock};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What of an answer is read; it says what was refused, at most.
const MOST_ANSWER: usize = 64 * 1024;

/// Why a batch was not taken.
#[derive(Debug, Error)]
pub(super) enum SendError {
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("it does not answer in time")]
    TimedOut,
    #[error("it answers {0}; is this the port for this protocol?")]
    Refused(StatusCode),
    #[error("it answers with grpc-status {status} {message}")]
    GrpcStatus { status: String, message: String },
    #[error("its answer cannot be read: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
    #[error("a header for it cannot be sent: {0}")]
    Header(#[from] http::Error),
}

/// A connection that can take a batch.
pub(super) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Collectors are believed by the authorities of the system.
static ROOTS: LazyLock<Arc<rustls::RootCertStore>> = LazyLock::new(|| {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
});

impl Connection {
    /// Connects, and speaks what the collector's protocol needs.
    pub async fn open(collector: &Collector) -> Result<Self, SendError> {
        let Endpoint { secure, host, port, path: _ } = &collector.endpoint;
        let tcp = TcpStream::connect((host.as_str(), *port)).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = if *secure {
            let alpn: &[u8] = if collector.protocol == Protocol::Grpc { b"h2" } else { b"http/1.1" };
            let mut config =
                ClientConfig::builder().with_root_certificates(ROOTS.clone()).with_no_client_auth();
            config.alpn_protocols = vec![alpn.to_vec()];
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)
        } else {
            Box::new(tcp)
        };
        let io = TokioIo::new(stream);
        Ok(match collector.protocol {
            Protocol::Grpc => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
                // Its end is seen by the next request.
                tokio::spawn(driver);
                Self::Http2(sender)
            }
            Protocol::Http => {
                let (sender, driver) = http1::handshake(io).await?;
                tokio::spawn(driver);
                Self::Http1(sender)
            }
        })
    }

    /// Sends one message, and waits until it was taken.
    pub async fn send(&mut self, collector: &Collector, kind: Kind, message: Bytes) -> Result<(), SendError> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                let answer = sender.send_request(over_http(collector, kind, message)?).await?;
                let status = answer.status();
                read(answer).await?;
                if status.is_success() { Ok(()) } else { Err(SendError::Refused(status)) }
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                let answer = sender.send_request(over_grpc(collector, kind, &message)?).await?;
                if answer.status() != StatusCode::OK {
                    return Err(SendError::Refused(answer.status()));
                }
                let headers = answer.headers().clone();
                let trailers = read(answer).await?.unwrap_or_default();
                grpc_status(&headers, &trailers)
            }
        }
    }
}

/// Reads an answer to its end, so that the connection can serve again. Returns its trailers.
async fn read(answer: Response<Incoming>) -> Result<Option<HeaderMap>, SendError> {
    let body = Limited::new(answer.into_body(), MOST_ANSWER).collect().await.map_err(SendError::Answer)?;
    Ok(body.trailers().cloned())
}

fn grpc_status(headers: &HeaderMap, trailers: &HeaderMap) -> Result<(), SendError> {
    let text = |name: &str| {
        let value = trailers.get(name).or_else(|| headers.get(name));
        value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    match text("grpc-status") {
        status if status == "0" => Ok(()),
        status => Err(SendError::GrpcStatus { status, message: text("grpc-message") }),
    }
}

fn over_http(collector: &Collector, kind: Kind, message: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
    let path = match kind {
        Kind::Logs => "/v1/logs",
        Kind::Traces => "/v1/traces",
    };
    let Endpoint { secure: _, host, port, path: base } = &collector.endpoint;
    let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("{base}{path}"))
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(message))?;
    add_headers(request.headers_mut(), collector)?;
    Ok(request)
}

fn over_grpc(collector: &Collector, kind: Kind, message: &[u8]) -> Result<Request<Full<Bytes>>, http::Error> {
    let service = match kind {
        Kind::Logs => "logs.v1.LogsService",
        Kind::Traces => "trace.v1.TraceService",
    };
    // A message of gRPC: not compressed, its length, itself.
    let mut body = BytesMut::with_capacity(5 + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(message);
    let endpoint = Endpoint {
        path: format!("{}/opentelemetry.proto.collector.{service}/Export", collector.endpoint.path),
        ..collector.endpoint.clone()
    };
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(endpoint.to_string())
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(body.freeze()))?;
    add_headers(request.headers_mut(), collector)?;
    Ok(request)
}

fn add_headers(headers: &mut HeaderMap, collector: &Collector) -> Result<(), http::Error> {
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("trigate/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in &collector.headers {
        headers.insert(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    Ok(())
}
