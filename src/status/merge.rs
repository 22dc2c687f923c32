//! From the status that an object has to the one that it should have: pure, so that a status is written only
//! when it says something new.

use serde_json::{Map, Value, json};

/// A list in a status in which several controllers have entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    /// `parents` of a route.
    Parents,
    /// `ancestors` of a policy.
    Ancestors,
}

impl Shared {
    fn list(self) -> &'static str {
        match self {
            Self::Parents => "parents",
            Self::Ancestors => "ancestors",
        }
    }

    /// So many entries it may have, by its schema.
    fn most(self) -> usize {
        match self {
            Self::Parents => 32,
            Self::Ancestors => 16,
        }
    }

    fn reference(self) -> &'static str {
        match self {
            Self::Parents => "parentRef",
            Self::Ancestors => "ancestorRef",
        }
    }
}

/// The types of the conditions that we write. One of them that is no longer so goes; others are of others.
const OURS: &[&str] = &[
    "Accepted",
    "Programmed",
    "ResolvedRefs",
    "Conflicted",
    "OverlappingTLSConfig",
    "InsecureFrontendValidationMode",
    "SupportedVersion",
];

/// So many conditions an object or listener may have, by the schema of the Gateway API.
const MOST_CONDITIONS: usize = 8;

/// What to change in a status in which all is ours but conditions of other types, as a merge patch; `None` when it
/// already says this.
pub(super) fn whole(current: &Value, mut desired: Value, now: &str) -> Option<Value> {
    stamp(&mut desired, current, now);
    keep_foreign(&mut desired, current);
    let before = array(current, "listeners");
    for entry in desired.get_mut("listeners").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = before.iter().find(|other| other["name"] == entry["name"]).unwrap_or(&Value::Null);
        stamp(entry, same, now);
        keep_foreign(entry, same);
    }
    let Value::Object(mut patch) = desired else { return None };
    patch.retain(|field, value| current.get(field) != Some(value));
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Adds the conditions of others, who may have written theirs beside ours (GEP-1364). A list is sent as a whole, in
/// the order that it has, so that nobody who sorts it has us write again.
fn keep_foreign(desired: &mut Value, current: &Value) {
    let before = array(current, "conditions");
    let Some(conditions) = desired.get_mut("conditions").and_then(Value::as_array_mut) else { return };
    let written: Vec<String> =
        conditions.iter().filter_map(|one| one["type"].as_str()).map(str::to_owned).collect();
    // A type stands in a list once, or the API server refuses all of it.
    let is_foreign = |condition: &&Value| {
        let kind = condition["type"].as_str();
        kind.is_some_and(|kind| !OURS.contains(&kind) && !written.iter().any(|one| one == kind))
    };
    let room = MOST_CONDITIONS.saturating_sub(conditions.len());
    conditions.extend(before.iter().filter(is_foreign).take(room).cloned());
    let place = |condition: &Value| before.iter().position(|other| other["type"] == condition["type"]);
    conditions.sort_by_key(|condition| place(condition).unwrap_or(usize::MAX));
}

/// What to change in a status in which only some entries of a list are ours; `None` when they already are so.
pub(super) fn entries(
    current: &Value,
    shared: Shared,
    is_ours: impl Fn(&Value) -> bool,
    mut ours: Vec<Value>,
    now: &str,
) -> Option<Value> {
    let before = array(current, shared.list());
    let is_ours = |entry: &&Value| is_ours(entry);
    // Nobody loses his entries for ours.
    ours.truncate(shared.most().saturating_sub(before.iter().filter(|entry| !is_ours(entry)).count()));
    for entry in &mut ours {
        let reference = &entry[shared.reference()];
        let same = before.iter().filter(is_ours).find(|other| other[shared.reference()] == *reference);
        let same = same.cloned().unwrap_or_default();
        stamp(entry, &same, now);
    }
    // Where others keep their entries is their business: only the order of our own counts.
    if before.iter().filter(is_ours).eq(&ours) {
        return None;
    }
    let foreign = before.iter().filter(|entry| !is_ours(entry)).cloned();
    // The list is atomic: who sends it sends everybody's entries.
    Some(json!({ shared.list(): foreign.chain(ours).collect::<Vec<_>>() }))
}

/// Whether a patch changes nothing but how many routes are attached.
pub(super) fn only_counts(current: &Value, patch: &Value) -> bool {
    let Value::Object(fields) = patch else { return false };
    fields.iter().all(|(field, value)| match field.as_str() {
        "attachedListenerSets" => true,
        "listeners" => without_counts(value) == without_counts(&current[field]),
        _ => false,
    })
}

/// The conditions of a patch that say that something is wrong, and that `current` does not have: type, reason and
/// message.
pub(super) fn complaints(current: &Value, patch: &Value) -> Vec<(String, String, String)> {
    let mut known = Vec::new();
    collect(current, &mut known);
    let mut now = Vec::new();
    collect(patch, &mut now);
    now.retain(|complaint| !known.contains(complaint));
    now.dedup();
    now
}

