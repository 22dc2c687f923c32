//! Which endpoints of a Service are meant for this place, by the hints of its EndpointSlices.
//!
//! The rules are kube-proxy's: hints count only where every ready endpoint has one and one of them is for us, so that
//! a zone without endpoints is served by all, and so is a Service whose hints are just being made.

use crate::resource::{Endpoint, Here, Hint, Service};
use std::net::SocketAddr;

/// Annotations that ask for hints, the newer one first.
const ANNOTATIONS: [&str; 2] =
    ["service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"];

/// Where we are, as far as a Service wants that to matter.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Nearness<'a> {
    node: Option<&'a str>,
    zone: Option<&'a str>,
}

impl<'a> Nearness<'a> {
    /// What the Service asks for: `trafficDistribution`, else the annotation.
    pub fn of(service: &Service, here: &'a Here) -> Self {
        let zone = here.zone.as_deref();
        match service.spec.traffic_distribution.as_deref() {
            Some("PreferSameNode") => Self { node: here.node.as_deref(), zone },
            Some("PreferClose" | "PreferSameZone") => Self { node: None, zone },
            Some(_) => Self::default(),
            None => {
                let annotations = &service.metadata.annotations;
                let mode = ANNOTATIONS.iter().find_map(|key| annotations.get(key));
                let asked = mode.is_some_and(|mode| mode.eq_ignore_ascii_case("auto"));
                Self { node: None, zone: zone.filter(|_| asked) }
            }
        }
    }

    /// Of these endpoints, all of them ready, those that are meant for us; `None` where hints do not say.
    pub fn choose<'e>(
        &self,
        ready: &[(SocketAddr, &'e Endpoint)],
    ) -> Option<Vec<(SocketAddr, &'e Endpoint)>> {
        let of_node = |endpoint: &'e Endpoint| endpoint.hints.as_ref().map(|hints| &*hints.for_nodes);
        let of_zone = |endpoint: &'e Endpoint| endpoint.hints.as_ref().map(|hints| &*hints.for_zones);
        hinted(ready, self.node, of_node).or_else(|| hinted(ready, self.zone, of_zone))
    }
}

fn hinted<'e>(
    ready: &[(SocketAddr, &'e Endpoint)],
    here: Option<&str>,
    hints: impl Fn(&'e Endpoint) -> Option<&'e [Hint]>,
) -> Option<Vec<(SocketAddr, &'e Endpoint)>> {
    let here = here?;
    let mut ours = Vec::new();
    for (address, endpoint) in ready {
        let hints = hints(endpoint).filter(|hints| !hints.is_empty())?;
        if hints.iter().any(|hint| *hint.name == *here) {
            ours.push((*address, *endpoint));
        }
    }
    (!ours.is_empty()).then_some(ours)
}
