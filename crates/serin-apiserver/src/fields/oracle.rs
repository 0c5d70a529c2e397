//! The field manager against kube-apiserver's own, by sequences of writes.
//!
//! Sequences are made from a seed. The Go program in `tests/data/fields/oracle/` plays the same against the real library; what it answered is
//! frozen in `tests/data/fields/`: a hash of the answers of each of many sequences, and some sequences in full.
//! To record again, or to play fresh ones:
//!
//! ```sh
//! SEED=7 COUNT=100000 REQUESTS=/tmp/requests cargo test --release -p serin-apiserver emit_sequences -- --ignored
//! (cd tests/data/fields/oracle && ./run /tmp/requests /tmp/answers)
//! SEED=7 COUNT=100000 ANSWERS=/tmp/answers cargo test --release -p serin-apiserver the_answers_are_the_same -- --ignored --nocapture
//! ```
//!
//! Sets and scales are played alike: `emit_sets`, `TestSets` as a third argument, `the_sets_are_the_same`; `emit_owners`,
//! `TestOwners`, `the_owners_are_the_same`. To freeze sequences, play seed 1 with 5000 and give the last command `HASHES` and `SAMPLES`, the files in `tests/data/fields/`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write as _};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::maker::{Dice, Maker, SHAPES};
use super::play::{Answer, START, Sequence, answer, play};
use super::{Entry, Path, ReplicasPaths, Seconds, Set, entries_after_scale, entries_of_scale, read_entries};

/// The seed of the frozen sequences.
const FROZEN_SEED: u64 = 1;
/// How many sequences are kept in full.
const SAMPLES: usize = 50;

/// A sequence in full, for a reader, and for a change of how sequences are made.
#[derive(Serialize, Deserialize)]
struct Sample {
    sequence: Sequence,
    answers: Vec<Answer>,
}

fn hash(answers: &[Answer]) -> u32 {
    // FNV-1a, folded.
    let text = serde_json::to_string(answers).unwrap();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    u32::try_from((hash ^ (hash >> 32)) & 0xffff_ffff).unwrap()
}

fn number_from_env(name: &str) -> u64 {
    std::env::var(name).unwrap().parse().unwrap()
}

#[test]
#[ignore = "writes the sequences for the Go program"]
fn emit_sequences() {
    let (seed, count) = (number_from_env("SEED"), number_from_env("COUNT"));
    let mut out = BufWriter::new(File::create(std::env::var("REQUESTS").unwrap()).unwrap());
    for index in 0..count {
        let (sequence, _) = play(seed * 1_000_000 + index);
        serde_json::to_writer(&mut out, &sequence).unwrap();
        out.write_all(b"\n").unwrap();
    }
}

#[test]
fn frozen_sequences_are_answered_as_by_kube_apiserver() {
    let mut count = 0;
    for (index, wanted) in (0_u64..).zip(include_str!("../../tests/data/fields/hashes.txt").lines()) {
        let (sequence, answers) = play(FROZEN_SEED * 1_000_000 + index);
        let got = format!("{:08x}", hash(&answers));
        assert_eq!(got, wanted, "sequence {index}: {}", serde_json::to_string(&sequence).unwrap());
        count += 1;
    }
    assert!(count >= 5000, "{count}");
}

#[test]
fn frozen_samples_are_answered_as_by_kube_apiserver() {
    let mut count = 0;
    // The second file has what sequences from a seed seldom come to; it is kept by hand.
    let files =
        [include_str!("../../tests/data/fields/samples.jsonl"), include_str!("../../tests/data/fields/found.jsonl")];
    for line in files.into_iter().flat_map(str::lines) {
        let Sample { sequence, answers } = serde_json::from_str(line).unwrap();
        let (mut live, mut now) = (None, START);
        for (index, (step, wanted)) in sequence.steps.iter().zip(answers).enumerate() {
            now += step.wait;
            let got = answer(&SHAPES[step.shape], sequence.has_status, &mut live, step, Seconds(now));
            assert_eq!(got, wanted, "step {index} of {line}");
        }
        count += 1;
    }
    assert!(count > SAMPLES, "{count}");
}

