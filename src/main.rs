//! The command line: `run` (which no command means), `check`, `schema`, `certs`.

use clap::{Args, Parser, Subcommand};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use trigate::admin::LogLevel;
use trigate::app::{self, EnvoyArguments};
use trigate::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An L7 reverse-proxy gateway: serves Gateway API routes from files, on several gateways at once.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: ConfigFile,
    #[command(flatten)]
    envoy: EnvoyArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves; what happens without a command. Example: trigate run --config proxy.toml
    Run(ConfigFile),
    /// Compiles and prints every diagnostic, without opening a socket; exits with 1 on errors.
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Files and folders of manifests, instead of those that the configuration names.
        paths: Vec<PathBuf>,
        /// Prints what the manifests mean: table, clusters, sockets, conditions.
        #[arg(long)]
        dump: bool,
    },
    /// Prints the JSON schema of proxy.toml, for editors.
    Schema,
    /// Makes certificates for development, or lists those that there are.
    #[command(subcommand)]
    Certs(Certs),
}

#[derive(Debug, Subcommand)]
enum Certs {
    /// Writes an authority and a leaf for each name. Example: trigate certs dev app.localhost '*.example.test'
    Dev {
        /// Host names, each for a certificate of its own.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// The folder to write to; an authority that is there is used again.
        #[arg(long, value_name = "FOLDER", default_value = "certs/dev")]
        out: PathBuf,
    },
    /// Prints names, issuers and expiry of what is in certs/ and of what the configuration names.
    List(ConfigFile),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "proxy.toml")]
    file: PathBuf,
}

fn main() -> ExitCode {
    // pingora-rustls compiles ring in as well, and the first default that is installed wins.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing can have installed one before the first statement");
    let CommandLine { command, run, envoy } = CommandLine::parse();
    let done = match command.unwrap_or(Command::Run(run)) {
        Command::Run(ConfigFile { file }) if envoy.only_checks() => app::check(&file, Vec::new(), false),
        Command::Run(ConfigFile { file }) => serve(&file, &envoy),
        Command::Check { config, paths, dump } => app::check(&config.file, paths, dump),
        Command::Schema => schema(),
        Command::Certs(Certs::Dev { names, out }) => app::certs_dev(&out, &names),
        Command::Certs(Certs::List(config)) => app::certs_list(&config.file),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(file: &Path, envoy: &EnvoyArguments) -> anyhow::Result<ExitCode> {
    let log_level = log(envoy.log_level());
    let mut config = Config::load(file)?;
    if let Some(ignored) = envoy.apply(&mut config)? {
        tracing::warn!("{ignored}");
    }
    app::run(config, envoy.node(|name| std::env::var(name).ok()), log_level)
}

fn schema() -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&Config::schema())?);
    Ok(ExitCode::SUCCESS)
}

/// What happens is told on standard error, from this level on; standard output is for what was asked. Returns what
/// changes the level.
fn log(level: Option<&str>) -> LogLevel {
    let level = level.map_or_else(|| "info,pingora=warn".to_owned(), str::to_owned);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter)
        .with_filter_reloading();
    let filter = builder.reload_handle();
    builder.init();
    Box::new(move |level| {
        if let Some(level) = level {
            let new = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
            filter.reload(new).map_err(|error| error.to_string())?;
        }
        filter.with_current(ToString::to_string).map_err(|error| error.to_string())
    })
}
