//! Cloudflare's API (version 4) as its documentation has it, for one zone, whose records are those of pebble's name
//! server.

use crate::pebble::Pebble;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// What it knows: its records, by id, and how often somebody asked without the right token.
#[derive(Default)]
pub struct Zone {
    name: &'static str,
    pub records: Vec<(String, Value)>,
    /// The name of the last record that was made.
    pub last: String,
    pub made: usize,
    pub refused: usize,
}

/// Serves a zone to those who have the token.
pub async fn serve(
    name: &'static str,
    pebble: Arc<Pebble>,
    token: Arc<Mutex<String>>,
) -> (SocketAddr, Arc<Mutex<Zone>>) {
    let zone = Arc::new(Mutex::new(Zone { name, ..Zone::default() }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let shared = Arc::clone(&zone);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (pebble, token, zone) = (Arc::clone(&pebble), Arc::clone(&token), Arc::clone(&shared));
            let answer = service_fn(move |request| {
                let (pebble, token, zone) = (Arc::clone(&pebble), Arc::clone(&token), Arc::clone(&zone));
                async move { Ok::<_, Infallible>(api(request, &pebble, &token, &zone).await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    (address, zone)
}

async fn api(
    request: Request<Incoming>,
    pebble: &Pebble,
    token: &Mutex<String>,
    zone: &Mutex<Zone>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a whole request").to_bytes();
    let bearer = format!("Bearer {}", token.lock().expect("nobody panics with it"));
    if parts.headers.get("authorization").is_none_or(|value| value != bearer.as_str()) {
        zone.lock().expect("nobody panics with it").refused += 1;
        let fault = json!({ "success": false, "errors": [{ "code": 9109, "message": "Invalid access token" }], "result": null });
        return reply(StatusCode::FORBIDDEN, &fault);
    }
    let query = parts.uri.query().unwrap_or_default();
    let path = parts.uri.path();
    let asked = format!("name={}", zone.lock().expect("nobody panics with it").name);
    let result = match (parts.method, path) {
        (Method::GET, "/client/v4/zones") if query == asked => json!([{ "id": "zone-1" }]),
        (Method::GET, "/client/v4/zones") => json!([]),
        (Method::POST, "/client/v4/zones/zone-1/dns_records") => {
            let record: Value = serde_json::from_slice(&body).expect("JSON");
            let value = record["content"].as_str().expect("a content").trim_matches('"').to_owned();
            let name = record["name"].as_str().expect("a name").to_owned();
            pebble.tell_dns("/set-txt", json!({ "host": format!("{name}."), "value": value })).await;
            let mut zone = zone.lock().expect("nobody panics with it");
            zone.made += 1;
            zone.last = name;
            let id = format!("record-{}", zone.made);
            zone.records.push((id.clone(), record));
            json!({ "id": id })
        }
        (Method::GET, "/client/v4/zones/zone-1/dns_records") => {
            let zone = zone.lock().expect("nobody panics with it");
            let shown =
                zone.records.iter().map(|(id, record)| json!({ "id": id, "content": record["content"] }));
            shown.collect()
        }
        (Method::DELETE, path) => {
            let id = path.rsplit('/').next().expect("an id").to_owned();
            zone.lock().expect("nobody panics with it").records.retain(|(other, _)| *other != id);
            json!({ "id": id })
        }
        _ => return reply(StatusCode::NOT_FOUND, &json!({ "success": false, "errors": [] })),
    };
    reply(StatusCode::OK, &json!({ "success": true, "errors": [], "messages": [], "result": result }))
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
}
