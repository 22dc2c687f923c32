//! A zone at Cloudflare, changed through its API (version 4).

use super::Record;
use crate::acme::http::Https;
use crate::config::Cloudflare;
use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use serde::Deserialize;
use serde_json::{Value, json};

/// The shortest that Cloudflare takes.
const TTL: u32 = 60;
/// What it says of a record that is there already.
const IDENTICAL: [u32; 2] = [81_057, 81_058];

/// An answer of the API.
#[derive(Deserialize)]
struct Answer {
    success: bool,
    #[serde(default)]
    errors: Vec<Fault>,
    #[serde(default)]
    result: Value,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    message: String,
}

/// The API with a token.
struct Api<'a> {
    https: &'a Https,
    base: &'a str,
    token: &'a str,
}

/// Adds the record beside others of its name.
///
/// # Errors
/// Cloudflare does not take it.
pub(super) async fn add(
    https: &Https,
    zone: &Cloudflare,
    token: &str,
    record: &Record,
) -> anyhow::Result<()> {
    let api = Api { https, base: zone.api.trim_end_matches('/'), token };
    let id = api.zone(record).await?;
    let body = json!({ "type": "TXT", "name": plain(record), "content": quoted(record), "ttl": TTL });
    let answer = api.ask(Method::POST, &format!("/zones/{id}/dns_records"), Some(body)).await?;
    if answer.errors.iter().any(|fault| IDENTICAL.contains(&fault.code)) {
        return Ok(());
    }
    answer.result().map(drop)
}

/// Takes the record away, and no other of its name.
///
/// # Errors
/// Cloudflare does not do it.
pub(super) async fn remove(
    https: &Https,
    zone: &Cloudflare,
    token: &str,
    record: &Record,
) -> anyhow::Result<()> {
    let api = Api { https, base: zone.api.trim_end_matches('/'), token };
    let id = api.zone(record).await?;
    let path = format!("/zones/{id}/dns_records?type=TXT&name={}", plain(record));
    let found = api.ask(Method::GET, &path, None).await?.result()?;
    let same =
        |one: &&Value| one["content"] == quoted(record).as_str() || one["content"] == record.value.as_str();
    let ids = found.as_array().into_iter().flatten().filter(same).filter_map(|one| one["id"].as_str());
    for one in ids {
        api.ask(Method::DELETE, &format!("/zones/{id}/dns_records/{one}"), None).await?.result()?;
    }
    Ok(())
}

/// The name without the dot of the root.
fn plain(record: &Record) -> String {
    record.name.to_ascii().trim_end_matches('.').to_owned()
}

/// Cloudflare shows what it takes without quotes with them.
fn quoted(record: &Record) -> String {
    format!("\"{}\"", record.value)
}

impl Api<'_> {
    /// The id of the zone that a record is in: the longest name that is one.
    async fn zone(&self, record: &Record) -> anyhow::Result<String> {
        let name = plain(record);
        let mut rest = name.as_str();
        while let Some((_, below)) = rest.split_once('.') {
            rest = below;
            let found = self.ask(Method::GET, &format!("/zones?name={rest}"), None).await?.result()?;
            if let Some(id) = found[0]["id"].as_str() {
                return Ok(id.to_owned());
            }
        }
        bail!("the token sees no zone for {name}; it needs Zone:Read and DNS:Edit for the zone")
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Answer> {
        let mut token = HeaderValue::from_str(&format!("Bearer {}", self.token))
            .map_err(|_| anyhow::anyhow!("the API token has characters that no token has"))?;
        token.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, token)
            .header(CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Bytes::new, |body| body.to_string().into()))?;
        let answer = self.https.ask(request).await?;
        let status = answer.status();
        serde_json::from_slice(answer.body())
            .with_context(|| format!("Cloudflare answers {status}, and no JSON"))
    }
}

impl Answer {
    fn result(self) -> anyhow::Result<Value> {
        let Self { success, errors, result } = self;
        if success {
            return Ok(result);
        }
        let said: Vec<_> = errors.iter().map(|fault| format!("{} ({})", fault.message, fault.code)).collect();
        bail!("Cloudflare refuses: {}", said.join(", "))
    }
}
