//! The README's table of features: each test that it names must be one.

use std::fs;
use std::path::{Path, PathBuf};

/// The file that holds the tests of a module: of a test binary, or of the crate itself.
fn file(root: &Path, modules: &[&str]) -> Option<PathBuf> {
    let below = modules.join("/");
    ["tests", "src"]
        .into_iter()
        .flat_map(|folder| [format!("{folder}/{below}.rs"), format!("{folder}/{below}/main.rs")])
        .map(|path| root.join(path))
        .find(|path| path.exists())
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("there is a README");
    let rows = readme.lines().filter(|line| line.starts_with("| "));
    let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(|code| code.contains("::"));
    let mut count = 0;
    for name in names {
        count += 1;
        let parts: Vec<&str> = name.split("::").collect();
        let (test, modules) = parts.split_last().expect("a name has parts");
        let path = file(root, modules).unwrap_or_else(|| panic!("`{name}` is in no file"));
        let text = fs::read_to_string(&path).expect("it was there");
        let is_test = |(attribute, rest): (&str, &str)| {
            let signature = rest.trim_start().trim_start_matches("async ");
            let named = signature.strip_prefix("fn ").is_some_and(|rest| rest.starts_with(test));
            named && attribute.trim_end().ends_with("test")
        };
        let found = text.split("#[").filter_map(|part| part.split_once(']')).any(is_test);
        assert!(found, "{} has no test whose name begins with `{test}`", path.display());
    }
    assert!(count >= 30, "the table names {count} tests only");
}
