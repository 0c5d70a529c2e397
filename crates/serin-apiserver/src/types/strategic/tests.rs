//! Against what Kubernetes' own library does: `tests/data/strategic` holds the program that recorded it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::sync::LazyLock;

use proptest::prelude::{Just, ProptestConfig, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use serde::Deserialize;
use serde_json::json;

use super::*;

/// What Go made of a patch: an object, an error or a panic.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Outcome {
    result: Option<Fields>,
    error: Option<String>,
    panic: Option<String>,
}

impl Outcome {
    fn is(&self, got: &Result<Fields>) -> bool {
        match got {
            Ok(merged) => self.result.as_ref() == Some(merged),
            Err(StrategicError::NullItem) => self.panic.as_deref().is_some_and(|text| text.contains("nil pointer")),
            Err(StrategicError::Incomparable { got }) => self.panic.as_deref().is_some_and(|text| {
                let causes = ["comparing uncomparable type", "hash of unhashable type"];
                text.ends_with(got) && causes.iter().any(|cause| text.contains(cause))
            }),
            Err(error) => self.error.as_ref() == Some(&error.to_string()),
        }
    }
}

/// A line of `cases.jsonl`.
#[derive(Debug, Deserialize)]
struct Case {
    #[serde(rename = "type")]
    ty: String,
    original: Fields,
    patch: Fields,
    #[serde(flatten)]
    outcome: Outcome,
    /// What Go made of it at other times.
    #[serde(default)]
    or: Vec<Outcome>,
    /// Whether merging the patch once more changes nothing.
    #[serde(default)]
    again: bool,
}

impl Case {
    fn merge(&self) -> Result<Fields> {
        merge(&self.ty, self.original.clone(), self.patch.clone())
    }
}

/// Those beside this file, or those of another run of the program: `STRATEGIC_CASES=FILE`.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let lines = match env::var("STRATEGIC_CASES") {
        Ok(path) => fs::read_to_string(path).expect("a file"),
        Err(_) => include_str!("../../../tests/data/strategic/cases.jsonl").to_owned(),
    };
    lines.lines().map(|line| serde_json::from_str(line).expect("a case")).collect()
});

