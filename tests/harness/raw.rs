//! HTTP/1 by bytes, for both ends: what a library would not send or would not show.

use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is read and written by bytes, and remembers all it has read.
pub struct Raw<S = TcpStream> {
    pub stream: S,
    unread: BytesMut,
    record: Arc<Mutex<Vec<u8>>>,
}

/// A request or a response, as it was on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without its framing.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        let status = self.start.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no response begins like this: {}", self.start))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.header(name).is_some_and(|value| value.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
    }
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        stream.set_nodelay(true).expect("a socket of ours");
        Self::new(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub fn new(stream: S) -> Self {
        Self::recording(stream, Arc::default())
    }

    pub fn recording(stream: S, record: Arc<Mutex<Vec<u8>>>) -> Self {
        Self { stream, unread: BytesMut::new(), record }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("the other side reads");
    }

    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// The next response; `None` when the connection ends before one begins.
    pub async fn response(&mut self) -> Option<Message> {
        self.message(Body::OfResponse).await
    }

    /// The next response to a HEAD request, or a head whose body is read by hand.
    pub async fn response_head(&mut self) -> Option<Message> {
        self.message(Body::None).await
    }

    /// The next request.
    pub async fn request(&mut self) -> Option<Message> {
        self.message(Body::OfRequest).await
    }

    /// The head of the next request; its body is left unread.
    pub async fn request_head(&mut self) -> Option<Message> {
        self.message(Body::None).await
    }

    /// All until the other side closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await.unwrap_or(0) > 0 {}
        self.unread.split().to_vec()
    }

    /// Whether the other side has closed, or does so within this time.
    pub async fn closed_within(&mut self, time: Duration) -> bool {
        matches!(tokio::time::timeout(time, self.fill()).await, Ok(Ok(0) | Err(_)))
    }

    /// What comes within this time.
    pub async fn bytes_within(&mut self, time: Duration) -> Vec<u8> {
        let deadline = tokio::time::Instant::now() + time;
        while matches!(tokio::time::timeout_at(deadline, self.fill()).await, Ok(Ok(1..))) {}
        self.unread.split().to_vec()
    }

    /// Exactly so many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.fill().await.expect("the connection works") > 0, "closed before {count} bytes came");
        }
        self.unread.split_to(count).to_vec()
    }

    /// So many bytes, or fewer when the other side closes before.
    pub async fn upto(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count && self.fill().await.unwrap_or(0) > 0 {}
        let there = self.unread.len().min(count);
        self.unread.split_to(there).to_vec()
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let before = self.unread.len();
        let count = self.stream.read_buf(&mut self.unread).await?;
        self.record.lock().expect("nobody panics with it").extend_from_slice(&self.unread[before..]);
        Ok(count)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread.split_to(end)).into_owned();
                let _ = self.unread.split_to(2);
                return Some(line);
            }
            if self.fill().await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn fields(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(fields);
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header field: {line:?}"));
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    async fn message(&mut self, body: Body) -> Option<Message> {
        let start = self.line().await?;
        let headers = self.fields().await?;
        let mut message = Message { start, headers, ..Message::default() };
        let bodiless = body == Body::OfResponse && matches!(message.status(), 100..200 | 204 | 304);
        if body == Body::None || bodiless {
            return Some(message);
        }
        if message.has_token("transfer-encoding", "chunked") {
            loop {
                let line = self.line().await?;
                let size =
                    line.split(';').next().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
                let size = size.unwrap_or_else(|| panic!("no chunk begins like this: {line:?}"));
                if size == 0 {
                    message.trailers = self.fields().await?;
                    return Some(message);
                }
                message.body.extend(self.exactly(size).await);
                assert_eq!(self.exactly(2).await, b"\r\n", "a chunk ends with an empty line");
            }
        }
        if let Some(length) = message.header("content-length") {
            let length = length.parse().expect("a length");
            message.body = self.exactly(length).await;
        } else if body == Body::OfResponse {
            message.body = self.rest().await;
        }
        Some(message)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    OfRequest,
    OfResponse,
}
