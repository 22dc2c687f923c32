//! What is wrong between the values of `[acme]`, and between them and the rest of the file.

use super::super::{Acme, Config, DnsProvider, Proof};
use super::{Fault, Text, fault};

/// All such mistakes.
pub(super) fn find(text: &Text<'_>, config: &Config, acme: &Acme) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !acme.directory.starts_with("https://") {
        let message = format!("`{}` is no https URL", acme.directory);
        let hint = "an authority is asked over TLS only (RFC 8555 6.1); its own CA goes into ca";
        faults.push(fault(text, &["acme", "directory"], message, hint));
    }
    if !(1..=99).contains(&acme.renew_at_percent) {
        let hint = "a percentage of the lifetime from 1 to 99; two thirds (67) leave time for trouble";
        faults.push(fault(text, &["acme", "renew_at_percent"], "it can never be renewed in time", hint));
    }
    if acme.retry.is_zero() || acme.retry > acme.retry_longest {
        let hint = "the first pause is at least 1ms and not longer than retry_longest";
        faults.push(fault(text, &["acme", "retry"], "the pauses cannot grow from here", hint));
    }
    if let Some(kubernetes) = &config.source.kubernetes {
        if acme.folder.is_some() {
            let message = "in a cluster certificates are kept in Secrets";
            faults.push(fault(text, &["acme", "folder"], message, "remove folder"));
        }
        if !kubernetes.write {
            let message = "nothing can be ordered where nothing may be written";
            let hint = "certificates are Secrets here: set write = true, or remove [acme]";
            faults.push(fault(text, &["source", "kubernetes", "write"], message, hint));
        }
    }
    for name in acme.gateways.iter().filter(|name| !config.gateways.contains_key(*name)) {
        let message = format!("there is no gateway `{name}`");
        faults.push(fault(text, &["acme", "gateways"], message, "name tables [gateways.NAME]"));
    }
    for (name, provider) in &acme.dns {
        if let DnsProvider::Cloudflare(cloudflare) = provider
            && cloudflare.token_file.is_some() == cloudflare.token_secret.is_some()
        {
            let message = "the API token comes from a file or from a Secret";
            let hint = "write one of token_file and token_secret";
            faults.push(fault(text, &["acme", "dns", name, "cloudflare"], message, hint));
        }
    }
    faults.extend(of_proof(text, acme, &["acme", "challenge"], &acme.challenge));
    for (name, proof) in &acme.challenges {
        faults.extend(of_proof(text, acme, &["acme", "challenges", name], proof));
    }
    faults.extend(of_certificates(text, config, acme));
    faults
}

fn of_certificates(text: &Text<'_>, config: &Config, acme: &Acme) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, certificate) in &acme.certificates {
        let path = ["acme", "certificates", name];
        if certificate.names.is_empty() {
            faults.push(fault(
                text,
                &path,
                "a certificate needs a name",
                "add names = [\"www.example.com\"]",
            ));
        }
        if let Some(proof) = &certificate.challenge {
            faults.extend(of_proof(text, acme, &["acme", "certificates", name, "challenge"], proof));
        }
        let files = config.certificates.iter().find(|(_, files)| files.secret == certificate.secret);
        let ordered = acme
            .certificates
            .iter()
            .find(|(other, one)| other.as_str() < name.as_str() && one.secret == certificate.secret);
        let other = files.map(|(other, _)| format!("certificates.{other}"));
        if let Some(other) = other.or_else(|| ordered.map(|(other, _)| format!("acme.certificates.{other}")))
        {
            let message = format!("[{other}] is the Secret {} already", certificate.secret);
            faults.push(fault(
                text,
                &["acme", "certificates", name, "secret"],
                message,
                "give each its own name",
            ));
        }
    }
    faults
}

fn of_proof(text: &Text<'_>, acme: &Acme, path: &[&str], proof: &Proof) -> Option<Fault> {
    let Proof::Dns(provider) = proof else { return None };
    if acme.provider(provider.as_deref()).is_some() {
        return None;
    }
    let (message, hint) = match provider {
        Some(name) => (format!("there is no [acme.dns.{name}]"), "add it, with rfc2136 or cloudflare"),
        None if acme.dns.is_empty() => (
            "DNS-01 needs somebody who publishes its records".to_owned(),
            "add [acme.dns.NAME] with rfc2136 or cloudflare",
        ),
        None => {
            ("there are several [acme.dns.*], so DNS-01 must name one".to_owned(), "write \"dns-01/NAME\"")
        }
    };
    Some(fault(text, path, message, hint))
}
