//! What a reader of Kubernetes' documentation expects, by hand.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::*;

const GROUP_VERSIONS: &[&str] = &["serin.dev/v1", "serin.dev/v2"];

struct Resource {
    shapes: Shapes,
    shape: ShapeId,
    versions: &'static [&'static str],
}

impl Versions for Resource {
    fn shape(&self, api_version: &str, _kind: &str) -> Option<(&Shapes, ShapeId)> {
        self.versions.contains(&api_version).then_some((&self.shapes, self.shape))
    }

    fn convert<'a>(&self, object: &'a Value, to: &str) -> Result<Cow<'a, Value>, ConvertError> {
        if !self.versions.contains(&to) {
            return Err(ConvertError::Missing { gvk: to.to_owned() });
        }
        rename_version(object, to, |version| self.versions.contains(&version))
    }
}

fn resource() -> Resource {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "image": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "properties": {
                    "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"},
                    "name": {"type": "string"}}}}}},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}}}});
    let mut shapes = Shapes::new();
    let shape = shapes.add_custom_resource(Some(&schema));
    Resource { shapes, shape, versions: GROUP_VERSIONS }
}

fn thing(spec: Value) -> Value {
    json!({"apiVersion": "serin.dev/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec})
}

/// One object and the writes to it.
struct World {
    resource: Resource,
    reset: ResetFields,
    subresource: &'static str,
    live: Value,
    now: i64,
}

impl World {
    fn new() -> Self {
        Self {
            resource: resource(),
            reset: ResetFields::new(),
            subresource: "",
            live: json!({"apiVersion": "serin.dev/v1", "kind": "Thing"}),
            now: 0,
        }
    }

    fn manager(&self) -> FieldManager<'_> {
        FieldManager {
            versions: &self.resource,
            api_version: "serin.dev/v1",
            kind: "Thing",
            subresource: self.subresource,
            reset: &self.reset,
        }
    }

    fn keep(&mut self, mut object: Value) {
        object["metadata"]["uid"] = "1".into();
        self.live = object;
    }

    fn update(&mut self, manager: &str, new: Value) {
        self.now += 1;
        let object = self.manager().update(&self.live, new, manager, Seconds(self.now)).unwrap();
        self.keep(object);
    }

    fn apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), String> {
        self.now += 1;
        let applied = self.manager().apply(&self.live, config, manager, force, Seconds(self.now));
        self.keep(applied.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// `manager operation subresource: fields @time`, one for each owner.
    fn owners(&self) -> Vec<String> {
        let entries = read_entries(&self.live).unwrap_or_default();
        let line = |entry: &Entry| {
            let set = Set::from_fields_v1(entry.fields_v1.as_ref().unwrap()).unwrap();
            let paths: Vec<String> = set.paths().iter().map(ToString::to_string).collect();
            let time = entry.time.map_or("never".to_owned(), |time| time.0.to_string());
            let subresource = if entry.subresource.is_empty() { "" } else { "/" };
            format!(
                "{} {}{subresource}{}: {} @{time}",
                entry.manager,
                entry.operation,
                entry.subresource,
                paths.join(" ")
            )
        };
        entries.iter().map(line).collect()
    }
}

#[test]
fn an_apply_of_what_another_owns_conflicts_unless_forced() {
    let mut world = World::new();
    world.update("kubectl-create", thing(json!({"replicas": 1, "image": "a"})));
    let config = thing(json!({"replicas": 2}));
    assert_eq!(
        world.apply("hpa", config.clone(), false).unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using serin.dev/v1: .spec.replicas"
    );
    world.apply("hpa", config, true).unwrap();
    assert_eq!(world.live["spec"], json!({"replicas": 2, "image": "a"}));
    assert_eq!(world.owners(), ["hpa Apply: .spec.replicas @3", "kubectl-create Update: .spec .spec.image @1"]);
}

#[test]
fn conflicts_are_told_by_manager_with_all_fields() {
    let mut world = World::new();
    world.apply("b", thing(json!({"replicas": 1, "ports": [{"port": 80, "name": "web"}]})), false).unwrap();
    world.apply("a", thing(json!({"image": "a"})), false).unwrap();
    let config = thing(json!({"replicas": 2, "image": "b", "ports": [{"port": 80, "name": "other"}]}));
    assert_eq!(
        world.apply("c", config.clone(), false).unwrap_err(),
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.image\nconflicts with \"b\":\n- .spec.replicas\n\
         - .spec.ports[port=80,protocol=\"TCP\"].name"
    );
    let FieldManagerError::Conflicts(conflicts) =
        world.manager().apply(&world.live, config, "c", false, Seconds(9)).unwrap_err()
    else {
        panic!("no conflicts")
    };
    let causes: Vec<(String, String)> =
        conflicts.0.iter().map(|conflict| (conflict.message(), conflict.path.to_string())).collect();
    assert_eq!(causes[0], ("conflict with \"a\"".to_owned(), ".spec.image".to_owned()));
}

#[test]
fn what_is_not_applied_any_more_goes_unless_another_owns_it() {
    let mut world = World::new();
    world.apply("a", thing(json!({"replicas": 1, "image": "i", "labels": {"x": "1", "y": "1"}})), false).unwrap();
    world.apply("b", thing(json!({"image": "i", "labels": {"y": "1"}})), false).unwrap();
    world.apply("a", thing(json!({"labels": {"x": "1"}})), false).unwrap();
    assert_eq!(world.live["spec"], json!({"image": "i", "labels": {"x": "1", "y": "1"}}));
    world.apply("a", thing(json!({})), false).unwrap();
    assert_eq!(world.live["spec"], json!({"image": "i", "labels": {"y": "1"}}));
}

#[test]
fn an_apply_that_changes_nothing_changes_no_time() {
    let mut world = World::new();
    let config = thing(json!({"replicas": 1}));
    world.apply("a", config.clone(), false).unwrap();
    let before = world.live.clone();
    world.apply("a", config.clone(), false).unwrap();
    assert_eq!(world.live, before);
    // A new owner of the same value has changed nothing either, and so has no time.
    world.apply("b", config, false).unwrap();
    assert_eq!(world.owners(), ["b Apply: .spec.replicas @never", "a Apply: .spec.replicas @1"]);
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let mut world = World::new();
    world.keep(thing(json!({"replicas": 1})));
    world.update("u", thing(json!({"replicas": 2})));
    assert!(world.owners().is_empty(), "an update tracks nothing where nothing was tracked");
    world.apply("a", thing(json!({"image": "i"})), false).unwrap();
    assert_eq!(world.owners(), ["a Apply: .spec.image @2", "before-first-apply Update: .spec .spec.replicas @2"]);
}

#[test]
fn requests_own_only_what_they_can_set() {
    let mut world = World::new();
    world.reset = reset_on_main("serin.dev/v1");
    let mut object = thing(json!({"replicas": 1}));
    object["status"] = json!({"phase": "Ready"});
    world.update("a", object.clone());
    assert_eq!(world.owners(), ["a Update: .spec .spec.replicas @1"]);
    world.reset = reset_on_status(GROUP_VERSIONS.iter().copied());
    world.subresource = "status";
    let mut object = world.live.clone();
    object["status"] = json!({"phase": "Failed"});
    object["spec"]["replicas"] = 7.into();
    world.update("a", object);
    assert_eq!(world.owners(), ["a Update: .spec .spec.replicas @1", "a Update/status: .status.phase @2"]);
}

#[test]
fn callers_may_forget_owners_but_not_write_nonsense() {
    let entry = json!({"manager": "a", "operation": "Update", "apiVersion": "serin.dev/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:replicas": {}}}});
    let with = |change: &dyn Fn(&mut Value)| {
        let mut entry = entry.clone();
        change(&mut entry);
        json!([entry])
    };
    let owner = vec!["z Update: .spec .spec.replicas @1".to_owned()];
    for (why, entries, owners) in [
        ("an empty list", json!([]), vec![]),
        ("an empty entry", json!([{}]), vec![]),
        ("none", Value::Null, owner.clone()),
        ("no list", json!("x"), owner.clone()),
        ("an operation of its own", with(&|it| it["operation"] = "Mine".into()), owner.clone()),
        ("no version", with(&|it| it["apiVersion"] = "".into()), owner.clone()),
        ("another type", with(&|it| it["fieldsType"] = "FieldsV2".into()), owner.clone()),
        ("a key that is none", with(&|it| it["fieldsV1"] = json!({"x": {}})), owner.clone()),
        ("others", with(&|_| {}), vec!["a Update: .spec.replicas @never".to_owned()]),
    ] {
        let mut world = World::new();
        world.update("z", thing(json!({"replicas": 1})));
        let mut object = world.live.clone();
        object["metadata"]["managedFields"] = entries;
        world.update("b", object);
        assert_eq!(world.owners(), owners, "{why}");
    }
}

