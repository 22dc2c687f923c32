//! Answers, and their compression.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use std::io::Write;

/// A status and a body.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    gzipped: bool,
}

impl Answer {
    /// Plain text.
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "text/plain; charset=UTF-8", body: body.into(), gzipped: false }
    }

    /// What Envoy says when something was done.
    pub fn done() -> Self {
        Self::text(StatusCode::OK, "OK\n")
    }

    /// JSON.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self { content_type: "application/json", ..Self::text(StatusCode::OK, body) }
    }

    /// Metrics in Prometheus' text format.
    pub fn metrics(body: impl Into<Bytes>) -> Self {
        Self { content_type: prometheus::TEXT_FORMAT, ..Self::text(StatusCode::OK, body) }
    }

    /// Compressed, where the client takes that.
    pub fn compressed_for(mut self, headers: &HeaderMap) -> Self {
        if takes_gzip(headers) {
            let mut encoder = GzEncoder::new(Vec::with_capacity(self.body.len() / 8), Compression::fast());
            // Writing to a vector does not fail.
            if encoder.write_all(&self.body).is_ok()
                && let Ok(body) = encoder.finish()
            {
                (self.body, self.gzipped) = (body.into(), true);
            }
        }
        self
    }

    pub fn into_response(self) -> Response<Full<Bytes>> {
        let Self { status, content_type, body, gzipped } = self;
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if gzipped {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Whether `Accept-Encoding` allows gzip (RFC 9110 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    fields.flat_map(|value| value.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = parameters.trim().strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0);
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn accepting(codings: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(codings))])
    }

    #[test]
    fn gzip_is_used_where_the_client_takes_it() {
        for (codings, taken) in [
            ("gzip", true),
            ("zstd, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("identity", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(&accepting(codings)), taken, "{codings}");
        }
    }

    #[test]
    fn what_is_compressed_is_the_same_page() {
        let page = "envoy_server_live{} 1\n".repeat(1000);
        let answer = Answer::metrics(page.clone()).compressed_for(&accepting("gzip"));
        assert!(answer.gzipped && answer.body.len() < page.len() / 10);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut text).expect("gzip");
        assert_eq!(text, page);
    }
}
