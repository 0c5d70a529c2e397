//! A model file of any bytes is refused or runs; it never panics, and its memory stays bounded.
//!
//! `fuzz/run.sh` builds and runs this with a stable toolchain and nothing to install but a C++ compiler.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serin_runtime::onnx::{DType, Data, InputPort, Plan, RunOptions, Shape, Tensor};

/// Memory that the tensors of one run may take. libFuzzer ends the process well above it (`-rss_limit_mb`).
const RUN_BYTES: usize = 16 << 20;

fuzz_target!(|file: &[u8]| {
    let Ok(plan) = Plan::compile(file) else { return };
    let mut scratch = plan.scratch();
    // One row, then more than one lockstep walk of a tree takes at once.
    for rows in [1, 9] {
        let ports: Vec<InputPort> = plan.inputs().to_vec();
        for (tensor, port) in scratch.inputs_mut(&plan).iter_mut().zip(&ports) {
            match made_up(port, rows) {
                Some(values) => *tensor = values,
                None => return,
            }
        }
        let options = RunOptions { memory_bytes_max: RUN_BYTES, lenient_categories: false };
        if plan.run(&mut scratch, options).is_ok() {
            for index in 0..plan.outputs().len() {
                let output = plan.output(&scratch, index);
                assert_eq!(output.shape().elements(), output.data().len());
                assert_eq!(output.dtype(), plan.outputs()[index].dtype);
            }
        }
    }
});

/// Values of the port's type, with the numbers that comparisons and conversions stumble over among them.
fn made_up(port: &InputPort, rows: usize) -> Option<Tensor> {
    let dims: Vec<usize> = match &port.dims {
        Some(dims) => dims.iter().map(|dim| dim.unwrap_or(rows)).collect(),
        None => vec![rows, 2],
    };
    let shape = Shape::new(&dims)?;
    let count = shape.elements();
    if count > 10_000 {
        return None;
    }
    let float = |index: usize| [0.5, -1.0, f32::NAN, 2.0, f32::INFINITY, 1e-40, -0.0, 3.4e38][index % 8];
    let data = match port.dtype {
        DType::F32 => Data::F32((0..count).map(float).collect()),
        DType::F64 => Data::F64((0..count).map(|index| f64::from(float(index))).collect()),
        DType::I64 => Data::I64((0..count).map(|index| [0, 1, -1, i64::MAX, i64::MIN][index % 5]).collect()),
        DType::I32 => Data::I32((0..count).map(|index| [0, 1, -1, i32::MAX, i32::MIN][index % 5]).collect()),
        DType::Bool => Data::Bool((0..count).map(|index| index % 2 == 0).collect()),
        DType::Str => Data::Str((0..count).map(|index| ["", "a", "1.5", "né"][index % 4]).collect()),
    };
    Tensor::new(shape, data)
}
