//! What holds for all sets and all objects.

use std::borrow::Cow;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    ConvertError, Duplicates, FieldManager, Path, PathElement, ResetFields, Seconds, Set, ShapeId, Shapes, Typed,
    Versions,
};

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-3..3_i64).prop_map(Value::from),
        (-3..3_i32).prop_map(|half| Value::from(f64::from(half) / 2.0)),
        "[ab\\u{1}<\"é]{0,2}".prop_map(Value::from),
    ]
}

fn element() -> impl Strategy<Value = PathElement> {
    prop_oneof![
        "[a-c]".prop_map(PathElement::Field),
        btree_map("[kl]", scalar(), 1..3).prop_map(|fields| PathElement::key(fields.into_iter().collect())),
        scalar().prop_map(PathElement::Value),
        (0..3_i64).prop_map(PathElement::Index),
    ]
}

fn set() -> impl Strategy<Value = Set> {
    vec(vec(element(), 1..4).prop_map(Path), 0..12).prop_map(Set::of)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), scalar()];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::Array),
            btree_map("[a-c]", inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    btree_map("[a-d]", value(), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

/// FieldsV1 of any kind, most of it wrong.
fn hostile() -> impl Strategy<Value = Value> {
    let key = prop_oneof!["[fkvi.]:?.{0,12}", "[kv]:[\\[{\"0-9e.,:}\\]]{0,12}", Just(".".to_owned()), ".{0,3}"];
    let leaf = prop_oneof![Just(json!({})), value()];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        btree_map(key.clone(), inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
    })
}

struct Anything(Shapes);

impl Versions for Anything {
    fn shape(&self, _: &str, _: &str) -> Option<(&Shapes, ShapeId)> {
        Some((&self.0, ShapeId::DEDUCED))
    }

    fn convert<'a>(&self, object: &'a Value, to: &str) -> Result<Cow<'a, Value>, ConvertError> {
        super::rename_version(object, to, |_| true)
    }
}

fn thing(fields: &Value) -> Value {
    let mut thing = fields.clone();
    thing["apiVersion"] = "v1".into();
    thing["kind"] = "Thing".into();
    thing["metadata"] = json!({"name": "x"});
    thing
}

proptest! {
    #[test]
    fn sets_obey_the_laws_of_sets(a in set(), b in set(), c in set()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.union(&a), a.clone());
        prop_assert_eq!(a.intersection(&a), a.clone());
        prop_assert!(a.difference(&a).is_empty());
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(a.len() + b.len(), a.union(&b).len() + a.intersection(&b).len());
    }

    #[test]
    fn each_path_of_a_set_belongs_to_it_and_they_make_it(a in set(), b in set()) {
        let paths = a.paths();
        prop_assert_eq!(paths.len(), a.len());
        prop_assert!(paths.iter().all(|path| a.has(&path.0)));
        prop_assert_eq!(Set::of(paths), a.clone());
        for path in a.recursive_difference(&b).paths() {
            prop_assert!((1..=path.0.len()).all(|len| !b.has(&path.0[..len])), "{}", path);
        }
    }

    #[test]
    fn fields_v1_is_read_as_it_was_written(a in set()) {
        let written = a.to_fields_v1();
        prop_assert_eq!(&serde_json::from_str::<Value>(&a.to_fields_v1_text()).unwrap(), &written);
        let read = Set::from_fields_v1(&written).unwrap();
        prop_assert_eq!(read.to_fields_v1_text(), a.to_fields_v1_text());
        prop_assert_eq!(read, a);
    }

    #[test]
    fn hostile_fields_v1_is_read_or_refused(fields in hostile(), other in set()) {
        if let Ok(set) = Set::from_fields_v1(&fields) {
            let _ = (set.union(&other), set.intersection(&other), set.difference(&other), set.recursive_difference(&other));
            let written = set.to_fields_v1();
            prop_assert_eq!(Set::from_fields_v1(&written).unwrap().to_fields_v1(), written);
        }
    }

    #[test]
    fn hostile_owners_never_stop_a_write(fields in hostile(), more in hostile(), before in object(), after in object()) {
        let anything = Anything(Shapes::new());
        let reset = ResetFields::new();
        let manager =
            FieldManager { versions: &anything, api_version: "v1", kind: "Thing", subresource: "", reset: &reset };
        let entry = |manager: &str, operation: &str, fields: &Value| {
            json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields})
        };
        let mut live = thing(&before);
        live["metadata"]["managedFields"] = json!([entry("a", "Apply", &fields), entry("b", "Update", &more)]);
        let config = thing(&after);
        let _ = manager.update_no_errors(&live, config.clone(), "b", Seconds(1));
        let _ = manager.apply(&live, config, "a", true, Seconds(1));
    }

    #[test]
    fn merging_twice_is_merging_once(a in object(), b in object()) {
        let shapes = Shapes::new();
        let typed = |value| Typed::new(Cow::Owned(value), &shapes, ShapeId::DEDUCED, Duplicates::Allowed).unwrap();
        let (a, b) = (typed(a), typed(b));
        let once = a.merge(&b).unwrap();
        let twice = once.merge(&b).unwrap();
        prop_assert_eq!(&once.value, &twice.value);
        let changed = once.compare(&twice).unwrap();
        prop_assert!(changed.added.is_empty() && changed.modified.is_empty() && changed.removed.is_empty());
    }

    #[test]
    fn what_is_added_and_removed_is_what_only_one_side_has(a in object(), b in object()) {
        let shapes = Shapes::new();
        let typed = |value| Typed::new(Cow::Owned(value), &shapes, ShapeId::DEDUCED, Duplicates::Allowed).unwrap();
        let (a, b) = (typed(a), typed(b));
        let (there, back) = (a.compare(&b).unwrap(), b.compare(&a).unwrap());
        prop_assert_eq!(there.added, back.removed);
        prop_assert_eq!(there.removed, back.added);
        prop_assert_eq!(there.modified, back.modified);
    }

    #[test]
    fn applying_twice_changes_nothing(before in object(), config in object()) {
        let anything = Anything(Shapes::new());
        let reset = ResetFields::new();
        let manager =
            FieldManager { versions: &anything, api_version: "v1", kind: "Thing", subresource: "", reset: &reset };
        let empty = json!({"apiVersion": "v1", "kind": "Thing"});
        let mut live = manager.update(&empty, thing(&before), "b", Seconds(1)).unwrap();
        live["metadata"]["uid"] = "1".into();
        let once = manager.apply(&live, thing(&config), "a", true, Seconds(2)).unwrap();
        let twice = manager.apply(&once, thing(&config), "a", false, Seconds(3)).unwrap();
        prop_assert_eq!(once, twice);
    }
}
