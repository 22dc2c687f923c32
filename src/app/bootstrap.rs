//! The part of Envoy's bootstrap that holds here: where operators ask, and how many connections there may be.

use crate::config::Config;
use anyhow::{Context, bail};
use serde::Deserialize;
use std::net::SocketAddr;

/// What is read of a bootstrap. Everything else in it is Envoy's own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Bootstrap {
    admin: Option<Listening>,
    #[serde(alias = "staticResources")]
    static_resources: StaticResources,
    #[serde(alias = "dynamicResources")]
    dynamic_resources: Option<serde_json::Value>,
    #[serde(alias = "overloadManager")]
    overload_manager: Overload,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StaticResources {
    listeners: Vec<Listening>,
}

/// The admin server, or a listener.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listening {
    name: String,
    address: Address,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(alias = "socketAddress")]
    socket_address: Option<SocketAddress>,
}

#[derive(Debug, Deserialize)]
struct SocketAddress {
    address: String,
    #[serde(alias = "portValue")]
    port_value: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Overload {
    #[serde(alias = "resourceMonitors")]
    resource_monitors: Vec<Monitor>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Monitor {
    #[serde(alias = "typedConfig")]
    typed_config: MonitorConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MonitorConfig {
    #[serde(alias = "maxActiveDownstreamConnections")]
    max_active_downstream_connections: Option<u32>,
}

impl Bootstrap {
    /// Reads one, in YAML or JSON.
    ///
    /// # Errors
    /// It is neither, or a field of those that are read has another type.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        serde_saphyr::from_str(text).map_err(|error| {
            anyhow::anyhow!("--config-yaml is no bootstrap of Envoy: {}", error.without_snippet())
        })
    }

    /// Puts what holds here into the configuration. Returns the part that says what trigate reads elsewhere.
    ///
    /// # Errors
    /// An address is no IP address.
    pub fn apply(&self, config: &mut Config) -> anyhow::Result<Option<&'static str>> {
        let Self { admin, static_resources, dynamic_resources, overload_manager } = self;
        if let Some(address) = admin.as_ref().and_then(|admin| admin.address.socket_address.as_ref()) {
            let address = address.parsed("admin")?;
            if !address.ip().is_loopback() && !config.admin.allow_public {
                bail!(
                    "--config-yaml has the admin server on {address}, where everybody who reaches it reads everything; \
                     [admin] allow_public = true in proxy.toml permits that"
                );
            }
            config.admin.address = address;
        }
        // Envoy Gateway's static listeners by name: `envoy-gateway-proxy-stats-0.0.0.0-19001`.
        for (part, told) in
            [("proxy-stats", &mut config.stats.address), ("proxy-ready", &mut config.ready.address)]
        {
            let listener = static_resources.listeners.iter().find(|listener| listener.name.contains(part));
            if let Some(address) = listener.and_then(|listener| listener.address.socket_address.as_ref()) {
                *told = address.parsed(part)?;
            }
        }
        let monitors = overload_manager.resource_monitors.iter();
        if let Some(most) =
            monitors.filter_map(|one| one.typed_config.max_active_downstream_connections).min()
        {
            config.limits.connections = most;
        }
        Ok(dynamic_resources.is_some().then_some("dynamic_resources"))
    }
}

impl SocketAddress {
    fn parsed(&self, of: &str) -> anyhow::Result<SocketAddr> {
        let ip = self.address.parse();
        let ip = ip.with_context(|| {
            format!("--config-yaml: {of} has the address `{}`, which is no IP address", self.address)
        })?;
        Ok(SocketAddr::new(ip, self.port_value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const OF_A_POD: &str = r#"
admin:
  access_log:
  - name: envoy.access_loggers.file
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
      path: /dev/null
  address:
    socket_address: {address: 127.0.0.1, port_value: 29000}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC}
static_resources:
  listeners:
  - name: envoy-gateway-proxy-stats-0.0.0.0-19001
    address: {socketAddress: {address: '0.0.0.0', portValue: 29001, protocol: TCP}}
    bypassOverload: true
  clusters: [{name: prometheus_stats}]
overload_manager:
  refresh_interval: 0.25s
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config: {max_active_downstream_connections: 4000}
"#;

    fn applied(text: &str, more: &str) -> anyhow::Result<(Config, Option<&'static str>)> {
        let base = "[source.files]\npaths = [\"manifests\"]\n[gateways.external]\nobject = \"a/b\"\n";
        let base = format!("{base}{more}");
        let mut config = Config::parse(Path::new("proxy.toml"), &base).expect("it is valid");
        let part = Bootstrap::read(text)?.apply(&mut config)?;
        Ok((config, part))
    }

    #[test]
    fn addresses_and_the_limit_of_connections_are_those_of_the_bootstrap() {
        let (config, part) = applied(OF_A_POD, "").expect("it holds");
        assert_eq!(config.admin.address.to_string(), "127.0.0.1:29000");
        assert_eq!(config.stats.address.to_string(), "0.0.0.0:29001");
        assert_eq!(config.ready.address.port(), 19003, "that one comes over xDS");
        assert_eq!(config.limits.connections, 4000);
        assert_eq!(part, Some("dynamic_resources"));
    }

    #[test]
    fn an_admin_address_that_others_reach_needs_the_operators_word() {
        let public = "admin: {address: {socket_address: {address: 0.0.0.0, port_value: 19000}}}";
        let refused = applied(public, "").expect_err("nobody permitted it");
        assert!(refused.to_string().contains("allow_public"), "{refused}");
        let permitted = "[admin]\nallow_public = true\n";
        assert!(applied(public, permitted).is_ok());
    }

    #[test]
    fn what_is_no_bootstrap_is_an_error_that_says_so() {
        for text in [
            "admin: [",
            "admin: {address: {socket_address: {address: localhost, port_value: 1}}}",
            "admin: 7",
        ] {
            let refused = applied(text, "").expect_err(text);
            assert!(refused.to_string().contains("--config-yaml"), "{refused}");
        }
    }
}
