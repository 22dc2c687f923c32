//! Holds the crate to its architecture: who may import whom, and the sizes and names of the house style.
//!
//! The table below is the one of the architecture's text in `src/lib.rs`, as data. `architecture/source.rs`
//! reads the sources with `syn`; here is only what is asked of them.

#[path = "architecture/source.rs"]
mod source;

use source::{Found, Source};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::LazyLock;

/// Crates that only some modules may name, so that the data path knows no Kubernetes and the control path no
/// proxy framework.
const GUARDED: [&str; 9] =
    ["h2", "hyper", "instant_acme", "k8s_openapi", "kube", "pingora", "prometheus", "rcgen", "rustls"];

/// One row: a module, what it may use of ours, what it may name of the guarded crates.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

/// A module may always use itself. `lib` is the root of the crate, which only lists the modules.
const TABLE: &[Row] = &[
    ("lib", &[], &[]),
    ("host", &[], &[]),
    ("stats", &[], &[]),
    ("moment", &[], &[]),
    ("config", &["access_log", "reply"], &[]),
    ("challenge", &[], &["rcgen", "rustls"]),
    (
        "acme",
        &["bindings", "challenge", "config", "resource", "status", "telemetry", "tls"],
        &["hyper", "instant_acme", "k8s_openapi", "kube", "rcgen", "rustls"],
    ),
    ("reply", &[], &[]),
    ("access_log", &["reply", "routing", "upstream"], &[]),
    ("wire", &[], &[]),
    ("http1", &["wire"], &[]),
    ("echo", &[], &["h2", "hyper"]),
    ("filter", &["reply"], &[]),
    ("routing", &["filter", "host", "reply"], &[]),
    ("upstream", &["host", "http1", "moment", "stats", "wire"], &["h2", "pingora", "rustls"]),
    ("tls", &["config", "host"], &["rcgen", "rustls"]),
    ("live", &["challenge", "routing", "telemetry", "tls", "upstream"], &[]),
    (
        "telemetry",
        &["access_log", "reply", "routing", "stats", "tls", "upstream"],
        &["hyper", "prometheus", "rustls"],
    ),
    (
        "proxy",
        &[
            "access_log",
            "challenge",
            "config",
            "filter",
            "host",
            "http1",
            "live",
            "moment",
            "reply",
            "routing",
            "stats",
            "telemetry",
            "tls",
            "upstream",
            "wire",
        ],
        &["h2"],
    ),
    (
        "listener",
        &[
            "challenge",
            "config",
            "l4",
            "live",
            "moment",
            "proxy",
            "reply",
            "routing",
            "stats",
            "telemetry",
            "tls",
            "wire",
        ],
        &["rustls"],
    ),
    (
        "l4",
        &[
            "access_log",
            "config",
            "live",
            "proxy",
            "reply",
            "routing",
            "stats",
            "telemetry",
            "tls",
            "upstream",
            "wire",
        ],
        &["rustls"],
    ),
    ("resource", &[], &[]),
    ("source", &["config", "resource"], &["k8s_openapi", "kube"]),
    ("compile", &["filter", "host", "reply", "resource", "routing", "tls", "upstream"], &[]),
    ("bindings", &["compile", "config", "resource", "routing"], &[]),
    ("status", &["bindings", "compile", "config", "resource", "routing"], &["k8s_openapi", "kube"]),
    (
        "control",
        &[
            "access_log",
            "bindings",
            "compile",
            "config",
            "listener",
            "live",
            "proxy",
            "resource",
            "routing",
            "source",
            "status",
            "telemetry",
            "tls",
            "upstream",
        ],
        &[],
    ),
    (
        "admin",
        &["config", "filter", "live", "routing", "stats", "telemetry", "upstream"],
        &["hyper", "prometheus"],
    ),
];

/// What the tests of a module may use beside what the module itself may: they need objects to begin with.
const IN_TESTS: &[(&str, &[&str])] = &[("acme", &["source"]), ("status", &["routing", "source"])];

/// They know all other modules: they wire them.
const WIRING: [&str; 2] = ["app", "main"];

/// Words that say nothing about what a module or a type is.
const EMPTY_WORDS: [&str; 9] =
    ["common", "data", "handler", "helper", "info", "manager", "misc", "process", "util"];

