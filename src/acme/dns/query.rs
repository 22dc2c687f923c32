//! One question to one name server.

use anyhow::{Context, anyhow};
use futures::StreamExt;
use hickory_net::client::Client;
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::tcp::TcpClientStream;
use hickory_net::udp::UdpClientStream;
use hickory_net::xfer::DnsHandle;
use hickory_net::xfer::DnsMultiplexer;
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message, Query};
use hickory_proto::rr::{Name, RData, RecordType, TSigner};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// What an answer may take.
const TIME: Duration = Duration::from_secs(5);

/// Asks a server for records of a name: over UDP, and over TCP where that says too little.
///
/// # Errors
/// It does not answer.
pub async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> anyhow::Result<Message> {
    let request = || {
        let mut query = Query::query(name.clone(), kind);
        query.set_query_class(hickory_proto::rr::DNSClass::IN);
        DnsRequest::from_query(query, DnsRequestOptions::default())
    };
    let stream =
        UdpClientStream::builder(server, TokioRuntimeProvider::default()).with_timeout(Some(TIME)).build();
    let (client, background) = Client::<TokioRuntimeProvider>::from_sender(stream);
    let background = tokio::spawn(background);
    let answer = first(client.send(request())).await;
    background.abort();
    match answer {
        Ok(answer) if !answer.metadata.truncation => Ok(answer),
        _ => over_tcp(server, request(), None).await,
    }
    .with_context(|| format!("the name server {server} does not answer"))
}

/// Sends a message, signed where there is a key, and returns the answer, whose signature is verified then.
///
/// # Errors
/// There is no answer, or its signature is not that of the key.
pub async fn over_tcp(
    server: SocketAddr,
    request: DnsRequest,
    key: Option<TSigner>,
) -> anyhow::Result<Message> {
    let (stream, handle) = TcpClientStream::new(server, None, Some(TIME), TokioRuntimeProvider::default());
    let mut multiplexer = DnsMultiplexer::new(stream.await?, handle).with_timeout(TIME);
    if let Some(key) = key {
        multiplexer = multiplexer.with_signer(key);
    }
    let (client, background) = Client::<TokioRuntimeProvider>::from_sender(multiplexer);
    let background = tokio::spawn(background);
    let answer = first(client.send(request)).await;
    background.abort();
    answer
}

async fn first<S, E>(mut answers: S) -> anyhow::Result<Message>
where
    S: futures::Stream<Item = Result<hickory_proto::op::DnsResponse, E>> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    let answer = timeout(TIME, answers.next()).await.map_err(|_| anyhow!("no answer within {TIME:?}"))?;
    Ok(answer.context("the connection was closed")??.into_message())
}

/// The zone of a name, by what a server of it says: the owner of the SOA record in its answer.
///
/// # Errors
/// The server does not answer, or not for this name.
pub async fn zone(server: SocketAddr, name: &Name) -> anyhow::Result<Name> {
    let answer = ask(server, name, RecordType::SOA).await?;
    let records = answer.answers.iter().chain(&answer.authorities);
    let soa = records.into_iter().find(|record| matches!(record.data, RData::SOA(_)));
    let code = answer.metadata.response_code;
    soa.map(|record| record.name.clone()).with_context(|| {
        format!("the name server {server} has no zone for {name}: {code}; write zone to name it")
    })
}
