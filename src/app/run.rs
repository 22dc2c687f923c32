//! `trigate run`: from a configuration to a process that serves, and to its end.

use super::announce::Announcement;
use super::end::{End, Signals, follow_health_check};
use super::observers::{self, cannot_bind};
use super::orders::{Cluster, Orders};
use super::tickets;
use crate::admin::LogLevel;
use crate::config::{Config, DnsProvider, Limits, ObjectName};
use crate::control::{Control, Opened};
use crate::echo;
use crate::listener::Workers;
use crate::live::Live;
use crate::source::kubernetes::{Kubernetes, connect};
use crate::source::{Certificates, Files, Source};
use crate::stats;
use crate::status::Writing;
use crate::telemetry::{Counters, Node, Observation, Registry, Server};
use crate::tls::dev;
use crate::upstream::{Clusters, Resolver};
use anyhow::{Context, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tracing::{info, warn};

/// Threads of the runtime for everything that serves no client. Two, so that a reload does not hold up a probe.
const CONTROL_THREADS: usize = 2;
/// Files that are no connection: sockets of all workers, watched folders, certificates being read.
const OTHER_FILES: u64 = 512;

/// Serves until a signal ends it.
///
/// # Errors
/// What is needed to serve cannot be had: a socket, a certificate, a thread.
pub fn run(mut config: Config, node: Node, log_level: LogLevel) -> anyhow::Result<ExitCode> {
    stats::set_workers(config.runtime.workers());
    fit_to_file_limit(&mut config.limits);
    let authority = development_certificates(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control threads")?;
    let server = Arc::new(Server::named(node));
    let served = runtime.block_on(serve(Arc::new(config), server, authority, log_level));
    // What still runs there (scrapes, the echo backend) has nobody to answer any more, and ends with the process. It
    // is not shut down: a task that is being polled would find its timers gone, and panic.
    std::mem::forget(runtime);
    served
}

async fn serve(
    config: Arc<Config>,
    server: Arc<Server>,
    authority: Option<PathBuf>,
    log_level: LogLevel,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let certificates = Orders::open(&config)?;
    let live = Arc::new(Live::answering(certificates.as_ref().map(Orders::challenges)));
    let registry = Arc::new(Registry::new(server.clone(), config.runtime.workers()));
    let orders = observers::open(&config, live.clone(), registry.clone(), log_level).await?;
    if config.echo.enabled {
        let address = config.echo.address;
        let listener = echo::bind(address).await.with_context(|| cannot_bind("echo", address))?;
        tokio::spawn(echo::serve(listener));
    }
    let workers = Workers::start(config.runtime.workers(), live.clone(), config.limits);
    let workers = Arc::new(workers.context("cannot start the worker threads")?);
    let clusters = Clusters::new(Resolver::from_system().context("cannot use /etc/resolv.conf")?);
    let observation = observation(&config, &registry)?;
    let control = Control::new(config.clone(), live.clone(), workers.clone(), clusters, registry.clone())?;
    let mut control = control.observed_by(observation.observer());
    if let Some(file) = &config.session_tickets.file {
        tokio::spawn(tickets::follow(file.clone(), control.ticket_keys().clone()));
    }
    let (source, writing, cluster) = source(&config, certificates.as_ref()).await?;
    let publisher = writing.as_ref().map(Writing::publisher).unwrap_or_default();
    control = control.publishing(source.records(), publisher.clone());
    let ordering =
        certificates.map(|certificates| certificates.ordering(cluster, registry.orders(), &publisher));
    let ordering = ordering.transpose()?.flatten();
    let drain = control.drain();
    let (started, start) = oneshot::channel();
    let control = follow(control, source, started);
    let opened = tokio::select! {
        opened = start => opened.context("the control task ended early")??,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    server.initialized();
    if let Some(revision) = live.load() {
        let (sockets, authority) = (&opened, authority.as_deref());
        print!("{}", Announcement { config: &config, revision: &revision, sockets, authority });
    }
    tokio::spawn(follow_health_check(server.clone(), workers.clone()));
    // It tells what fails itself; that it ends is no reason to serve no more.
    let _ordering = ordering.map(|ordering| tokio::spawn(ordering.run()));
    let end = End { drain, workers, server, signals, orders, writing, observation };
    tokio::select! {
        code = end.reached() => Ok(code),
        ended = control => Err(anyhow!("the control task ended early: {}", why(ended))),
    }
}

/// Serves the first objects of a source, says so, and serves all later ones. One thread does it all: what it frees of
/// an old revision it has room in for a new one, and threads that take turns would each keep that of another.
fn follow(
    mut control: Control,
    mut source: Source,
    started: oneshot::Sender<anyhow::Result<Vec<Opened>>>,
) -> JoinHandle<Infallible> {
    let runtime = Handle::current();
    let following = async move {
        let first = source.first().await;
        let outcome = control.start(first).map(|()| control.opened());
        let failed = outcome.is_err();
        // Nobody listens any more when a signal came first.
        let _ = started.send(outcome);
        if failed {
            return std::future::pending().await;
        }
        control.run(source).await
    };
    tokio::task::spawn_blocking(move || runtime.block_on(following))
}

/// What writes access logs and spans. Its thread sleeps until something asks for them, which an EnvoyProxy may do at
/// any time. Its files are opened again on SIGHUP.
fn observation(config: &Config, registry: &Registry) -> anyhow::Result<Observation> {
    let counters = Counters::new();
    registry.show(&counters);
    let observation = Observation::start(config.access_log.queue as usize, counters);
    let observation = observation.context("cannot start the thread that writes access logs")?;
    let mut hangups = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let observer = observation.observer().clone();
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            observer.reopen();
        }
    });
    Ok(observation)
}

