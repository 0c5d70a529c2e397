//! Golden answers, the differences from them, and the list of those that are known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::corpus::{self, Case};
use crate::normal::Answer;

/// Values longer than this are cut when they are shown, unless few cases are played.
const SHOWN_CHARS: usize = 160;
/// Differences that are shown before the rest is only counted.
const SHOWN_MAX: usize = 60;

/// One place where an answer is not the golden one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub case: String,
    pub step: String,
    /// Where in the answer.
    pub pointer: String,
    pub real: String,
    pub ours: String,
}

/// An entry of `differences.yaml`: differences that are known, and why they are there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    pub reason: String,
    pub kind: Kind,
    /// At most so many steps differ like this. More is a defect that hides behind a known one.
    pub steps_max: usize,
    /// Where they are. Each of these covers at least one difference.
    pub at: Vec<Pattern>,
}

/// Some differences. `*` stands for any text in the first three.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    #[serde(default = "anything")]
    pub case: String,
    #[serde(default = "anything")]
    pub step: String,
    #[serde(default = "anything")]
    pub pointer: String,
    /// If given, what the real server answers contains this.
    pub real: Option<String>,
    /// If given, what ours answers contains this.
    pub ours: Option<String>,
}

fn anything() -> String {
    "*".into()
}

/// What is to become of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// It stays, for the reason given.
    #[serde(rename = "by design")]
    ByDesign,
    /// It is a defect.
    #[serde(rename = "to mend")]
    ToMend,
}

impl Pattern {
    fn covers(&self, difference: &Difference) -> bool {
        let contains = |text: &str, part: &Option<String>| part.as_ref().is_none_or(|part| text.contains(part));
        matches(&self.case, &difference.case)
            && matches(&self.step, &difference.step)
            && matches(&self.pointer, &difference.pointer)
            && contains(&difference.ours, &self.ours)
            && contains(&difference.real, &self.real)
    }
}

/// The known differences.
pub fn known() -> Vec<Known> {
    corpus::read_yaml(&corpus::folder().join("differences.yaml"))
}

/// Writes into `differences.yaml` how many steps each entry touches.
pub fn count(steps: &[usize]) {
    const FIELD: &str = "  steps_max: ";
    let path = corpus::folder().join("differences.yaml");
    let text = std::fs::read_to_string(&path).expect("the list of differences");
    let mut steps = steps.iter();
    let counted = text.lines().map(|line| match line.starts_with(FIELD) {
        true => format!("{FIELD}{}\n", steps.next().expect("each entry has a count")),
        false => format!("{line}\n"),
    });
    std::fs::write(&path, counted.collect::<String>()).expect("the list of differences");
}

fn golden_file(family: &str) -> PathBuf {
    corpus::folder().join("golden").join(format!("{family}.jsonl"))
}

/// The golden answers of the families that these cases are from.
pub fn golden(cases: &[Case]) -> Vec<Answer> {
    let families: BTreeSet<&str> = cases.iter().map(|case| case.family.as_str()).collect();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let mut answers = Vec::new();
    for family in families {
        let path = golden_file(family);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for line in text.lines() {
            let answer: Answer =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display()));
            answers.push(answer);
        }
    }
    // A run may be restricted to some cases.
    answers.retain(|answer| names.contains(answer.case.as_str()));
    answers
}

/// Writes the golden answers of these cases; those of other cases of their families stay as they are, if they still exist.
pub fn record(cases: &[Case], all: &[Case], answers: &[Answer]) {
    let families: BTreeSet<&str> = cases.iter().map(|case| case.family.as_str()).collect();
    for family in families {
        let path = golden_file(family);
        let mut by_case: BTreeMap<String, Vec<Answer>> = BTreeMap::new();
        let of_family: Vec<Case> = all.iter().filter(|case| case.family == family).cloned().collect();
        let played: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        let kept = golden(&of_family).into_iter().filter(|answer| !played.contains(answer.case.as_str()));
        for answer in kept.chain(answers.iter().cloned()) {
            by_case.entry(answer.case.clone()).or_default().push(answer);
        }
        let mut text = String::new();
        for case in &of_family {
            for answer in by_case.get(&case.name).into_iter().flatten() {
                writeln!(text, "{}", serde_json::to_string(answer).expect("JSON")).expect("a string takes text");
            }
        }
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder of golden answers");
        std::fs::write(&path, text).expect("a golden file");
    }
}

