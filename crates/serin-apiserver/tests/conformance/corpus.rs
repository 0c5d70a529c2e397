//! The corpus: cases as YAML, expanded over kinds and rows, with variables filled in.
//!
//! A file of `tests/corpus` is one family: a list of cases.
//!
//! ```yaml
//! - case: an update with an old version is refused
//!   each: [configmap, custom]        # kinds or tags of kinds.yaml: one case per kind, with the kind's variables
//!   rows: [{is: spec, with: {...}}]  # one case per row, with the row's variables; `is` goes into the name
//!   steps:
//!   - request: PUT ${path}/${prefix}a?fieldManager=x
//!     headers: {accept: application/yaml}
//!     type: merge                    # content type, or json|merge|json-patch|strategic|apply|yaml; json if there is a body
//!     body: {$with: "${sample}", metadata: {name: "${prefix}a"}}
//!     text: not JSON                 # instead of `body`, as it is; or `base64`, for bytes
//!     show: [cache-control]          # headers of the answer that are recorded beside the usual ones
//!     save: {uid: /metadata/uid}     # variables for later steps
//!     keep: [/items/name=a/spec]     # record these parts of the answer instead of the whole
//!     brief: true                    # record of a good answer its code and headers only: for what only prepares
//!     until: {code: 200, /status/phase: Active}  # repeat a read until it answers this
//!   - {watch: w, request: "GET ${path}?watch=1"}  # runs on beside the next steps
//!   - {events: w, count: 2}                       # `count: N`, `quiet: true` (all that come until none does) or `end: true`
//! ```
//!
//! Variables: `${ns}`, a namespace of the case's own; `${group}`, an API group of its own; `${id}`, which both are made of;
//! those of `variables.yaml`, of the kind, of the row, and what was saved. A string that is one variable becomes its value, whatever its type.
//! `$with` is a value over which the other fields of its object are laid as a JSON merge patch, and `$over` one that is laid
//! over the result.
//! Pointers are JSON pointers in which `name=a` is the element of an array whose field `name` is `a`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Values by name.
pub type Variables = BTreeMap<String, Value>;

/// One case, for one kind and one row.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file that it is from.
    pub family: String,
    /// `family/case [kind] (row)`: unique.
    pub name: String,
    /// What is known before the first step.
    pub variables: Variables,
    pub steps: Vec<Step>,
}

/// A step as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it is called in the record; by default the request's method.
    pub step: Option<String>,
    pub request: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(rename = "type")]
    pub content_type: Option<String>,
    pub body: Option<Value>,
    pub text: Option<String>,
    pub base64: Option<String>,
    #[serde(default)]
    pub show: Vec<String>,
    #[serde(default)]
    pub save: BTreeMap<String, String>,
    #[serde(default)]
    pub keep: Vec<String>,
    #[serde(default)]
    pub brief: bool,
    pub until: Option<BTreeMap<String, Value>>,
    pub watch: Option<String>,
    pub events: Option<String>,
    pub count: Option<usize>,
    #[serde(default)]
    pub quiet: bool,
    #[serde(default)]
    pub end: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    case: String,
    #[serde(default)]
    each: Vec<String>,
    #[serde(default)]
    rows: Vec<Variables>,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    tags: BTreeSet<String>,
    #[serde(flatten)]
    variables: Variables,
}

/// The folder of the corpus.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// Reads a YAML file of the corpus.
///
/// # Panics
/// If it is not what is wanted, with its name.
pub fn read_yaml<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // In this corpus `y` and `on` are text, as in Kubernetes' own YAML.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(&text, options).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every case, family by family in the order of their names, in the order of the files.
pub fn cases() -> Vec<Case> {
    let kinds: BTreeMap<String, Kind> = read_yaml(&folder().join("kinds.yaml"));
    let shared: Variables = read_yaml(&folder().join("variables.yaml"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder().join("families"))
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let family = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let written: Vec<WrittenCase> = read_yaml(&path);
        for case in &written {
            expand(&family, case, &kinds, &shared, &mut cases);
        }
    }
    let mut names = BTreeSet::new();
    for case in &cases {
        assert!(names.insert(&case.name), "two cases are called {:?}", case.name);
    }
    cases
}

fn expand(family: &str, case: &WrittenCase, kinds: &BTreeMap<String, Kind>, shared: &Variables, cases: &mut Vec<Case>) {
    let mut chosen: Vec<(Option<&str>, Variables)> = Vec::new();
    if case.each.is_empty() {
        chosen.push((None, Variables::new()));
    }
    for wanted in &case.each {
        // `-name` takes a kind out again.
        if let Some(unwanted) = wanted.strip_prefix('-') {
            assert!(kinds.contains_key(unwanted), "{family}/{}: no kind {unwanted:?}", case.case);
            chosen.retain(|(name, _)| *name != Some(unwanted));
            continue;
        }
        let before = chosen.len();
        for (name, kind) in kinds {
            let is_new = chosen.iter().all(|(chosen, _)| *chosen != Some(name.as_str()));
            if is_new && (name == wanted || kind.tags.contains(wanted)) {
                chosen.push((Some(name), kind.variables.clone()));
            }
        }
        assert!(chosen.len() > before, "{family}/{}: {wanted:?} adds no kind", case.case);
    }
    let no_rows = [Variables::new()];
    let rows = if case.rows.is_empty() { no_rows.as_slice() } else { case.rows.as_slice() };
    for (kind, variables) in &chosen {
        for row in rows {
            let mut name = format!("{family}/{}", case.case);
            if let Some(kind) = kind {
                name.push_str(&format!(" [{kind}]"));
            }
            if let Some(is) = row.get("is") {
                name.push_str(&format!(" ({})", scalar(is).expect("`is` is text")));
            }
            let hash = Sha256::digest(name.as_bytes());
            let id: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            let mut all: Variables = shared.clone();
            all.extend(variables.clone());
            all.extend(row.clone());
            all.insert("ns".into(), format!("ns-{id}").into());
            all.insert("group".into(), format!("g{id}.corpus.test").into());
            all.insert("id".into(), id.into());
            cases.push(Case { family: family.into(), name, variables: all, steps: case.steps.clone() });
        }
    }
}

