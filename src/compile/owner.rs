//! Whose a listener is: a Gateway's own, or that of a ListenerSet which adds it to the Gateway.

use super::findings::{Fault, Findings, called};
use super::grants::From;
use crate::resource::{
    Entry, GATEWAY_GROUP, Gateway, Listener, ListenerSet, Metadata, ParentRef, Resource, Severity,
};

/// The object in which a listener stands. Routes, diagnostics and references know the listener by it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner<'s> {
    Gateway(&'s Entry<Gateway>),
    Set(&'s Entry<ListenerSet>),
}

impl<'s> Owner<'s> {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gateway(_) => Gateway::KIND,
            Self::Set(_) => ListenerSet::KIND,
        }
    }

    pub fn metadata(&self) -> &'s Metadata {
        match self {
            Self::Gateway(entry) => &entry.object.metadata,
            Self::Set(entry) => &entry.object.metadata,
        }
    }

    pub fn namespace(&self) -> &'s str {
        &self.metadata().namespace
    }

    pub fn listeners(&self) -> &'s [Listener] {
        match self {
            Self::Gateway(entry) => &entry.object.spec.listeners,
            Self::Set(entry) => &entry.object.spec.listeners,
        }
    }

    /// `ListenerSet media/more`.
    pub fn called(&self) -> String {
        let (namespace, name) = self.metadata().key();
        called(self.kind(), namespace, name)
    }

    /// As whom it refers to objects of other namespaces.
    pub fn refers(&self) -> From<'s> {
        From { kind: self.kind(), namespace: self.namespace() }
    }

    /// Whether a route of this namespace means it by a parent reference. A Gateway does not stand for the
    /// ListenerSets that attach to it, nor they for it (GEP-1713).
    pub fn is_meant_by(&self, parent: &ParentRef, of_route: &str) -> bool {
        let key = (parent.namespace.as_deref().unwrap_or(of_route), &*parent.name);
        (parent.group(), parent.kind()) == (GATEWAY_GROUP, self.kind()) && self.metadata().key() == key
    }

    /// Whether it is this ListenerSet.
    pub fn is_set(&self, set: &Entry<ListenerSet>) -> bool {
        matches!(self, Self::Set(entry) if std::ptr::eq(*entry, set))
    }

    pub fn note(&self, findings: &mut Findings, severity: Severity, field: impl Into<String>, fault: &Fault) {
        match (self, severity) {
            (Self::Gateway(entry), Severity::Error) => findings.error(entry, field, fault),
            (Self::Gateway(entry), Severity::Warning) => findings.warning(entry, field, fault),
            (Self::Set(entry), Severity::Error) => findings.error(entry, field, fault),
            (Self::Set(entry), Severity::Warning) => findings.warning(entry, field, fault),
        }
    }
}
