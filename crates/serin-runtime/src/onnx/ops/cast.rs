//! `Cast`: one element type to another, with ONNX Runtime's conventions for texts.

use std::fmt::Write as _;

use super::super::error::{Fault, NodeFault};
use super::super::node::{Lowered, Node};
use super::super::plan::{Inputs, Kernel, Run};
use super::super::tensor::{Budget, DType, Data, Element, Shape, Strings, Tensor};

struct Cast(DType);

pub(super) fn cast(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let code = node.int("to")?.ok_or(NodeFault::AttributeMissing { name: "to" })?;
    let to = DType::from_onnx(code).ok_or_else(|| node.unsupported(format!("a cast to element type {code}")))?;
    let from = node.arg(0)?;
    if from.ty.dtype == to {
        return Lowered::alias(0);
    }
    Lowered::kernels(Cast(to), vec![from.ty.with_dtype(to)], from.classes.cloned())
}

impl Kernel for Cast {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        convert(inputs.get(0), self.0, &mut outputs[0], &mut run.budget)
    }
}

/// Converts every element. Floats become integers by dropping the fraction (saturating, NaN to 0); numbers become
/// truth values by being other than zero; texts are read as C's `strtod` and `strtoll` would, and floats written as
/// its `%.8g`, doubles too, with `NaN`, `INF` and `-INF`.
pub(super) fn convert(from: &Tensor, to: DType, out: &mut Tensor, budget: &mut Budget) -> Result<(), Fault> {
    let shape = from.shape();
    macro_rules! numbers {
        ($values:expr, $to_bool:expr, $to_text:expr) => {
            match to {
                DType::F32 => each($values, shape, out, budget, |value| value as f32),
                DType::F64 => each($values, shape, out, budget, |value| value as f64),
                DType::I64 => each($values, shape, out, budget, |value| value as i64),
                DType::I32 => each($values, shape, out, budget, |value| value as i32),
                DType::Bool => each($values, shape, out, budget, $to_bool),
                DType::Str => write_each($values, shape, out, budget, $to_text),
            }
        };
    }
    match from.data() {
        Data::F32(values) => {
            numbers!(values, |value| value != 0.0, |value, text| write_general(f64::from(value), text))
        }
        Data::F64(values) => numbers!(values, |value| value != 0.0, write_general),
        Data::I64(values) => numbers!(values, |value| value != 0, write_integer),
        Data::I32(values) => numbers!(values, |value| value != 0, |value, text| write_integer(i64::from(value), text)),
        Data::Bool(values) => match to {
            DType::F32 => each(values, shape, out, budget, |value| f32::from(u8::from(value))),
            DType::F64 => each(values, shape, out, budget, |value| f64::from(u8::from(value))),
            DType::I64 => each(values, shape, out, budget, i64::from),
            DType::I32 => each(values, shape, out, budget, i32::from),
            DType::Bool => each(values, shape, out, budget, |value| value),
            DType::Str => write_each(values, shape, out, budget, |value, text| write_integer(i64::from(value), text)),
        },
        Data::Str(texts) => match to {
            DType::F32 => read_each(texts, shape, out, budget, |text| read_float(text).map(|value| value as f32)),
            DType::F64 => read_each(texts, shape, out, budget, read_float),
            DType::I64 => read_each(texts, shape, out, budget, |text| text.trim().parse::<i64>().ok()),
            DType::I32 => read_each(texts, shape, out, budget, |text| text.trim().parse::<i32>().ok()),
            DType::Bool => read_each(texts, shape, out, budget, |text| read_float(text).map(|value| value != 0.0)),
            DType::Str => out.copy_reshaped(from, *shape, budget),
        },
    }
}

fn each<A: Copy, B: Element>(
    values: &[A],
    shape: &Shape,
    out: &mut Tensor,
    budget: &mut Budget,
    f: impl Fn(A) -> B,
) -> Result<(), Fault> {
    out.reset_empty::<B>(*shape, budget)?.extend(values.iter().map(|value| f(*value)));
    Ok(())
}

fn read_each<B: Element>(
    texts: &Strings,
    shape: &Shape,
    out: &mut Tensor,
    budget: &mut Budget,
    read: impl Fn(&str) -> Option<B>,
) -> Result<(), Fault> {
    let out = out.reset_empty::<B>(*shape, budget)?;
    for (index, text) in texts.iter().enumerate() {
        out.push(read(text).ok_or(Fault::NotANumber { index })?);
    }
    Ok(())
}

fn write_each<A: Copy>(
    values: &[A],
    shape: &Shape,
    out: &mut Tensor,
    budget: &mut Budget,
    write: impl Fn(A, &mut String),
) -> Result<(), Fault> {
    // The longest text of a number is 24 bytes (`-1.2345678901234567e-308`).
    budget.take(values.len(), 24)?;
    let texts = out.reset_strings(*shape, budget)?;
    for value in values {
        write(*value, texts.buffer());
        texts.finish();
    }
    Ok(())
}

fn read_float(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn write_integer(value: i64, text: &mut String) {
    text.push_str(itoa::Buffer::new().format(value));
}

/// C's `%.8g`: up to eight significant digits, trailing zeros dropped, exponent form below 1e-4 and from 1e8 on.
fn write_general(value: f64, text: &mut String) {
    const DIGITS: i32 = 8;
    if value.is_nan() {
        text.push_str("NaN");
    } else if value.is_infinite() {
        text.push_str(if value < 0.0 { "-INF" } else { "INF" });
    } else if value == 0.0 {
        text.push_str(if value.is_sign_negative() { "-0" } else { "0" });
    } else {
        let scientific = format!("{value:.*e}", DIGITS as usize - 1);
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let trim = |digits: &str| match digits.contains('.') {
            true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => digits.to_owned(),
        };
        if !(-4..DIGITS).contains(&exponent) {
            let sign = if exponent < 0 { '-' } else { '+' };
            let _ = write!(text, "{}e{sign}{:02}", trim(digits), exponent.abs());
        } else {
            let decimals = (DIGITS - 1 - exponent).max(0) as usize;
            text.push_str(&trim(&format!("{value:.decimals$}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_texts_as_in_c() {
        let rows = [
            (1.0, "1"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (123456789.0, "1.2345679e+08"),
            (12345678.0, "12345678"),
            (0.00001234, "1.234e-05"),
            (0.0001, "0.0001"),
            (1e100, "1e+100"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-INF"),
            (0.0, "0"),
        ];
        for (value, want) in rows {
            let mut got = String::new();
            write_general(value, &mut got);
            assert_eq!(got, want, "{value}");
        }
    }

    #[test]
    fn floats_become_integers_by_dropping_the_fraction() {
        let from = Tensor::new(Shape::vector(4), Data::F32(vec![1.9, -1.9, f32::NAN, 1e30])).unwrap();
        let mut out = Tensor::default();
        convert(&from, DType::I64, &mut out, &mut Budget::new(1000)).unwrap();
        assert_eq!(out.values::<i64>().unwrap(), [1, -1, 0, i64::MAX]);
    }

    #[test]
    fn a_text_that_is_no_number_is_named_by_its_position() {
        let from = Tensor::new(Shape::vector(2), Data::Str(["1", "x"].into_iter().collect())).unwrap();
        let got = convert(&from, DType::F32, &mut Tensor::default(), &mut Budget::new(1000));
        assert_eq!(got, Err(Fault::NotANumber { index: 1 }));
    }
}