/// Why a step cannot be sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// An earlier step did not give it.
    #[error("${{{name}}} has no value")]
    Unknown { name: String },
    /// Only text, numbers and truth values can be part of a text.
    #[error("${{{name}}} is no scalar and stands inside a text")]
    NoScalar { name: String },
    /// Each round fills in what the one before brought.
    #[error("the variables of {text:?} go round in circles")]
    Circle { text: String },
}

/// Fills variables into a text.
pub fn fill_text(text: &str, variables: &Variables) -> Result<String, FillError> {
    let mut text = text.to_owned();
    // Kinds' paths have variables of their own; none has variables in variables in variables.
    for _ in 0..8 {
        let Some(start) = text.find("${") else { return Ok(text) };
        let Some(length) = text[start..].find('}') else { return Ok(text) };
        let name = text[start + 2..start + length].to_owned();
        let value = variables.get(&name).ok_or_else(|| FillError::Unknown { name: name.clone() })?;
        let value = scalar(value).ok_or(FillError::NoScalar { name: name.clone() })?;
        text = text.replace(&format!("${{{name}}}"), &value);
    }
    if text.contains("${") { Err(FillError::Circle { text }) } else { Ok(text) }
}

/// Fills variables into a value, and lays objects over their `$with`.
pub fn fill(value: &Value, variables: &Variables) -> Result<Value, FillError> {
    match value {
        Value::String(text) => {
            let whole = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            if let Some(name) = whole.filter(|name| !name.contains('$')) {
                let value = variables.get(name).ok_or_else(|| FillError::Unknown { name: name.into() })?;
                return fill(value, variables);
            }
            fill_text(text, variables).map(Value::String)
        }
        Value::Array(items) => items.iter().map(|item| fill(item, variables)).collect(),
        Value::Object(fields) => {
            let mut filled = Map::new();
            for (name, field) in fields {
                filled.insert(fill_text(name, variables)?, fill(field, variables)?);
            }
            let (base, over) = (filled.remove("$with"), filled.remove("$over"));
            let mut value = Value::Object(filled);
            if let Some(mut base) = base {
                json_patch::merge(&mut base, &value);
                value = base;
            }
            if let Some(over) = over {
                json_patch::merge(&mut value, &over);
            }
            Ok(value)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
    }
}

/// The value at a pointer of the corpus.
pub fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    let mut value = value;
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        value = match value {
            Value::Object(fields) => fields.get(&part)?,
            Value::Array(items) => match part.split_once('=') {
                Some((field, wanted)) => items.iter().find(|item| item[field].as_str() == Some(wanted))?,
                None => items.get(part.parse::<usize>().ok()?)?,
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
        };
    }
    Some(value)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_filled_in_and_objects_laid_over() {
        let variables: Variables = [
            ("ns".to_owned(), json!("n1")),
            ("path".to_owned(), json!("/namespaces/${ns}/things")),
            ("sample".to_owned(), json!({"kind": "Thing", "spec": {"a": 1, "b": "${ns}"}})),
            ("two".to_owned(), json!(2)),
        ]
        .into();
        let rows = [
            (json!("${path}/x"), Ok(json!("/namespaces/n1/things/x"))),
            (json!("${two}"), Ok(json!(2))),
            (json!("is ${two}"), Ok(json!("is 2"))),
            (json!({"${ns}": ["${sample}"]}), Ok(json!({"n1": [{"kind": "Thing", "spec": {"a": 1, "b": "n1"}}]}))),
            (
                json!({"$with": "${sample}", "spec": {"a": null, "c": 3}}),
                Ok(json!({"kind": "Thing", "spec": {"b": "n1", "c": 3}})),
            ),
            (json!({"a": 1, "b": 2, "$over": {"a": null, "b": 3}}), Ok(json!({"b": 3}))),
            (json!("${none}"), Err(FillError::Unknown { name: "none".into() })),
            (json!("x ${sample}"), Err(FillError::NoScalar { name: "sample".into() })),
        ];
        for (value, want) in rows {
            assert_eq!(fill(&value, &variables), want, "{value}");
        }
    }

    #[test]
    fn pointers_find_elements_by_a_field() {
        let value = json!({"items": [{"name": "a", "x": 1}, {"name": "b/c", "x": 2}]});
        assert_eq!(at(&value, "/items/1/x"), Some(&json!(2)));
        assert_eq!(at(&value, "/items/name=b~1c/x"), Some(&json!(2)));
        assert_eq!(at(&value, "/items/name=z/x"), None);
        assert_eq!(at(&value, ""), Some(&value));
    }
}
