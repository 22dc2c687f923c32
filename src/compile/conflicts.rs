//! Which listeners of a Gateway cannot be served beside each other.
//!
//! A port's listeners must be distinct by protocol and host name. Of one object all that are in conflict lose;
//! between objects the Gateway goes first, then its ListenerSets, the oldest first (GEP-1713).

use super::findings::Fault;
use super::gateways::{Family, family};
use super::owner::Owner;
use crate::resource::Listener;
use std::collections::BTreeMap;

/// The places that the listeners of one Gateway have so far, for those who come later.
///
/// A listener that lost against an earlier object has none. One that lost against another of its own object keeps
/// its place, so that a mistake there gives its host name to nobody else.
#[derive(Default)]
pub(super) struct Conflicts<'s> {
    ports: BTreeMap<Port, BTreeMap<Family, BTreeMap<String, Owner<'s>>>>,
}

/// A port, and whether it is UDP's: UDP has ports of its own.
type Port = (u16, bool);

impl<'s> Conflicts<'s> {
    /// For each listener of the next object what it is in conflict with.
    pub fn next(&mut self, owner: Owner<'s>) -> Vec<Option<Fault>> {
        let listeners = owner.listeners();
        let lost: Vec<Option<Fault>> =
            listeners.iter().map(|listener| self.with_earlier(owner, listener)).collect();
        let left: Vec<&Listener> =
            listeners.iter().zip(&lost).filter(|(_, fault)| fault.is_none()).map(|(one, _)| one).collect();
        let faults = listeners.iter().zip(lost).map(|(one, lost)| lost.or_else(|| among(&left, one)));
        let faults = faults.collect();
        for listener in left {
            if let Some(family) = family(&listener.protocol) {
                let port = self.ports.entry(port(listener, family)).or_default();
                port.entry(family).or_default().entry(host(listener, family)).or_insert(owner);
            }
        }
        faults
    }

    fn with_earlier(&self, owner: Owner<'_>, listener: &Listener) -> Option<Fault> {
        let family = family(&listener.protocol)?;
        let families = self.ports.get(&port(listener, family))?;
        let who = |other: &Owner<'_>| match other {
            Owner::Set(_) if other.namespace() != owner.namespace() => {
                // The names of other people's objects are not ours to tell.
                "a ListenerSet of another namespace".to_owned()
            }
            _ => other.called(),
        };
        let other = families.iter().find(|(other, _)| **other != family);
        if let Some(first) = other.and_then(|(_, hosts)| hosts.values().next()) {
            let message = format!(
                "port {} speaks another protocol for {}, which goes first and which {} cannot share a port with",
                listener.port,
                who(first),
                listener.protocol
            );
            return Some(Fault::new("ProtocolConflict", message));
        }
        let first = families.get(&family)?.get(&host(listener, family))?;
        let message = format!(
            "{} has a listener with the same host name on port {} and goes first",
            who(first),
            listener.port
        );
        Some(Fault::new("HostnameConflict", message))
    }
}

/// The conflict of a listener with another one of the same object.
fn among(listeners: &[&Listener], one: &Listener) -> Option<Fault> {
    let family_of_one = family(&one.protocol)?;
    listeners.iter().filter(|other| !std::ptr::eq(**other, one)).find_map(|other| {
        let family_of_other = family(&other.protocol)?;
        if port(one, family_of_one) != port(other, family_of_other) || one.name == other.name {
            return None;
        }
        let with = format!("listener `{}` of the same port {}", other.name, other.port);
        if family_of_one != family_of_other {
            let message =
                format!("{with} speaks {}, which {} cannot share a port with", other.protocol, one.protocol);
            return Some(Fault::new("ProtocolConflict", message));
        }
        if matches!(family_of_one, Family::Tcp | Family::Udp) {
            let message = format!("{with} is for {}, too, and neither is served", other.protocol);
            return Some(Fault::new("HostnameConflict", message));
        }
        (host(one, family_of_one) == host(other, family_of_other)).then(|| {
            let message =
                format!("{with} has the same host name, and neither is served; give them different ones");
            Fault::new("HostnameConflict", message)
        })
    })
}

fn port(listener: &Listener, family: Family) -> Port {
    (listener.port, family == Family::Udp)
}

/// The name by which a listener is told from others of its port; connections without TLS have none.
fn host(listener: &Listener, family: Family) -> String {
    match family {
        Family::Tcp | Family::Udp => String::new(),
        Family::ClearText | Family::Tls => {
            listener.hostname.as_deref().unwrap_or_default().to_ascii_lowercase()
        }
    }
}
