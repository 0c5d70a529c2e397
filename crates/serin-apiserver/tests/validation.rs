//! What is refused, in kube-apiserver's words; what is pruned, warned about and filled in.

mod common;

use common::http::{FINCHES, Http};
use common::server;
use serde_json::{Value, json};

async fn http() -> Http {
    Http(server().await.router())
}

fn finch(spec: Value) -> Value {
    json!({"apiVersion": "test.serin.dev/v1", "kind": "Finch", "metadata": {"name": "a"}, "spec": spec})
}

/// (spec, causes as `field: message`)
#[tokio::test]
async fn every_wrong_field_is_named_with_value_and_what_was_wanted() {
    let model = json!({"version": "v1"});
    let with = |name: &str, value: Value| {
        let mut spec = json!({"model": model});
        spec[name] = value;
        spec
    };
    let rows: Vec<(Value, &[&str])> = vec![
        (json!({}), &["spec.model: Required value", UNCHECKED]),
        (json!({"model": {}}), &["spec.model.version: Required value", UNCHECKED]),
        (
            json!({"model": {"version": 1}}),
            &[
                "spec.model.version: Invalid value: \"integer\": spec.model.version in body must be of type string: \"integer\"",
                UNCHECKED,
            ],
        ),
        (
            with("replicas", json!("2")),
            &[
                "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
                ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: 2 is of the type string, expected int64",
                UNCHECKED,
            ],
        ),
        (
            with("replicas", json!(1.5)),
            &[
                "spec.replicas: Invalid value: \"float64\": spec.replicas in body must be of type int32: \"float64\"",
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.replicas",
                ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: 1.5 is of the type float64, expected int64",
                UNCHECKED,
            ],
        ),
        (
            with("replicas", json!(-1)),
            &[
                "spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0",
                ".spec.replicas: Invalid value: -1: should be a non-negative integer",
            ],
        ),
        (
            with("replicas", json!(101)),
            &["spec.replicas: Invalid value: 101: spec.replicas in body should be less than or equal to 100"],
        ),
        (
            with("minReplicas", json!(3_000_000_000_i64)),
            &[
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.minReplicas",
                "spec.minReplicas: Invalid value: minReplicas 3000000000 is more than replicas 1",
            ],
        ),
        (
            with("strategy", json!("Guess")),
            &["spec.strategy: Unsupported value: \"Guess\": supported values: \"Canary\", \"BlueGreen\"", UNCHECKED],
        ),
        (
            with("model", json!({"version": "one"})),
            &["spec.model.version: Invalid value: \"one\": spec.model.version in body should match '^v[0-9]+$'"],
        ),
        (
            with("model", json!({"version": "v12345678"})),
            &["spec.model.version: Too long: may not be more than 8 bytes", UNCHECKED],
        ),
        (
            with("model", json!({"version": "v1", "parameters": {"a": 1}})),
            &[
                "spec.model.parameters.a: Invalid value: \"integer\": spec.model.parameters.a in body must be of type string: \"integer\"",
                UNCHECKED,
            ],
        ),
        (
            with("notBefore", json!("tomorrow")),
            &[
                "spec.notBefore: Invalid value: \"tomorrow\": spec.notBefore in body must be of type date-time: \"tomorrow\"",
                UNCHECKED,
            ],
        ),
        (
            with("share", json!(0)),
            &[
                // A whole number is compared with the whole part of a factor, as kube-openapi does it.
                "spec.share: Invalid value: 0: factor MultipleOf declared for spec.share must be positive: 0",
                "spec.share: Invalid value: 0: spec.share in body should be greater than 0",
            ],
        ),
        (
            with("share", json!(0.7)),
            &["spec.share: Invalid value: 0.7: spec.share in body should be a multiple of 0.5"],
        ),
        (
            with("port", json!(true)),
            &[
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
                UNCHECKED,
            ],
        ),
        (
            with("tags", json!(["aa", "b"])),
            &["spec.tags[1]: Invalid value: \"b\": spec.tags[1] in body should be at least 2 chars long"],
        ),
        (
            with("tags", json!(["aa", "bb", "cc", "dd"])),
            &["spec.tags: Too many: 4: must have at most 3 items", UNCHECKED],
        ),
        (with("tags", json!(["aa", "bb", "aa"])), &["spec.tags[2]: Duplicate value: \"aa\""]),
        (with("rules", json!([{"name": "x"}, {"name": "x"}])), &["spec.rules[1]: Duplicate value: {\"name\":\"x\"}"]),
        (with("rules", json!([{"weight": 1}])), &["spec.rules[0].name: Required value", UNCHECKED]),
        (
            with("rules", json!({})),
            &["spec.rules: Invalid value: \"object\": spec.rules in body must be of type array: \"object\"", UNCHECKED],
        ),
        (
            with("source", json!({})),
            &[
                "<nil>: Invalid value: \"\": \"spec.source\" must validate one and only one schema (oneOf). Found none valid",
                "spec.source.uri: Required value",
                UNCHECKED,
            ],
        ),
        (
            with("source", json!({"uri": "u", "path": "p"})),
            &[
                "<nil>: Invalid value: \"\": \"spec.source\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        ),
        (with("minReplicas", json!(2)), &["spec.minReplicas: Invalid value: minReplicas 2 is more than replicas 1"]),
        (
            json!("spec"),
            &[
                "spec: Invalid value: \"string\": spec in body must be of type object: \"string\"",
                ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: spec is of the type string, expected map[string]interface{}",
                UNCHECKED,
            ],
        ),
    ];
    let http = http().await;
    for (spec, want) in rows {
        let answer = http.post(FINCHES, &finch(spec.clone())).await;
        assert_eq!((answer.code, &answer.json["reason"]), (422, &json!("Invalid")), "{spec}: {}", answer.text);
        let causes = answer.json["details"]["causes"].as_array().expect("causes");
        let got: Vec<String> = causes
            .iter()
            .map(|cause| {
                format!("{}: {}", cause["field"].as_str().expect("text"), cause["message"].as_str().expect("text"))
            })
            .collect();
        assert_eq!(got, want, "{spec}");
        let start = "Finch.test.serin.dev \"a\" is invalid: ";
        assert!(answer.message().starts_with(start) && answer.message().contains(want[0]), "{}", answer.message());
    }
    let list = http.get(FINCHES).await;
    assert_eq!(list.json["items"], json!([]), "nothing that was refused is stored");
}

const UNCHECKED: &str = "<nil>: Invalid value: null: some validation rules were not checked because the object was \
    invalid; correct the existing errors to complete validation";

#[tokio::test]
async fn what_is_right_is_taken_with_its_defaults() {
    let http = http().await;
    let spec = json!({
        "model": {"version": "v1", "parameters": {"any": "thing"}}, "port": "http", "share": 1.5, "replicas": 2.0,
        "tags": ["aa", "bb"], "rules": [{"name": "x"}, {"name": "y", "weight": 3}], "source": {"uri": "u"},
        "notBefore": "2026-01-01T00:00:00Z", "note": null, "strategy": null, "free": {"as": {"you": ["like"]}},
    });
    let answer = http.post(FINCHES, &finch(spec)).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    assert_eq!(answer.warnings(), Vec::<String>::new());
    let spec = &answer.json["spec"];
    assert_eq!(spec["strategy"], "Canary", "a null that is not allowed is as good as nothing");
    assert_eq!(spec["rules"], json!([{"name": "x", "weight": 1}, {"name": "y", "weight": 3}]));
    assert_eq!((&spec["note"], &spec["free"]), (&Value::Null, &json!({"as": {"you": ["like"]}})));
    assert!(spec.as_object().expect("an object").contains_key("note"));
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_warned_about_or_dropped() {
    let http = http().await;
    let body = r#"{"apiVersion":"test.serin.dev/v1","kind":"Finch","metadata":{"name":"NAME","lables":{}},
        "spec":{"model":{"version":"v1"},"model":{"version":"v2"},"modle":{},"rules":[{"name":"x","wieght":1}]},"extra":1}"#;
    let send = async |name: &str, query: &str| {
        let body = body.replace("NAME", name);
        http.send("POST", &format!("{FINCHES}{query}"), &[("content-type", "application/json")], body).await
    };
    let said = [
        "duplicate field \"spec.model\"",
        "unknown field \"metadata.lables\"",
        "unknown field \"extra\"",
        "unknown field \"spec.modle\"",
        "unknown field \"spec.rules[0].wieght\"",
    ];
    let strict = send("strict", "?fieldValidation=Strict").await;
    assert_eq!((strict.code, &strict.json["reason"]), (400, &json!("BadRequest")));
    let want =
        format!("Finch in version \"v1\" cannot be handled as a Finch: strict decoding error: {}", said.join(", "));
    assert_eq!(strict.message(), want);
    for (name, query) in [("default", ""), ("warn", "?fieldValidation=Warn")] {
        let warned = send(name, query).await;
        assert_eq!(warned.code, 201, "{}", warned.text);
        let want: Vec<String> = said.iter().map(|text| format!("299 - \"{}\"", text.replace('"', "\\\""))).collect();
        assert_eq!(warned.warnings(), want);
        assert_eq!(warned.json["spec"]["model"]["version"], "v2");
        assert!(!warned.text.contains("modle") && !warned.text.contains("extra") && !warned.text.contains("lables"));
    }
    let ignored = send("ignore", "?fieldValidation=Ignore").await;
    assert_eq!((ignored.code, ignored.warnings().len()), (201, 0));
    assert!(!ignored.text.contains("modle"));

    let patch = json!({"spec": {"modle": 1}});
    let strict = http.merge(&format!("{FINCHES}/ignore?fieldValidation=Strict"), &patch).await;
    assert_eq!(strict.code, 422);
    assert!(strict.message().contains("strict decoding error: unknown field \"spec.modle\""), "{}", strict.message());
    let warned = http.merge(&format!("{FINCHES}/ignore"), &patch).await;
    assert_eq!((warned.code, warned.warnings().len()), (200, 1));
    assert_eq!(
        warned.json["metadata"]["resourceVersion"], ignored.json["metadata"]["resourceVersion"],
        "nothing changed"
    );
}

#[tokio::test]
async fn rules_about_change_see_the_old_value() {
    let http = http().await;
    let spec = json!({"model": {"version": "v1"}, "frozen": "x", "rules": [{"name": "a", "weight": 5}, {"name": "b", "weight": 1}]});
    assert_eq!(http.post(FINCHES, &finch(spec)).await.code, 201);
    let path = format!("{FINCHES}/a");
    let refused = http.merge(&path, &json!({"spec": {"frozen": "y"}})).await;
    assert_eq!(
        refused.json["details"]["causes"][0],
        json!({
            "reason": "FieldValueForbidden", "field": "spec", "message": "Forbidden: frozen cannot change",
        })
    );
    // Items of a map list are told apart by their keys, wherever they stand.
    let moved = json!({"spec": {"rules": [{"name": "b", "weight": 1}, {"name": "c", "weight": 0}, {"name": "a", "weight": 5}]}});
    assert_eq!(http.merge(&path, &moved).await.code, 200);
    let fallen = json!({"spec": {"rules": [{"name": "b", "weight": 1}, {"name": "a", "weight": 4}]}});
    let refused = http.merge(&path, &fallen).await;
    assert_eq!(refused.json["details"]["causes"][0]["field"], "spec.rules[1]");
    assert_eq!(refused.json["details"]["causes"][0]["message"], "Invalid value: weight cannot fall");
}

#[tokio::test]
async fn an_object_from_before_a_stricter_schema_can_still_be_changed_elsewhere() {
    let http = http().await;
    let spec = json!({"model": {"version": "v1"}, "tags": ["aa"]});
    assert_eq!(http.post(FINCHES, &finch(spec)).await.code, 201);
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/finches.test.serin.dev";
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/tags/items/minLength";
    let stricter = http.json_patch(definition, &json!([{"op": "replace", "path": at, "value": 3}])).await;
    assert_eq!(stricter.code, 200, "{}", stricter.text);
    let path = format!("{FINCHES}/a");
    assert_eq!(http.merge(&path, &json!({"spec": {"replicas": 2}})).await.code, 200);
    assert_eq!(http.merge(&format!("{path}/status"), &json!({"status": {"phase": "x"}})).await.code, 200);
    let refused = http.merge(&path, &json!({"spec": {"tags": ["bb"]}})).await;
    assert!(
        refused.message().contains("spec.tags[0] in body should be at least 3 chars long"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn a_definition_that_is_not_structural_is_refused_with_its_paths() {
    let http = http().await;
    let definition = |schema: Value| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "crows.test.serin.dev"},
            "spec": {
                "group": "test.serin.dev", "scope": "Cluster", "names": {"kind": "Crow", "plural": "crows"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            },
        })
    };
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let spec = |spec: Value| json!({"type": "object", "properties": {"spec": spec}});
    let root = "spec.validation.openAPIV3Schema";
    let rows = [
        (json!({"type": "string"}), format!("{root}.type"), "must be object at the root"),
        (json!({}), format!("{root}.type"), "must not be empty at the root"),
        (spec(json!({})), format!("{root}.properties[spec].type"), "must not be empty for specified object fields"),
        (spec(json!({"type": "strng"})), format!("{root}.properties[spec].type"), "supported values"),
        (spec(json!({"type": "array"})), format!("{root}.properties[spec].items"), "must be specified"),
        (
            spec(json!({"type": "array", "items": {}})),
            format!("{root}.properties[spec].items.type"),
            "specified array items",
        ),
        (
            spec(json!({"type": "string", "pattern": "("})),
            format!("{root}.properties[spec].pattern"),
            "regular expression",
        ),
        (spec(json!({"type": "string", "$ref": "#/x"})), format!("{root}.properties[spec].$ref"), "is not supported"),
        (
            spec(json!({"type": "string", "minLength": "x"})),
            format!("{root}.properties[spec].minLength"),
            "non-negative integer",
        ),
        (
            spec(json!({"type": "integer", "default": "x"})),
            format!("{root}.properties[spec].default"),
            "must be of type integer",
        ),
        (
            spec(json!({"type": "object", "allOf": [{"type": "object"}]})),
            format!("{root}.properties[spec].allOf[0].type"),
            "must be empty to be structural",
        ),
        (
            spec(json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.x ="}]})),
            format!("{root}.properties[spec].x-kubernetes-validations[0].rule"),
            "compilation failed",
        ),
        (
            spec(json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"})),
            format!("{root}.properties[spec].x-kubernetes-list-map-keys"),
            "must not be empty",
        ),
    ];
    for (schema, field, why) in rows {
        let answer = http.post(path, &definition(schema.clone())).await;
        assert_eq!(answer.code, 422, "{schema}: {}", answer.text);
        let causes = answer.json["details"]["causes"].as_array().expect("causes");
        let found = causes
            .iter()
            .any(|cause| cause["field"] == field.as_str() && cause["message"].as_str().expect("text").contains(why));
        assert!(found, "{schema}: want {field}: {why}, got {causes:?}");
    }
    let mut misnamed = definition(spec(json!({"type": "object"})));
    misnamed["metadata"]["name"] = "birds.test.serin.dev".into();
    assert!(http.post(path, &misnamed).await.message().contains("must be spec.names.plural"));
    let mut misspelt = definition(spec(json!({"type": "object"})));
    misspelt["spec"]["nmaes"] = json!({});
    let unknown = http.post(&format!("{path}?fieldValidation=Strict"), &misspelt).await;
    assert!(unknown.message().contains("unknown field \"spec.nmaes\""), "{}", unknown.message());
    assert_eq!(http.get("/apis/test.serin.dev/v1/crows").await.code, 404);
    assert_eq!(http.post(path, &definition(spec(json!({"type": "object"})))).await.code, 201);
    assert_eq!(http.get("/apis/test.serin.dev/v1/crows").await.code, 200);
}
