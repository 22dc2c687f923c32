//! Envoy's command line, as Envoy Gateway writes it for its pods: what of it holds here, and what is said of the rest.
//!
//! A Deployment that names this image instead of Envoy's needs no other change. What the operator wrote into
//! proxy.toml is the base; an argument that means the same thing wins over it, as arguments do.

use super::bootstrap::Bootstrap;
use crate::config::Config;
use crate::telemetry::Node;
use clap::{ArgAction, Args, ValueEnum};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What Envoy's arguments are listed under in `--help`.
const HEADING: &str = "Arguments of Envoy, for pods that Envoy Gateway describes";

/// Arguments of Envoy. None of them is needed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = HEADING)]
pub struct EnvoyArguments {
    /// The name of the set of proxies that this one belongs to; shown at /server_info.
    #[arg(long, value_name = "NAME", global = true)]
    service_cluster: Option<String>,
    /// The name of this proxy, that of its pod; shown at /server_info, and who it is in the Lease.
    #[arg(long, value_name = "NAME", global = true)]
    service_node: Option<String>,
    /// The zone that this proxy runs in; shown at /server_info.
    #[arg(long, value_name = "NAME", global = true)]
    service_zone: Option<String>,
    /// Envoy's bootstrap, of which the addresses for operators and the limit of connections are taken.
    #[arg(long, value_name = "YAML", global = true)]
    config_yaml: Option<String>,
    /// The level of the log; RUST_LOG wins.
    #[arg(short = 'l', long, value_name = "LEVEL", global = true)]
    log_level: Option<EnvoyLevel>,
    /// As many worker threads as the process may use cores.
    #[arg(long, global = true)]
    cpuset_threads: bool,
    /// So many worker threads.
    #[arg(long, value_name = "N", global = true)]
    concurrency: Option<u16>,
    /// When the process ends after SIGTERM, whatever is in flight.
    #[arg(long, value_name = "SECONDS", global = true)]
    drain_time_s: Option<u32>,
    /// When connections are told to end: at once, which is what trigate does.
    #[arg(long, value_name = "STRATEGY", global = true)]
    drain_strategy: Option<DrainStrategy>,
    /// `validate` checks and ends.
    #[arg(long, value_name = "MODE", global = true)]
    mode: Option<Mode>,
    #[command(flatten)]
    other: Ignored,
}

/// What is taken and has no meaning here, by the reason why.
#[derive(Debug, Clone, Default, Args)]
struct Ignored {
    #[arg(long, hide = true, global = true)]
    component_log_level: Option<String>,
    #[arg(long, hide = true, global = true)]
    log_format: Option<String>,
    #[arg(long, hide = true, global = true)]
    log_format_escaped: bool,
    #[arg(long, hide = true, global = true)]
    log_path: Option<String>,
    #[arg(long, hide = true, global = true)]
    enable_fine_grain_logging: bool,
    #[arg(long, hide = true, global = true)]
    disable_hot_restart: bool,
    #[arg(long, hide = true, global = true)]
    use_dynamic_base_id: bool,
    #[arg(long, hide = true, global = true)]
    base_id: Option<String>,
    #[arg(long, hide = true, global = true)]
    restart_epoch: Option<String>,
    #[arg(long, hide = true, global = true)]
    parent_shutdown_time_s: Option<String>,
    #[arg(long, hide = true, global = true)]
    config_path: Option<PathBuf>,
    #[arg(long, hide = true, global = true)]
    admin_address_path: Option<PathBuf>,
    #[arg(long, hide = true, global = true)]
    local_address_ip_version: Option<String>,
    #[arg(long, hide = true, global = true)]
    file_flush_interval_msec: Option<String>,
    #[arg(long, hide = true, global = true)]
    file_flush_min_size_kb: Option<String>,
    #[arg(long, hide = true, global = true)]
    allow_unknown_fields: bool,
    #[arg(long, hide = true, global = true)]
    allow_unknown_static_fields: bool,
    #[arg(long, hide = true, global = true)]
    reject_unknown_dynamic_fields: bool,
    #[arg(long, hide = true, global = true)]
    ignore_unknown_dynamic_fields: bool,
    #[arg(long, hide = true, global = true)]
    skip_deprecated_logs: bool,
    #[arg(long, hide = true, global = true)]
    enable_mutex_tracing: bool,
    #[arg(long, hide = true, global = true)]
    enable_core_dump: bool,
    #[arg(long, hide = true, global = true)]
    disable_extensions: Option<String>,
    #[arg(long, hide = true, global = true, action = ArgAction::Append)]
    stats_tag: Vec<String>,
}

