//! `[acme]`: certificates that the gateway orders, keeps and renews itself.

use super::units;
use super::{ObjectName, one_hour};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Let's Encrypt's directory.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Where certificates come from, for which names, and how it is proved that they are ours.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// The directory of the certificate authority (RFC 8555 7.1.1). To use one accepts its terms of service.
    pub directory: String,
    /// PEM certificates that are trusted when the directory is asked, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Whom the authority tells of trouble: mail addresses or URLs.
    pub contact: Vec<String>,
    /// Binds the account to one that the operator has with the authority (RFC 8555 7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// Keys and certificates, readable by their owner only. Replicas may share it: one orders, all serve.
    pub folder: Option<PathBuf>,
    /// The `[gateways.*]` whose HTTPS listeners get certificates for their hostnames.
    pub gateways: Vec<String>,
    /// How it is proved that a name is ours, where `challenges` says nothing of it.
    pub challenge: Proof,
    /// The same for single names; `*.example.com` is for all names below it, and for itself.
    pub challenges: BTreeMap<String, Proof>,
    /// The authority's certificate profile; its default where absent.
    pub profile: Option<String>,
    /// Whether the authority is asked when to renew (RFC 9773).
    pub ari: bool,
    /// Otherwise: after so many percent of a certificate's lifetime.
    pub renew_at_percent: u8,
    /// The pause after a failed order; it doubles with each further one.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub retry: Duration,
    /// The longest such pause.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub retry_longest: Duration,
    /// Where tailscaled listens, which has the certificates of `*.ts.net` names.
    pub tailscale_socket: PathBuf,
    /// Certificates for names that no listener has.
    pub certificates: BTreeMap<String, AcmeCertificate>,
    /// Who publishes the records of DNS-01, by a name of the user's choice.
    pub dns: BTreeMap<String, DnsProvider>,
    pub propagation: DnsPropagation,
}

/// The account that the operator has with the authority.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    pub key_id: String,
    /// A file with the MAC key as the authority shows it, base64url.
    #[serde(deserialize_with = "units::path")]
    pub key_file: PathBuf,
}

/// How it is proved that a name is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum Proof {
    /// By a file that the authority fetches on port 80.
    #[default]
    Http,
    /// By a handshake on port 443 (RFC 8737).
    TlsAlpn,
    /// By a TXT record that this one of `[acme.dns.*]` publishes.
    Dns(Option<String>),
    /// By tailscaled, which has the certificate.
    Tailscale,
}

impl TryFrom<String> for Proof {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "http-01" => Ok(Self::Http),
            "tls-alpn-01" => Ok(Self::TlsAlpn),
            "tailscale" => Ok(Self::Tailscale),
            "dns-01" => Ok(Self::Dns(None)),
            text => match text.strip_prefix("dns-01/") {
                Some(provider) if !provider.is_empty() => Ok(Self::Dns(Some(provider.to_owned()))),
                _ => Err(format!(
                    "`{text}` is no challenge; there are \"http-01\", \"tls-alpn-01\", \"dns-01\", \"dns-01/NAME\" of [acme.dns.NAME], and \"tailscale\""
                )),
            },
        }
    }
}

/// A certificate that is ordered whatever the listeners are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeCertificate {
    /// The Secret's `namespace/name`, which a listener's `certificateRefs` name.
    #[schemars(with = "String")]
    pub secret: ObjectName,
    /// All names of the certificate.
    pub names: Vec<String>,
    #[serde(default)]
    pub challenge: Option<Proof>,
    #[serde(default)]
    pub profile: Option<String>,
}

/// Who publishes a TXT record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum DnsProvider {
    Rfc2136(Rfc2136),
    Cloudflare(Cloudflare),
}

/// A name server that takes updates (RFC 2136), signed with a shared key (TSIG, RFC 8945).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rfc2136 {
    /// The primary server of the zone, with its port.
    pub server: SocketAddr,
    /// The zone; what the server says is the zone of a name when absent.
    #[serde(default)]
    pub zone: Option<String>,
    /// The name of the key.
    pub key: String,
    /// A file with the key's secret, base64; read for each update.
    #[serde(deserialize_with = "units::path")]
    pub key_file: PathBuf,
    #[serde(default)]
    pub algorithm: TsigAlgorithm,
}

