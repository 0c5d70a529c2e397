//! The evaluator against ONNX Runtime's frozen answers, over whole test sets of exported models, and against files that
//! must be refused. The format is described in `tests/fixtures/onnx/README.md`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serin_runtime::onnx::{Budget, DType, Data, ModelError, Plan, RunOptions, Scratch, Shape, Tensor};

/// Share of rows that may differ beyond the tolerance, because they sit on a split in 32-bit floats.
const SPLIT_ROWS_MAX: f64 = 0.0002;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn json(path: impl AsRef<Path>) -> Value {
    let path = root().join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {value}"))
}

fn dims(value: &Value) -> Vec<usize> {
    value["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as usize).collect()
}

/// Numbers of a raw file, as doubles, which hold every stored type exactly (the integers are small).
fn stored_numbers(value: &Value) -> Vec<f64> {
    let bytes = std::fs::read(root().join(text(value, "file"))).unwrap();
    match text(value, "stored") {
        "u8" => bytes.iter().map(|byte| f64::from(*byte)).collect(),
        "f32" => bytes.as_chunks::<4>().0.iter().map(|chunk| f64::from(f32::from_le_bytes(*chunk))).collect(),
        "f64" => bytes.as_chunks::<8>().0.iter().map(|chunk| f64::from_le_bytes(*chunk)).collect(),
        "i64" => bytes.as_chunks::<8>().0.iter().map(|chunk| i64::from_le_bytes(*chunk) as f64).collect(),
        other => panic!("unknown stored type {other}"),
    }
}

/// Columns of a CSV file, side by side: numbers, or the categories they stand for.
fn csv_column_data(value: &Value, dtype: &str) -> Data {
    let csv = std::fs::read_to_string(root().join(text(value, "csv"))).unwrap();
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let columns: Vec<&str> = value["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let places: Vec<usize> =
        columns.iter().map(|name| header.iter().position(|column| column == name).unwrap()).collect();
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let cells = rows.iter().flat_map(|row| places.iter().map(|place| row[*place]));
    if dtype != "string" {
        return numbers_as(cells.map(|cell| cell.parse().unwrap()).collect(), dtype);
    }
    let schema = json(text(value, "decode"));
    let categories: HashMap<&str, &Value> = schema["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| (text(column, "name"), &column["categories"]))
        .collect();
    let names = columns.iter().map(|column| categories[column]).cycle();
    Data::Str(cells.zip(names).map(|(cell, names)| names[cell.parse::<usize>().unwrap()].as_str().unwrap()).collect())
}

fn numbers_as(numbers: Vec<f64>, dtype: &str) -> Data {
    match dtype {
        "float32" => Data::F32(numbers.into_iter().map(|number| number as f32).collect()),
        "float64" => Data::F64(numbers),
        "int64" => Data::I64(numbers.into_iter().map(|number| number as i64).collect()),
        other => panic!("unknown dtype {other}"),
    }
}

/// A case, read whole.
struct Case {
    name: String,
    core: bool,
    model: Vec<u8>,
    rows: usize,
    inputs: Vec<(String, Vec<usize>, Data)>,
    outputs: Vec<Expected>,
    close_rows: Vec<usize>,
}

struct Expected {
    name: String,
    /// Numbers per row.
    width: usize,
    values: ExpectedValues,
    tolerance: Option<(f64, f64)>,
}

enum ExpectedValues {
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

fn cases() -> Vec<Case> {
    let folder = root().join("tests/fixtures/onnx/models");
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.iter().map(|folder| Case::read(&json(folder.join("case.json")))).collect()
}

impl Case {
    fn read(case: &Value) -> Case {
        let inputs = case["inputs"].as_array().unwrap().iter().map(|input| {
            let data = match input.get("csv") {
                Some(_) => csv_column_data(input, text(input, "dtype")),
                None => numbers_as(stored_numbers(input), text(input, "dtype")),
            };
            (text(input, "name").to_owned(), dims(input), data)
        });
        let outputs = case["outputs"].as_array().unwrap().iter().map(|output| {
            let numbers = stored_numbers(output);
            let values = match output.get("values").and_then(Value::as_array) {
                Some(values) => ExpectedValues::Texts(
                    numbers.iter().map(|place| values[*place as usize].as_str().unwrap().to_owned()).collect(),
                ),
                None => ExpectedValues::Numbers(numbers),
            };
            let compare = &output["compare"];
            let tolerance = compare
                .as_object()
                .map(|compare| (compare["absolute"].as_f64().unwrap(), compare["relative"].as_f64().unwrap()));
            Expected {
                name: text(output, "name").to_owned(),
                width: dims(output)[1..].iter().product(),
                values,
                tolerance,
            }
        });
        Case {
            name: text(case, "name").to_owned(),
            core: text(case, "tier") == "core",
            model: std::fs::read(root().join(text(case, "model"))).unwrap(),
            rows: case["rows"].as_u64().unwrap() as usize,
            inputs: inputs.collect(),
            outputs: outputs.collect(),
            close_rows: case["close_rows"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row.as_u64().unwrap() as usize)
                .collect(),
        }
    }

    /// Fills the plan's inputs with rows `range`.
    fn fill(&self, plan: &Plan, scratch: &mut Scratch, range: std::ops::Range<usize>) {
        let names: Vec<String> = plan.inputs().iter().map(|input| input.name.clone()).collect();
        for (tensor, name) in scratch.inputs_mut(plan).iter_mut().zip(&names) {
            let (_, dims, data) = self.inputs.iter().find(|(input, _, _)| input == name).unwrap();
            let width: usize = dims[1..].iter().product();
            let (from, to) = (range.start * width, range.end * width);
            let data = match data {
                Data::F32(values) => Data::F32(values[from..to].to_vec()),
                Data::F64(values) => Data::F64(values[from..to].to_vec()),
                Data::I64(values) => Data::I64(values[from..to].to_vec()),
                Data::Str(values) => Data::Str((from..to).map(|index| values.get(index)).collect()),
                other => panic!("no case has inputs of {}", other.dtype()),
            };
            let dims: Vec<usize> = std::iter::once(range.len()).chain(dims[1..].iter().copied()).collect();
            *tensor = Tensor::new(Shape::new(&dims).unwrap(), data).unwrap();
        }
    }

    /// Rows whose results differ from the expected ones, with a description; the largest difference of numbers.
    fn differences(&self, plan: &Plan, scratch: &Scratch) -> (Vec<(usize, String)>, f64) {
        let mut rows: Vec<(usize, String)> = Vec::new();
        let mut largest = 0.0f64;
        for (index, expected) in self.outputs.iter().enumerate() {
            let port = &plan.outputs()[index];
            assert_eq!(port.name, expected.name, "{}", self.name);
            let got = plan.output(scratch, index);
            assert_eq!(got.data().len(), self.rows * expected.width, "{}: elements of {}", self.name, port.name);
            let numbers: Vec<f64> = match got.data() {
                Data::F32(values) => values.iter().map(|value| f64::from(*value)).collect(),
                Data::F64(values) => values.clone(),
                Data::I64(values) => values.iter().map(|value| *value as f64).collect(),
                _ => vec![],
            };
            for row in 0..self.rows {
                for at in row * expected.width..(row + 1) * expected.width {
                    match &expected.values {
                        ExpectedValues::Texts(want) => {
                            let got = got.strings().unwrap().get(at);
                            if got != want[at] && !self.close_rows.contains(&row) {
                                rows.push((row, format!("{} is {got}, want {}", port.name, want[at])));
                            }
                        }
                        ExpectedValues::Numbers(want) => {
                            let (got, want) = (numbers[at], want[at]);
                            let (absolute, relative) = expected.tolerance.unwrap_or((0.0, 0.0));
                            let difference = (got - want).abs();
                            let same =
                                (got.is_nan() && want.is_nan()) || difference <= absolute + relative * want.abs();
                            if expected.tolerance.is_some() && difference.is_finite() {
                                largest = largest.max(difference / want.abs().max(1.0));
                            }
                            let excused = expected.tolerance.is_none() && self.close_rows.contains(&row);
                            if !same && !excused {
                                rows.push((row, format!("{} is {got}, want {want}", port.name)));
                            }
                        }
                    }
                }
            }
        }
        rows.sort();
        rows.dedup_by_key(|(row, _)| *row);
        (rows, largest)
    }
}

fn evaluate(plan: &Plan, case: &Case) -> Scratch {
    let mut scratch = plan.scratch();
    case.fill(plan, &mut scratch, 0..case.rows);
    plan.run(&mut scratch, RunOptions { memory_bytes_max: 4 << 30, ..RunOptions::default() })
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    scratch
}

#[test]
fn every_exported_model_answers_as_onnx_runtime() {
    let (mut agreed, mut core, mut refused, mut compared) = (0, 0, vec![], 0);
    let mut report = String::new();
    let mut failures = String::new();
    for case in cases() {
        let plan = match Plan::compile(&case.model) {
            Ok(plan) => plan,
            Err(ModelError::UnsupportedOperator { operator, .. }) if !case.core => {
                refused.push(format!("{} ({operator})", case.name));
                continue;
            }
            Err(error) if !case.core => {
                let _ = writeln!(failures, "{} may be refused, but by naming an operator; got: {error}", case.name);
                continue;
            }
            Err(error) => {
                let _ = writeln!(failures, "{}: refused: {error}", case.name);
                continue;
            }
        };
        let scratch = evaluate(&plan, &case);
        let (rows, largest) = case.differences(&plan, &scratch);
        compared += case.rows;
        core += usize::from(case.core);
        let _ = writeln!(report, "{:34} {:6} rows, largest difference {largest:.1e}", case.name, case.rows);
        for (row, what) in &rows {
            let _ = writeln!(report, "    row {row}: {what}");
        }
        if rows.len() as f64 > SPLIT_ROWS_MAX * case.rows as f64 {
            let _ = writeln!(
                failures,
                "{}: {} of {} rows differ: {:?}",
                case.name,
                rows.len(),
                case.rows,
                &rows[..rows.len().min(3)]
            );
        } else {
            agreed += 1;
        }
    }
    println!("{report}{agreed} models agree over {compared} rows; {core} of them core; refused by name: {refused:?}");
    assert!(failures.is_empty(), "{failures}");
    assert!(core >= 60, "only {core} core cases were found");
}

#[test]
fn a_row_gets_the_same_answer_in_any_batch() {
    for case in cases() {
        let Ok(plan) = Plan::compile(&case.model) else { continue };
        let whole = evaluate(&plan, &case);
        let mut scratch = plan.scratch();
        let mut start = 0;
        // Sizes around the width of the lockstep walk and of a block.
        for size in [1, 2, 7, 8, 9, 17, 1, 64, 65].into_iter().cycle().take(40) {
            let end = (start + size).min(case.rows);
            if start == end {
                break;
            }
            case.fill(&plan, &mut scratch, start..end);
            plan.run(&mut scratch, RunOptions::default()).unwrap();
            for index in 0..plan.outputs().len() {
                let (part, all) = (plan.output(&scratch, index), plan.output(&whole, index));
                let width = all.data().len() / case.rows;
                for at in 0..part.data().len() {
                    let same = match (part.data(), all.data()) {
                        (Data::F32(part), Data::F32(all)) => part[at].to_bits() == all[start * width + at].to_bits(),
                        (Data::F64(part), Data::F64(all)) => part[at].to_bits() == all[start * width + at].to_bits(),
                        (Data::I64(part), Data::I64(all)) => part[at] == all[start * width + at],
                        (Data::Str(part), Data::Str(all)) => part.get(at) == all.get(start * width + at),
                        _ => false,
                    };
                    assert!(same, "{}: output {index}, rows {start}..{end}, element {at}", case.name);
                }
            }
            start = end;
        }
    }
}

#[test]
fn classes_are_known_for_every_classifier() {
    for case in cases().iter().filter(|case| case.core) {
        let Ok(plan) = Plan::compile(&case.model) else { continue };
        for (index, expected) in case.outputs.iter().enumerate().filter(|(_, expected)| expected.tolerance.is_none()) {
            let scratch = evaluate(&plan, case);
            let classes = plan.outputs()[index].classes.as_ref();
            let classes =
                classes.unwrap_or_else(|| panic!("{}: classes of {} are not known", case.name, expected.name));
            match (&**classes, plan.output(&scratch, index).data()) {
                (serin_runtime::onnx::Labels::Ints(classes), Data::I64(labels)) => {
                    assert!(labels.iter().all(|label| classes.contains(label)), "{}", case.name);
                }
                (serin_runtime::onnx::Labels::Texts(classes), Data::Str(labels)) => {
                    assert!(labels.iter().all(|label| classes.iter().any(|class| class == label)), "{}", case.name);
                }
                (classes, data) => panic!("{}: {classes:?} for labels of {}", case.name, data.dtype()),
            }
        }
    }
}

#[test]
fn hostile_files_are_refused_with_a_reason() {
    let files = json("tests/fixtures/onnx/hostile/files.json");
    let files = files.as_array().or_else(|| files["files"].as_array()).unwrap();
    assert!(files.len() >= 70, "only {} hostile files were found", files.len());
    let mut failures = String::new();
    for file in files {
        let name = text(file, "file");
        let bytes = std::fs::read(root().join("tests/fixtures/onnx/hostile").join(name)).unwrap();
        let loaded = Plan::compile(&bytes);
        let outcome = match &loaded {
            Err(error) => format!("load: {error}"),
            Ok(plan) => {
                let mut scratch = plan.scratch();
                for tensor in scratch.inputs_mut(plan) {
                    *tensor = Tensor::new(Shape::new(&[1, 2]).unwrap(), Data::F32(vec![0.5, 0.25])).unwrap();
                }
                match plan.run(&mut scratch, RunOptions::default()) {
                    Err(error) => format!("run: {error}"),
                    Ok(()) => "answered".to_owned(),
                }
            }
        };
        println!("{name:34} {outcome}");
        let good = match text(file, "refused") {
            "load" => outcome.starts_with("load: "),
            "run" => outcome != "answered" || name == "input-dim-huge.onnx",
            "safe" => true,
            other => panic!("unknown expectation {other}"),
        };
        if !good {
            let _ = writeln!(failures, "{name}: {}: {outcome}", text(file, "wrong"));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn no_truncation_or_flipped_bit_panics() {
    for case in cases().iter().filter(|case| case.model.len() < 20_000) {
        let model = &case.model;
        // Every length for small files, then fewer and fewer.
        for length in (0..model.len()).step_by(1 + model.len() / 1500) {
            assert!(Plan::compile(&model[..length]).is_err() || length > 0, "{}", case.name);
        }
        let mut copy = model.clone();
        for at in (0..copy.len()).step_by(1 + copy.len() / 1500) {
            for bit in [0, 3, 7] {
                copy[at] ^= 1 << bit;
                if let Ok(plan) = Plan::compile(&copy) {
                    let mut scratch = plan.scratch();
                    let fits = plan.inputs().iter().all(|input| {
                        case.inputs.iter().any(|(name, _, data)| *name == input.name && data.dtype() == input.dtype)
                    });
                    if fits {
                        case.fill(&plan, &mut scratch, 0..2.min(case.rows));
                        let _ =
                            plan.run(&mut scratch, RunOptions { memory_bytes_max: 16 << 20, ..RunOptions::default() });
                    }
                }
                copy[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn memory_of_a_run_stays_within_its_budget() {
    let case = cases().into_iter().find(|case| case.name == "adult-rf").unwrap();
    let plan = Plan::compile(&case.model).unwrap();
    let mut scratch = plan.scratch();
    case.fill(&plan, &mut scratch, 0..1000);
    let refused = plan.run(&mut scratch, RunOptions { memory_bytes_max: 1000, ..RunOptions::default() }).unwrap_err();
    assert!(refused.to_string().contains("more than 1000 bytes; send fewer rows"), "{refused}");
    assert_eq!(scratch.inputs_mut(&plan)[0].dtype(), DType::F32);
    assert!(Budget::new(8).take(1, 8).is_ok());
}
