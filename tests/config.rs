//! proxy.toml: the shipped file is the truth about its defaults, and mistakes are told with their place.

use std::path::Path;
use trigate::config::{Config, ConfigError, Fault, ProxyProtocol};

const SHIPPED: &str = include_str!("../proxy.toml");

const SMALLEST: &str =
    "[source.files]\npaths = [\"x\"]\n[gateways.external]\nobject = \"network/external\"\n";

fn parse(text: &str) -> Config {
    let mut config = Config::parse(Path::new("proxy.toml"), text).unwrap_or_else(|error| panic!("{error}"));
    config.written = Default::default();
    config
}

/// The faults of a text that is not right.
fn faults(text: &str) -> Vec<Fault> {
    match Config::parse(Path::new("proxy.toml"), text) {
        Err(ConfigError::Faulty(faults)) => faults,
        other => panic!("expected faults, found {other:?}"),
    }
}

/// The one fault of the smallest file with these lines after it.
fn fault(more: &str) -> Fault {
    let mut faults = faults(&format!("{SMALLEST}{more}"));
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.remove(0)
}

#[test]
fn the_shipped_file_is_read_and_its_paths_are_there() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml");
    let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.gateways.keys().collect::<Vec<_>>(), ["external", "internal", "tailscale"]);
    assert_eq!(config.gateways["external"].bound_port(443), 10443);
    assert_eq!(config.source.files.paths, [file.with_file_name("deploy/example")]);
}

#[test]
fn every_key_of_the_shipped_file_has_its_default() {
    let (mut checked, whole) = (0, parse(SHIPPED));
    let mut section = "";
    for (index, line) in SHIPPED.lines().enumerate() {
        if line.starts_with('[') {
            section = line.split_whitespace().next().unwrap_or("");
        }
        let required = line.starts_with("object") || line.starts_with("ports");
        if !line.contains(" = ") || line.starts_with('#') || line.contains("# example") || required {
            continue;
        }
        let without: Vec<&str> =
            SHIPPED.lines().enumerate().filter(|(at, _)| *at != index).map(|(_, line)| line).collect();
        assert_eq!(parse(&without.join("\n")), whole, "{section} {line}");
        checked += 1;
    }
    assert!(checked > 30, "only {checked} keys were found");
}

#[test]
fn every_key_of_the_schema_is_in_the_shipped_file() {
    fn keys(schema: &serde_json::Value, found: &mut Vec<String>) {
        if let Some(properties) = schema["properties"].as_object() {
            found.extend(properties.keys().cloned());
        }
        schema.as_object().into_iter().flatten().for_each(|(_, inner)| keys(inner, found));
    }
    let mut found = Vec::new();
    keys(&serde_json::to_value(Config::schema()).expect("a schema is JSON"), &mut found);
    assert!(found.len() > 40, "{found:?}");
    for key in found {
        let opened = SHIPPED.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{key} = "))
                || line.starts_with(&format!("[{key}"))
                || line.starts_with('[')
                    && line.split(']').next().is_some_and(|name| {
                        name.ends_with(&format!(".{key}")) || name.contains(&format!(".{key}."))
                    })
        });
        assert!(opened, "{key} is not in proxy.toml");
    }
}

#[test]
fn the_part_for_a_cluster_is_read_when_it_is_uncommented() {
    let part = SHIPPED.lines().skip_while(|line| *line != "# [source.kubernetes]");
    let part: Vec<&str> = part.take_while(|line| !line.is_empty()).map(|line| &line[2..]).collect();
    // Its last table is about one of the gateways below it.
    let gateway = "\n[gateways.tailscale]\nobject = \"network/tailscale\"";
    let kubernetes = parse(&(part.join("\n") + gateway)).source.kubernetes.expect("it is there");
    assert_eq!(kubernetes.service("tailscale").load_balancer_class.as_deref(), Some("tailscale"));
    let defaults: Vec<&str> =
        part.into_iter().filter(|line| !line.contains("example") && !line.contains("services.")).collect();
    let defaults = defaults.join("\n").replace("load_balancer_class = \"tailscale\"", "");
    let shortest = parse("[source.kubernetes]").source.kubernetes.expect("it is there");
    let written = parse(&defaults).source.kubernetes.expect("it is there");
    assert_eq!(written.controller_name, shortest.controller_name);
    assert_eq!((written.lease, written.write), (shortest.lease, shortest.write));
    assert_eq!(written.service.place(), shortest.service.place());
}

