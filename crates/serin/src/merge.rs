//! The three-way merge of `apply`: what the manifest says now, what it said last time, and what is there.

use serde_json::{Map, Value};

/// A JSON merge patch (RFC 7386) that brings `current` to what `wanted` says.
///
/// A field that `wanted` has is set. A field that one of `earlier` had and `wanted` has no longer is removed. All others,
/// such as defaults and what controllers or people set, stay. Lists are one value. The patch is `{}` when nothing differs.
pub fn three_way(earlier: &[Value], wanted: &Value, current: &Value) -> Value {
    let earlier: Vec<&Value> = earlier.iter().collect();
    Value::Object(merge(&earlier, wanted, current))
}

fn merge(earlier: &[&Value], wanted: &Value, current: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let wanted = wanted.as_object().unwrap_or(&empty);
    let current = current.as_object().unwrap_or(&empty);
    let mut patch = Map::new();
    for (key, want) in wanted {
        match (want, current.get(key)) {
            // In a merge patch null removes; a field that is not there needs no removal.
            (Value::Null, None) => {}
            (Value::Object(_), Some(have @ Value::Object(_))) => {
                let below: Vec<&Value> = earlier.iter().filter_map(|e| e.get(key)).collect();
                let inner = merge(&below, want, have);
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (want, have) if have != Some(want) => {
                patch.insert(key.clone(), want.clone());
            }
            _ => {}
        }
    }
    for key in earlier.iter().filter_map(|e| e.as_object()).flat_map(Map::keys) {
        if !wanted.contains_key(key) && current.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_set_kept_and_removed() {
        // why, earlier, wanted, current -> patch
        let rows = [
            ("nothing differs", json!({"a": 1}), json!({"a": 1}), json!({"a": 1}), json!({})),
            ("a value changes", json!({"a": 1}), json!({"a": 2}), json!({"a": 1}), json!({"a": 2})),
            ("a field is new", json!({}), json!({"a": {"b": 1}}), json!({}), json!({"a": {"b": 1}})),
            ("a field of others stays", json!({}), json!({"a": 1}), json!({"a": 1, "z": 9}), json!({})),
            (
                "a field that was ours goes",
                json!({"a": 1, "b": 2}),
                json!({"a": 1}),
                json!({"a": 1, "b": 3}),
                json!({"b": null}),
            ),
            ("it is gone already", json!({"a": 1, "b": 2}), json!({"a": 1}), json!({"a": 1}), json!({})),
            (
                "deep",
                json!({"s": {"a": 1, "b": 1}}),
                json!({"s": {"a": 2}}),
                json!({"s": {"a": 1, "b": 1, "d": 0}}),
                json!({"s": {"a": 2, "b": null}}),
            ),
            ("a whole object goes", json!({"s": {"a": 1}}), json!({}), json!({"s": {"a": 1}}), json!({"s": null})),
            ("lists are one value", json!({"l": [1]}), json!({"l": [1, 2]}), json!({"l": [1]}), json!({"l": [1, 2]})),
            (
                "an object in place of a value",
                json!({"a": 1}),
                json!({"a": {"b": 1}}),
                json!({"a": 1}),
                json!({"a": {"b": 1}}),
            ),
            (
                "a value in place of an object",
                json!({"a": {"b": 1}}),
                json!({"a": 1}),
                json!({"a": {"b": 1}}),
                json!({"a": 1}),
            ),
            ("null removes", json!({}), json!({"a": null}), json!({"a": 1}), json!({"a": null})),
            ("null of nothing", json!({}), json!({"a": null}), json!({}), json!({})),
            ("an empty object is set", json!({}), json!({"a": {}}), json!({}), json!({"a": {}})),
            ("drift is put right", json!({"a": 1}), json!({"a": 1}), json!({"a": 5}), json!({"a": 1})),
        ];
        for (why, earlier, wanted, current, patch) in rows {
            assert_eq!(three_way(&[earlier], &wanted, &current), patch, "{why}");
        }
    }

    #[test]
    fn a_field_that_any_earlier_manifest_had_is_removed() {
        let earlier = [json!({"a": 1}), json!({"b": 1})];
        let patch = three_way(&earlier, &json!({}), &json!({"a": 1, "b": 1, "c": 1}));
        assert_eq!(patch, json!({"a": null, "b": null}));
    }

    #[test]
    fn a_second_merge_after_the_first_finds_nothing() {
        fn apply(current: &mut Value, patch: &Value) {
            let (Value::Object(current), Value::Object(patch)) = (current, patch) else { return };
            for (key, value) in patch {
                match value {
                    Value::Null => {
                        current.remove(key);
                    }
                    Value::Object(_) if current.get(key).is_some_and(Value::is_object) => {
                        apply(current.get_mut(key).unwrap(), value);
                    }
                    other => {
                        current.insert(key.clone(), other.clone());
                    }
                }
            }
        }
        let earlier = json!({"spec": {"a": {"x": 1}, "b": [1], "gone": {"y": 2}}});
        let wanted = json!({"spec": {"a": {"x": 2, "z": {"w": 1}}, "b": [1, 2]}});
        let mut current = json!({"spec": {"a": {"x": 1, "d": 0}, "b": [1], "gone": {"y": 2}}, "status": {"s": 1}});
        let patch = three_way(std::slice::from_ref(&earlier), &wanted, &current);
        apply(&mut current, &patch);
        assert_eq!(three_way(&[earlier], &wanted, &current), json!({}));
    }
}
