//! Makes answers comparable: what must differ between two servers, or two runs, gets a name.
//!
//! What is replaced, in a case's answers together:
//! - The case's namespace and API group, wherever they stand, by `<ns>` and `<group>`.
//! - A uid, wherever it stands, by `<uid NAME>` after the object that has it. A second object of that name is `NAME(2)`, so
//!   that a uid that should have stayed, or should have changed, is seen.
//! - A resource version of an object by `NAME#N`: the Nth that the case saw of it, oldest first. A write that changes
//!   nothing shows an equal version, an unexpected write one more. A version of a list or a bookmark is `<at NAME#N>`: the
//!   newest version among those the case saw that it is not older than; other writers of the same store hide what lies between.
//!   In messages, known versions get their names and the server's current one is `<current>`.
//! - A time within a day of now by `<time>`, with the count of fractional digits if there are any: `<time.6>`. Other times
//!   were given by the case, and stay.
//! - The random end of a generated name by `<random>`; a page token by `<continue>`; the loopback port by `<port>`; an allocated
//!   cluster address by `<ip>`; an allocated node port by `<node port>`; an age in a table by `<age>`; the hash
//!   in a URL of an OpenAPI document by `<hash>`.
//! - The number of a type of a rule (`selfType461311927`) by `selfType<number>`.
//! - The order of the causes of a refusal, in `details` and in the message: Kubernetes walks maps in a random one.
//! - Bookmarks that follow each other and say the same count as one: how many fit into a time differs by chance.
//! - The order of `managedFields`, which depends on whether two writes fell into one second: by operation, manager,
//!   subresource, API version.
//!
//! What is not recorded at all: headers but those of the player's list; white space and the order of fields in JSON and YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::corpus::Case;
use crate::player::Raw;

/// A normalised answer: one line of the golden files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub case: String,
    pub step: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
}

/// Normalises the answers to one case.
pub fn normalise(case: &Case, raws: Vec<Raw>) -> Vec<Answer> {
    let mut names = Names::default();
    for raw in &raws {
        let body = raw.whole.as_ref().unwrap_or(&raw.body);
        // A refusal says the name, but not that it was generated.
        if let (Some(prefix), Some(name)) = (&raw.generated, body["details"]["name"].as_str()) {
            names.learn_generated(name, prefix);
        }
        names.learn(body);
    }
    let normal = Normal {
        ns: case.variables["ns"].as_str().expect("text").to_owned(),
        group: case.variables["group"].as_str().expect("text").to_owned(),
        names: names.finish(),
        now: jiff::Timestamp::now().as_second(),
    };
    let answer = |raw: Raw| Answer {
        case: case.name.clone(),
        step: raw.step,
        code: raw.code,
        note: raw.note.map(|note| normal.text(&note)),
        content_type: raw.content_type,
        warnings: raw.warnings.iter().map(|warning| normal.text(warning)).collect(),
        headers: raw.headers.iter().map(|(name, value)| (name.clone(), normal.text(value))).collect(),
        body: normal.value(&raw.body, ""),
    };
    raws.into_iter().map(answer).collect()
}

/// What the answers say about objects.
#[derive(Default)]
struct Names {
    /// Uids in the order in which they were seen, with the object's name.
    uids: Vec<(String, String)>,
    versions: BTreeMap<String, BTreeSet<u64>>,
    /// Generated names and what they begin with.
    generated: BTreeMap<String, String>,
}

struct Known {
    /// Shown name by uid.
    uids: BTreeMap<String, String>,
    /// (shown name, rank) by version.
    versions: BTreeMap<u64, String>,
    generated: BTreeMap<String, String>,
}