/// Everything in which `ours` is not `real`.
pub fn differences(real: &[Answer], ours: &[Answer]) -> Vec<Difference> {
    let key = |answer: &Answer| (answer.case.clone(), answer.step.clone());
    let golden: BTreeMap<_, &Answer> = real.iter().map(|answer| (key(answer), answer)).collect();
    let mut found = Vec::new();
    for answer in ours {
        match golden.get(&key(answer)) {
            Some(real) => compare(real, answer, &mut found),
            None => found.push(Difference {
                case: answer.case.clone(),
                step: answer.step.clone(),
                pointer: String::new(),
                real: "(no golden answer: run `SERIN_RECORD=1 make test-cluster`)".into(),
                ours: "an answer".into(),
            }),
        }
    }
    let played: BTreeSet<_> = ours.iter().map(key).collect();
    for answer in real.iter().filter(|answer| !played.contains(&key(answer))) {
        found.push(Difference {
            case: answer.case.clone(),
            step: answer.step.clone(),
            pointer: String::new(),
            real: "a golden answer".into(),
            ours: "(the case has no such step)".into(),
        });
    }
    found
}

fn compare(real: &Answer, ours: &Answer, found: &mut Vec<Difference>) {
    let (case, step) = (&ours.case, &ours.step);
    let mut add = |pointer: &str, real: String, ours: String| {
        found.push(Difference { case: case.clone(), step: step.clone(), pointer: pointer.to_owned(), real, ours });
    };
    // Another code is another answer: nothing more is learned from the rest of it.
    if (real.code, &real.note) != (ours.code, &ours.note) {
        add("/code", outcome(real), outcome(ours));
        return;
    }
    if real.content_type != ours.content_type {
        add("/type", show(&real.content_type), show(&ours.content_type));
    }
    if real.warnings != ours.warnings {
        add("/warnings", show(&real.warnings), show(&ours.warnings));
    }
    let headers: BTreeSet<&String> = real.headers.keys().chain(ours.headers.keys()).collect();
    for name in headers {
        let (real, ours) = (real.headers.get(name), ours.headers.get(name));
        if real != ours {
            add(&format!("/headers/{name}"), show(&real), show(&ours));
        }
    }
    compare_values("/body", &real.body, &ours.body, &mut add);
}

fn compare_values(pointer: &str, real: &Value, ours: &Value, add: &mut impl FnMut(&str, String, String)) {
    match (real, ours) {
        (Value::Object(real), Value::Object(ours)) => {
            let names: BTreeSet<&String> = real.keys().chain(ours.keys()).collect();
            for name in names {
                let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                match (real.get(name), ours.get(name)) {
                    (Some(real), Some(ours)) => compare_values(&pointer, real, ours, add),
                    (real, ours) => {
                        let shown = |value: Option<&Value>| value.map_or("(absent)".into(), Value::to_string);
                        add(&pointer, shown(real), shown(ours));
                    }
                }
            }
        }
        (Value::Array(real), Value::Array(ours)) if real.len() == ours.len() => {
            for (index, (real, ours)) in real.iter().zip(ours).enumerate() {
                compare_values(&format!("{pointer}/{index}"), real, ours, add);
            }
        }
        (real, ours) if real == ours => {}
        (real, ours) => add(pointer, real.to_string(), ours.to_string()),
    }
}

/// Code and message: what is left of an answer when the codes differ.
fn outcome(answer: &Answer) -> String {
    let mut text = answer.code.map_or("no code".into(), |code| code.to_string());
    if let Some(message) = answer.body["message"].as_str() {
        write!(text, " {}", message.replace('\n', " / ")).expect("a string takes text");
    }
    if let Some(note) = &answer.note {
        write!(text, " ({note})").expect("a string takes text");
        if let Some(events) = answer.body.as_array() {
            let types: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
            write!(text, " {types:?}").expect("a string takes text");
        }
    }
    text
}

