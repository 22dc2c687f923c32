//! Statuses in the form in which the API server takes them.

use crate::compile::Verdict;
use crate::resource::ParentRef;
use serde::Serialize;

/// One condition, without its `lastTransitionTime`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    pub r#type: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
    /// `metadata.generation` of the object that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// `status` of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    pub conditions: Vec<Condition>,
    /// One for each listener of the spec.
    pub listeners: Vec<ListenerStatus>,
    /// How many ListenerSets are accepted. It is written when it is 0, too, to replace another number.
    pub attached_listener_sets: u32,
}

/// `status` of a ListenerSet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerSetStatus {
    pub conditions: Vec<Condition>,
    /// One for each listener of the spec; none while the set may not attach.
    pub listeners: Vec<ListenerStatus>,
}

/// `status.listeners[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    pub name: String,
    pub supported_kinds: Vec<RouteKindStatus>,
    pub attached_routes: u32,
    pub conditions: Vec<Condition>,
}

/// `supportedKinds[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteKindStatus {
    pub group: &'static str,
    pub kind: &'static str,
}

/// `status` of a route, as far as it is ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteStatus {
    pub parents: Vec<ParentStatus>,
}

/// `status.parents[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    pub parent_ref: ParentRef,
    pub controller_name: String,
    pub conditions: Vec<Condition>,
}

/// `status` of a policy, as far as it is ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    pub ancestors: Vec<AncestorStatus>,
}

/// `status.ancestors[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    pub ancestor_ref: ParentRef,
    /// `None` where the kind has no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_name: Option<String>,
    pub conditions: Vec<Condition>,
}

/// The API takes no longer messages, in characters.
const LONGEST_MESSAGE: usize = 32_768;

/// As much of a text as fits into so many bytes.
pub(super) fn cut(text: &str, longest: usize) -> String {
    const MORE: &str = "…";
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(longest.saturating_sub(MORE.len()));
    format!("{}{MORE}", &text[..end])
}

/// Conditions of these verdicts, all of one generation.
pub(super) fn conditions<'v>(
    generation: Option<i64>,
    verdicts: impl IntoIterator<Item = (&'static str, &'v Verdict)>,
) -> Vec<Condition> {
    let condition = |(name, verdict): (&'static str, &Verdict)| {
        let Verdict { holds, reason, message } = verdict;
        Condition {
            r#type: name,
            status: if *holds { "True" } else { "False" },
            reason,
            message: cut(message, LONGEST_MESSAGE),
            observed_generation: generation,
        }
    };
    verdicts.into_iter().map(condition).collect()
}