const MOST_LINES_OF_A_FILE: usize = 500;
const MOST_LINES_OF_A_FUNCTION: usize = 60;
const MOST_PARAMETERS: usize = 5;

/// Read once for all tests: in a debug build that takes a second.
static SOURCES: LazyLock<Vec<Source>> =
    LazyLock::new(|| Source::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")));

/// Fails with one line for each fault, each beginning with `file:line`.
fn hold(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}

fn every(sources: &[Source], rule: impl Fn(&Source, &Found) -> Option<String>) -> Vec<String> {
    let faults =
        |source| Source::found(source).iter().filter_map(|found| rule(source, found)).collect::<Vec<_>>();
    sources.iter().flat_map(faults).collect()
}

fn import_fault(source: &Source, found: &Found) -> Option<String> {
    let module = source.module();
    if WIRING.contains(&module) {
        return None;
    }
    let Some((_, ours, guarded)) = TABLE.iter().find(|(name, ..)| *name == module) else {
        return match found {
            Found::Start => Some(format!(
                "{}: module `{module}` is not in the import table; add a row that says what it may use",
                source.at(1)
            )),
            _ => None,
        };
    };
    match found {
        Found::Module { line, name, in_test } => {
            let in_tests = IN_TESTS.iter().filter(|(row, _)| *in_test && *row == module);
            let mut allowed = ours.iter().chain(in_tests.flat_map(|(_, names)| *names));
            (name != module && !allowed.any(|allowed| allowed == name)).then(|| {
                format!("{}: `{module}` imports our module `{name}`; it may use {ours:?}", source.at(*line))
            })
        }
        Found::Crate { line, name, in_test: false } => {
            let named = guarded_crate(name)?;
            (!guarded.contains(&named)).then(|| {
                format!("{}: `{module}` names the crate `{name}`; it may name {guarded:?}", source.at(*line))
            })
        }
        _ => None,
    }
}

/// The guarded crate that a crate name stands for: the parts and companions of a framework are the framework.
fn guarded_crate(name: &str) -> Option<&'static str> {
    let whole = match name {
        "tokio_rustls" => "rustls",
        "hyper_util" => "hyper",
        name if name.starts_with("pingora_") => "pingora",
        name => name,
    };
    GUARDED.into_iter().find(|guarded| *guarded == whole)
}

#[test]
fn modules_import_only_what_the_table_allows() {
    hold(every(&SOURCES, import_fault));
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    hold(every(&SOURCES, |source, found| match found {
        Found::Start if !source.text().starts_with("//! ") => {
            Some(format!("{}: the first line is no `//! ` sentence", source.at(1)))
        }
        _ => None,
    }));
}

#[test]
fn files_and_functions_stay_short() {
    hold(every(&SOURCES, |source, found| match found {
        Found::Start => {
            let lines = source.text().lines().count();
            (lines > MOST_LINES_OF_A_FILE).then(|| {
                format!("{}: {lines} lines, at most {MOST_LINES_OF_A_FILE} are allowed", source.at(lines))
            })
        }
        Found::Function { line, name, lines, .. } if *lines > MOST_LINES_OF_A_FUNCTION => Some(format!(
            "{}: `{name}` has {lines} lines, at most {MOST_LINES_OF_A_FUNCTION} are allowed",
            source.at(*line)
        )),
        Found::Function { line, name, parameters, .. } if *parameters > MOST_PARAMETERS => Some(format!(
            "{}: `{name}` has {parameters} parameters beside self, at most {MOST_PARAMETERS} are allowed",
            source.at(*line)
        )),
        _ => None,
    }));
}

#[test]
fn nothing_outside_tests_unwraps() {
    hold(every(&SOURCES, |source, found| match found {
        Found::Unwrap { line } => Some(format!(
            "{}: `unwrap()` outside tests; `expect(\"why it holds\")` says why",
            source.at(*line)
        )),
        _ => None,
    }));
}

#[test]
fn nothing_is_left_to_do() {
    // Put together, so that this line is no finding itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    hold(every(&SOURCES, |source, found| match found {
        Found::Start => {
            let mut faults = String::new();
            for (number, line) in source.text().lines().enumerate() {
                if marks
                    .iter()
                    .any(|mark| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == *mark))
                {
                    writeln!(faults, "{}: {}", source.at(number + 1), line.trim())
                        .expect("a string takes it");
                }
            }
            (!faults.is_empty()).then(|| faults.trim_end().to_owned())
        }
        _ => None,
    }));
}

