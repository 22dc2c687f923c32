//! The gateway from outside: the real binary, real sockets, real clients and upstreams.

#[path = "../harness/mod.rs"]
mod harness;

mod access_log;
mod api_rules;
mod beside;
mod certs;
mod collector;
mod drain;
mod extension;
mod filters;
mod gateways;
mod grpc;
mod headers;
mod http1;
mod http2;
mod interim;
mod mutual_tls;
mod observed;
mod proxy_protocol;
mod real_collector;
mod replies;
mod retry;
mod settings;
mod streaming;
mod streams;
mod swap;
mod testssl;
mod tickets;
mod tls;
mod tls_certificates;
mod tls_settings;
mod tonic;
mod upgrades;
mod upstream_bytes;

use harness::manifest::{route, service, service_speaking};
use harness::trigate::Trigate;
use harness::upstream::Upstream;

/// The host of most tests; `external` serves it with the Service `app`.
const HOST: &str = "app.example.test";

/// A gateway that sends all of [`HOST`] on `external` to this upstream.
async fn in_front_of(upstream: &Upstream) -> Trigate {
    let mut objects = service("app", &[upstream.address]);
    objects.push(route("app").on("external").host(HOST).to("app").object());
    Trigate::serving(objects).await
}

/// The same, speaking HTTP/2 with prior knowledge to the upstream.
async fn in_front_of_http2(upstream: &Upstream) -> Trigate {
    let mut objects = service_speaking("app", &[upstream.address], Some("kubernetes.io/h2c"));
    objects.push(route("app").on("external").host(HOST).to("app").object());
    Trigate::serving(objects).await
}