fn show<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("JSON")
}

/// What a comparison says, and whether it may stand.
pub struct Verdict {
    pub report: String,
    /// How many steps each known difference touches.
    pub steps: Vec<usize>,
    pub is_good: bool,
}

/// Judges differences by the known ones. Whether each known one still is there is asked only when `is_whole`.
pub fn judge(cases: &[Case], ours: &[Answer], found: &[Difference], known: &[Known], is_whole: bool) -> Verdict {
    let mut report = counts(cases, ours, found);
    let mut steps: Vec<BTreeSet<(&str, &str)>> = vec![BTreeSet::new(); known.len()];
    let mut used: Vec<Vec<bool>> = known.iter().map(|known| vec![false; known.at.len()]).collect();
    let mut unknown = Vec::new();
    for difference in found {
        // The first that covers it, so that special ones stand before general ones.
        let all = known.iter().enumerate().flat_map(|(index, known)| (0..known.at.len()).map(move |at| (index, at)));
        match all.into_iter().find(|(index, at)| known[*index].at[*at].covers(difference)) {
            Some((index, at)) => {
                used[index][at] = true;
                steps[index].insert((&difference.case, &difference.step));
            }
            None => unknown.push(difference),
        }
    }
    let mut is_good = unknown.is_empty();
    if !known.is_empty() {
        writeln!(report, "\nknown differences, by the steps that they touch:").expect("a string takes text");
    }
    for ((known, steps), used) in known.iter().zip(&steps).zip(&used) {
        let kind = if known.kind == Kind::ByDesign { "by design" } else { "to mend" };
        writeln!(report, "  {:5} {kind:9} {}", steps.len(), known.reason).expect("a string takes text");
        if steps.len() > known.steps_max {
            let max = known.steps_max;
            writeln!(report, "        ^ more than `steps_max: {max}`: something new differs")
                .expect("a string takes text");
            is_good = false;
        }
        for (pattern, _) in known.at.iter().zip(used).filter(|(_, used)| is_whole && !**used) {
            let Pattern { case, step, pointer, .. } = pattern;
            writeln!(report, "        ^ is there no more, take it out: {case} | {step} | {pointer}")
                .expect("a string takes text");
            is_good = false;
        }
    }
    if !unknown.is_empty() {
        writeln!(report, "\n{} differences that are not known:", unknown.len()).expect("a string takes text");
    }
    let shown_chars = if is_whole { SHOWN_CHARS } else { usize::MAX };
    let shown_max = if is_whole { SHOWN_MAX } else { usize::MAX };
    for difference in unknown.iter().take(shown_max) {
        let cut = |text: &str| match text.char_indices().nth(shown_chars) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text.to_owned(),
        };
        let Difference { case, step, pointer, real, ours } = difference;
        writeln!(report, "  {case} | {step} | {pointer}\n    real: {}\n    ours: {}", cut(real), cut(ours))
            .expect("a string takes text");
    }
    if unknown.len() > shown_max {
        writeln!(report, "  and {} more", unknown.len() - shown_max).expect("a string takes text");
    }
    Verdict { report, steps: steps.iter().map(BTreeSet::len).collect(), is_good }
}

