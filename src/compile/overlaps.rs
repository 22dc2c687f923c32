//! Listeners whose TLS settings a client may take for one another (GEP-3567): it reuses a connection to one of them
//! for requests to the other. They are served, and such a request is answered with 421; people should know of it.

use super::gateways::Listening;
use super::report::Verdict;
use crate::host::HostPattern;

/// The condition OverlappingTLSConfig of a listener among all of its Gateway; it exists only when it is true.
pub(super) fn overlap(listening: &Listening<'_>, all: &[Listening<'_>]) -> Option<Verdict> {
    let takes_part = |one: &Listening<'_>| one.accepted.holds && one.terminates();
    if !takes_part(listening) {
        return None;
    }
    let others = all.iter().filter(|other| {
        !std::ptr::eq(*other, listening) && other.written.port == listening.written.port && takes_part(other)
    });
    let mut found = None;
    for other in others {
        let certificate = shared_name(listening, other);
        let hostname = listening.hostname.intersect(&other.hostname);
        let verdict = |reason, what: String| {
            let message = format!("it shares {what} with listener `{}` of this port", other.written.name);
            Verdict { holds: true, reason, message: message.into() }
        };
        match (certificate, hostname) {
            (Some(name), _) => {
                return Some(verdict("OverlappingCertificates", format!("certificates for {name}")));
            }
            (None, Some(name)) => {
                found.get_or_insert_with(|| verdict("OverlappingHostnames", format!("host name {name}")));
            }
            (None, None) => {}
        }
    }
    found
}

/// A name for which certificates of both listeners are valid.
fn shared_name(one: &Listening<'_>, other: &Listening<'_>) -> Option<HostPattern> {
    names(one).find_map(|name| names(other).find_map(|known| name.intersect(&known)))
}

fn names(listening: &Listening<'_>) -> impl Iterator<Item = HostPattern> {
    let names = listening.certificates.iter().flat_map(|certificate| &certificate.dns_names);
    names.filter_map(|name| HostPattern::parse(name))
}