/// Envoy's levels; trigate has no `critical`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EnvoyLevel {
    Trace,
    Debug,
    Info,
    #[value(alias = "warning")]
    Warn,
    #[value(alias = "err")]
    Error,
    Critical,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DrainStrategy {
    Gradual,
    Immediate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Serve,
    Validate,
    #[value(name = "init_only")]
    InitOnly,
}

impl EnvoyArguments {
    /// The level of the log that is asked for, in the words of `RUST_LOG`.
    pub fn log_level(&self) -> Option<&'static str> {
        self.log_level.map(|level| match level {
            EnvoyLevel::Trace => "trace",
            EnvoyLevel::Debug => "debug",
            EnvoyLevel::Info => "info",
            EnvoyLevel::Warn => "warn",
            EnvoyLevel::Error | EnvoyLevel::Critical => "error",
            EnvoyLevel::Off => "off",
        })
    }

    /// Whether nothing is to be served, but the configuration checked.
    pub fn only_checks(&self) -> bool {
        matches!(self.mode, Some(Mode::Validate | Mode::InitOnly))
    }

    /// Who this proxy is; `variable` reads the environment.
    pub fn node(&self, variable: impl Fn(&str) -> Option<String>) -> Node {
        let told = |argument: &Option<String>, name: &str| {
            argument.clone().or_else(|| variable(name)).unwrap_or_default()
        };
        Node {
            cluster: self.service_cluster.clone().unwrap_or_default(),
            id: told(&self.service_node, "ENVOY_POD_NAME"),
            zone: told(&self.service_zone, "ENVOY_SERVICE_ZONE"),
        }
    }

    /// Puts what holds here into the configuration. Returns one line about the rest, when there is a rest.
    ///
    /// # Errors
    /// The bootstrap is no YAML, or has an address that is none.
    pub fn apply(&self, config: &mut Config) -> anyhow::Result<Option<String>> {
        let mut unused = self.other.reasons();
        match (self.concurrency, self.cpuset_threads) {
            // Cores of the CPU set and of the quota, which is what 0 means.
            (None | Some(0), true) => config.runtime.threads = 0,
            (Some(threads), _) => config.runtime.threads = threads.into(),
            (None, false) => {}
        }
        if let Some(seconds) = self.drain_time_s {
            config.drain.timeout = Duration::from_secs(seconds.into());
            config.drain.grace = config.drain.grace.min(config.drain.timeout);
        }
        if self.drain_strategy == Some(DrainStrategy::Gradual) {
            unused.push(("--drain-strategy gradual".to_owned(), "connections are told to end at once"));
        }
        if let Some(text) = &self.config_yaml {
            let bootstrap = Bootstrap::read(text)?;
            unused.extend(
                bootstrap
                    .apply(config)?
                    .map(|part| (format!("--config-yaml's {part}"), bootstrap_reason(part))),
            );
        }
        Ok(one_line(&unused))
    }
}

fn bootstrap_reason(part: &str) -> &'static str {
    match part {
        "dynamic_resources" => "routes come from Gateway API objects, not from an xDS server",
        _ => "proxy.toml says it",
    }
}

