//! Our own dashboard, as Grafana reads it.

use serde_json::Value;

const DASHBOARD: &str = include_str!("../../deploy/grafana/trigate.json");

/// A query with every variable filled in, as Grafana does when all is chosen.
pub fn filled_in(query: &str) -> String {
    let range = query.replace("$__rate_interval", "10s");
    let mut text = String::new();
    let mut rest = range.as_str();
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        text.push_str(".*");
        rest = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').expect("a closed brace").1,
            None => after.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || letter == '_'),
        };
    }
    text.push_str(rest);
    text
}

/// The title of every panel, with each of its queries.
pub fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter().flat_map(|panel| {
        let title = panel["title"].as_str().expect("a title").to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets
            .into_iter()
            .map(move |target| (title.clone(), filled_in(target["expr"].as_str().expect("a query"))))
    });
    panels.collect()
}

/// The first query of a panel.
pub fn query(title: &str) -> String {
    panels().into_iter().find(|(panel, _)| panel == title).unwrap_or_else(|| panic!("no panel {title}")).1
}

#[test]
fn variables_are_filled_in() {
    let query = r#"rate(a{b=~"$c",d=~".+/${e}/x"}[$__rate_interval])"#;
    assert_eq!(filled_in(query), r#"rate(a{b=~".*",d=~".+/.*/x"}[10s])"#);
}

/// Whoever imports the dashboard chooses the data source, and no panel shares its number or place with another.
#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let mut ids = std::collections::BTreeSet::new();
    let mut places = std::collections::BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].to_string()), "{panel}");
        assert!(
            places.insert((panel["gridPos"]["y"].to_string(), panel["gridPos"]["x"].to_string())),
            "{panel}"
        );
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        }
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["datasource", "gateway", "route"]);
}
