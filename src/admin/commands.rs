//! What is asked, and what answers it.

use super::answer::Answer;
use super::guard::{self, Refused};
use super::orders::Order;
use super::query::{parameter, selection};
use super::{Admin, Asked, Surface, accept, config_dump, views};
use crate::telemetry::{Format, Registry, Selection};
use http::{Method, StatusCode};
use std::fmt::Write;
use std::sync::Arc;

/// Everything that the admin socket knows: path, whether it changes something, and what it is for.
const COMMANDS: [(&str, bool, &str); 18] = [
    ("/certs", false, "certificates that are served"),
    ("/clusters", false, "clusters and their endpoints; ?filter=REGEX, ?format=json"),
    ("/config_dump", false, "the revision that serves; ?resource=FIELD, ?include_eds, ?format=text"),
    (
        "/drain_listeners",
        true,
        "end connections; ?graceful tells clients first, &skip_exit keeps sockets open",
    ),
    ("/healthcheck/fail", true, "make /ready fail"),
    ("/healthcheck/ok", true, "undo /healthcheck/fail"),
    ("/help", false, "this list"),
    ("/listeners", false, "open sockets; ?format=json"),
    ("/logging", true, "the level of the log; ?level= changes it"),
    ("/memory", false, "memory of the process"),
    ("/quitquitquit", true, "end the process"),
    ("/ready", false, "200 LIVE, or 503 and why not"),
    ("/reopen_logs", true, "open the files of access logs again"),
    ("/reset_counters", true, "set all counters to zero"),
    ("/server_info", false, "version, state and age of the process"),
    ("/stats", false, "stats; ?filter=REGEX, ?usedonly, ?type=Gauges, ?format=json or prometheus"),
    ("/stats/prometheus", false, "metrics; ?filter=REGEX, ?usedonly"),
    ("/", false, "this list"),
];

/// What Envoy answers about what it is not asked to do, and trigate cannot: scripts that look at all there is find it.
const NOTHING: [(&str, &str); 5] = [
    ("/contention", "Mutex contention tracing is not enabled.\n"),
    ("/hot_restart_version", "disabled\n"),
    ("/init_dump", "{}\n"),
    ("/runtime", "{\n \"entries\": {},\n \"layers\": []\n}\n"),
    ("/stats/recentlookups", "Lookup tracking is not enabled.\n"),
];

/// Answers a request on this surface.
pub async fn answer(admin: &Arc<Admin>, surface: Surface, asked: Asked) -> Answer {
    match surface {
        Surface::Admin => match guard::check(&asked.method, &asked.headers, asked.local) {
            Ok(()) => command(admin, asked).await,
            Err(Refused::Host) => Answer::text(
                StatusCode::FORBIDDEN,
                "the admin socket answers to localhost and its own address only\n",
            ),
            Err(Refused::Origin) => {
                Answer::text(StatusCode::FORBIDDEN, "the admin socket takes no orders from pages\n")
            }
        },
        Surface::Stats | Surface::Ready if !is_read(&asked.method) => not_found(),
        Surface::Stats if asked.path == "/stats/prometheus" => prometheus(admin, asked).await,
        Surface::Stats | Surface::Ready if asked.path == "/ready" => admin.ready(),
        Surface::Stats | Surface::Ready => not_found(),
    }
}

async fn command(admin: &Arc<Admin>, asked: Asked) -> Answer {
    if let Some((_, nothing)) = NOTHING.iter().find(|(path, _)| *path == asked.path) {
        return if nothing.starts_with('{') { Answer::json(*nothing) } else { ok((*nothing).to_owned()) };
    }
    let Some((path, changes, _)) = COMMANDS.iter().find(|(path, ..)| *path == asked.path) else {
        return Answer::text(StatusCode::NOT_FOUND, format!("invalid path. {}", help()));
    };
    if *changes && asked.method != Method::POST {
        let body = format!("Method {} not allowed, POST required.", asked.method);
        return Answer::text(StatusCode::METHOD_NOT_ALLOWED, body);
    }
    match *path {
        "/stats/prometheus" => prometheus(admin, asked).await,
        "/stats" => stats(admin, asked).await,
        "/clusters" => clusters(admin, asked).await,
        "/config_dump" => admin.rendered(move |admin| config_dump(admin, &asked.query)).await,
        "/ready" => admin.ready(),
        "/certs" => Answer::json(views::certs(&admin.registry)),
        "/listeners" if is_json(&asked) => Answer::json(views::listeners_json(&admin.registry)),
        "/listeners" => ok(views::listeners(&admin.registry)),
        "/server_info" => Answer::json(views::server_info(&admin.registry)),
        "/memory" => Answer::json(views::memory()),
        "/logging" => logging(admin, &asked.query),
        "/healthcheck/fail" => health_check(admin, true),
        "/healthcheck/ok" => health_check(admin, false),
        "/reset_counters" => {
            admin.registry.reset_counters();
            Answer::done()
        }
        "/drain_listeners" => {
            let has = |name| parameter(&asked.query, name).is_some();
            order(admin, Order::Drain { graceful: has("graceful"), stay: has("skip_exit") })
        }
        "/quitquitquit" => order(admin, Order::Quit),
        "/reopen_logs" => order(admin, Order::ReopenLogs),
        _ => ok(help()),
    }
}