/// A pair of FieldsV1, some of them wrong.
fn pair(seed: u64) -> [Value; 2] {
    let mut maker = Maker { dice: Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)), wrong: 0 };
    let (a, b) = (maker.owned(4), maker.owned(4));
    let mixed = if maker.dice.percent(50) {
        let mut mixed = a.clone();
        maker.mix(&mut mixed, &b);
        mixed
    } else {
        b
    };
    [a, mixed]
}

/// What is made of a pair, as the Go program writes it.
fn algebra([a, b]: &[Value; 2]) -> Vec<String> {
    let (a, b) = match (Set::from_fields_v1(a), Set::from_fields_v1(b)) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => return vec![format!("{} {}", a.is_ok(), b.is_ok())],
    };
    let sets = [
        a.clone(),
        b.clone(),
        a.union(&b),
        a.intersection(&b),
        a.difference(&b),
        a.recursive_difference(&b),
        a.leaves(),
    ];
    let mut texts: Vec<String> = sets.iter().map(Set::to_fields_v1_text).collect();
    for (set, text) in sets.iter().zip(&texts) {
        assert_eq!(set.to_fields_v1(), serde_json::from_str::<Value>(text).unwrap());
    }
    texts.push(a.paths().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    texts.push(format!("{} {} {}", a.len(), a.is_empty(), a == b));
    texts
}

/// The owners of an object and of its Scale.
fn owners(seed: u64) -> [Value; 2] {
    let mut maker = Maker { dice: Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)), wrong: 0 };
    ["object", "scale"].map(|of| {
        let len = maker.dice.below(4);
        let entries = (0..len).map(|_| {
            let fields = match maker.dice.below(4) {
                0 => json!({"f:spec": {"f:replicas": {}}}),
                1 => json!({"f:spec": {"f:size": {}, "f:replicas": {}}}),
                2 => json!({"f:spec": {".": {}, "f:size": {}}}),
                _ => maker.owned(1),
            };
            let versions: &[&str] = match of {
                "object" => &["example.com/v1", "example.com/v2", "example.com/v3", "example.com/v4"],
                _ => &["autoscaling/v1"],
            };
            json!({
                "manager": maker.dice.pick(&["a", "b"]), "operation": maker.dice.pick(&["Apply", "Update"]),
                "apiVersion": maker.dice.pick(versions), "fieldsType": "FieldsV1", "fieldsV1": fields,
                "time": format!("2000-01-01T00:00:0{}Z", maker.dice.below(3)),
            })
        });
        entries.collect()
    })
}

/// What is made of the owners, as the Go program writes it.
fn scaled([object, scale]: &[Value; 2]) -> Vec<Value> {
    let paths = ReplicasPaths::from([
        ("example.com/v1".to_owned(), Some(Path::of_fields(&["spec", "size"]))),
        ("example.com/v2".to_owned(), Some(Path::of_fields(&["spec", "replicas"]))),
        ("example.com/v3".to_owned(), None),
    ]);
    let entries = |list: &Value| read_entries(&json!({"metadata": {"managedFields": list}})).unwrap();
    let (object, scale) = (entries(object), entries(scale));
    let after =
        ["example.com/v1", "example.com/v3"].map(|version| entries_after_scale(&object, &scale, version, &paths).ok());
    let mut answers = vec![entries_of_scale(&object, &paths).ok()];
    answers.extend(after);
    // An error and no entries are both null.
    let value = |entries: Option<Vec<Entry>>| {
        entries.filter(|entries| !entries.is_empty()).map(|it| it.into_iter().map(Entry::into_value).collect())
    };
    answers.into_iter().map(|entries| value(entries).unwrap_or_default()).collect()
}

#[test]
#[ignore = "writes the owners for the Go program"]
fn emit_owners() {
    let (seed, count) = (number_from_env("SEED"), number_from_env("COUNT"));
    let mut out = BufWriter::new(File::create(std::env::var("REQUESTS").unwrap()).unwrap());
    for index in 0..count {
        serde_json::to_writer(&mut out, &owners(seed * 1_000_000 + index)).unwrap();
        out.write_all(b"\n").unwrap();
    }
}

