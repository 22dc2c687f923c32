//! What users wrote: lenient, plain data, read one object at a time.
//!
//! Knows no client and no meaning: an unknown value of a field is kept as it is, and `compile` says what is
//! wrong with it. Fields are kept as small as they can be, for a cluster may have ten thousand routes.

mod backend;
mod core;
mod diagnostic;
mod envoy_proxy;
mod extension;
mod filter;
mod gateway;
mod grant;
mod grpc;
mod http;
mod list;
mod metadata;
mod policy;
mod read;
mod record;
mod reference;
mod secret;
mod snapshot;
mod stream;
mod word;

pub use self::core::{ConfigMap, Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice};
pub use self::core::{Hint, Namespace, PortName, Service, ServicePort, ServiceSpec};
pub use self::http::{HttpBackendRef, HttpMatch, HttpPathMatch, HttpRoute, HttpRouteSpec, HttpRule};
pub use self::http::{Retry, SessionPersistence, Timeouts, ValueMatch};
pub use backend::{Backend, BackendEndpoint, BackendSpec, BackendTls, HostPort, UnixPath};
pub use diagnostic::{Diagnostic, ObjectRef, Place, Severity};
pub use envoy_proxy::{
    EnvoyPatch, EnvoyProvider, EnvoyProxy, EnvoyProxySpec, EnvoyService, EnvoyShutdown, EnvoyTelemetry,
};
pub use extension::{
    BodySource, CredentialInjection, CredentialSource, ExtraMatch, FixedAnswer, HostRewrite, HttpRouteFilter,
    HttpRouteFilterSpec, PathRewrite, RegexReplacement, UrlRewriteExtension,
};
pub use filter::{
    CookieConfig, Cors, ExternalAuth, ForwardBody, Fraction, GrpcAuth, Header, HeaderModifier, HttpAuth,
    HttpFilter, PathModifier, Redirect, RequestMirror, UrlRewrite,
};
pub use gateway::{
    AllowedListeners, AllowedRoutes, BackendTlsOfGateway, ClientValidation, FrontendOfPort, FrontendTls,
    FrontendTlsConfig, Gateway, GatewayAddress, GatewayClass, GatewayClassSpec, GatewayRef, GatewaySpec,
    GatewayTls, Infrastructure, Listener, ListenerSet, ListenerSetSpec, ListenerTls, RouteKind,
    RouteNamespaces, Selector, SelectorTerm,
};
pub use grant::{GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec};
pub use grpc::{GrpcBackendRef, GrpcMatch, GrpcMethodMatch, GrpcRoute, GrpcRouteSpec, GrpcRule};
pub use list::{List, RareList};
pub use metadata::{Labels, Metadata};
pub use policy::{
    BackendTlsPolicy, BackendTlsPolicySpec, BackendTlsValidation, PolicyTarget, WrittenAltName,
};
pub use read::{Header as ObjectHeader, HeaderMetadata as ObjectMetadata, Reading, Standing, read, standing};
pub use record::{Record, Records, observed_by};
pub use reference::{BackendRef, LocalRef, ObjectReference, ParametersRef, ParentRef, ParentRefs};
pub use secret::{Secret, Sensitive};
pub use snapshot::{Entry, Here, Objects, Snapshot};
pub use stream::{StreamRouteSpec, StreamRule, TcpRoute, TlsRoute, TlsRouteSpec, UdpRoute};
pub use word::Word;

use std::sync::Arc;

/// The API group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// The API group of Envoy Gateway's extensions.
pub const ENVOY_GATEWAY_GROUP: &str = "gateway.envoyproxy.io";

/// A kind of object that is read.
pub trait Resource {
    /// `HTTPRoute`.
    const KIND: &'static str;
    /// Its API group; empty for the core group.
    const GROUP: &'static str;
    /// Whether objects of the kind live in a namespace.
    const NAMESPACED: bool = true;

    /// Name, namespace, labels.
    fn metadata(&self) -> &Metadata;

    /// The object's name for diagnostics.
    fn reference(&self) -> ObjectRef {
        let Metadata { namespace, name, .. } = self.metadata();
        ObjectRef { kind: Self::KIND.to_owned(), namespace: namespace.to_string(), name: name.to_string() }
    }
}

