//! Kubernetes as the source, against a real API server: what is applied is served, and status tells the truth.
//!
//! Skipped, with a word, where Go or the API server's starter is missing.

#[path = "../acme/cloudflare.rs"]
mod cloudflare;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../acme/pebble.rs"]
mod pebble;

mod acme;
mod cluster;
mod deploy;
mod gateways;
mod interoperation;
mod leader;
mod parameters;
mod recovery;
mod serving;
mod status;
mod steady;

use cluster::Place;
use harness::trigate::Builder;
use harness::upstream::Upstream;

/// A gateway process that serves the Gateway `external` of a place.
fn trigate(place: &Place) -> Builder {
    Builder::new()
        .in_cluster(&place.kubeconfig)
        .set("gateways.external.object", format!("{}/external", place.namespace))
        .set("source.kubernetes.controller_name", place.controller.clone())
        .set("source.kubernetes.namespace", place.namespace.clone())
        .set("source.kubernetes.service.type", "None")
}

/// The Gateway `external` and the Service `app` with an upstream behind it.
async fn with_app(place: &Place) -> Upstream {
    let upstream = Upstream::echo("app").await;
    place.apply(&place.gateway("external")).await;
    place.apply(&place.app(upstream.address.port())).await;
    upstream
}
