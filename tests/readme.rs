//! Tables that name tests: the features of the README, and the rules of the Gateway API in `tests/golden/README.md`.
//! Each test that they name must be one.

use std::fs;
use std::path::{Path, PathBuf};

/// How many rules of the Gateway API there are to hold.
const RULES: usize = 98;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The file that holds the tests of a module: of a test binary, or of the crate itself.
fn file(modules: &[&str]) -> Option<PathBuf> {
    let below = modules.join("/");
    ["tests", "src"]
        .into_iter()
        .flat_map(|folder| [format!("{folder}/{below}.rs"), format!("{folder}/{below}/main.rs")])
        .map(|path| root().join(path))
        .find(|path| path.exists())
}

fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with("| "))
}

/// What stands between backticks.
fn code(row: &str) -> impl Iterator<Item = &str> {
    row.split('`').skip(1).step_by(2)
}

/// Fails unless there is a test whose name begins with the last part of this one.
fn assert_is_test(name: &str) {
    let parts: Vec<&str> = name.split("::").collect();
    let (test, modules) = parts.split_last().expect("a name has parts");
    let path = file(modules).unwrap_or_else(|| panic!("`{name}` is in no file"));
    let text = fs::read_to_string(&path).expect("it was there");
    let is_test = |(attribute, rest): (&str, &str)| {
        let signature = rest.trim_start().trim_start_matches("async ");
        let named = signature.strip_prefix("fn ").is_some_and(|rest| rest.starts_with(test));
        named && attribute.trim_end().contains("test")
    };
    let found = text.split("#[").filter_map(|part| part.split_once(']')).any(is_test);
    assert!(found, "{} has no test whose name begins with `{test}`", path.display());
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let names: Vec<&str> = rows(&readme).flat_map(code).filter(|code| code.contains("::")).collect();
    names.iter().for_each(|name| assert_is_test(name));
    assert!(names.len() >= 30, "the table names {} tests only", names.len());
}

#[test]
fn every_rule_of_the_gateway_api_has_a_case_that_exists() {
    let table = fs::read_to_string(root().join("tests/golden/README.md")).expect("there is a table");
    let mut rules = Vec::new();
    for row in rows(&table) {
        let Ok(number) = row.split('|').nth(1).unwrap_or_default().trim().parse::<usize>() else { continue };
        let cases: Vec<&str> = code(row).collect();
        assert!(!cases.is_empty(), "rule {number} has no case");
        for case in cases {
            match case.strip_prefix("golden/") {
                Some(pair) => {
                    let input = root().join(format!("tests/golden/{pair}.in.yaml"));
                    assert!(input.exists(), "rule {number}: there is no {}", input.display());
                }
                None => assert_is_test(case),
            }
        }
        rules.push(number);
    }
    assert_eq!(rules, (1..=RULES).collect::<Vec<_>>(), "one row for each rule, in their order");
}
