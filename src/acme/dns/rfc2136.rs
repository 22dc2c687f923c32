//! A name server that takes updates (RFC 2136), signed with a shared key (TSIG, RFC 8945).

use super::query::{over_tcp, zone};
use super::{Record, secret_file};
use crate::config::{Rfc2136, TsigAlgorithm};
use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::update_message::{append, delete_by_rdata};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm as Algorithm;
use hickory_proto::rr::{Name, RData, Record as DnsRecord, RecordSet, TSigner};

/// How long resolvers keep the record.
const TTL: u32 = 60;
/// How far apart the clocks may be (RFC 8945 10).
const FUDGE: u16 = 300;

/// Adds the record beside others of its name.
///
/// # Errors
/// The server does not take it.
pub(super) async fn add(server: &Rfc2136, record: &Record) -> anyhow::Result<()> {
    let zone = zone_of(server, record).await?;
    update(server, append(set(record), zone, false, false)).await
}

/// Takes the record away, and no other of its name.
///
/// # Errors
/// The server does not take it.
pub(super) async fn remove(server: &Rfc2136, record: &Record) -> anyhow::Result<()> {
    let zone = zone_of(server, record).await?;
    update(server, delete_by_rdata(set(record), zone, false)).await
}

async fn zone_of(server: &Rfc2136, record: &Record) -> anyhow::Result<Name> {
    let zone = match &server.zone {
        Some(zone) => Name::from_ascii(format!("{}.", zone.trim_end_matches('.')))?,
        None => zone(server.server, &record.name).await?,
    };
    // The library takes nothing else.
    if !zone.zone_of(&record.name) {
        bail!("{} is not in the zone {zone}", record.name);
    }
    Ok(zone)
}

fn set(Record { name, value }: &Record) -> RecordSet {
    let data = RData::TXT(TXT::new(vec![value.clone()]));
    RecordSet::from(DnsRecord::from_rdata(name.clone(), TTL, data))
}

async fn update(server: &Rfc2136, message: Message) -> anyhow::Result<()> {
    let request = DnsRequest::new(message, DnsRequestOptions::default());
    let answer = over_tcp(server.server, request, Some(signer(server)?)).await;
    let answer = answer.with_context(|| format!("the update to {} is not answered", server.server))?;
    let hint = match answer.metadata.response_code {
        ResponseCode::NoError => return Ok(()),
        ResponseCode::Refused => "; may the key update this name?",
        ResponseCode::NotAuth => "; compare key, secret, algorithm and clock with the server's, and the zone",
        _ => "",
    };
    bail!("{} refuses the update: {}{hint}", server.server, answer.metadata.response_code)
}

fn signer(Rfc2136 { key, key_file, algorithm, .. }: &Rfc2136) -> anyhow::Result<TSigner> {
    // The decoder's own words would name bytes of the secret.
    let secret = STANDARD
        .decode(secret_file(key_file)?)
        .map_err(|_| anyhow!("{} holds no base64; write the key's secret alone", key_file.display()))?;
    let algorithm = match algorithm {
        TsigAlgorithm::HmacSha256 => Algorithm::HmacSha256,
        TsigAlgorithm::HmacSha384 => Algorithm::HmacSha384,
        TsigAlgorithm::HmacSha512 => Algorithm::HmacSha512,
    };
    let name = Name::from_ascii(key).with_context(|| format!("`{key}` is no name of a key"))?;
    Ok(TSigner::new(secret, algorithm, name, FUDGE)?)
}