#[test]
fn modules_and_types_have_names_that_say_what_they_are() {
    hold(every(&SOURCES, |source, found| match found {
        Found::Name { line, name } => {
            let word = words(name).into_iter().find(|word| EMPTY_WORDS.contains(&word.as_str()))?;
            Some(format!("{}: `{name}` holds the empty word `{word}`", source.at(*line)))
        }
        _ => None,
    }));
}

/// The words of a name in snake or camel case, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if (c == '_' || c.is_uppercase()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("there is always one").extend(c.to_lowercase());
        }
    }
    words
}

#[test]
fn every_module_of_the_crate_has_a_row_and_no_row_has_a_module_twice() {
    let mut rows = BTreeMap::new();
    for (module, ours, guarded) in TABLE {
        assert!(rows.insert(module, ()).is_none(), "`{module}` has two rows");
        assert!(ours.is_sorted(), "the modules of `{module}` are not in alphabetical order");
        assert!(
            guarded.iter().all(|name| GUARDED.contains(name)),
            "`{module}` may name a crate that is not guarded"
        );
        let known = |name: &&str| TABLE.iter().any(|(row, ..)| row == name);
        assert!(ours.iter().all(known), "`{module}` may use a module that has no row");
    }
}

/// What the rules above find in a file of this text, for a test of the tests.
fn faults(path: &str, text: &str) -> Vec<String> {
    every(&[Source::parse(Path::new(path), text)], import_fault)
}

#[test]
fn a_forbidden_import_is_told_by_file_and_line_however_it_is_written() {
    for (text, line, what) in [
        ("use crate::proxy::Gateway;", 1, "proxy"),
        ("use crate::{reply::Reply,\n  live};", 2, "live"),
        ("use super::super::upstream as other;", 1, "upstream"),
        ("fn f() {\n    crate::upstream::connect();\n}", 2, "upstream"),
        ("type Head = pingora::http::RequestHeader;", 1, "pingora"),
        ("use pingora_core::Result;", 1, "pingora_core"),
        ("use ::kube::Client;", 1, "kube"),
        ("fn f() { assert!(matches!(x, crate::live::Live)); }", 1, "live"),
        ("mod inner { use super::super::super::tls::Tls; }", 1, "tls"),
        ("mod inner { pub(super) fn f(_: super::super::super::tls::Tls) {} }", 1, "tls"),
    ] {
        let faults = faults("src/routing/path.rs", text);
        let [fault] = &*faults else { panic!("{text}: {faults:?}") };
        assert!(fault.starts_with(&format!("src/routing/path.rs:{line}: `routing` ")), "{text}: {fault}");
        assert!(fault.contains(&format!("`{what}`")), "{text}: {fault}");
    }
}

#[test]
fn an_allowed_import_is_no_fault() {
    for text in [
        "use crate::filter::Filters;",
        "use super::rank::Rank;",
        "use super::super::host::HostIndex;",
        "use self::inner::Thing;\nmod inner { pub struct Thing; }",
        "use std::collections::HashMap;\nuse regex::bytes::Regex;",
        "#[cfg(test)]\nmod tests { use super::*; use pingora::Result; }",
        "fn f(pingora: u32, kube: u32) -> u32 { pingora + kube }",
        "/// Unlike crate::proxy::Gateway and pingora::Result.\nstruct Documented;",
    ] {
        assert_eq!(faults("src/routing/path.rs", text), <[String; 0]>::default(), "{text}");
    }
}

#[test]
fn our_own_modules_are_guarded_in_tests_too_and_unknown_modules_everywhere() {
    let in_test = faults("src/routing/path.rs", "#[cfg(test)]\nmod tests { use crate::proxy::Gateway; }");
    assert!(in_test.len() == 1 && in_test[0].contains("src/routing/path.rs:2:"), "{in_test:?}");
    let unknown = faults("src/surprise.rs", "");
    assert!(
        unknown.len() == 1 && unknown[0].contains("`surprise` is not in the import table"),
        "{unknown:?}"
    );
}

#[test]
fn names_are_told_apart_by_whole_words() {
    assert_eq!(words("HttpDataPath"), ["http", "data", "path"]);
    assert_eq!(words("process_new"), ["process", "new"]);
    assert_eq!(words("Database"), ["database"]);
}