/// Cases and steps by family, and how many agree.
fn counts(cases: &[Case], ours: &[Answer], found: &[Difference]) -> String {
    let family = |case: &str| case.split('/').next().unwrap_or_default().to_owned();
    let mut rows: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    for case in cases {
        rows.entry(case.family.clone()).or_default()[0] += 1;
    }
    for answer in ours {
        rows.entry(family(&answer.case)).or_default()[1] += 1;
    }
    let steps: BTreeSet<_> = found.iter().map(|found| (&found.case, &found.step)).collect();
    for (case, _) in steps {
        rows.entry(family(case)).or_default()[3] += 1;
    }
    let mut total = [0; 4];
    let mut text = format!("{:24}{:>8}{:>8}{:>8}{:>8}\n", "family", "cases", "steps", "agree", "differ");
    for (family, row) in &mut rows {
        row[2] = row[1].saturating_sub(row[3]);
        total.iter_mut().zip(*row).for_each(|(total, count)| *total += count);
        writeln!(text, "{family:24}{:8}{:8}{:8}{:8}", row[0], row[1], row[2], row[3]).expect("a string takes text");
    }
    writeln!(text, "{:24}{:8}{:8}{:8}{:8}", "all", total[0], total[1], total[2], total[3])
        .expect("a string takes text");
    text
}

/// Whether a text is of a pattern, in which `*` is any text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

mod tests {
    use serde_json::json;

    use super::*;

    fn answer(code: u16, body: Value) -> Answer {
        let mut answer: Answer =
            serde_json::from_value(json!({"case": "f/c [k]", "step": "1 get"})).expect("an answer");
        (answer.code, answer.body) = (Some(code), body);
        answer
    }

    fn found(real: Answer, ours: Answer) -> Vec<(String, String, String)> {
        let found = differences(&[real], &[ours]);
        found.into_iter().map(|found| (found.pointer, found.real, found.ours)).collect()
    }

    #[test]
    fn differences_are_found_where_they_are() {
        let row = |pointer: &str, real: &str, ours: &str| (pointer.to_owned(), real.to_owned(), ours.to_owned());
        let rows = [
            (answer(200, json!({"a": [1, {"b": 2}]})), answer(200, json!({"a": [1, {"b": 2}]})), vec![]),
            (
                answer(200, json!({"a": [1, {"b/c": 2}]})),
                answer(200, json!({"a": [1, {"b/c": 3}], "d": null})),
                vec![row("/body/a/1/b~1c", "2", "3"), row("/body/d", "(absent)", "null")],
            ),
            (answer(200, json!([1])), answer(200, json!([])), vec![row("/body", "[1]", "[]")]),
            (answer(200, json!({"a": 1})), answer(404, json!({"message": "no"})), vec![row("/code", "200", "404 no")]),
        ];
        for (real, ours, want) in rows {
            assert_eq!(found(real, ours), want);
        }
        assert_eq!(differences(&[answer(200, json!(1))], &[]).len(), 1, "a step that is not played");
        assert_eq!(differences(&[], &[answer(200, json!(1))]).len(), 1, "a step without a golden answer");
    }

    #[test]
    fn known_differences_must_be_there_and_no_others() {
        let found = differences(&[answer(200, json!({"a": 1, "b": 1}))], &[answer(200, json!({"a": 2, "b": 2}))]);
        let known = |pointer: &str, steps_max| {
            let at = json!([{"case": "f/* [k]", "pointer": pointer}]);
            let known = json!({"reason": "because", "kind": "to mend", "steps_max": steps_max, "at": at});
            serde_json::from_value::<Known>(known).expect("an entry")
        };
        let rows = [
            ("all covered", vec![known("/body/*", 1)], true),
            ("one not covered", vec![known("/body/a", 1)], false),
            ("one too many", vec![known("/body/*", 1), known("/code", 1)], false),
            ("more steps than known", vec![known("/body/*", 0)], false),
            ("none known", vec![], false),
        ];
        for (why, known, want) in rows {
            assert_eq!(judge(&[], &[], &found, &known, true).is_good, want, "{why}");
        }
        assert!(judge(&[], &[], &[], &[], true).is_good, "nothing differs");
    }

    #[test]
    fn a_star_is_any_text() {
        let rows = [
            ("*", "", true),
            ("a*", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "a/b/c", true),
            ("a*b*c", "a/c", false),
            ("abc", "abcd", false),
            ("*[pod]", "get/x [pod]", true),
            ("*[pod]", "get/x [pod] (y)", false),
        ];
        for (pattern, text, want) in rows {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }
}
