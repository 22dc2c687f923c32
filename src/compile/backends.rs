//! From `backendRefs` to the backends of a cluster.

use super::endpoints::{Slices, backend_key, service_key};
use super::findings::{Fault, Findings, called, listed, there_is};
use super::grants::{From, To, allows};
use super::policies::{BackendTlsPolicies, Target};
use super::trust::roots;
use crate::host::HostPattern;
use crate::resource::{
    self, Backend, BackendEndpoint, BackendTls, ENVOY_GATEWAY_GROUP, Entry, HttpBackendRef, Resource,
    Service, ServicePort, Snapshot,
};
use crate::routing::GatewayId;
use crate::upstream::{self, BackendSpec, ClientCertificate, EndpointsKey, Protocol, Roots, TlsSpec};
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Resolves references to backends.
pub(super) struct Resolver<'s> {
    snapshot: &'s Snapshot,
    pub slices: Slices<'s>,
    /// All keys so far, so that equal ones are kept once.
    keys: HashSet<EndpointsKey, RandomState>,
    pub policies: BackendTlsPolicies<'s>,
    /// The certificates that Gateways show to backends, and that `Backend`s have shown to them.
    identities: Identities<'s>,
    /// The Gateways of the route that is compiled, by their places among the bound ones.
    gateways: Vec<usize>,
}

/// Our own certificates, for backends that ask for one.
#[derive(Default)]
pub(super) struct Identities<'s> {
    /// By the place among the bound Gateways.
    pub of_gateways: Vec<(GatewayId, Option<ClientCertificate>)>,
    /// By namespace and name of a `Backend`.
    pub of_backends: BTreeMap<(&'s str, &'s str), ClientCertificate>,
}

impl<'s> Resolver<'s> {
    pub fn new(snapshot: &'s Snapshot, policies: BackendTlsPolicies<'s>, identities: Identities<'s>) -> Self {
        Self {
            snapshot,
            slices: Slices::new(snapshot),
            keys: HashSet::default(),
            policies,
            identities,
            gateways: Vec::new(),
        }
    }

    /// What follows is resolved for a route of these Gateways, by their places among the bound ones.
    pub fn serve(&mut self, gateways: Vec<usize>) {
        self.gateways = gateways;
    }