async fn prometheus(admin: &Arc<Admin>, asked: Asked) -> Answer {
    match selection(&asked.query) {
        Ok(selection) => {
            admin
                .rendered(move |admin| {
                    let format = accept::format(&asked.headers);
                    let page = admin.registry.page(&selection, format);
                    Answer::metrics(format, page).compressed_for(&asked.headers)
                })
                .await
        }
        Err(error) => bad_request(&error),
    }
}

async fn clusters(admin: &Arc<Admin>, asked: Asked) -> Answer {
    let selection = match selection(&asked.query) {
        Ok(selection) => selection,
        Err(error) => return bad_request(&error),
    };
    let render: fn(&Registry, &Selection) -> Answer = match is_json(&asked) {
        true => |registry, selection| Answer::json(views::clusters_json(registry, selection)),
        false => |registry, selection| ok(registry.cluster_text(selection)),
    };
    admin.rendered(move |admin| render(&admin.registry, &selection)).await
}

async fn stats(admin: &Arc<Admin>, asked: Asked) -> Answer {
    let selection = match selection(&asked.query) {
        Ok(selection) => selection,
        Err(error) => return bad_request(&error),
    };
    let render: fn(&Admin, &Selection) -> Answer = match parameter(&asked.query, "format").as_deref() {
        Some("json") => |admin, selection| Answer::json(admin.registry.stat_json(selection)),
        Some("prometheus") => {
            |admin, selection| Answer::metrics(Format::Text, admin.registry.page(selection, Format::Text))
        }
        None | Some("text") => |admin, selection| ok(admin.registry.stat_text(selection)),
        Some(_) => {
            return Answer::text(StatusCode::BAD_REQUEST, "format is one of text, json, prometheus\n");
        }
    };
    admin.rendered(move |admin| render(admin, &selection).compressed_for(&asked.headers)).await
}

/// The revision in Envoy's messages, or with `format=text` all there is to say of it.
fn config_dump(admin: &Admin, query: &str) -> Answer {
    if parameter(query, "format").as_deref() == Some("text") {
        return ok((admin.operations.dump)());
    }
    let wanted = config_dump::Wanted {
        resource: parameter(query, "resource"),
        endpoints: parameter(query, "include_eds").is_some(),
    };
    if let Some(resource) = wanted.resource.as_deref().filter(|one| !config_dump::is_resource(one)) {
        return Answer::text(StatusCode::NOT_FOUND, format!("{resource} not found in config dump\n"));
    }
    match (admin.operations.revision)() {
        Some(revision) => {
            let dump = config_dump::dump(&revision, &admin.registry, &wanted);
            Answer::json(format!("{dump:#}\n"))
        }
        None => Answer::json("{}\n"),
    }
}

fn is_json(asked: &Asked) -> bool {
    parameter(&asked.query, "format").as_deref() == Some("json")
}

fn logging(admin: &Admin, query: &str) -> Answer {
    let wanted = match logging_level(query) {
        Ok(wanted) => wanted,
        Err(error) => return Answer::text(StatusCode::BAD_REQUEST, format!("error: {error}\n")),
    };
    match (admin.operations.log_level)(wanted) {
        Ok(level) => ok(format!("active loggers:\n  trigate: {level}\n")),
        Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// The level that is asked for: `?level=debug`, or of the one logger by its name, `?trigate=debug` and
/// `?paths=trigate:debug`.
fn logging_level(query: &str) -> Result<Option<&'static str>, &'static str> {
    const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];
    if query.is_empty() {
        return Ok(None);
    }
    let paths = parameter(query, "paths");
    let of_path = paths.as_deref().and_then(|paths| paths.strip_prefix("trigate:")).map(str::to_owned);
    let wanted = parameter(query, "level").or_else(|| parameter(query, "trigate")).or(of_path);
    let wanted = wanted.ok_or("unknown logger; the one there is is trigate: ?level=debug")?;
    let wanted = match wanted.as_str() {
        // Envoy has a level above error.
        "critical" => "error",
        "warning" => "warn",
        level => level,
    };
    let known = LEVELS.into_iter().find(|level| *level == wanted).map(Some);
    known.ok_or("unknown logger level; use trace, debug, info, warning, error, critical or off")
}

fn health_check(admin: &Admin, failed: bool) -> Answer {
    admin.registry.server().fail_health_check(failed);
    Answer::done()
}

fn order(admin: &Admin, order: Order) -> Answer {
    match admin.operations.orders.try_send(order) {
        Ok(()) => Answer::done(),
        Err(_) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "the process is busy with earlier orders\n"),
    }
}

fn ok(body: String) -> Answer {
    Answer::text(StatusCode::OK, body)
}

fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

fn not_found() -> Answer {
    Answer::text(StatusCode::NOT_FOUND, "")
}

fn bad_request(error: &str) -> Answer {
    Answer::text(StatusCode::BAD_REQUEST, format!("{error}\n"))
}

fn help() -> String {
    let mut text = "admin commands are:\n".to_owned();
    for (path, changes, purpose) in COMMANDS {
        let method = if changes { " (POST)" } else { "" };
        let _ = writeln!(text, "  {path}{method}: {purpose}");
    }
    text
}