impl Ignored {
    /// What was given and why it is not used, in the order of the fields.
    fn reasons(&self) -> Vec<(String, &'static str)> {
        const LOG: &str = "the log goes to standard error in one format";
        const RESTART: &str = "there is no hot restart";
        const FILES: &str = "proxy.toml says it";
        const FIELDS: &str = "an unknown key is always an error";
        const OF_ENVOY: &str = "it is about Envoy's own code";
        let Self {
            component_log_level,
            log_format,
            log_format_escaped,
            log_path,
            enable_fine_grain_logging,
            disable_hot_restart,
            use_dynamic_base_id,
            base_id,
            restart_epoch,
            parent_shutdown_time_s,
            config_path,
            admin_address_path,
            local_address_ip_version,
            file_flush_interval_msec,
            file_flush_min_size_kb,
            allow_unknown_fields,
            allow_unknown_static_fields,
            reject_unknown_dynamic_fields,
            ignore_unknown_dynamic_fields,
            skip_deprecated_logs,
            enable_mutex_tracing,
            enable_core_dump,
            disable_extensions,
            stats_tag,
        } = self;
        let given = [
            (component_log_level.is_some(), "--component-log-level", "RUST_LOG sets levels of parts"),
            (log_format.is_some(), "--log-format", LOG),
            (*log_format_escaped, "--log-format-escaped", LOG),
            (log_path.is_some(), "--log-path", LOG),
            (*enable_fine_grain_logging, "--enable-fine-grain-logging", "RUST_LOG sets levels of parts"),
            (*disable_hot_restart, "--disable-hot-restart", RESTART),
            (*use_dynamic_base_id, "--use-dynamic-base-id", RESTART),
            (base_id.is_some(), "--base-id", RESTART),
            (restart_epoch.is_some(), "--restart-epoch", RESTART),
            (parent_shutdown_time_s.is_some(), "--parent-shutdown-time-s", RESTART),
            (config_path.is_some(), "--config-path", "--config names trigate's file"),
            (admin_address_path.is_some(), "--admin-address-path", FILES),
            (local_address_ip_version.is_some(), "--local-address-ip-version", FILES),
            (file_flush_interval_msec.is_some(), "--file-flush-interval-msec", FILES),
            (file_flush_min_size_kb.is_some(), "--file-flush-min-size-kb", FILES),
            (*allow_unknown_fields, "--allow-unknown-fields", FIELDS),
            (*allow_unknown_static_fields, "--allow-unknown-static-fields", FIELDS),
            (*reject_unknown_dynamic_fields, "--reject-unknown-dynamic-fields", FIELDS),
            (*ignore_unknown_dynamic_fields, "--ignore-unknown-dynamic-fields", FIELDS),
            (*skip_deprecated_logs, "--skip-deprecated-logs", FIELDS),
            (*enable_mutex_tracing, "--enable-mutex-tracing", OF_ENVOY),
            (*enable_core_dump, "--enable-core-dump", OF_ENVOY),
            (disable_extensions.is_some(), "--disable-extensions", OF_ENVOY),
            (!stats_tag.is_empty(), "--stats-tag", "tags of metrics are those of Envoy Gateway"),
        ];
        given.into_iter().filter(|(given, ..)| *given).map(|(_, name, why)| (name.to_owned(), why)).collect()
    }
}