    /// What it resolves in.
    pub fn snapshot(&self) -> &'s Snapshot {
        self.snapshot
    }

    /// The backend that a route's reference means.
    pub fn resolve(
        &mut self,
        from: From<'_>,
        reference: &HttpBackendRef,
        findings: &mut Findings,
    ) -> Result<BackendSpec, Fault> {
        let HttpBackendRef { group, kind, namespace, name, port, weight: _, filters: _ } = reference;
        let (group, kind) = (group.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or(Service::KIND));
        let namespace = namespace.as_deref().unwrap_or(from.namespace);
        let is_service = (group, kind) == ("", Service::KIND);
        if !is_service && (group, kind) != (ENVOY_GATEWAY_GROUP, Backend::KIND) {
            let message = format!(
                "{kind} of group `{group}` cannot be a backend; there are Service, and Backend of {ENVOY_GATEWAY_GROUP}"
            );
            return Err(Fault::new("InvalidKind", message));
        }
        if !allows(self.snapshot, from, To { group, kind, namespace, name }) {
            let message = format!(
                "no ReferenceGrant in namespace {namespace} lets an {} of namespace {} use {}",
                from.kind,
                from.namespace,
                called(kind, namespace, name)
            );
            return Err(Fault::new("RefNotPermitted", message));
        }
        let speaks = Speaks::of(from.kind);
        if is_service {
            let entry = found(&self.snapshot.services, namespace, name, "services")?;
            self.service(entry, *port, speaks, findings)
        } else {
            let entry = found(&self.snapshot.backends, namespace, name, "Backends")?;
            self.backend(entry, speaks, findings)
        }
    }

    fn service(
        &mut self,
        entry: &'s Entry<Service>,
        port: Option<u16>,
        speaks: Speaks,
        findings: &mut Findings,
    ) -> Result<BackendSpec, Fault> {
        let (namespace, name) = entry.object.metadata.key();
        let port = service_port(&entry.object, port, speaks)?;
        let (port, section, app_protocol) = match port {
            Ok(ServicePort { port, name, app_protocol, .. }) => {
                (*port, name.as_deref(), app_protocol.as_deref())
            }
            Err(external) => (external, None, None),
        };
        let target = Target { kind: Service::KIND, namespace, name, section };
        let tls = self.policies.find(target, &self.gateways).filter(|_| speaks.may_use_tls()).cloned();
        if app_protocol == Some("kubernetes.io/wss") && tls.is_none() {
            let message = format!(
                "port {port} asks for TLS (kubernetes.io/wss), and nothing says whom to trust; it is spoken to in clear text"
            );
            findings.warning(entry, "spec.ports", &Fault::new("NoBackendTLSPolicy", message));
        }
        self.report_without_endpoints(entry, findings);
        let endpoints = self.keep(service_key(namespace, name, port, speaks == Speaks::Datagrams));
        Ok(self.spec(endpoints, protocol(app_protocol.into_iter(), speaks), tls))
    }

    /// A backend with its TLS, which is another one for Gateways with a certificate to show.
    fn spec(&self, endpoints: EndpointsKey, protocol: Protocol, tls: Option<TlsSpec>) -> BackendSpec {
        let Some(tls) = tls else { return BackendSpec::new(endpoints, protocol, None) };
        let mut of = Vec::new();
        // What a `Backend` has shown to itself is for it alone.
        if tls.client.is_none() {
            let identities = self.gateways.iter().filter_map(|&place| self.identities.of_gateways.get(place));
            for (id, identity) in identities {
                if let Some(identity) = identity {
                    of.push((id.0, Arc::new(TlsSpec { client: Some(identity.clone()), ..tls.clone() })));
                }
            }
        }
        let tls = Box::new(upstream::BackendTls { spec: Arc::new(tls), of });
        BackendSpec { endpoints, protocol, tls: Some(tls) }
    }

    /// In files nobody makes EndpointSlices, and a Service without them answers 503 with no other sign.
    fn report_without_endpoints(&mut self, entry: &'s Entry<Service>, findings: &mut Findings) {
        let (namespace, name) = entry.object.metadata.key();
        let external = entry.object.spec.r#type.as_deref() == Some("ExternalName");
        if entry.place.is_some() && !external && self.slices.of(namespace, name).is_empty() {
            let message = format!(
                "no EndpointSlice has the label `kubernetes.io/service-name: {name}`, so it has no endpoints and requests get 503"
            );
            findings.warning(entry, "", &Fault::new("NoEndpoints", message));
        }
    }

    fn backend(
        &mut self,
        entry: &Entry<Backend>,
        speaks: Speaks,
        findings: &mut Findings,
    ) -> Result<BackendSpec, Fault> {
        let (namespace, name) = entry.object.metadata.key();
        let spec = &entry.object.spec;
        let called = called(Backend::KIND, namespace, name);
        if spec.r#type.as_deref().is_some_and(|kind| kind != "Endpoints") {
            return Err(Fault::new(
                "UnsupportedProtocol",
                format!("{called}: only type Endpoints is served yet"),
            ));
        }
        for (i, endpoint) in spec.endpoints.iter().enumerate() {
            if let Some(message) = faulty(endpoint) {
                let field = format!("spec.endpoints[{i}]");
                findings.error(entry, field, &Fault::new("UnsupportedValue", message));
            }
        }
        if spec.endpoints.is_empty() {
            findings.warning(
                entry,
                "spec",
                &Fault::new("NoEndpoints", "it has no endpoints, so requests get 503"),
            );
        }
        for (field, message) in unserved(spec) {
            findings.warning(entry, field, &Fault::new("UnsupportedValue", message));
        }
        let tls = spec.tls.as_deref().map(|tls| self.tls(entry, tls)).transpose().map_err(|fault| {
            let message = format!("{called}: {}", fault.message);
            findings.error(entry, "spec.tls", &fault);
            Fault::new("UnsupportedProtocol", message)
        })?;
        let target = Target { kind: Backend::KIND, namespace, name, section: None };
        let of_policy = self.policies.find(target, &self.gateways).cloned();
        let tls = tls.or(of_policy).filter(|_| speaks.may_use_tls());
        let endpoints = self.keep(backend_key(namespace, name));
        let protocol = protocol(spec.app_protocols.iter().map(|text| &**text), speaks);
        Ok(self.spec(endpoints, protocol, tls))
    }

    fn tls(&self, entry: &Entry<Backend>, tls: &BackendTls) -> Result<TlsSpec, Fault> {
        let endpoint = entry.object.spec.endpoints.first();
        let own_name = endpoint.and_then(|endpoint| {
            let named = endpoint.hostname.as_deref();
            let fqdn = endpoint.fqdn.as_ref().map(|fqdn| &*fqdn.address);
            let ip = endpoint.ip.as_ref().map(|ip| &*ip.address);
            named.or(fqdn).or(ip)
        });
        let server_name = tls.sni.as_deref().or(own_name).unwrap_or_default();
        // A server name is written without the dot that ends a name in DNS (RFC 6066 3).
        let server_name = server_name.trim_end_matches('.').to_ascii_lowercase();
        let roots = if tls.insecure_skip_verify {
            Roots::Unverified
        } else {
            let well_known = tls.well_known_ca_certificates.as_deref();
            roots(self.snapshot, &entry.object.metadata.namespace, &tls.ca_certificate_refs, well_known)?
        };
        let client = self.identities.of_backends.get(&entry.object.metadata.key()).cloned();
        Ok(TlsSpec { server_name, roots, subject_alt_names: Vec::new(), client })
    }

    /// The key as it is kept already: the same set of endpoints serves many rules.
    fn keep(&mut self, key: EndpointsKey) -> EndpointsKey {
        if let Some(known) = self.keys.get(&key) {
            return known.clone();
        }
        self.keys.insert(key.clone());
        key
    }
}

