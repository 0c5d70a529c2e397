//! Bad and hostile input: an answer for everything, never a panic, and a store that can still be read.

mod common;

use common::http::{FINCHES, Http};
use common::{options, server};
use proptest::prelude::*;
use serde_json::{Value, json};
use serin_apiserver::{ApiServer, StoreOptions};

#[tokio::test]
async fn malformed_requests_get_a_status_with_the_right_code() {
    let http = Http(server().await.router());
    let object = json!({
        "apiVersion": "test.serin.dev/v1", "kind": "Finch", "metadata": {"name": "a"}, "spec": {"model": {"version": "v1"}},
    });
    assert_eq!(http.post(FINCHES, &object).await.code, 201);
    let (one, scale, status) = (&format!("{FINCHES}/a"), &format!("{FINCHES}/a/scale"), &format!("{FINCHES}/a/status"));
    let (json, merge, patch) = ("application/json", "application/merge-patch+json", "application/json-patch+json");
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let nested = format!("{}1{}", "{\"a\":".repeat(110), "}".repeat(110));
    let big = format!("{{\"a\":\"{}\"}}", "x".repeat(4 << 20));
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}"#;
    let rows: Vec<(&str, &str, &str, &str, u16)> = vec![
        ("POST", FINCHES, json, "", 400),
        ("POST", FINCHES, json, "{", 400),
        ("POST", FINCHES, json, "[]", 400),
        ("POST", FINCHES, json, "null", 400),
        ("POST", FINCHES, json, "\"text\"", 400),
        ("POST", FINCHES, json, "{}", 400),
        ("POST", FINCHES, json, pod, 422),
        ("POST", FINCHES, json, &deep, 400),
        ("POST", FINCHES, json, &nested, 400),
        ("POST", FINCHES, json, &big, 413),
        ("POST", FINCHES, json, r#"{"apiVersion":"test.serin.dev/v1","kind":"Finch","metadata":[]}"#, 400),
        ("POST", FINCHES, json, r#"{"apiVersion":"test.serin.dev/v1","kind":"Finch","metadata":{"name":{}}}"#, 400),
        (
            "POST",
            FINCHES,
            json,
            r#"{"apiVersion":"test.serin.dev/v1","kind":"Finch","metadata":{"labels":{"a":1}}}"#,
            400,
        ),
        ("POST", FINCHES, json, r#"{"apiVersion":"test.serin.dev/v1","kind":"Finch"}"#, 422),
        (
            "POST",
            FINCHES,
            json,
            r#"{"apiVersion":"test.serin.dev/v1","kind":"Finch","metadata":{"name":"a/b"},"spec":{"model":{"version":"v1"}}}"#,
            422,
        ),
        (
            "POST",
            FINCHES,
            json,
            r#"{"apiVersion":"test.serin.dev/v1","kind":"Finch","metadata":{"name":"b","namespace":"c"},"spec":{}}"#,
            400,
        ),
        ("POST", FINCHES, "application/vnd.kubernetes.protobuf", "k8s\0", 415),
        ("POST", FINCHES, "text/html", "<p>", 415),
        ("POST", FINCHES, "application/yaml", "a: [", 400),
        ("POST", FINCHES, "application/yaml", "&a [*a]", 400),
        ("PATCH", one, merge, "[]", 400),
        ("PATCH", one, merge, "[{\"op\":\"add\"}]", 400),
        ("PATCH", one, merge, "7", 400),
        ("PATCH", one, merge, r#"{"metadata":null}"#, 400),
        ("PATCH", one, merge, r#"{"metadata":{"name":null}}"#, 400),
        ("PATCH", one, merge, r#"{"kind":null}"#, 422),
        ("PATCH", one, merge, r#"{"apiVersion":"other/v1"}"#, 422),
        ("PATCH", one, merge, r#"{"spec":null}"#, 422),
        ("PATCH", one, patch, "{}", 400),
        ("PATCH", one, patch, r#"[{"op":"remove","path":""}]"#, 422),
        ("PATCH", one, patch, r#"[{"op":"replace","path":"","value":[]}]"#, 400),
        ("PATCH", one, patch, r#"[{"op":"replace","path":"/metadata","value":[]}]"#, 422),
        ("PATCH", one, patch, r#"[{"op":"remove","path":"/spec/gone"}]"#, 422),
        ("PATCH", one, patch, r#"[{"op":"test","path":"/spec/replicas","value":9}]"#, 422),
        ("PATCH", one, patch, r#"[{"op":"add","path":"/spec/tags/-1","value":9}]"#, 422),
        ("PATCH", one, patch, r#"[{"op":"add","path":"no-slash","value":9}]"#, 422),
        ("PATCH", one, "application/strategic-merge-patch+json", "{}", 415),
        ("PATCH", one, "application/apply-patch+yaml", "{}", 422),
        ("PATCH", one, "", "{}", 415),
        ("PUT", scale, json, "[]", 400),
        ("PUT", scale, json, r#"{"kind":"Finch"}"#, 400),
        ("PUT", scale, json, r#"{"spec":{"replicas":"x"}}"#, 422),
        ("PUT", scale, json, r#"{"spec":{"replicas":-1}}"#, 422),
        ("PUT", status, json, "[]", 400),
        ("DELETE", one, json, "[1]", 400),
        ("DELETE", one, json, "{", 400),
    ];
    for (method, path, content_type, body, code) in rows {
        let answer = http.send(method, path, &[("content-type", content_type)], body.to_owned()).await;
        let shown = &body[..body.len().min(80)];
        assert_eq!(answer.code, code, "{method} {path} {content_type} {shown}: {}", answer.text);
        if code >= 400 {
            assert_eq!((&answer.json["kind"], &answer.json["code"]), (&json!("Status"), &json!(code)), "{shown}");
            assert!(!answer.message().is_empty(), "{shown}");
        }
    }
    let answer = http.get(&format!("{FINCHES}/%ff")).await;
    assert_eq!(answer.code, 404);
    assert_eq!(http.get(one).await.json["metadata"]["name"], "a", "it is still there, and whole");
}

/// Any JSON, with the field names of a finch among its keys.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9./ \\-\"\\\\\u{0}é]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(any_key(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "status",
        "name",
        "namespace",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "uid",
        "resourceVersion",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "model",
        "version",
        "replicas",
        "rules",
        "tags",
        "weight",
        "source",
        "free",
        "conditions",
        "type",
        "port",
        "parameters",
    ];
    prop_oneof![4 => prop::sample::select(NAMES).prop_map(str::to_owned), 1 => "[a-z~/.]{0,4}"]
}

/// Any JSON patch, most of whose paths exist in a finch.
fn any_patch() -> impl Strategy<Value = Value> {
    const PATHS: &[&str] = &[
        "",
        "/",
        "/metadata",
        "/metadata/name",
        "/metadata/labels",
        "/metadata/finalizers",
        "/metadata/resourceVersion",
        "/metadata/ownerReferences",
        "/spec",
        "/spec/model",
        "/spec/model/version",
        "/spec/replicas",
        "/spec/tags",
        "/spec/tags/0",
        "/spec/tags/-",
        "/spec/rules",
        "/spec/free",
        "/spec/free/a",
        "/status",
        "/status/conditions",
        "/kind",
    ];
    let path = || prop::sample::select(PATHS);
    let operation =
        (prop::sample::select(&["add", "remove", "replace", "move", "copy", "test"][..]), path(), path(), any_json())
            .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}));
    prop::collection::vec(operation, 0..8).prop_map(Value::from)
}

/// `PROPTEST_CASES` where it is set, else few enough for every test run.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(100, |text| text.parse().expect("PROPTEST_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_the_server_answers_and_its_store_stays_readable(
        body in any_json(),
        spec in any_json(),
        merge in any_json(),
        patch in any_patch(),
        query in "[a-zA-Z=&%0-9,!() ]{0,24}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("store.redb");
            let open = || serin_apiserver::Store::open(&path, StoreOptions::default()).expect("the store opens");
            let server = ApiServer::start(open(), options()).await.expect("starts");
            let http = Http(server.router());
            let one = &format!("{FINCHES}/a");
            let full = json!({
                "apiVersion": "test.serin.dev/v1", "kind": "Finch", "metadata": {"name": "a"},
                "spec": {"model": {"version": "v1"}, "tags": ["aa"], "free": {"a": merge.clone()}},
            });
            let mut codes = vec![http.post(FINCHES, &full).await.code];
            codes.push(http.post(FINCHES, &body).await.code);
            let custom = json!({"apiVersion": "test.serin.dev/v1", "kind": "Finch", "metadata": body, "spec": spec});
            codes.push(http.post(FINCHES, &custom).await.code);
            codes.push(http.post("/api/v1/namespaces/default/configmaps", &json!({"metadata": merge, "data": spec})).await.code);
            codes.push(http.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &json!({"metadata": {"name": "a"}, "spec": body})).await.code);
            codes.push(http.merge(one, &merge).await.code);
            codes.push(http.merge(&format!("{one}/status"), &json!({"status": merge})).await.code);
            codes.push(http.merge(&format!("{one}/scale"), &merge).await.code);
            codes.push(http.json_patch(one, &patch).await.code);
            codes.push(http.put(one, &body).await.code);
            let query: String = query.chars().map(|letter| if letter == ' ' { '+' } else { letter }).collect();
            codes.push(http.get(&format!("{FINCHES}?limit=2&{}", query.replace("watch", "w"))).await.code);
            codes.push(http.send("DELETE", one, &[("content-type", "application/json")], body.to_string()).await.code);
            for code in codes {
                assert!((200..500).contains(&code), "{code}");
            }
            let listed = http.get(FINCHES).await.json;
            drop((http, server));
            let again = ApiServer::start(open(), options()).await.expect("starts again");
            let listed_again = Http(again.router()).get(FINCHES).await.json;
            assert_eq!(listed["items"], listed_again["items"]);
        });
    }
}

#[tokio::test]
async fn bodies_of_many_small_things_are_refused_before_they_grow() {
    let http = Http(server().await.router());
    let many = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
    let config_maps = "/api/v1/namespaces/default/configmaps";
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    // Above the limit, and below it with an error in every item.
    for (count, code) in [(1_000_000, 400), (24_000, 422)] {
        let owners = many("{}", count);
        let map =
            format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a","ownerReferences":{owners}}}}}"#);
        let versions = many("{}", count);
        let definition = format!(
            r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"a.b.c"}},
                "spec":{{"group":"b.c","scope":"Cluster","names":{{"plural":"a","kind":"A"}},"versions":{versions}}}}}"#
        );
        for (path, body) in [(config_maps, map), (definitions, definition)] {
            let answer = http.send("POST", path, &[("content-type", "application/json")], body).await;
            assert_eq!(answer.code, code, "{count} {path}: {}", &answer.text[..answer.text.len().min(300)]);
            let causes = answer.json["details"]["causes"].as_array().map_or(0, Vec::len);
            assert!(causes <= 64, "{causes}");
        }
    }
}

/// What is read by recursion would end the process if it could go on for ever.
#[tokio::test]
async fn rules_and_paths_of_definitions_that_are_nested_without_end_are_refused() {
    let http = Http(server().await.router());
    let rule = |rule: String| rule_of(&rule);
    let rows = [
        ("sum", rule(format!("{}1 == 1", "1+".repeat(40_000)))),
        ("comparison", rule(format!("{}1", "1<".repeat(40_000)))),
        ("fields", rule(format!("self{} == 1", ".a".repeat(40_000)))),
        ("places", rule(format!("self.l{} == 1", "[0]".repeat(30_000)))),
        ("calls", rule(format!("self.s{} == ''", ".trim()".repeat(14_000)))),
        ("brackets", rule(format!("{}true{}", "(".repeat(40_000), ")".repeat(40_000)))),
        (
            "sums in brackets",
            rule(format!("{}1{} == 1", "(".repeat(90), "+1)".repeat(90).replace("+1", &"+1".repeat(200)))),
        ),
        ("letters", rule("true || ".repeat(300_000) + "true")),
        ("message", json!({"rule": "true", "messageExpression": format!("{}''", "''+".repeat(30_000))})),
    ];
    let definition = |rule: &Value, column: &str| {
        let schema = json!({
            "type": "object", "x-kubernetes-validations": [rule],
            "properties": {"s": {"type": "string"}, "l": {"type": "array", "items": {"x-kubernetes-preserve-unknown-fields": true}}},
        });
        let version = json!({
            "name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": schema}}},
            "additionalPrinterColumns": [{"name": "a", "type": "string", "jsonPath": column}],
        });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.a.test"},
            "spec": {"group": "a.test", "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"}, "versions": [version]},
        })
    };
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for (what, rule) in rows {
        let answer = http.post(definitions, &definition(&rule, ".spec.s")).await;
        assert_eq!(answer.code, 422, "{what}: {}", &answer.text[..answer.text.len().min(300)]);
    }
    // Beside each other there may be as many as a rule has room for; and columns whose paths are not known are left out.
    let fine = format!("{}self.s == 'a'", "self.s == 'x' || self.s.startsWith('y') || ".repeat(500));
    let path = format!(".spec{}{}", "[?(@.a".repeat(100_000), ")]".repeat(100_000));
    let answer = http.post(definitions, &definition(&rule_of(&fine), &path)).await;
    assert_eq!(answer.code, 201, "{}", &answer.text[..answer.text.len().min(300)]);
    let thing = json!({"apiVersion": "a.test/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"s": "a"}});
    assert_eq!(http.post("/apis/a.test/v1/things", &thing).await.code, 201);
    let table = http.get_as("/apis/a.test/v1/things", "application/json;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!((table.code, &table.json["rows"][0]["cells"][0]), (200, &json!("a")));
}

fn rule_of(rule: &str) -> Value {
    json!({"rule": rule})
}