#[test]
fn the_smallest_file_needs_a_source_and_a_gateway() {
    let config = parse(SMALLEST);
    let gateway = &config.gateways["external"];
    assert_eq!(gateway.object.to_string(), "network/external");
    assert_eq!(gateway.proxy_protocol, ProxyProtocol::Off);
    assert_eq!(
        [80, 443, 1023, 1024, 8443].map(|port| gateway.bound_port(port)),
        [10080, 10443, 11023, 1024, 8443]
    );
    assert_eq!(
        gateway.addresses(80).iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["0.0.0.0:10080", "[::]:10080"]
    );
}

#[test]
fn a_fault_shows_file_line_column_snippet_and_hint() {
    let fault = fault("bnd = [\"127.0.0.1\"]\n");
    assert_eq!(
        fault.to_string(),
        "proxy.toml:5:1: unknown key `bnd`\n  |\n5 | bnd = [\"127.0.0.1\"]\n  | ^^^\n  = hint: did you mean `bind`?"
    );
}

#[test]
fn mistakes_are_told_at_their_place_with_what_to_do() {
    for (more, line, column, message, hint) in [
        ("[drian]\ngrace = \"5s\"\n", 5, 2, "unknown key `drian`", "did you mean `drain`?"),
        ("[drain]\ngrace = 5\n", 6, 9, "integer `5`, expected a duration", ""),
        ("[drain]\ngrace = \"5 sec\"\n", 6, 9, "string \"5 sec\", expected a duration", ""),
        ("[limits]\nhead_bytes = \"64kb\"\n", 6, 14, "expected a size", ""),
        ("[limits]\nhttp2_streams = \"100\"\n", 6, 17, "expected u32", "without quotes"),
        ("[limits]\nhttp2_streams = 0\n", 6, 17, "too small", "the least is 1"),
        ("[limits]\nhttp2_stream_window = \"1KiB\"\n", 6, 23, "too small", "64KiB"),
        ("[limits]\nhead_timeout = \"0s\"\n", 6, 16, "cannot be 0", "choose a long one"),
        ("bind = [\"0.0.0.0\", \"localhost\"]\n", 5, 20, "expected an IP address", ""),
        ("trusted_proxies = [\"10.0.0.0/40\"]\n", 5, 20, "expected a network", ""),
        ("proxy_protocol = \"v2\"\n", 5, 18, "unknown variant `v2`", "off, optional, required"),
        ("proxy_protocol = \"optional\"\n", 5, 18, "nobody's PROXY header is believed", "trusted_proxies"),
        ("trusted_hops = 1\ntrusted_proxies = [\"10.0.0.1\"]\n", 5, 16, "two answers", "keep one"),
        ("ports = { http = 10080 }\n", 5, 9, "`http` is no port", ""),
        ("ports = { 80 = 70000 }\n", 5, 16, "70000", ""),
        ("ports = { 80 = 10080, 8080 = 10080 }\n", 5, 30, "both bound as 10080", "its own port"),
        ("bind = []\n", 5, 8, "binds no address", "0.0.0.0"),
        ("[admin]\naddress = \"0.0.0.0:19000\"\n", 6, 11, "reachable from outside", "say so twice"),
        ("[drain]\ngrace = \"2m\"\n", 6, 9, "longer than the timeout", "part of the timeout"),
        ("[stats]\naddress = \"0.0.0.0:19003\"\n", 6, 11, "both bind 0.0.0.0:19003", "another port"),
        ("[echo]\nenabled = true\naddress = \"127.0.0.1:19001\"\n", 7, 11, "[stats] and [echo]", ""),
        ("[gateways.Public]\nobject = \"a/b\"\n", 5, 11, "`Public` is no name", "lower-case"),
        ("[gateways.other]\nobject = \"other\"\n", 6, 10, "namespace/name", ""),
        ("[gateways.other]\nobject = \"network/external\"\n", 6, 10, "both serve network/external", ""),
        ("[gateways.other]\n", 5, 1, "the key `object` is missing", ""),
        (
            "[certificates.x]\nsecret = \"a/b\"\nchain = \"\"\nkey = \"k\"\n",
            7,
            9,
            "a path that is not empty",
            "",
        ),
        ("what is this\n", 5, 6, "", ""),
    ] {
        let fault = fault(more);
        assert_eq!((fault.line, fault.column), (line, column), "{more}{fault}");
        assert!(fault.message.contains(message), "{more}{fault}");
        assert!(fault.hint.clone().unwrap_or_default().contains(hint), "{more}{fault}");
    }
}