/// `ignored of Envoy's arguments: --a, --b (why); --c (why)`.
fn one_line(unused: &[(String, &'static str)]) -> Option<String> {
    let mut reasons: Vec<&str> = Vec::new();
    for (_, why) in unused {
        if !reasons.contains(why) {
            reasons.push(why);
        }
    }
    let parts = reasons.iter().map(|why| {
        let names: Vec<&str> =
            unused.iter().filter(|(_, reason)| reason == why).map(|(name, _)| name.as_str()).collect();
        let mut part = names.join(", ");
        // Writing to a string cannot fail.
        let _ = write!(part, " ({why})");
        part
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| format!("ignored of Envoy's arguments: {}", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::Path;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        envoy: EnvoyArguments,
    }

    fn arguments(line: &[&str]) -> EnvoyArguments {
        Line::try_parse_from([&["trigate"], line].concat()).expect("they are known").envoy
    }

    fn config() -> Config {
        let text = "[source.files]\npaths = [\"manifests\"]\n[gateways.external]\nobject = \"a/b\"\n";
        let text = format!("{text}[runtime]\nthreads = 3\n[drain]\ntimeout = \"40s\"\n");
        Config::parse(Path::new("proxy.toml"), &text).expect("it is valid")
    }

    /// As Envoy Gateway's Deployments have them, one a line, `--config-yaml` aside.
    const OF_A_POD: &str = include_str!("../../tests/pod/arguments.txt");

    #[test]
    fn the_arguments_of_a_pod_are_taken_and_what_is_ignored_is_said_in_one_line() {
        let given = arguments(&OF_A_POD.lines().collect::<Vec<_>>());
        let mut config = config();
        let line = given.apply(&mut config).expect("there is no bootstrap");
        assert_eq!(
            line.as_deref(),
            Some("ignored of Envoy's arguments: --component-log-level (RUST_LOG sets levels of parts)")
        );
        assert_eq!(given.log_level(), Some("warn"));
        assert_eq!(config.runtime.threads, 0, "all cores that the process may use");
        assert_eq!(config.drain.timeout, Duration::from_secs(60));
        assert!(!given.only_checks());
    }

    #[test]
    fn arguments_with_one_reason_are_said_together() {
        let given = arguments(&[
            "--base-id",
            "3",
            "--log-path",
            "/x",
            "--disable-hot-restart",
            "--drain-strategy",
            "gradual",
        ]);
        assert_eq!(
            given.apply(&mut config()).expect("there is no bootstrap").as_deref(),
            Some(
                "ignored of Envoy's arguments: --log-path (the log goes to standard error in one format); \
                 --disable-hot-restart, --base-id (there is no hot restart); \
                 --drain-strategy gradual (connections are told to end at once)"
            )
        );
    }

    #[test]
    fn without_them_nothing_changes() {
        let (given, mut changed) = (arguments(&[]), config());
        assert_eq!(given.apply(&mut changed).expect("there is no bootstrap"), None);
        assert_eq!(changed, config());
    }

    #[test]
    fn a_number_of_threads_wins_over_the_cpu_set() {
        let mut changed = config();
        let given = arguments(&["--cpuset-threads", "--concurrency", "2"]);
        given.apply(&mut changed).expect("there is no bootstrap");
        assert_eq!(changed.runtime.threads, 2);
    }

    #[test]
    fn a_drain_that_is_shorter_than_the_grace_shortens_it() {
        let mut changed = config();
        arguments(&["--drain-time-s", "2"]).apply(&mut changed).expect("there is no bootstrap");
        assert_eq!(
            (changed.drain.grace, changed.drain.timeout),
            (Duration::from_secs(2), Duration::from_secs(2))
        );
    }

    #[test]
    fn the_environment_of_the_pod_says_who_it_is() {
        let variable = |name: &str| {
            [("ENVOY_POD_NAME", "pod-1"), ("ENVOY_SERVICE_ZONE", "zone-a")]
                .into_iter()
                .find_map(|(known, value)| (known == name).then(|| value.to_owned()))
        };
        let told = arguments(&["--service-cluster", "network/external"]).node(variable);
        let want = Node { cluster: "network/external".into(), id: "pod-1".into(), zone: "zone-a".into() };
        assert_eq!(told, want);
        assert_eq!(arguments(&["--service-node", "n"]).node(variable).id, "n", "an argument wins");
    }

    #[test]
    fn every_level_of_envoy_has_one_here() {
        for (level, want) in [("trace", "trace"), ("warning", "warn"), ("critical", "error"), ("off", "off")]
        {
            assert_eq!(arguments(&["-l", level]).log_level(), Some(want));
        }
    }
}
