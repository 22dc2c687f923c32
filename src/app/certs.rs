//! `trigate certs`: development certificates, and a list of those that there are.

use crate::config::Config;
use crate::source::Files;
use crate::tls::{CertificateError, Leaf, date, dev};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const DAY: i64 = 24 * 3600;
/// How deep `certs/` is looked through.
const DEPTH: usize = 3;
/// What is larger is no certificate.
const MAX_FILE: u64 = 1 << 20;

/// Writes an authority and a leaf for each name into a folder, and says what to do with them.
///
/// # Errors
/// A name that no certificate can have, or a folder that cannot be written.
pub fn certs_dev(folder: &Path, names: &[String]) -> anyhow::Result<ExitCode> {
    let chains = dev::write_leaves(folder, names)?;
    for (name, chain) in names.iter().zip(chains) {
        println!("{name}: {} and {}", chain.display(), chain.with_extension("key").display());
    }
    println!("clients trust them with {}: curl --cacert FILE", folder.join("ca.crt").display());
    Ok(ExitCode::SUCCESS)
}

/// Prints every certificate that the configuration names, those among its manifests, and those in the folder
/// `certs` beside it: where, for whom, by whom, until when. The first to expire stands first.
///
/// # Errors
/// The configuration cannot be used.
pub fn certs_list(file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(file)?;
    let certs = file.parent().unwrap_or(Path::new("")).join("certs");
    let mut found: BTreeMap<String, Result<Leaf, String>> = BTreeMap::new();
    let mut paths = Vec::new();
    certificates_in(&certs, DEPTH, &mut paths);
    paths.extend(config.certificates.values().map(|files| files.chain.clone()));
    for path in paths {
        found.insert(path.display().to_string(), read(&path));
    }
    for entry in Files::new(config.source.files.paths).read().secrets.iter() {
        let metadata = &entry.object.metadata;
        let Some(chain) = entry.object.get("tls.crt") else { continue };
        let leaf = Leaf::from_pem(chain.reveal()).map_err(|error| error.to_string());
        found.insert(format!("Secret {}/{}", metadata.namespace, metadata.name), leaf);
    }
    print!("{}", table(found, jiff::Timestamp::now().as_second()));
    Ok(ExitCode::SUCCESS)
}

/// Files that are named like certificates.
fn certificates_in(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let named =
            path.extension().is_some_and(|end| ["crt", "pem", "cer"].iter().any(|known| end == *known));
        if path.is_dir() && depth > 1 {
            certificates_in(&path, depth - 1, found);
        } else if named && path.is_file() {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> Result<Leaf, String> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > MAX_FILE) {
        return Err("it is too large for a certificate".to_owned());
    }
    let chain = fs::read(path).map_err(|error| error.to_string())?;
    Leaf::from_pem(&chain).map_err(|error| match error {
        CertificateError::EmptyChain => "it holds no certificate".to_owned(),
        error => error.to_string(),
    })
}

fn table(found: BTreeMap<String, Result<Leaf, String>>, now: i64) -> String {
    let mut rows = Vec::new();
    let mut unreadable = String::new();
    for (place, leaf) in found {
        match leaf {
            Ok(leaf) => rows.push((leaf.validity.1, row(place, &leaf, now))),
            Err(error) => unreadable.push_str(&format!("{place}: {error}\n")),
        }
    }
    rows.sort();
    let head = ["CERTIFICATE", "NAMES", "ISSUER", "EXPIRES", ""].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(rows.into_iter().map(|(_, row)| row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    if rows.len() == 1 { unreadable } else { rows.iter().map(line).collect::<String>() + &unreadable }
}

fn row(place: String, leaf: &Leaf, now: i64) -> [String; 5] {
    let Leaf { subject, dns_names, issuer, validity: (from, until), serial: _ } = leaf;
    let names = if dns_names.is_empty() { subject.clone() } else { dns_names.join(", ") };
    let issuer = if issuer == subject { "itself".to_owned() } else { issuer.clone() };
    let left = match (until - now) / DAY {
        _ if now < *from => format!("not valid before {}", date(*from)),
        days if now > *until => format!("expired {} days ago", -days),
        days => format!("{days} days left"),
    };
    [place, names, issuer, date(*until), left]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(names: &[&str], issuer: &str, validity: (i64, i64)) -> Leaf {
        Leaf {
            subject: "CN=own".to_owned(),
            dns_names: names.iter().map(|&name| name.to_owned()).collect(),
            issuer: issuer.to_owned(),
            validity,
            serial: "01".to_owned(),
        }
    }

    #[test]
    fn the_first_to_expire_stands_first_and_what_cannot_be_read_last() {
        let found = [
            ("certs/late.crt", Ok(leaf(&["a.test", "*.a.test"], "CN=R11", (0, 100 * DAY)))),
            ("certs/late.pem", Err("it holds no certificate".to_owned())),
            ("Secret network/old", Ok(leaf(&[], "CN=own", (0, 8 * DAY)))),
            ("certs/new.crt", Ok(leaf(&["new.test"], "CN=R11", (11 * DAY, 200 * DAY)))),
        ];
        let found = found.map(|(place, leaf)| (place.to_owned(), leaf)).into();
        let want = "\
CERTIFICATE         NAMES             ISSUER  EXPIRES
Secret network/old  CN=own            itself  1970-01-09T00:00:00Z  expired 2 days ago
certs/late.crt      a.test, *.a.test  CN=R11  1970-04-11T00:00:00Z  90 days left
certs/new.crt       new.test          CN=R11  1970-07-20T00:00:00Z  not valid before 1970-01-12T00:00:00Z
certs/late.pem: it holds no certificate
";
        assert_eq!(table(found, 10 * DAY), want);
    }
}
