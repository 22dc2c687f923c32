//! Certificates of the names in a tailnet, which tailscaled orders and keeps: asked over its local API.

use super::http::whole;
use super::store::Pair;
use anyhow::{Context, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A certificate that tailscaled does not have yet takes it an order of its own.
const TIME: Duration = Duration::from_secs(180);

/// The certificate for a name, a new one when it is time for tailscaled.
///
/// # Errors
/// tailscaled is not there, or does not give it.
pub async fn certificate(socket: &Path, name: &str) -> anyhow::Result<Pair> {
    let asking = timeout(TIME, ask(socket, name)).await;
    asking.with_context(|| format!("tailscaled has given no certificate within {TIME:?}"))?
}

async fn ask(socket: &Path, name: &str) -> anyhow::Result<Pair> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "tailscaled is not reached at {}; is it running, and may trigate use its socket?",
            socket.display()
        )
    })?;
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("/localapi/v0/cert/{name}?type=pair"))
        .header("host", "local-tailscaled.sock")
        .body(Empty::<Bytes>::new())?;
    let answer = match client.send_request(request).await {
        Ok(response) => whole(response).await,
        Err(error) => Err(error.into()),
    };
    connection.abort();
    let answer = answer?;
    let text = String::from_utf8_lossy(answer.body());
    if !answer.status().is_success() {
        bail!("tailscaled answers {}: {}", answer.status(), text.trim());
    }
    Pair::split(&text).with_context(|| format!("tailscaled has sent no certificate for {name}"))
}