/// What is wrong with an endpoint of a Backend.
fn faulty(endpoint: &BackendEndpoint) -> Option<String> {
    let BackendEndpoint { ip, fqdn, unix, hostname: _, zone: _ } = endpoint;
    match (fqdn, ip, unix) {
        (None, None, None) => {
            Some("it has no address; give it `fqdn`, `ip` or `unix`; it is left out".to_owned())
        }
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            Some("`fqdn`, `ip` and `unix` exclude each other; the first of them counts".to_owned())
        }
        (None, Some(ip), None) => (ip.address.parse::<IpAddr>().is_err())
            .then(|| format!("`{}` is no IP address; it is left out", ip.address)),
        (Some(name), None, None) => {
            let host = HostPattern::parse(name.address.trim_end_matches('.'));
            (!matches!(host, Some(HostPattern::Exact(_))))
                .then(|| format!("`{}` is no host name, and may never resolve", name.address))
        }
        (None, None, Some(_)) => None,
    }
}

/// What a Backend asks for that nobody does, by field.
fn unserved(spec: &resource::BackendSpec) -> Vec<(&'static str, &'static str)> {
    let mut unserved = Vec::new();
    if spec.fallback == Some(true) {
        unserved.push((
            "spec.fallback",
            "a fallback gets its share by weight all the time, like any other backend",
        ));
    }
    let Some(tls) = spec.tls.as_deref() else { return unserved };
    let mut names: Vec<_> = spec.endpoints.iter().filter_map(|endpoint| endpoint.fqdn.as_ref()).collect();
    names.dedup_by(|a, b| a.address == b.address);
    if names.len() > 1 && tls.sni.is_none() {
        let message = "all its endpoints are greeted by the name of the first; set `sni` to the name of their certificates";
        unserved.push(("spec.tls.sni", message));
    }
    let message = "it is not obeyed; TLS 1.2 and 1.3 are spoken with the settings of rustls";
    for (field, is_set) in [
        ("spec.tls.minVersion", tls.min_version.is_some()),
        ("spec.tls.maxVersion", tls.max_version.is_some()),
        ("spec.tls.alpnProtocols", !tls.alpn_protocols.is_empty()),
        ("spec.tls.ciphers", !tls.ciphers.is_empty()),
        ("spec.tls.ecdhCurves", !tls.ecdh_curves.is_empty()),
        ("spec.tls.signatureAlgorithms", !tls.signature_algorithms.is_empty()),
        ("spec.tls.fingerprints", !tls.fingerprints.is_empty()),
    ] {
        if is_set {
            unserved.push((field, message));
        }
    }
    unserved
}