#[test]
fn patches_do_what_they_do_in_kubernetes() {
    assert!(CASES.len() >= 500);
    let mut wrong = Vec::new();
    for case in &*CASES {
        let got = case.merge();
        if !case.outcome.is(&got) && !case.or.iter().any(|other| other.is(&got)) {
            let got = got.map_or_else(|error| error.to_string(), |map| Value::from(map).to_string());
            wrong.push(format!("{case:#?}\ngot: {got}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong[..wrong.len().min(3)].join("\n"));
}

#[test]
fn merging_twice_is_merging_once_where_it_is_in_kubernetes() {
    let mut count = 0;
    for case in CASES.iter().filter(|case| case.again) {
        let once = case.merge().expect("it merges");
        assert_eq!(merge(&case.ty, once.clone(), case.patch.clone()), Ok(once), "{case:#?}");
        count += 1;
    }
    assert!(count > CASES.len() / 2, "{count}");
}

#[test]
fn every_field_is_of_the_kind_and_merged_as_in_go() {
    let lines = include_str!("../../../tests/data/strategic/fields.jsonl").lines();
    let (mut count, mut merged) = (0, 0);
    for line in lines {
        let (name, fields): (String, BTreeMap<String, [String; 3]>) = serde_json::from_str(line).expect("a type");
        let ty = GoType { pointer: false, form: Form::Struct(&name) };
        for (name, want) in fields {
            let field = ty.field(&name).expect("the type has it");
            let kind = match field.ty {
                GoType { pointer: true, form } => format!("*{}", GoType { pointer: false, form }.kind()),
                plain => plain.kind().to_owned(),
            };
            let strategy = match want[1].as_str() {
                "merge" | "merge,retainKeys" => Strategy::Merge,
                "" | "retainKeys" => Strategy::Default,
                other => panic!("{other}"),
            };
            let got = (kind.as_str(), field.strategy, field.merge_key);
            assert_eq!(got, (want[0].as_str(), strategy, want[2].as_str()), "{line}: {name}");
            let folded = name.to_uppercase().replace('K', "\u{212a}").replacen('S', "\u{17f}", 1);
            assert_eq!(ty.field(&folded).map(|field| field.ty.kind()), Ok(field.ty.kind()), "{line}: {folded}");
            count += 1;
            merged += usize::from(strategy == Strategy::Merge);
        }
    }
    assert!(count > 850 && merged >= 30, "{count}, {merged}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let rows = [
        json!({"$retainKeys": 1}),
        json!({"$setElementOrder": []}),
        json!({"$deleteFromPrimitiveList": []}),
        json!({"metadata": {"finalizers": [["a"]]}}),
        json!({"metadata": {"finalizers": [null]}}),
        json!({"metadata": {"$setElementOrder/finalizers": [{}]}}),
        json!({"$patch": "merge"}),
        json!({"$setElementOrder/no": []}),
    ];
    for patch in rows {
        let original = fields_of(json!({"metadata": {"finalizers": []}}));
        let got = merge("io.k8s.api.core.v1.ConfigMap", original, fields_of(patch.clone()));
        assert!(got.is_err(), "{patch}");
    }
}

#[test]
fn long_lists_are_merged_in_time_about_their_length() {
    const LEN: usize = 100_000;
    let items =
        |range: &mut dyn Iterator<Item = usize>| range.map(|at| json!({"name": at.to_string()})).collect::<Vec<_>>();
    let original = fields_of(json!({"secrets": items(&mut (0..LEN)), "metadata": {"finalizers": ["a", "a", "b"]}}));
    let mut changes = items(&mut (LEN / 2..LEN * 3 / 2).rev());
    let order = changes.clone();
    changes.extend((0..LEN / 4).map(|at| json!({"name": at.to_string(), "$patch": "delete"})));
    let texts: Vec<String> = (0..LEN).map(|at| (at % 77_777).to_string()).collect();
    let patch =
        fields_of(json!({"secrets": changes, "$setElementOrder/secrets": order, "metadata": {"finalizers": texts}}));
    let merged = merge("io.k8s.api.core.v1.ServiceAccount", original.clone(), patch).expect("it merges");
    let want: Vec<Value> = items(&mut (LEN / 4..LEN / 2).chain((LEN / 2..LEN * 3 / 2).rev()));
    assert!(merged["secrets"] == Value::from(want));
    assert_eq!(merged["metadata"]["finalizers"].as_array().map(Vec::len), Some(77_779));
    // No order at all: what Go's way of sorting makes of it.
    let patch = fields_of(json!({"secrets": [{"name": "x"}], "$setElementOrder/secrets": []}));
    let merged = merge("io.k8s.api.core.v1.ServiceAccount", original, patch).expect("it merges");
    assert_eq!(merged["secrets"].as_array().map(Vec::len), Some(LEN + 1));
}

/// JSON of the words that mean something to patches.
fn hostile() -> impl proptest::strategy::Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        Just(json!(1.5)),
        prop::sample::select(vec!["a", "main", "delete", "replace", "merge", "x.io/a"]).prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "metadata",
        "labels",
        "finalizers",
        "ownerReferences",
        "uid",
        "spec",
        "template",
        "strategy",
        "containers",
        "name",
        "ports",
        "port",
        "containerPort",
        "env",
        "data",
        "status",
        "conditions",
        "type",
        "secrets",
        "",
        "$patch",
        "$retainKeys",
        "$setElementOrder/finalizers",
        "$setElementOrder/containers",
        "$setElementOrder/ports",
        "$setElementOrder/secrets",
        "$deleteFromPrimitiveList/finalizers",
        "$deleteFromPrimitiveList/containers",
        "$deleteFromPrimitiveList/",
        "$setElementOrder",
    ]);
    scalar.prop_recursive(7, 60, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            2 => prop::collection::hash_map(keys.clone().prop_map(str::to_owned), inner, 0..7)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn fields_of(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        other => Fields::from_iter([("spec".to_owned(), other)]),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn hostile_patches_merge_no_deeper_or_are_refused(
        at: prop::sample::Index, original in prop::option::of(hostile()), patch in hostile(),
    ) {
        let case = at.get(&CASES);
        let original = original.map_or_else(|| case.original.clone(), fields_of);
        let patch = fields_of(patch);
        let deepest = depth(&original.clone().into()).max(depth(&patch.clone().into()));
        match merge(&case.ty, original, patch) {
            Ok(merged) => prop_assert!(depth(&merged.into()) <= deepest),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn an_empty_patch_changes_nothing(at: prop::sample::Index, original in hostile()) {
        let original = fields_of(original);
        prop_assert_eq!(merge(&at.get(&CASES).ty, original.clone(), Fields::new()), Ok(original));
    }

    #[test]
    fn printing_never_fails(value in hostile(), text in ".{0,20}", number: f64) {
        prop_assert!(!Go(&json!([value, number]), Verb::S).to_string().is_empty());
        prop_assert!(quoted(&text).len() >= text.len() + 2);
    }
}

#[test]
fn values_are_printed_as_go_prints_them() {
    let value = json!({"b": [1, 1.5, null, "x y"], "a": {}, "c": true});
    assert_eq!(Go(&value, Verb::V).to_string(), "map[a:map[] b:[1 1.5 <nil> x y] c:true]");
    let text = "map[a:map[] b:[%!s(int64=1) %!s(float64=1.5) <nil> x y] c:%!s(bool=true)]";
    assert_eq!(Go(&value, Verb::S).to_string(), text);
    let rows = [
        (1e21, "1e+21"),
        (999_999.5, "999999.5"),
        (1_234_567.5, "1.2345675e+06"),
        (2.5e-7, "2.5e-07"),
        (0.000_1, "0.0001"),
        (-1e-5, "-1e-05"),
        (1e100, "1e+100"),
    ];
    for (number, want) in rows {
        assert_eq!(Go(&json!(number), Verb::V).to_string(), want);
    }
    let rows = [
        ("a\"b\\", r#""a\"b\\""#),
        ("\u{7}\t\u{1}\u{7f}", r#""\a\t\x01\x7f""#),
        ("é\u{301}\u{a0}\u{feff}\u{e0001}", "\"é\u{301}\\u00a0\\ufeff\\U000e0001\""),
    ];
    for (text, want) in rows {
        assert_eq!(quoted(text), want);
    }
}