/// Makes the list of kinds: one line here and one type are all that a new kind needs.
macro_rules! kinds {
    ($($variant:ident, $field:ident, $group:expr, $kind:literal, $namespaced:literal;)*) => {
        /// An object of any kind that is read.
        #[derive(Debug, Clone)]
        pub enum Object {
            $($variant(Arc<$variant>),)*
        }

        $(impl Resource for $variant {
            const KIND: &'static str = $kind;
            const GROUP: &'static str = $group;
            const NAMESPACED: bool = $namespaced;

            fn metadata(&self) -> &Metadata {
                &self.metadata
            }
        })*

        impl Object {
            /// `HTTPRoute`.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $variant::KIND,)*
                }
            }

            /// The object's name for diagnostics.
            pub fn reference(&self) -> ObjectRef {
                match self {
                    $(Self::$variant(object) => object.reference(),)*
                }
            }
        }

        /// Whether the kind is read, and whether its objects live in a namespace.
        fn known_kind(group: &str, kind: &str) -> Option<bool> {
            match (group, kind) {
                $((group, $kind) if group == $group => Some($namespaced),)*
                _ => None,
            }
        }

        /// Reads an object of a known kind; `None` when the kind is not known.
        fn read_kind<'de, D: serde::Deserializer<'de>>(
            group: &str,
            kind: &str,
            source: D,
            unknown: &mut impl FnMut(serde_ignored::Path<'_>),
        ) -> Result<Option<Object>, D::Error> {
            Ok(Some(match (group, kind) {
                $((group, $kind) if group == $group => {
                    let mut object: $variant = serde_ignored::deserialize(source, unknown)?;
                    object.metadata.settle($kind, $namespaced);
                    Object::$variant(Arc::new(object))
                })*
                _ => return Ok(None),
            }))
        }

        impl Snapshot {
            /// Puts an object among those of its kind.
            fn push(&mut self, object: Object, place: Option<Place>) {
                match object {
                    $(Object::$variant(object) => self.$field.push(Entry { object, place }),)*
                }
            }

            /// Drops all objects of the kinds that changed.
            fn forget(&mut self, changed: impl Fn(&str) -> bool) {
                $(if changed($variant::KIND) {
                    self.$field = Objects::default();
                })*
            }

            /// Sorts the kinds that changed, and reports objects of all kinds that are there twice.
            fn settle(&mut self, changed: impl Fn(&str) -> bool) {
                $(if changed($variant::KIND) {
                    self.$field.settle();
                }
                self.diagnostics.extend_from_slice(self.$field.duplicates());)*
            }

            /// Objects of all kinds.
            pub fn len(&self) -> usize {
                0 $(+ self.$field.len())*
            }
        }
    };
}

kinds! {
    GatewayClass, gateway_classes, GATEWAY_GROUP, "GatewayClass", false;
    Gateway, gateways, GATEWAY_GROUP, "Gateway", true;
    ListenerSet, listener_sets, GATEWAY_GROUP, "ListenerSet", true;
    HttpRoute, http_routes, GATEWAY_GROUP, "HTTPRoute", true;
    GrpcRoute, grpc_routes, GATEWAY_GROUP, "GRPCRoute", true;
    TlsRoute, tls_routes, GATEWAY_GROUP, "TLSRoute", true;
    TcpRoute, tcp_routes, GATEWAY_GROUP, "TCPRoute", true;
    UdpRoute, udp_routes, GATEWAY_GROUP, "UDPRoute", true;
    BackendTlsPolicy, backend_tls_policies, GATEWAY_GROUP, "BackendTLSPolicy", true;
    ReferenceGrant, reference_grants, GATEWAY_GROUP, "ReferenceGrant", true;
    Backend, backends, ENVOY_GATEWAY_GROUP, "Backend", true;
    HttpRouteFilter, http_route_filters, ENVOY_GATEWAY_GROUP, "HTTPRouteFilter", true;
    EnvoyProxy, envoy_proxies, ENVOY_GATEWAY_GROUP, "EnvoyProxy", true;
    Service, services, "", "Service", true;
    EndpointSlice, endpoint_slices, "discovery.k8s.io", "EndpointSlice", true;
    Secret, secrets, "", "Secret", true;
    ConfigMap, config_maps, "", "ConfigMap", true;
    Namespace, namespaces, "", "Namespace", false;
}
