//! Upstreams in this process: one that echoes, one that does what a test says, and one that is read by bytes.

use super::certificate::Leaf;
use super::raw::{Message, Raw};
use bytes::Bytes;
use futures::channel::mpsc;
use http::{Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What an echo upstream saw of a request; its answer, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// The name given to the upstream.
    pub upstream: String,
    pub method: String,
    /// As it was on the wire.
    pub target: String,
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    /// The only value of a header; `None` without it.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} came more than once: {values:?}");
        values.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// All bytes that one connection received.
type Record = Arc<Mutex<Vec<u8>>>;

/// A listening upstream; it ends when this is dropped.
pub struct Upstream {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    records: Arc<Mutex<Vec<Record>>>,
    task: JoinHandle<()>,
}

/// A body of this text.
pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// A body that is what is sent into the channel, in frames.
pub fn streamed() -> (mpsc::Sender<Result<Frame<Bytes>, Infallible>>, Body) {
    let (sender, receiver) = mpsc::channel(0);
    (sender, StreamBody::new(receiver).boxed_unsync())
}

/// A frame of data.
pub fn data(bytes: impl Into<Bytes>) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(bytes.into()))
}

impl Upstream {
    /// Answers with what it saw, in HTTP/1.1 and HTTP/2 with prior knowledge.
    pub async fn echo(name: &str) -> Self {
        let name = name.to_owned();
        Self::serve(move |request| echo(name.clone(), request)).await
    }

    /// The same over TLS.
    pub async fn tls_echo(name: &str, leaf: &Leaf) -> Self {
        Self::tls_echo_with(name, leaf.server(&["h2", "http/1.1"])).await
    }

    /// The same with these settings.
    pub async fn tls_echo_with(name: &str, config: ServerConfig) -> Self {
        let name = name.to_owned();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::listen(move |stream, _| {
            let (name, acceptor) = (name.clone(), acceptor.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve_connection(TokioIo::new(stream), move |request| echo(name.clone(), request)).await;
                }
            }
        })
        .await
    }

    /// Answers as this function says, in HTTP/1.1 and HTTP/2 with prior knowledge.
    pub async fn serve<F, R>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::listen(move |stream, _| serve_connection(TokioIo::new(stream), answer.clone())).await
    }

    /// Does with each connection what this function says; all that it reads is remembered.
    pub async fn raw<F, R>(serve: F) -> Self
    where
        F: Fn(Raw) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::listen(move |stream, record| serve(Raw::recording(stream, record))).await
    }

    /// Reads one HTTP/1 request after another, strictly, and answers each with these bytes.
    pub async fn recording<F>(answer: F) -> Self
    where
        F: Fn(&Message) -> Vec<u8> + Clone + Send + Sync + 'static,
    {
        Self::raw(move |mut connection| {
            let answer = answer.clone();
            async move {
                while let Some(request) = connection.request().await {
                    if connection.try_send(answer(&request)).await.is_err() {
                        break;
                    }
                }
            }
        })
        .await
    }

    /// Speaks HTTP/2 with prior knowledge, and does with each exchange what this function says.
    pub async fn exchanges<F, R>(answer: F) -> Self
    where
        F: Fn(h2::server::SendResponse<Bytes>) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::listen(move |stream, _| {
            let answer = answer.clone();
            async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((_, respond))) = connection.accept().await {
                    tokio::spawn(answer(respond));
                }
            }
        })
        .await
    }

    async fn listen<F, R>(serve: F) -> Self
    where
        F: Fn(TcpStream, Arc<Mutex<Vec<u8>>>) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback address can be bound");
        let address = listener.local_addr().expect("it is bound");
        let (accepted, records) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, recorded) = (Arc::clone(&accepted), Arc::clone(&records));
        let task = tokio::spawn(async move {
            // Dropped with the task, so an upstream that ends also closes its connections.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // A socket may be gone by now, which its first read will tell.
                let _ = stream.set_nodelay(true);
                count.fetch_add(1, Relaxed);
                let record = Arc::default();
                recorded.lock().expect("nobody panics with it").push(Arc::clone(&record));
                connections.spawn(serve(stream, record));
            }
        });
        Self { address, accepted, records, task }
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    /// All that came over each connection, in the order in which they were opened (raw upstreams only).
    pub fn records(&self) -> Vec<Vec<u8>> {
        let records = self.records.lock().expect("nobody panics with it");
        records.iter().map(|record| record.lock().expect("nobody panics with it").clone()).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address where nobody listens.
pub async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback address can be bound");
    listener.local_addr().expect("it is bound")
}

/// An HTTP/1.1 response of this status and text.
pub fn response(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn serve_connection<I, F, R>(io: I, answer: F)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    // How a connection ends is the business of the client that the test looks at.
    let _ = builder.serve_connection_with_upgrades(io, service).await;
}

async fn echo(upstream: String, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let target = match head.version {
        Version::HTTP_2 => head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        _ => head.uri.to_string(),
    };
    let mut headers: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
    if let Some(authority) = head.uri.authority().filter(|_| head.version == Version::HTTP_2) {
        headers.push(("host".to_owned(), authority.to_string()));
    }
    let seen = Seen {
        upstream,
        method: head.method.to_string(),
        target,
        version: format!("{:?}", head.version),
        headers,
        body: text(&body),
    };
    let json = serde_json::to_vec(&seen).expect("it can be written");
    Response::builder()
        .header("content-type", "application/json")
        .header("server", "echo")
        .body(full(json))
        .expect("valid headers")
}