#[test]
#[ignore = "reads the answers of the Go program"]
fn the_owners_are_the_same() {
    let (seed, count) = (number_from_env("SEED"), number_from_env("COUNT"));
    let answers = BufReader::new(File::open(std::env::var("ANSWERS").unwrap()).unwrap());
    let mut seen = 0;
    for (index, line) in (0..count).zip(answers.lines()) {
        let wanted: Vec<Value> = serde_json::from_str(&line.unwrap()).unwrap();
        let owners = owners(seed * 1_000_000 + index);
        assert_eq!(scaled(&owners), wanted, "{}", serde_json::to_string(&owners).unwrap());
        seen += 1;
    }
    assert_eq!(seen, count);
}

#[test]
#[ignore = "writes the sets for the Go program"]
fn emit_sets() {
    let (seed, count) = (number_from_env("SEED"), number_from_env("COUNT"));
    let mut out = BufWriter::new(File::create(std::env::var("REQUESTS").unwrap()).unwrap());
    for index in 0..count {
        serde_json::to_writer(&mut out, &pair(seed * 1_000_000 + index)).unwrap();
        out.write_all(b"\n").unwrap();
    }
}

#[test]
#[ignore = "reads the answers of the Go program"]
fn the_sets_are_the_same() {
    let (seed, count) = (number_from_env("SEED"), number_from_env("COUNT"));
    let answers = BufReader::new(File::open(std::env::var("ANSWERS").unwrap()).unwrap());
    let (mut refused, mut differ) = (0, 0);
    for (index, line) in (0..count).zip(answers.lines()) {
        let wanted: Vec<String> = serde_json::from_str(&line.unwrap()).unwrap();
        let pair = pair(seed * 1_000_000 + index);
        let got = algebra(&pair);
        refused += usize::from(wanted.len() == 1);
        if got != wanted {
            differ += 1;
            if differ <= 5 {
                println!(
                    "pair {index} {}\n  wanted {wanted:?}\n  got    {got:?}",
                    serde_json::to_string(&pair).unwrap()
                );
            }
        }
    }
    println!("{count} pairs, {refused} refused; {differ} differ");
    assert_eq!(differ, 0);
}

#[test]
#[ignore = "reads the answers of the Go program"]
fn the_answers_are_the_same() {
    let (seed, count) = (number_from_env("SEED"), number_from_env("COUNT"));
    let answers = BufReader::new(File::open(std::env::var("ANSWERS").unwrap()).unwrap());
    let (mut hashes, mut samples) = (String::new(), Vec::new());
    let (mut steps, mut refused, mut differ, mut conflicts) = (0, 0, 0, 0);
    let mut seen = 0;
    for (index, line) in (0..count).zip(answers.lines()) {
        let wanted: Vec<Answer> = serde_json::from_str(&line.unwrap()).unwrap();
        let wanted: Vec<Answer> = wanted.into_iter().map(Answer::normal).collect();
        let (sequence, got) = play(seed * 1_000_000 + index);
        steps += got.len();
        refused += wanted.iter().filter(|answer| !answer.error.is_empty()).count();
        conflicts += wanted.iter().filter(|answer| !answer.causes.is_empty()).count();
        if let Some(at) = (0..got.len()).find(|at| got[*at] != wanted[*at]) {
            differ += 1;
            if differ <= 5 {
                let before = at.checked_sub(1).map(|at| serde_json::to_string(&got[at]).unwrap());
                println!("sequence {index} step {at}");
                println!("  before {}", before.unwrap_or_default());
                println!("  step   {}", serde_json::to_string(&sequence.steps[at]).unwrap());
                println!("  wanted {}", serde_json::to_string(&wanted[at]).unwrap());
                println!("  got    {}", serde_json::to_string(&got[at]).unwrap());
            }
        }
        writeln!(hashes, "{:08x}", hash(&wanted)).unwrap();
        seen += 1;
        let sample = Sample { sequence, answers: wanted };
        let text = serde_json::to_string(&sample).unwrap();
        if sample.answers.iter().any(|answer| !answer.error.is_empty()) && text.len() < 6000 && samples.len() < SAMPLES
        {
            samples.push(text);
        }
    }
    if let Ok(path) = std::env::var("SAMPLES") {
        std::fs::write(path, samples.join("\n")).unwrap();
    }
    println!(
        "{seen} sequences, {steps} steps, {refused} refused, {conflicts} of them conflicts; {differ} sequences differ"
    );
    if let Ok(path) = std::env::var("HASHES") {
        std::fs::write(path, hashes).unwrap();
    }
    assert_eq!((seen, differ), (count, 0));
}