fn collect(value: &Value, found: &mut Vec<(String, String, String)>) {
    match value {
        Value::Object(fields) => {
            let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default();
            if fields.contains_key("lastTransitionTime") && complains(text("type"), text("status")) {
                found.push((text("type").into(), text("reason").into(), text("message").into()));
            }
            fields.values().for_each(|value| collect(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn complains(kind: &str, status: &str) -> bool {
    match kind {
        "Accepted" | "Programmed" | "ResolvedRefs" => status == "False",
        "Conflicted" | "PartiallyInvalid" | "OverlappingTLSConfig" => status == "True",
        _ => false,
    }
}

fn without_counts(listeners: &Value) -> Vec<Map<String, Value>> {
    let entries = listeners.as_array().into_iter().flatten().filter_map(Value::as_object);
    entries
        .map(|entry| {
            let mut entry = entry.clone();
            entry.remove("attachedRoutes");
            entry
        })
        .collect()
}

/// Gives conditions the time of their last change, which is when their status changed, not their message.
fn stamp(desired: &mut Value, current: &Value, now: &str) {
    let before = array(current, "conditions");
    for condition in desired.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = before.iter().find(|other| {
            other["type"] == condition["type"]
                && other["status"] == condition["status"]
                && other["lastTransitionTime"].is_string()
        });
        condition["lastTransitionTime"] =
            same.map_or_else(|| now.into(), |same| same["lastTransitionTime"].clone());
    }
}

fn array<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: &str = "2026-01-01T00:00:00Z";
    const NOW: &str = "2026-02-02T00:00:00Z";
    const OURS: &str = "trigate.dev/gateway-controller";

    fn is_ours(entry: &Value) -> bool {
        entry["controllerName"] == OURS
    }

    fn condition(status: &str, message: &str, time: Option<&str>) -> Value {
        let mut condition =
            json!({ "type": "Accepted", "status": status, "reason": "R", "message": message });
        if let Some(time) = time {
            condition["lastTransitionTime"] = time.into();
        }
        condition
    }

    fn parent(controller: &str, name: &str, condition: Value) -> Value {
        json!({ "controllerName": controller, "parentRef": { "name": name }, "conditions": [condition] })
    }

    #[test]
    fn a_status_that_says_the_same_is_not_written() {
        let current = json!({ "conditions": [condition("True", "m", Some(THEN))], "addresses": [] });
        let desired = json!({ "conditions": [condition("True", "m", None)] });
        assert_eq!(whole(&current, desired, NOW), None);
    }

    #[test]
    fn a_new_message_keeps_the_time_and_a_new_status_does_not() {
        let current = json!({ "conditions": [condition("True", "m", Some(THEN))] });
        let time = |status: &str| {
            let desired = json!({ "conditions": [condition(status, "other", None)] });
            whole(&current, desired, NOW).unwrap()["conditions"][0]["lastTransitionTime"].clone()
        };
        assert_eq!((time("True"), time("False")), (THEN.into(), NOW.into()));
    }

    #[test]
    fn listeners_keep_their_times_by_name() {
        let listener = |name: &str, time: Option<&str>| json!({ "name": name, "conditions": [condition("True", "", time)] });
        let current = json!({ "listeners": [listener("a", Some(THEN)), listener("b", Some(THEN))] });
        let patch =
            whole(&current, json!({ "listeners": [listener("b", None), listener("c", None)] }), NOW).unwrap();
        assert_eq!(patch["listeners"], json!([listener("b", Some(THEN)), listener("c", Some(NOW))]));
    }

    #[test]
    fn conditions_of_other_types_stay_and_ours_go_when_they_no_longer_hold() {
        let typed = |kind: &str, time: Option<&str>| {
            let mut condition = condition("True", "", time);
            condition["type"] = kind.into();
            condition
        };
        let (foreign, ours) = (typed("example.com/Billed", Some(THEN)), typed("Accepted", Some(THEN)));
        let gone = typed("InsecureFrontendValidationMode", Some(THEN));
        let listener = |conditions: Value| json!([{ "name": "a", "conditions": conditions }]);
        let current = json!({
            "conditions": [foreign, gone, ours], "listeners": listener(json!([gone, foreign, ours])),
        });
        let desired = || {
            let accepted = json!([typed("Accepted", None)]);
            json!({ "conditions": accepted, "listeners": listener(accepted) })
        };
        let patch = whole(&current, desired(), NOW).unwrap();
        let kept = json!([foreign, ours]);
        assert_eq!(patch, json!({ "conditions": kept, "listeners": listener(kept) }));
        assert_eq!(whole(&patch, desired(), NOW), None);
        let sorted = json!({ "conditions": [ours, foreign], "listeners": listener(json!([ours, foreign])) });
        assert_eq!(whole(&sorted, desired(), NOW), None, "another order is as good");
    }

    #[test]
    fn what_we_wrote_before_is_ours_and_stands_once() {
        let listener = |kinds: &[&str], time: Option<&str>| {
            let one = |kind: &&str| {
                let mut one = condition("True", "m", time);
                one["type"] = (*kind).into();
                one
            };
            json!({ "listeners": [{ "name": "a", "conditions": kinds.iter().map(one).collect::<Vec<_>>() }] })
        };
        let kinds = ["Accepted", "OverlappingTLSConfig", "Unheard"];
        let current = listener(&kinds, Some(THEN));
        for (desired, left) in [(&kinds[..], 3), (&kinds[..2], 3), (&kinds[..1], 2)] {
            let patch = whole(&current, listener(desired, None), NOW);
            let said = patch.as_ref().unwrap_or(&current);
            let conditions = said["listeners"][0]["conditions"].as_array().expect("a list");
            assert_eq!(conditions.len(), left, "{desired:?}: {conditions:?}");
        }
    }

    #[test]
    fn conditions_of_others_do_not_take_the_room_of_ours() {
        let named = |number: usize| json!({ "type": format!("example.com/{number}"), "status": "True" });
        let current = json!({ "conditions": (0..8).map(named).collect::<Vec<_>>() });
        let patch = whole(&current, json!({ "conditions": [condition("True", "", None)] }), NOW).unwrap();
        let conditions = patch["conditions"].as_array().unwrap();
        assert_eq!((conditions.len(), &conditions[7]["type"]), (8, &json!("Accepted")));
    }

    #[test]
    fn entries_of_other_controllers_stay_and_stale_ones_of_ours_go() {
        let foreign = parent("example.com/other", "a", condition("True", "", Some(THEN)));
        let stale = parent(OURS, "gone", condition("True", "", Some(THEN)));
        let kept = parent(OURS, "a", condition("True", "", Some(THEN)));
        let current = json!({ "parents": [stale, kept, foreign] });
        let desired = vec![parent(OURS, "a", condition("True", "", None))];
        let patch = entries(&current, Shared::Parents, is_ours, desired.clone(), NOW).unwrap();
        assert_eq!(patch, json!({ "parents": [foreign, kept] }));
        assert_eq!(entries(&patch, Shared::Parents, is_ours, desired.clone(), NOW), None);
        // Another controller may sort the list as it likes.
        let sorted = json!({ "parents": [kept, foreign] });
        assert_eq!(entries(&sorted, Shared::Parents, is_ours, desired, NOW), None);
    }

    #[test]
    fn a_list_that_others_have_filled_takes_as_many_of_ours_as_it_can() {
        let entry = |controller: &str, number: usize| {
            parent(controller, &format!("gateway-{number}"), condition("True", "", Some(THEN)))
        };
        let foreign: Vec<Value> = (0..30).map(|number| entry("example.com/other", number)).collect();
        let desired = (0..5).map(|number| entry(OURS, number)).collect();
        let patch = entries(&json!({ "parents": foreign }), Shared::Parents, is_ours, desired, NOW).unwrap();
        let parents = patch["parents"].as_array().unwrap();
        assert_eq!((parents.len(), &parents[..30]), (32, &*foreign));
    }

    #[test]
    fn a_route_that_was_never_ours_is_left_alone() {
        let current =
            json!({ "parents": [parent("example.com/other", "a", condition("True", "", Some(THEN)))] });
        assert_eq!(entries(&current, Shared::Parents, is_ours, Vec::new(), NOW), None);
        assert_eq!(entries(&Value::Null, Shared::Parents, is_ours, Vec::new(), NOW), None);
    }

    #[test]
    fn counts_alone_can_wait_and_conditions_cannot() {
        let listener = |routes: u32, status: &str| json!({ "listeners": [{ "name": "a", "attachedRoutes": routes, "conditions": [condition(status, "", Some(THEN))] }] });
        let current = listener(1, "True");
        let patch = |desired| whole(&current, desired, NOW).unwrap();
        assert!(only_counts(&current, &patch(listener(2, "True"))));
        assert!(!only_counts(&current, &patch(listener(2, "False"))));
    }

    #[test]
    fn a_complaint_is_told_when_it_is_new() {
        let current = json!({ "parents": [parent(OURS, "a", condition("False", "old", Some(THEN)))] });
        let told = |message: &str| {
            let desired = vec![
                parent(OURS, "a", condition("False", message, None)),
                parent(OURS, "b", condition("True", "", None)),
            ];
            let patch = entries(&current, Shared::Parents, is_ours, desired, NOW).unwrap();
            complaints(&current, &patch)
        };
        assert!(told("old").is_empty());
        assert_eq!(told("new"), [("Accepted".to_owned(), "R".to_owned(), "new".to_owned())]);
    }
}