/// What signs an update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TsigAlgorithm {
    #[default]
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// A zone at Cloudflare.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cloudflare {
    /// A file with an API token that may edit the zone's DNS; read for each change.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The same from key `token` of a Secret, `namespace/name`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub token_secret: Option<ObjectName>,
    #[serde(default = "cloudflare_api")]
    pub api: String,
}

fn cloudflare_api() -> String {
    "https://api.cloudflare.com/client/v4".to_owned()
}

/// When a TXT record counts as published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DnsPropagation {
    /// How long the zone's name servers may take; then the order fails.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
    /// The servers that must have the record, in place of those that the zone names.
    pub servers: Vec<SocketAddr>,
    /// Who is asked whether `_acme-challenge` is an alias, and for the zone's servers; `servers` without it, or the
    /// system's without both.
    pub resolvers: Vec<SocketAddr>,
}

impl Default for DnsPropagation {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(120), servers: Vec::new(), resolvers: Vec::new() }
    }
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            directory: LETS_ENCRYPT.to_owned(),
            ca: None,
            contact: Vec::new(),
            external_account: None,
            folder: None,
            gateways: Vec::new(),
            challenge: Proof::default(),
            challenges: BTreeMap::new(),
            profile: None,
            ari: true,
            renew_at_percent: 67,
            retry: Duration::from_secs(60),
            retry_longest: 6 * one_hour(),
            tailscale_socket: "/var/run/tailscale/tailscaled.sock".into(),
            certificates: BTreeMap::new(),
            dns: BTreeMap::new(),
            propagation: DnsPropagation::default(),
        }
    }
}

impl Acme {
    /// All paths of the table, to make them relative to the folder of the file. Without a folder for it nothing
    /// is kept in files where objects come from a cluster.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Self { ca, external_account, folder, dns, .. } = self;
        let dns = dns.values_mut().filter_map(|provider| match provider {
            DnsProvider::Rfc2136(update) => Some(&mut update.key_file),
            DnsProvider::Cloudflare(cloudflare) => cloudflare.token_file.as_mut(),
        });
        let external = external_account.as_mut().map(|account| &mut account.key_file);
        ca.iter_mut().chain(external).chain(folder).chain(dns)
    }

    /// How it is proved that a name is ours.
    pub fn proof(&self, name: &str) -> Proof {
        let below = name.strip_prefix("*.").or_else(|| name.split_once('.').map(|(_, below)| below));
        let mut zones = std::iter::successors(below, |zone| zone.split_once('.').map(|(_, below)| below));
        let pattern = || zones.find_map(|zone| self.challenges.get(&format!("*.{zone}")));
        match self.challenges.get(name).or_else(pattern) {
            Some(proof) => proof.clone(),
            // Nobody else can prove that it is ours.
            None if name.ends_with(".ts.net") => Proof::Tailscale,
            None => self.challenge.clone(),
        }
    }

    /// The provider of a DNS-01 proof: the one that is named, or the only one.
    pub fn provider(&self, name: Option<&str>) -> Option<(&str, &DnsProvider)> {
        let found = match name {
            Some(name) => self.dns.get_key_value(name),
            None if self.dns.len() == 1 => self.dns.iter().next(),
            None => None,
        };
        found.map(|(name, provider)| (name.as_str(), provider))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_entry_of_challenges_decides() {
        let dns = |name: &str| Proof::Dns(Some(name.to_owned()));
        let acme = Acme {
            challenges: [
                ("*.example.test", dns("zone")),
                ("*.a.example.test", dns("nearer")),
                ("b.example.test", Proof::TlsAlpn),
            ]
            .map(|(name, proof)| (name.to_owned(), proof))
            .into(),
            ..Acme::default()
        };
        for (name, proof) in [
            ("*.example.test", dns("zone")),
            ("x.example.test", dns("zone")),
            ("x.y.example.test", dns("zone")),
            ("x.a.example.test", dns("nearer")),
            ("b.example.test", Proof::TlsAlpn),
            ("example.test", Proof::Http),
            ("host.tail1234.ts.net", Proof::Tailscale),
        ] {
            assert_eq!(acme.proof(name), proof, "{name}");
        }
    }
}
