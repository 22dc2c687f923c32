//! The built-in echo backend: answers every request with what it was asked, so that an example needs no other.
//!
//! A backend of its own and not a part of the gateway: requests reach it over a socket like any other.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

/// More of a body is read and counted, but not shown.
const SHOWN_BODY: usize = 4096;

/// Binds the backend's socket.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves HTTP/1.1 and HTTP/2 with prior knowledge; ends only with the runtime.
pub async fn serve(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream));
            }
            // Out of descriptors, most likely: it passes, and a loop without a pause would not let it.
            Err(error) => {
                tracing::warn!("the echo backend cannot accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream) {
    let served = auto::Builder::new(TokioExecutor::new())
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) }),
        )
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection to the echo backend ended: {error}");
    }
}

/// What was asked, as JSON with the keys in a fixed order.
async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, mut body) = request.into_parts();
    let (mut shown, mut length) = (Vec::new(), 0u64);
    while let Some(Ok(frame)) = body.frame().await {
        let Some(bytes) = frame.data_ref() else { continue };
        length += bytes.len() as u64;
        let room = SHOWN_BODY.saturating_sub(shown.len()).min(bytes.len());
        shown.extend_from_slice(&bytes[..room]);
    }
    let told = json!({
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map_or("/", |path| path.as_str()),
        "host": host(&head.uri, &head.headers),
        "version": format!("{:?}", head.version),
        "headers": headers(&head.headers),
        "body": { "bytes": length, "text": String::from_utf8_lossy(&shown) },
    });
    let text = serde_json::to_string_pretty(&told).expect("text, numbers and maps of them are JSON") + "\n";
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn host(uri: &http::Uri, headers: &HeaderMap) -> Value {
    let authority = uri.authority().map(|authority| authority.as_str().to_owned());
    authority.or_else(|| headers.get("host").map(text)).map_or(Value::Null, Value::from)
}

/// Fields by name; what came more than once is a list.
fn headers(headers: &HeaderMap) -> Value {
    let mut told = Map::new();
    for name in headers.keys() {
        let mut values: Vec<Value> = headers.get_all(name).iter().map(text).map(Value::from).collect();
        let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        told.insert(name.to_string(), value);
    }
    Value::Object(told)
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(request: &str) -> String {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(serve(listener));
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    #[tokio::test]
    async fn it_tells_method_path_headers_and_body() {
        let answer = ask(
            "POST /a?b=c HTTP/1.1\r\nhost: echo.localhost\r\nx-a: 1\r\nx-a: 2\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
        )
        .await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        let told: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(told["method"], "POST");
        assert_eq!(told["path"], "/a?b=c");
        assert_eq!(told["host"], "echo.localhost");
        assert_eq!(told["headers"]["x-a"], json!(["1", "2"]));
        assert_eq!(told["body"], json!({ "bytes": 5, "text": "hello" }));
    }

    #[tokio::test]
    async fn a_long_body_is_counted_and_shown_in_part() {
        let body = "x".repeat(10_000);
        let answer = ask(&format!(
            "PUT / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10000\r\n\r\n{body}"
        ))
        .await;
        let told: Value =
            serde_json::from_str(answer.split_once("\r\n\r\n").expect("a head").1).expect("JSON");
        assert_eq!(told["body"]["bytes"], 10_000);
        assert_eq!(told["body"]["text"].as_str().map(str::len), Some(SHOWN_BODY));
    }
}
