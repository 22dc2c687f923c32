//! Clients: HTTP/1.1 and HTTP/2, in clear text and over TLS with any server name.

use super::soon;
use super::trigate::{Sockets, Trigate};
use super::upstream::{Body, Seen, full};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A request in the making.
pub struct Ask {
    method: Method,
    host: String,
    target: String,
    headers: HeaderMap,
    body: Body,
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

/// One connection.
pub enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Ask {
    pub fn new(method: &str, host: &str, target: &str) -> Self {
        Self {
            method: method.parse().expect("a method"),
            host: host.to_owned(),
            target: target.to_owned(),
            headers: HeaderMap::new(),
            body: full(""),
        }
    }

    pub fn get(host: &str, target: &str) -> Self {
        Self::new("GET", host, target)
    }

    pub fn post(host: &str, target: &str, body: impl Into<Bytes>) -> Self {
        Self::new("POST", host, target).body(full(body))
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        self.headers.append(name, value.parse().expect("a header value"));
        self
    }

    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    fn into_request(self, http2: bool) -> Request<Body> {
        let Self { method, host, target, headers, body } = self;
        let uri = if http2 { format!("http://{host}{target}") } else { target };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().expect("a target");
        *request.headers_mut() = headers;
        if http2 {
            *request.version_mut() = Version::HTTP_2;
        } else {
            request.headers_mut().insert("host", HeaderValue::from_str(&host).expect("a host"));
        }
        request
    }
}

impl Answer {
    /// Reads a response to its end.
    pub async fn of(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Self {
            status: head.status.as_u16(),
            version: head.version,
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("visible ASCII"))
    }

    /// What an echo upstream saw.
    pub fn seen(&self) -> Seen {
        assert_eq!(self.status, 200, "an echo upstream answers 200: {self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Client {
    pub async fn http1(address: SocketAddr) -> Self {
        Self::try_http1(address).await.expect("somebody listens")
    }

    pub async fn try_http1(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Self::http1_on(stream).await
    }

    pub async fn http1_on(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection.with_upgrades());
        Ok(Self::Http1(sender))
    }

    /// HTTP/2 with prior knowledge.
    pub async fn http2(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        Self::http2_on(stream).await.expect("HTTP/2 is spoken")
    }

    pub async fn http2_on(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Self> {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self::Http2(sender))
    }

    /// HTTP/1.1 over TLS for this server name.
    pub async fn https1(trigate: &Trigate, sockets: Sockets, server_name: &str) -> Self {
        let stream = tls(trigate, sockets, server_name, &["http/1.1"]).await.expect("the name is served");
        Self::http1_on(stream).await.expect("HTTP/1 is spoken")
    }

    /// HTTP/2 over TLS for this server name, agreed on by ALPN.
    pub async fn https2(trigate: &Trigate, sockets: Sockets, server_name: &str) -> Self {
        let stream =
            tls(trigate, sockets, server_name, &["h2", "http/1.1"]).await.expect("the name is served");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "HTTP/2 is agreed on");
        Self::http2_on(stream).await.expect("HTTP/2 is spoken")
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, ask: Ask) -> Answer {
        self.try_send(ask).await.expect("the request is answered")
    }

    pub async fn try_send(&mut self, ask: Ask) -> Result<Answer, hyper::Error> {
        let response = self.try_begin(ask).await?;
        soon("the end of a response", Answer::of(response)).await
    }

    /// Sends a request and leaves the body to the caller.
    pub async fn begin(&mut self, ask: Ask) -> Response<Incoming> {
        self.try_begin(ask).await.expect("the request is answered")
    }

    pub async fn try_begin(&mut self, ask: Ask) -> Result<Response<Incoming>, hyper::Error> {
        let sent = async {
            match self {
                Self::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(ask.into_request(false)).await
                }
                Self::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(ask.into_request(true)).await
                }
            }
        };
        soon("a response head", sent).await
    }

    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Sockets {
    /// One request in clear text on a connection of its own.
    pub async fn ask(self, ask: Ask) -> Answer {
        Client::http1(self.http).await.send(ask).await
    }

    /// A GET in clear text.
    pub async fn get(self, host: &str, target: &str) -> Answer {
        self.ask(Ask::get(host, target)).await
    }
}

/// A TLS connection for this server name; `""` sends none.
pub async fn tls(
    trigate: &Trigate,
    sockets: Sockets,
    server_name: &str,
    alpn: &[&str],
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(sockets.https).await?;
    stream.set_nodelay(true)?;
    tls_on(trigate, stream, server_name, alpn).await
}

/// The same on a connection that is open already.
pub async fn tls_on<S: AsyncRead + AsyncWrite + Unpin>(
    trigate: &Trigate,
    stream: S,
    server_name: &str,
    alpn: &[&str],
) -> io::Result<TlsStream<S>> {
    let mut config = trigate.authority.client(alpn);
    let name = if server_name.is_empty() {
        config.enable_sni = false;
        "no-name.example.test"
    } else {
        server_name
    };
    let name = ServerName::try_from(name.to_owned()).expect("a DNS name");
    soon("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}
