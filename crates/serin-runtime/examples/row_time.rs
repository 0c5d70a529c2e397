//! Time per evaluation of a model, in one thread: `row_time MODEL.onnx... [--rows 1,32]`.
//!
//! Prints the median and the 99th percentile of one evaluation in microseconds, for each number of rows. Inputs are
//! made up, from the model's input types; texts are empty.

use std::time::Instant;

use serin_runtime::onnx::{DType, Data, Plan, RunOptions, Shape, Tensor};

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut rows = vec![1, 32];
    let mut models = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--rows" {
            let list = args.next().ok_or("--rows wants a list of numbers")?;
            rows = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
        } else {
            models.push(arg);
        }
    }
    if models.is_empty() {
        return Err("usage: row_time MODEL.onnx... [--rows 1,32]".into());
    }
    println!("{:60} {:>6} {:>10} {:>10} {:>12}", "model", "rows", "p50 us", "p99 us", "p50 us/row");
    for model in models {
        let plan = Plan::compile(&std::fs::read(&model)?)?;
        let mut scratch = plan.scratch();
        for &rows in &rows {
            let ports = plan.inputs().to_vec();
            for (tensor, port) in scratch.inputs_mut(&plan).iter_mut().zip(ports) {
                let width = port.dims.as_ref().and_then(|dims| dims.get(1).copied().flatten()).unwrap_or(1);
                let count = rows * width;
                let number = |index: usize| (index * 7919 % 101) as f64;
                let data = match port.dtype {
                    DType::F32 => Data::F32((0..count).map(|index| number(index) as f32).collect()),
                    DType::F64 => Data::F64((0..count).map(number).collect()),
                    DType::I64 => Data::I64((0..count).map(|index| number(index) as i64).collect()),
                    DType::I32 => Data::I32((0..count).map(|index| number(index) as i32).collect()),
                    DType::Bool => Data::Bool(vec![true; count]),
                    DType::Str => Data::Str((0..count).map(|_| "").collect()),
                };
                let shape = Shape::new(&[rows, width]).ok_or("too many rows")?;
                *tensor = Tensor::new(shape, data).ok_or("shape and data disagree")?;
            }
            let options = RunOptions { lenient_categories: true, ..RunOptions::default() };
            let mut times = Vec::new();
            for round in 0..4000 {
                let start = Instant::now();
                plan.run(&mut scratch, options)?;
                if round >= 500 {
                    times.push(start.elapsed().as_nanos() as f64 / 1000.0);
                }
            }
            times.sort_by(f64::total_cmp);
            let p50 = times[times.len() / 2];
            println!(
                "{model:60} {rows:6} {p50:10.2} {:10.2} {:12.3}",
                times[times.len() * 99 / 100],
                p50 / rows as f64
            );
        }
    }
    Ok(())
}
