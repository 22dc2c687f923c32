//! Answers, and their compression.

use super::accept::{self, Coding};
use crate::telemetry::Format;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
#[cfg(test)]
use http::header::ACCEPT_ENCODING;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use std::io::{self, Write};

/// The quickest level that looks for repetition.
const ZSTD_LEVEL: i32 = 1;
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A status and a body.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    coding: Option<Coding>,
}

impl Answer {
    /// Plain text.
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "text/plain; charset=UTF-8", body: body.into(), coding: None }
    }

    /// What Envoy says when something was done.
    pub fn done() -> Self {
        Self::text(StatusCode::OK, "OK\n")
    }

    /// JSON.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self { content_type: "application/json", ..Self::text(StatusCode::OK, body) }
    }

    /// Metrics.
    pub fn metrics(format: Format, body: impl Into<Bytes>) -> Self {
        let content_type = match format {
            Format::Text => prometheus::TEXT_FORMAT,
            Format::OpenMetrics => OPEN_METRICS,
        };
        Self { content_type, ..Self::text(StatusCode::OK, body) }
    }

    /// Compressed, where the client takes that.
    pub fn compressed_for(mut self, headers: &HeaderMap) -> Self {
        if let Some(coding) = accept::coding(headers)
            && let Ok(body) = compressed(coding, &self.body)
        {
            (self.body, self.coding) = (body.into(), Some(coding));
        }
        self
    }

    pub fn into_response(self) -> Response<Full<Bytes>> {
        let Self { status, content_type, body, coding } = self;
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        response
    }
}

/// Compressed quickly rather than well: a scraper on the same machine waits for it.
fn compressed(coding: Coding, body: &[u8]) -> io::Result<Vec<u8>> {
    match coding {
        Coding::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL),
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_compressed_is_the_same_page() {
        let page = "envoy_server_live{} 1\n".repeat(1000);
        for coding in ["gzip", "zstd"] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(coding))]);
            let answer = Answer::metrics(Format::Text, page.clone()).compressed_for(&headers);
            assert!(answer.body.len() < page.len() / 10, "{coding}");
            let mut text = String::new();
            match answer.coding.expect("it is compressed") {
                Coding::Gzip => flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut text),
                Coding::Zstd => zstd::Decoder::new(&*answer.body).expect("zstd").read_to_string(&mut text),
            }
            .expect("it is whole");
            assert_eq!(text, page);
        }
    }
}