#[test]
fn two_gateways_on_one_socket_are_refused_whether_mapped_wild_or_implied() {
    let external = "ports = { 80 = 8080 }\n[gateways.internal]\nobject = \"network/internal\"\n";
    for (internal, clash) in [
        ("ports = { 80 = 8080 }\n", true),
        ("ports = { 8443 = 8080 }\n", true),
        ("bind = [\"127.0.0.1\"]\nports = { 80 = 8080 }\n", true),
        ("bind = [\"::1\"]\nports = { 80 = 8080 }\n", true),
        ("bind = [\"::ffff:127.0.0.1\"]\nports = { 80 = 8080 }\n", true),
        ("ports = { 80 = 8081 }\n", false),
        ("ports = { 80 = 19001 }\n", true),
        ("bind = [\"10.0.0.1\"]\nports = { 80 = 19000 }\n", false),
    ] {
        let text = format!("{SMALLEST}{external}{internal}");
        if clash {
            let found = faults(&text);
            assert_eq!(found.len(), 1, "{internal}: {found:#?}");
            assert!(found[0].message.contains("gateway internal (listener port"), "{}", found[0]);
        } else {
            parse(&text);
        }
    }
    let implied = format!("{SMALLEST}[gateways.internal]\nobject = \"network/internal\"\n");
    let config = Config::parse(Path::new("proxy.toml"), &implied).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.shared_sockets(&[("external", 80), ("internal", 443)]), []);
    assert_eq!(config.shared_sockets(&[("external", 80), ("internal", 80)]).len(), 1);
}

#[test]
fn several_mistakes_are_told_at_once() {
    let text = format!("{SMALLEST}bind = []\n[admin]\naddress = \"0.0.0.0:1\"\n[drain]\ngrace = \"2m\"\n");
    assert_eq!(faults(&text).len(), 3);
}

#[test]
fn a_file_that_is_not_there_and_a_folder_that_is_not_there_say_so() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("proxy.toml");
    let message = Config::load(&file).expect_err("there is no file").to_string();
    assert!(message.contains("proxy.toml") && message.contains("--config FILE"), "{message}");
    std::fs::write(&file, SMALLEST).expect("the folder is ours");
    let message = Config::load(&file).expect_err("there is no folder x").to_string();
    assert!(message.contains(":2:9: cannot read") && message.contains("relative to the folder"), "{message}");
    std::fs::create_dir(folder.path().join("x")).expect("the folder is ours");
    assert!(Config::load(&file).is_ok());
}

#[test]
fn the_schema_describes_text_as_text() {
    let schema = serde_json::to_string(&Config::schema()).expect("a schema is JSON");
    assert!(schema.contains("^[0-9]+(ms|s|m|h)$"), "{schema}");
    assert!(schema.contains("\"additionalProperties\":false"), "{schema}");
    assert!(schema.contains("\"default\":\"60KiB\"") && schema.contains("\"default\":\"1h\""), "{schema}");
    assert!(schema.contains("\"default\":\"0s\"") && !schema.contains("nanos"), "{schema}");
}

/// The commented lines from one that begins like this to the next line of dashes, as if they were uncommented.
fn commented(start: &str) -> String {
    let lines = SHIPPED.lines().skip_while(|line| !line.starts_with(start)).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("# ----"));
    lines.map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or_default())).collect()
}

#[test]
fn the_commented_table_for_orders_is_read_and_its_keys_have_their_defaults() {
    let block = commented("# ---- Certificates that trigate orders");
    let whole = parse(&format!("{SMALLEST}{block}")).acme.expect("it is there");
    assert_eq!((whole.dns.len(), whole.certificates.len(), whole.challenges.len()), (2, 1, 1));
    let mut checked = 0;
    for line in block.lines() {
        let example = line.contains("# example") || line.starts_with('#') || !line.contains(" = ");
        let required = ["key", "server", "secret", "names", "token_file", "\""];
        if example || required.iter().any(|key| line.starts_with(key)) && !line.starts_with("servers") {
            continue;
        }
        let without = block.lines().filter(|other| *other != line).collect::<Vec<_>>().join("\n");
        assert_eq!(parse(&format!("{SMALLEST}{without}")).acme.as_ref(), Some(&whole), "{line}");
        checked += 1;
    }
    assert!(checked >= 14, "only {checked} keys were found");
}

#[test]
fn what_cannot_be_ordered_is_a_fault_of_the_file() {
    for (lines, word) in [
        ("directory = \"http://ca.test/\"", "https"),
        ("renew_at_percent = 100", "in time"),
        ("gateways = [\"extrenal\"]", "extrenal"),
        ("challenge = \"dns-01\"", "somebody who publishes"),
        ("challenge = \"dns-02\"", "is no challenge"),
        ("challenges = { \"a.test\" = \"dns-01/x\" }", "[acme.dns.x]"),
        ("certificates.a = { secret = \"n/a\", names = [] }", "needs a name"),
        ("dns.a.cloudflare = {}", "from a file or from a Secret"),
    ] {
        let fault = fault(&format!("[acme]\n{lines}\n"));
        assert!(fault.message.contains(word), "{lines}: {fault:?}");
    }
}