#[test]
fn what_is_applied_says_nothing_of_owners_and_is_of_the_kind() {
    let mut world = World::new();
    let mut config = thing(json!({}));
    config["metadata"]["managedFields"] = json!([]);
    assert_eq!(world.apply("a", config, true).unwrap_err(), "metadata.managedFields must be nil");
    let mut config = thing(json!({}));
    config["apiVersion"] = "serin.dev/v2".into();
    assert_eq!(world.apply("a", config, true).unwrap_err(), "invalid object type: serin.dev/v2, Kind=Thing");
}

#[test]
fn what_is_applied_fits_its_schema() {
    for (spec, why) in [
        (json!({"replicas": "1"}), ".spec.replicas: expected numeric (int or float), got string"),
        (json!({"image": 1}), ".spec.image: expected string, got &value.valueUnstructured{Value:1}"),
        (json!({"labels": []}), ".spec.labels: expected map, got &{[]}"),
        (json!({"ports": {"a": 1}}), ".spec.ports: expected list, got &{map[a:1]}"),
        (json!({"modle": 1}), ".spec.modle: field not declared in schema"),
        (json!({"ports": [null]}), ".spec.ports: element 0: associative list with keys may not have a null element"),
        (
            json!({"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]}),
            ".spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]",
        ),
        (
            json!({"image": 1, "replicas": true}),
            "errors:\n  .spec.image: expected string, got &value.valueUnstructured{Value:1}\n  .spec.replicas: expected \
             numeric (int or float), got bool",
        ),
    ] {
        let got = World::new().apply("a", thing(spec), false).unwrap_err();
        assert_eq!(got, format!("failed to create typed patch object (/x; serin.dev/v1, Kind=Thing): {why}"));
    }
}

#[test]
fn owners_in_versions_that_are_gone_are_dropped() {
    let mut world = World::new();
    let mut object = thing(json!({"replicas": 1, "image": "a"}));
    let entry = |version: &str, field: &str| {
        json!({"manager": version, "operation": "Update", "apiVersion": version, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {(format!("f:{field}")): {}}}})
    };
    object["metadata"]["managedFields"] = json!([entry("serin.dev/v2", "image"), entry("serin.dev/v0", "replicas")]);
    world.keep(object);
    world.apply("a", thing(json!({"replicas": 2})), false).unwrap();
    assert_eq!(world.owners(), ["a Apply: .spec.replicas @1", "serin.dev/v2 Update: .spec.image @never"]);
}

#[test]
fn the_oldest_of_too_many_updates_become_one() {
    let mut world = World::new();
    world.update("m0", thing(json!({"labels": {"l0": "x"}})));
    for index in 1..13 {
        let mut object = world.live.clone();
        object["spec"]["labels"][format!("l{index}")] = "x".into();
        world.update(&format!("m{index}"), object);
    }
    let owners = world.owners();
    assert_eq!(owners.len(), UPDATE_MANAGERS_MAX);
    assert_eq!(
        owners[0],
        "ancient-changes Update: .spec .spec.labels .spec.labels.l0 .spec.labels.l1 .spec.labels.l2 .spec.labels.l3 @4"
    );
}

#[test]
fn server_side_apply_takes_over_from_client_side_apply() {
    let mut world = World::new();
    let config = thing(json!({"replicas": 1, "image": "a"}));
    let mut object = config.clone();
    object["metadata"]["annotations"] = json!({LAST_APPLIED: config.to_string()});
    world.update("kubectl-client-side-apply", object);
    let new = thing(json!({"replicas": 2, "image": "a<b>"}));
    assert!(world.apply("other", new.clone(), false).is_err());
    world.apply("kubectl", new, false).unwrap();
    assert_eq!(world.live["spec"]["replicas"], 2);
    let annotation = &world.live["metadata"]["annotations"][LAST_APPLIED];
    assert_eq!(
        annotation,
        "{\"apiVersion\":\"serin.dev/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"x\"},\
         \"spec\":{\"image\":\"a\\u003cb\\u003e\",\"replicas\":2}}\n"
    );
}

#[test]
fn times_stay_where_nothing_else_changes() {
    let old = json!({"metadata": {"managedFields": [{"manager": "a", "time": "2000-01-01T00:00:00Z"}]}, "spec": 1});
    let with = |spec: i32, manager: &str| json!({"metadata": {"managedFields": [{"manager": manager, "time": "2026-01-01T00:00:00Z"}]}, "spec": spec});
    for (new, is_kept) in [(with(1, "a"), true), (with(2, "a"), false), (with(1, "b"), false)] {
        let mut got = new.clone();
        keep_times(&old, &mut got);
        assert_eq!(got == old, is_kept, "{new}");
        assert!(is_kept || got == new);
    }
}

#[test]
fn the_manager_of_a_request_is_its_product() {
    for (user_agent, manager) in [
        ("kubectl/v1.36.3 (linux/amd64)", "kubectl"),
        ("", ""),
        ("a\u{7}b c/1", "ab c"),
        ("é".repeat(80).as_str(), "é".repeat(64).as_str()),
    ] {
        assert_eq!(manager_of_user_agent(user_agent), manager);
    }
    assert_eq!(check_manager("kubectl edit é"), []);
    let errors: Vec<String> =
        check_manager(&format!("a\u{7}{}", "x".repeat(127))).iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["may not be more than 128 bytes", "invalid character U+0007 (at position 1)"]);
}