fn found<'s, T: Resource>(
    objects: &'s crate::resource::Objects<T>,
    namespace: &str,
    name: &str,
    plural: &str,
) -> Result<&'s Entry<T>, Fault> {
    objects.get(namespace, name).ok_or_else(|| {
        let there = there_is(objects, namespace, name, plural);
        Fault::new("BackendNotFound", format!("there is no {}; {there}", called(T::KIND, namespace, name)))
    })
}

/// The port of a Service that a reference means. The number alone for an ExternalName, which needs no ports.
fn service_port(
    service: &Service,
    port: Option<u16>,
    speaks: Speaks,
) -> Result<Result<&ServicePort, u16>, Fault> {
    let (namespace, name) = service.metadata.key();
    let called = called(Service::KIND, namespace, name);
    let ports = || {
        let ports: Vec<String> = service
            .spec
            .ports
            .iter()
            .map(|port| match &port.name {
                Some(name) => format!("{} ({name})", port.port),
                None => port.port.to_string(),
            })
            .collect();
        if ports.is_empty() {
            "it has no ports".to_owned()
        } else {
            format!("it has the ports {}", listed(&ports))
        }
    };
    let Some(number) = port else {
        return Err(Fault::new(
            "BackendNotFound",
            format!("the reference to {called} names no port; {}", ports()),
        ));
    };
    let transport = |port: &ServicePort| port.protocol.clone().unwrap_or_else(|| "TCP".into());
    // One number may be a port for TCP and another one for UDP, as for DNS.
    let of_number = service.spec.ports.iter().filter(|port| port.port == number);
    match of_number.max_by_key(|port| *transport(port) == *speaks.transport()) {
        Some(port) if *transport(port) != *speaks.transport() => {
            let message = format!("port {number} of {called} is for {}", transport(port));
            Err(Fault::new("UnsupportedProtocol", message))
        }
        Some(port) => Ok(Ok(port)),
        None if service.spec.r#type.as_deref() == Some("ExternalName") => Ok(Err(number)),
        None => Err(Fault::new("BackendNotFound", format!("{called} has no port {number}; {}", ports()))),
    }
}

/// What is spoken to a backend (GEP-1911). Names that are not known say nothing; WebSocket is HTTP/1.1.
fn protocol<'a>(mut names: impl Iterator<Item = &'a str>, speaks: Speaks) -> Protocol {
    let h2c = names.any(|name| matches!(name, "kubernetes.io/h2c" | "gateway.envoyproxy.io/h2c"));
    match speaks {
        Speaks::Streams | Speaks::Datagrams => Protocol::Opaque,
        Speaks::Grpc => Protocol::Http2,
        Speaks::Http if h2c => Protocol::Http2,
        Speaks::Http => Protocol::Http1,
    }
}

/// What the routes of a kind have spoken to backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http,
    Grpc,
    Streams,
    Datagrams,
}

impl Speaks {
    fn of(kind: &str) -> Self {
        match kind {
            "GRPCRoute" => Self::Grpc,
            "TLSRoute" | "TCPRoute" => Self::Streams,
            "UDPRoute" => Self::Datagrams,
            _ => Self::Http,
        }
    }

    /// The protocol of a Service's port.
    fn transport(self) -> &'static str {
        if self == Self::Datagrams { "UDP" } else { "TCP" }
    }

    fn may_use_tls(self) -> bool {
        self != Self::Datagrams
    }
}
