//! Each operator against ONNX Runtime, on small graphs with its odd corners. `operators/make.py` makes the cases.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fmt::Write as _;

use base64::Engine as _;
use serde_json::Value;
use serin_runtime::onnx::{DType, Data, Plan, RunOptions, Shape, Tensor};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text(value, key)).unwrap()
}

fn tensor(value: &Value) -> Tensor {
    let dims: Vec<usize> =
        value["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as usize).collect();
    fn numbers<const N: usize, T>(raw: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
        raw.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
    }
    let data = match text(value, "dtype") {
        "float32" => Data::F32(numbers(&bytes(value, "raw"), f32::from_le_bytes)),
        "float64" => Data::F64(numbers(&bytes(value, "raw"), f64::from_le_bytes)),
        "int64" => Data::I64(numbers(&bytes(value, "raw"), i64::from_le_bytes)),
        "int32" => Data::I32(numbers(&bytes(value, "raw"), i32::from_le_bytes)),
        "bool" => Data::Bool(bytes(value, "raw").iter().map(|byte| *byte != 0).collect()),
        "string" => Data::Str(value["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()),
        other => panic!("unknown dtype {other}"),
    };
    Tensor::new(Shape::new(&dims).unwrap(), data).unwrap()
}

/// Whether two tensors have one shape and type, and numbers within 1e-5.
fn same(got: &Tensor, want: &Tensor) -> bool {
    let close = |got: f64, want: f64, tolerance: f64| {
        got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= tolerance * want.abs().max(1.0)
    };
    got.shape() == want.shape()
        && match (got.data(), want.data()) {
            (Data::F32(got), Data::F32(want)) => {
                got.iter().zip(want).all(|(got, want)| close(f64::from(*got), f64::from(*want), 1e-5))
            }
            (Data::F64(got), Data::F64(want)) => got.iter().zip(want).all(|(got, want)| close(*got, *want, 1e-7)),
            (got, want) => got == want,
        }
}

#[test]
fn every_operator_answers_as_onnx_runtime_in_its_odd_corners() {
    let cases = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operators/cases.jsonl")).unwrap();
    let mut failures = String::new();
    let (mut passed, mut failed) = (0, 0);
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = text(&case, "name");
        let mut fail = |what: String| {
            failed += 1;
            let _ = writeln!(failures, "{name}: {what}");
        };
        let plan = match Plan::compile(&bytes(&case, "model")) {
            Ok(plan) => plan,
            Err(error) => {
                fail(error.to_string());
                continue;
            }
        };
        let mut scratch = plan.scratch();
        let names: Vec<String> = plan.inputs().iter().map(|port| port.name.clone()).collect();
        for (slot, name) in scratch.inputs_mut(&plan).iter_mut().zip(&names) {
            let inputs = case["inputs"].as_array().unwrap();
            *slot = tensor(inputs.iter().find(|input| text(input, "name") == name).unwrap());
        }
        if let Err(error) = plan.run(&mut scratch, RunOptions::default()) {
            fail(error.to_string());
            continue;
        }
        let mut wrong = String::new();
        for (index, output) in case["outputs"].as_array().unwrap().iter().enumerate() {
            let (got, want) = (plan.output(&scratch, index), tensor(output));
            if !same(got, &want) {
                let _ = write!(wrong, "\n  output {index}\n    got  {got:?}\n    want {want:?}");
            }
            // What was said of the output before the run must be true of it.
            let port = &plan.outputs()[index];
            let fits = port.dims.as_ref().is_none_or(|dims| {
                dims.len() == got.shape().rank()
                    && dims.iter().zip(got.dims()).all(|(dim, got)| dim.is_none_or(|dim| dim == *got))
            });
            if !fits || port.dtype != got.dtype() {
                let _ = write!(
                    wrong,
                    "\n  output {index} is {:?}, was said to be {} {:?}",
                    got.shape(),
                    port.dtype,
                    port.dims
                );
            }
        }
        match wrong.is_empty() {
            true => passed += 1,
            false => fail(wrong),
        }
    }
    assert!(failures.is_empty(), "{failures}{failed} of {} cases differ", passed + failed);
    assert!(passed > 600, "only {passed} cases were found");
    assert_eq!(DType::F32.onnx_name(), "float");
}