/// Where objects come from, and who writes down there what became of them.
async fn source(
    config: &Config,
    orders: Option<&Orders>,
) -> anyhow::Result<(Source, Option<Writing>, Option<Cluster>)> {
    let Some(kubernetes) = &config.source.kubernetes else {
        let mut certificates = Certificates::new(config.certificates.values().cloned());
        if let Some(folder) = orders.and_then(Orders::folder) {
            certificates = certificates.with_ordered(folder);
        }
        let files = Files::new(config.source.files.paths.clone()).with_certificates(certificates);
        return Ok((Source::Files(files), None, None));
    };
    let client = connect(kubernetes).await?;
    let source = Source::Kubernetes(Kubernetes::start(&client, kubernetes, &own_secrets(config)));
    info!("waiting for the objects of the cluster");
    let writing = kubernetes.write.then(|| Writing::start(&client, &source.records(), kubernetes));
    let cluster = writing.as_ref().map(|writing| Cluster {
        namespace: kubernetes.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned()),
        controller: kubernetes.controller_name.clone(),
        leads: writing.leads(),
        client,
    });
    Ok((source, writing, cluster))
}

/// The Secrets that the configuration itself refers to.
fn own_secrets(config: &Config) -> Vec<ObjectName> {
    let tokens =
        config.acme.iter().flat_map(|acme| acme.dns.values()).filter_map(|provider| match provider {
            DnsProvider::Cloudflare(cloudflare) => cloudflare.token_secret.clone(),
            DnsProvider::Rfc2136(_) => None,
        });
    config.session_tickets.secret.iter().cloned().chain(tokens).collect()
}

/// Makes the development certificates that the configuration asks for and does not have. Returns the authority of
/// one that is there, for clients on this machine.
fn development_certificates(config: &Config) -> anyhow::Result<Option<PathBuf>> {
    let mut authority = None;
    for files in config.certificates.values().filter(|files| !files.generate.is_empty()) {
        match dev::generate(&files.chain, &files.key, &files.generate)? {
            Some(made) => {
                info!(
                    "made a development certificate for {}: {} and {}; clients that trust {} trust it",
                    files.generate.join(", "),
                    files.chain.display(),
                    files.key.display(),
                    made.display()
                );
                authority = Some(made);
            }
            None => authority = Some(files.chain.with_file_name("ca.crt")).filter(|file| file.exists()),
        }
    }
    Ok(authority)
}

/// Lets the process have as many open files as the system permits, for shells hand down 1024. Where even that is
/// too few, fewer connections are taken: one that is refused at the door is better than one that fails upstream.
fn fit_to_file_limit(limits: &mut Limits) {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        warn!("cannot raise the limit of open files: {error}");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return };
    // A connection needs one file, and another one upstream.
    let most = u32::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(u32::MAX).max(1);
    if most < limits.connections {
        info!("at most {most} connections, because only {files} files may be open; `ulimit -n` raises that");
        limits.connections = most;
    }
}

/// Why a task that never returns has ended.
fn why(ended: Result<Infallible, JoinError>) -> String {
    match ended {
        Ok(never) => match never {},
        Err(error) => error.to_string(),
    }
}