impl Names {
    fn learn(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.learn(item)),
            Value::Object(fields) => {
                if let Some(metadata) = fields.get("metadata") {
                    self.learn_object(metadata);
                }
                fields.values().for_each(|field| self.learn(field));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn learn_object(&mut self, metadata: &Value) {
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let shown = self.learn_generated(text("name"), text("generateName"));
        let uid = text("uid");
        if uid.is_empty() {
            return;
        }
        if self.uids.iter().all(|(known, _)| known != uid) {
            self.uids.push((uid.to_owned(), shown));
        }
        if let Ok(version) = text("resourceVersion").parse() {
            self.versions.entry(uid.to_owned()).or_default().insert(version);
        }
    }

    /// What is shown for a name, which may begin with this (or as much of it as fits) and end at random.
    fn learn_generated(&mut self, name: &str, prefix: &str) -> String {
        const RANDOM_CHARS: usize = 5;
        let begin = name.len().checked_sub(RANDOM_CHARS).and_then(|end| name.get(..end));
        let Some(begin) = begin.filter(|begin| !begin.is_empty() && prefix.starts_with(begin)) else {
            return name.to_owned();
        };
        let shown = format!("{begin}<random>");
        self.generated.insert(name.to_owned(), shown.clone());
        shown
    }

    fn finish(self) -> Known {
        let mut uids = BTreeMap::new();
        let mut count: BTreeMap<String, u32> = BTreeMap::new();
        for (uid, name) in self.uids {
            let count = count.entry(name.clone()).or_default();
            *count += 1;
            uids.insert(uid, if *count == 1 { name } else { format!("{name}({count})") });
        }
        let mut versions = BTreeMap::new();
        for (uid, seen) in &self.versions {
            for (index, version) in seen.iter().enumerate() {
                versions.insert(*version, format!("{}#{}", uids[uid], index + 1));
            }
        }
        Known { uids, versions, generated: self.generated }
    }
}

struct Normal {
    ns: String,
    group: String,
    names: Known,
    now: i64,
}

impl Normal {
    fn value(&self, value: &Value, field: &str) -> Value {
        match value {
            Value::String(text) => self.text_of(text, field).into(),
            Value::Number(_) if field == "nodePort" => "<node port>".into(),
            Value::Array(items) => {
                let mut items: Vec<Value> = items.iter().map(|item| self.value(item, field)).collect();
                items.dedup_by(|next, last| next["type"] == "BOOKMARK" && next == last);
                if field == "managedFields" {
                    items.sort_by_cached_key(|entry| {
                        ["operation", "manager", "subresource", "apiVersion"].map(|field| entry[field].to_string())
                    });
                }
                items.into()
            }
            Value::Object(fields) => {
                let mut normal: Map<String, Value> =
                    fields.iter().map(|(name, field)| (self.text(name), self.value(field, name))).collect();
                for (name, field) in fields {
                    if name == "cells" || name.ends_with("/cells") {
                        hide_ages(normal.get_mut(&self.text(name)).expect("each field has a normal form"));
                    }
                    // Parts that a step keeps stand under their pointers.
                    if name == "metadata" || name.ends_with("/metadata") {
                        let shown = normal.get_mut(&self.text(name)).expect("each field has a normal form");
                        self.version(field, shown);
                    } else if name.ends_with("/metadata/resourceVersion") {
                        let kept = json!({"uid": "", "resourceVersion": field});
                        let mut shown = kept.clone();
                        self.version(&kept, &mut shown);
                        normal.insert(self.text(name), shown["resourceVersion"].take());
                    }
                }
                if fields.get("kind").is_some_and(|kind| kind == "Status") {
                    sort_causes(&mut normal);
                }
                normal.into()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// Names the version of an object or of a list.
    fn version(&self, metadata: &Value, normal: &mut Value) {
        let Some(Ok(version)) = metadata["resourceVersion"].as_str().map(str::parse::<u64>) else { return };
        let is_object = metadata["uid"].is_string();
        let newest = self.names.versions.range(..=version).next_back();
        normal["resourceVersion"] = match newest {
            Some((_, name)) if is_object => self.shorten(name).into(),
            Some((_, name)) => format!("<at {}>", self.shorten(name)).into(),
            None => "<at nothing>".into(),
        };
    }

    fn text_of(&self, text: &str, field: &str) -> String {
        match field {
            "continue" if !text.is_empty() => return "<continue>".into(),
            "clusterIP" | "clusterIPs" if text.parse::<std::net::IpAddr>().is_ok() => return "<ip>".into(),
            _ => {}
        }
        self.text(text)
    }

    fn shorten(&self, text: &str) -> String {
        text.replace(&self.ns, "<ns>").replace(&self.group, "<group>")
    }

    fn text(&self, text: &str) -> String {
        static UID: LazyLock<Regex> =
            LazyLock::new(|| compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));
        static TIME: LazyLock<Regex> =
            LazyLock::new(|| compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"));
        static PORT: LazyLock<Regex> = LazyLock::new(|| compile(r"127\.0\.0\.1:\d+"));
        static ADDRESS: LazyLock<Regex> = LazyLock::new(|| compile(r"10\.96\.\d+\.\d+"));
        static RULE_TYPE: LazyLock<Regex> = LazyLock::new(|| compile(r"selfType\d+"));
        static HASH: LazyLock<Regex> = LazyLock::new(|| compile(r"\?hash=[0-9A-F]+"));
        static VERSION: LazyLock<Regex> =
            LazyLock::new(|| compile(r"(?i)(resource ?version[a-z ]*: )(\d+)((?:, current: | \()(\d+)\)?)?"));
        static RECORD: LazyLock<Regex> =
            LazyLock::new(|| compile(r"(ResourceVersion in (?:the precondition|record) \()(\d+)"));
        // In a message that quotes an object.
        static QUOTED: LazyLock<Regex> = LazyLock::new(|| compile(r#"(resourceVersion\\*":\\*")(\d+)"#));
        let mut text = text.to_owned();
        for (name, shown) in &self.names.generated {
            text = text.replace(name, shown);
        }
        let text = VERSION.replace_all(&text, |found: &Captures<'_>| {
            let number = found[2].parse().ok().and_then(|number| self.names.versions.get(&number));
            let known = number.map_or(&found[2], |known| known.as_str());
            let current = found.get(3).map_or("", |current| {
                if current.as_str().contains('(') { " (<current>)" } else { ", current: <current>" }
            });
            format!("{}{known}{current}", &found[1])
        });
        let known = |found: &Captures<'_>| {
            let known = found[2].parse().ok().and_then(|number| self.names.versions.get(&number));
            format!("{}{}", &found[1], known.map_or(&found[2], |known| known.as_str()))
        };
        let text = QUOTED.replace_all(&text, known);
        let text = RECORD.replace_all(&text, known);
        let text = UID.replace_all(&text, |found: &Captures<'_>| match self.names.uids.get(&found[0]) {
            Some(name) => format!("<uid {name}>"),
            None => "<uid>".into(),
        });
        let text = TIME.replace_all(&text, |found: &Captures<'_>| self.time(found));
        let text = PORT.replace_all(&text, "127.0.0.1:<port>");
        let text = ADDRESS.replace_all(&text, "<ip>");
        let text = RULE_TYPE.replace_all(&text, "selfType<number>");
        let text = HASH.replace_all(&text, "?hash=<hash>");
        self.shorten(&text)
    }

    fn time(&self, found: &Captures<'_>) -> String {
        const DAY_S: i64 = 24 * 60 * 60;
        let is_now = found[0].parse::<jiff::Timestamp>().is_ok_and(|time| (time.as_second() - self.now).abs() < DAY_S);
        match (is_now, found.get(1)) {
            (false, _) => found[0].to_owned(),
            (true, None) => "<time>".into(),
            (true, Some(fraction)) => format!("<time.{}>", fraction.len() - 1),
        }
    }
}

/// Sorts the causes of a refusal, and the same in its message where it lists them.
fn sort_causes(status: &mut Map<String, Value>) {
    let listed = |causes: &[Value]| {
        let text = |cause: &Value, field: &str| cause[field].as_str().unwrap_or_default().to_owned();
        let each = causes.iter().map(|cause| format!("{}: {}", text(cause, "field"), text(cause, "message")));
        format!("[{}]", each.collect::<Vec<_>>().join(", "))
    };
    let Some(causes) = status.get_mut("details").and_then(|details| details["causes"].as_array_mut()) else { return };
    let before = listed(causes);
    causes.sort_by_cached_key(ToString::to_string);
    let after = listed(causes);
    if let Some(Value::String(message)) = status.get_mut("message") {
        *message = message.replace(&before, &after);
    }
}

/// Hides the ages in the cells of a table, which grow while it is made.
fn hide_ages(cells: &mut Value) {
    static AGE: LazyLock<Regex> = LazyLock::new(|| compile("^([0-9]+[ydhms])+$"));
    for cell in cells.as_array_mut().into_iter().flatten() {
        if cell.as_str().is_some_and(|text| AGE.is_match(text)) {
            *cell = "<age>".into();
        }
    }
}

fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this file is valid")
}

mod tests {
    use super::*;
    use crate::corpus::Variables;

    fn case() -> Case {
        let variables: Variables =
            [("ns".to_owned(), json!("ns-1a")), ("group".to_owned(), json!("g1a.corpus.test"))].into();
        Case { family: "f".into(), name: "f/c".into(), variables, steps: Vec::new() }
    }

    fn normal_of(bodies: &[Value]) -> Vec<Value> {
        let raws = bodies.iter().map(|body| Raw { body: body.clone(), ..Raw::default() }).collect();
        normalise(&case(), raws).into_iter().map(|answer| answer.body).collect()
    }

    const UID_A: &str = "11111111-2222-3333-4444-555555555555";
    const UID_B: &str = "11111111-2222-3333-4444-666666666666";

    #[test]
    fn what_differs_by_chance_gets_a_name() {
        let now = jiff::Timestamp::now();
        let rows = [
            ("a namespace", json!("in ns-1a of g1a.corpus.test"), json!("in <ns> of <group>")),
            ("a time of now", json!({"t": format!("{:.0}", now)}), json!({"t": "<time>"})),
            ("a finer time", json!({"t": format!("{:.6}", now)}), json!({"t": "<time.6>"})),
            ("a time of the case's own", json!("2020-01-01T00:00:00Z"), json!("2020-01-01T00:00:00Z")),
            ("a page token", json!({"continue": "abc"}), json!({"continue": "<continue>"})),
            ("no page token", json!({"continue": ""}), json!({"continue": ""})),
            ("an unknown uid", json!(format!("not {UID_A}")), json!("not <uid>")),
            (
                "an address",
                json!({"clusterIP": "10.1.0.7", "x": "10.1.0.7"}),
                json!({"clusterIP": "<ip>", "x": "10.1.0.7"}),
            ),
            ("an address of the services' range", json!("no 10.96.0.7"), json!("no <ip>")),
            ("no address", json!({"clusterIP": "None"}), json!({"clusterIP": "None"})),
            (
                "the order of managers",
                json!({"managedFields": [{"manager": "b"}, {"manager": "a"}]}),
                json!({"managedFields": [{"manager": "a"}, {"manager": "b"}]}),
            ),
            (
                "bookmarks",
                json!([{"type": "BOOKMARK"}, {"type": "BOOKMARK"}, {"type": "ADDED"}, {"type": "ADDED"}]),
                json!([{"type": "BOOKMARK"}, {"type": "ADDED"}, {"type": "ADDED"}]),
            ),
            (
                "the order of causes",
                json!({"kind": "Status", "message": "bad: [b: x, a: y]", "details": {"causes": [
                    {"field": "b", "message": "x"}, {"field": "a", "message": "y"},
                ]}}),
                json!({"kind": "Status", "message": "bad: [a: y, b: x]", "details": {"causes": [
                    {"field": "a", "message": "y"}, {"field": "b", "message": "x"},
                ]}}),
            ),
            (
                "an age",
                json!({"rows": [{"cells": ["5s", "x", "6y10d"]}], "age": "5s"}),
                json!({"rows": [{"cells": ["<age>", "x", "<age>"]}], "age": "5s"}),
            ),
        ];
        for (why, body, want) in rows {
            assert_eq!(normal_of(std::slice::from_ref(&body)), [want], "{why}");
        }
    }

    #[test]
    fn versions_and_uids_tell_what_stayed_and_what_did_not() {
        let object =
            |uid: &str, version: &str| json!({"metadata": {"name": "a", "uid": uid, "resourceVersion": version}});
        let shown = |uid: &str, version: &str| object(&format!("<uid {uid}>"), version);
        let bodies = [
            object(UID_A, "90"),
            object(UID_A, "90"),
            object(UID_A, "104"),
            object(UID_B, "110"),
            json!({"metadata": {"resourceVersion": "107"}}),
            json!({"message": format!("UID in object meta: {UID_B}")}),
            json!({"message": "too old resource version: 90 (300)"}),
            json!({"message": "Too large resource version: 999, current: 110"}),
            json!({"message": r#"Invalid: "{\"resourceVersion\":\"90\"}""#}),
        ];
        let want = [
            shown("a", "a#1"),
            shown("a", "a#1"),
            shown("a", "a#2"),
            shown("a(2)", "a(2)#1"),
            json!({"metadata": {"resourceVersion": "<at a#2>"}}),
            json!({"message": "UID in object meta: <uid a(2)>"}),
            json!({"message": "too old resource version: a#1 (<current>)"}),
            json!({"message": "Too large resource version: 999, current: <current>"}),
            json!({"message": r##"Invalid: "{\"resourceVersion\":\"a#1\"}""##}),
        ];
        assert_eq!(normal_of(&bodies), want);
    }

    #[test]
    fn generated_names_lose_their_random_end() {
        let body = json!({"metadata": {"name": "p-x7k2q", "generateName": "p-", "uid": UID_A, "resourceVersion": "5"}});
        let want = json!({"metadata": {
            "name": "p-<random>", "generateName": "p-", "uid": "<uid p-<random>>", "resourceVersion": "p-<random>#1",
        }});
        assert_eq!(normal_of(&[body]), [want]);
    }
}
