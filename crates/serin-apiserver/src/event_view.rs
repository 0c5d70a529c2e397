//! Events: one store, two views. Stored as core/v1; `events.k8s.io/v1` names some fields otherwise.

use serde_json::{Map, Value};

use crate::selector::{self, Place};

/// (in core/v1, in events.k8s.io/v1)
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Columns of both views: name, JSON pointer in the stored form to the field that it shows, priority.
/// Source: `pkg/printers/internalversion/printers.go` of Kubernetes.
pub(crate) const COLUMNS: [(&str, &str, u8); 9] = [
    ("Last Seen", "/lastTimestamp", 0),
    ("Type", "/type", 0),
    ("Reason", "/reason", 0),
    ("Object", "/involvedObject", 0),
    ("Subobject", "/involvedObject/fieldPath", 1),
    ("Source", "/source", 1),
    ("Message", "/message", 0),
    ("First Seen", "/firstTimestamp", 1),
    ("Count", "/count", 1),
];

/// A stored event's cells, one for each of [`COLUMNS`]; `age` prints how long ago a time was.
pub(crate) fn cells(event: &Value, age: impl Fn(&Value) -> Value) -> [Value; 9] {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let either =
        |one: &str, other: &str| if text(one).is_empty() { text(other).to_owned() } else { text(one).to_owned() };
    let series = event.get("series").filter(|series| !series.is_null());
    let first = if event["firstTimestamp"].is_null() { &event["eventTime"] } else { &event["firstTimestamp"] };
    let last = match series {
        Some(series) => &series["lastObservedTime"],
        None if event["lastTimestamp"].is_null() => first,
        None => &event["lastTimestamp"],
    };
    let count = match series {
        Some(series) => series["count"].as_i64().unwrap_or(0),
        // A single event of the newer view is not counted.
        None => event["count"].as_i64().filter(|count| *count != 0).unwrap_or(1),
    };
    let mut object = text("/involvedObject/kind").to_lowercase();
    if !text("/involvedObject/name").is_empty() {
        object = format!("{object}/{}", text("/involvedObject/name"));
    }
    let mut source = either("/source/component", "/reportingComponent");
    let host = either("/source/host", "/reportingInstance");
    if !host.is_empty() {
        source = format!("{source}, {host}");
    }
    [
        age(last),
        text("/type").into(),
        text("/reason").into(),
        object.into(),
        text("/involvedObject/fieldPath").into(),
        source.into(),
        text("/message").trim().into(),
        age(first),
        count.into(),
    ]
}

/// The field in core/v1 of one that `events.k8s.io/v1` lets select by; `None` if it does not.
pub(crate) fn core_field(new: &str) -> Option<String> {
    const SAME: [&str; 4] = ["reason", "type", "metadata.name", "metadata.namespace"];
    match new {
        "reportingController" => Some("reportingComponent".to_owned()),
        _ if SAME.contains(&new) => Some(new.to_owned()),
        _ => new.strip_prefix("regarding.").map(|field| format!("involvedObject.{field}")),
    }
}

/// Where a stored event has a field that it can be selected by.
pub(crate) fn place(core: &str) -> Place {
    match core {
        "source" => vec!["/source/component".to_owned(), "/reportingComponent".to_owned()],
        other => selector::dotted(other),
    }
}

/// Turns a core/v1 event into an `events.k8s.io/v1` one.
pub(crate) fn to_new(event: &mut Value) {
    let Some(event) = event.as_object_mut() else { return };
    for (core, new) in RENAMED {
        rename(event, core, new);
    }
}

/// Turns an `events.k8s.io/v1` event into a core/v1 one.
pub(crate) fn to_core(event: &mut Value) {
    let Some(event) = event.as_object_mut() else { return };
    for (core, new) in RENAMED {
        rename(event, new, core);
    }
}

fn rename(event: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = event.remove(from) {
        event.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_series_and_the_reporter_are_printed_where_there_are_any() {
        let old = json!({
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "f"}, "message": " m\n", "type": "Normal",
            "source": {"component": "c", "host": "h"}, "count": 2, "reason": "r",
            "firstTimestamp": "t1", "lastTimestamp": "t2",
        });
        let new = json!({
            "involvedObject": {"kind": "Pod"}, "reportingComponent": "rc", "reportingInstance": "ri",
            "firstTimestamp": null, "eventTime": "t", "series": {"count": 3, "lastObservedTime": "t3"},
        });
        let rows = [
            (old, json!(["t2", "Normal", "r", "pod/p", "f", "c, h", "m", "t1", 2])),
            (new, json!(["t3", "", "", "pod", "", "rc, ri", "", "t", 3])),
            (json!({"eventTime": "t"}), json!(["t", "", "", "", "", "", "", "t", 1])),
        ];
        for (event, want) in rows {
            assert_eq!(json!(cells(&event, Value::clone)), want);
        }
    }

    #[test]
    fn the_newer_view_selects_by_its_own_names() {
        let rows = [
            ("regarding.kind", Some("involvedObject.kind")),
            ("reportingController", Some("reportingComponent")),
            ("type", Some("type")),
            ("involvedObject.kind", None),
            ("source", None),
        ];
        for (new, want) in rows {
            assert_eq!(core_field(new).as_deref(), want, "{new}");
        }
    }

    #[test]
    fn the_two_views_of_an_event_convert_both_ways() {
        let core = json!({
            "involvedObject": {"kind": "A"}, "message": "m", "source": {"component": "c"}, "count": 2,
            "firstTimestamp": "t1", "lastTimestamp": "t2", "reportingComponent": "rc", "reportingInstance": "ri",
            "reason": "r", "type": "Normal", "eventTime": "t", "series": {"count": 3}, "action": "a",
        });
        let new = json!({
            "regarding": {"kind": "A"}, "note": "m", "deprecatedSource": {"component": "c"}, "deprecatedCount": 2,
            "deprecatedFirstTimestamp": "t1", "deprecatedLastTimestamp": "t2", "reportingController": "rc",
            "reportingInstance": "ri", "reason": "r", "type": "Normal", "eventTime": "t", "series": {"count": 3},
            "action": "a",
        });
        let mut there = core.clone();
        to_new(&mut there);
        assert_eq!(there, new);
        to_core(&mut there);
        assert_eq!(there, core);
    }
}
