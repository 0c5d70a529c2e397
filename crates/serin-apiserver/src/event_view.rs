//! Events: one store, two views. Stored as core/v1; `events.k8s.io/v1` names some fields otherwise.

use serde_json::{Map, Value};

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
