//! Preprocessing of numeric features: scaling, normalising, imputing, thresholds, joining.

use super::super::error::{Fault, NodeFault};
use super::super::node::{self, Lowered, Node, ValueType};
use super::super::plan::{Inputs, Kernel, Run};
use super::super::tensor::{DType, Data, Element, Shape, Tensor};
use super::elementwise::Number;

const NUMBERS: &[DType] = &[DType::F32, DType::F64, DType::I64, DType::I32];

/// `Scaler`: `(x - offset) · scale` per feature.
struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

pub(super) fn scaler(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, NUMBERS, "a number type")?;
    let (offset, scale) = (node.floats("offset")?, node.floats("scale")?);
    if scale.is_empty() {
        return Err(NodeFault::AttributeMissing { name: "scale" });
    }
    node::length("offset", offset.len(), scale.len())?;
    let ty = node.arg(0)?.ty;
    if scale.len() > 1 {
        node::extent("features", ty.features(), scale.len())?;
    }
    Lowered::kernel(Scaler { offset, scale }, ty.with_dtype(DType::F32))
}

impl Scaler {
    fn on<T: Element>(
        &self,
        input: &Tensor,
        out: &mut Tensor,
        run: &mut Run,
        scale: impl Fn(T, f32, f32) -> f32,
    ) -> Result<(), Fault> {
        let (_, features) = input.shape().as_rows()?;
        let values = input.values::<T>()?;
        let out = out.reset_empty::<f32>(*input.shape(), &mut run.budget)?;
        if let ([offset], [factor]) = (&self.offset[..], &self.scale[..]) {
            out.extend(values.iter().map(|value| scale(*value, *offset, *factor)));
            return Ok(());
        }
        if features != self.scale.len() {
            return Err(Fault::Extent { what: "features", got: features, wanted: self.scale.len() });
        }
        for row in values.chunks_exact(features) {
            let columns = row.iter().zip(self.offset.iter().zip(&self.scale));
            out.extend(columns.map(|(value, (offset, factor))| scale(*value, *offset, *factor)));
        }
        Ok(())
    }
}

impl Kernel for Scaler {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (input, out) = (inputs.get(0), &mut outputs[0]);
        match input.dtype() {
            DType::F32 => self.on::<f32>(input, out, run, |x, offset, scale| (x - offset) * scale),
            DType::F64 => {
                self.on::<f64>(input, out, run, |x, offset, scale| ((x - f64::from(offset)) * f64::from(scale)) as f32)
            }
            DType::I64 => self.on::<i64>(input, out, run, |x, offset, scale| (x as f32 - offset) * scale),
            DType::I32 => self.on::<i32>(input, out, run, |x, offset, scale| (x as f32 - offset) * scale),
            got => Err(Fault::Type { got, wanted: DType::F32 }),
        }
    }
}

/// `Normalizer`: each row divided by its norm; a row of norm zero stays as it is.
#[derive(Clone, Copy)]
enum Normalizer {
    Max,
    L1,
    L2,
}

pub(super) fn normalizer(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, NUMBERS, "a number type")?;
    let norms = [("MAX", Normalizer::Max), ("L1", Normalizer::L1), ("L2", Normalizer::L2)];
    let norm = node.one_of("norm", &norms, "MAX, L1 or L2")?;
    Lowered::kernel(norm, node.arg(0)?.ty.with_dtype(DType::F32))
}

impl Kernel for Normalizer {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let input = inputs.get(0);
        let (_, features) = input.shape().as_rows()?;
        super::cast::convert(input, DType::F32, &mut outputs[0], &mut run.budget)?;
        if features == 0 {
            return Ok(());
        }
        for row in outputs[0].values_mut::<f32>()?.chunks_exact_mut(features) {
            match self {
                Normalizer::Max => divide(row, row.iter().copied().fold(f32::MIN, f32::max)),
                Normalizer::L1 => divide(row, row.iter().map(|x| x.abs()).sum()),
                Normalizer::L2 => {
                    let sum: f32 = row.iter().map(|x| x * x).sum();
                    if sum != 0.0 {
                        row.iter_mut().for_each(|x| *x = (*x * *x / sum).sqrt().copysign(*x));
                    }
                }
            }
        }
        Ok(())
    }
}

fn divide(row: &mut [f32], norm: f32) {
    if norm != 0.0 {
        row.iter_mut().for_each(|x| *x /= norm);
    }
}

/// `Imputer`: one value (often NaN) replaced, by one value for all or one per feature.
struct Imputer<T> {
    replaced: T,
    imputed: Vec<T>,
}

pub(super) fn imputer(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let dtype = node.dtype_of(0, NUMBERS, "a number type")?;
    let ty = node.arg(0)?.ty;
    let check = |name: &'static str, count: usize| match count {
        0 => Err(NodeFault::AttributeMissing { name }),
        1 => Ok(()),
        count => node::extent("features", ty.features(), count),
    };
    if matches!(dtype, DType::F32 | DType::F64) {
        let imputed = node.floats("imputed_value_floats")?;
        check("imputed_value_floats", imputed.len())?;
        let replaced = node.float("replaced_value_float")?.unwrap_or(0.0);
        return match dtype {
            DType::F32 => Lowered::kernel(Imputer { replaced, imputed }, ty.clone()),
            _ => {
                let imputed = imputed.into_iter().map(f64::from).collect();
                Lowered::kernel(Imputer { replaced: f64::from(replaced), imputed }, ty.clone())
            }
        };
    }
    let imputed = node.ints("imputed_value_int64s")?;
    check("imputed_value_int64s", imputed.len())?;
    let replaced = node.int("replaced_value_int64")?.unwrap_or(0);
    if dtype == DType::I32 {
        let narrow = |value: i64| {
            i32::try_from(value).map_err(|_| NodeFault::AttributeValue {
                name: "imputed_value_int64s",
                got: value.to_string(),
                wanted: "an int32, as the input",
            })
        };
        let imputed = imputed.into_iter().map(narrow).collect::<Result<_, _>>()?;
        return Lowered::kernel(Imputer { replaced: narrow(replaced)?, imputed }, ty.clone());
    }
    Lowered::kernel(Imputer { replaced, imputed }, ty.clone())
}

impl<T: Number + Send + Sync> Kernel for Imputer<T> {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let input = inputs.get(0);
        let (_, features) = input.shape().as_rows()?;
        let values = input.values::<T>()?;
        let missing = |value: T| value == self.replaced || (value.is_nan() && self.replaced.is_nan());
        let out = outputs[0].reset_empty::<T>(*input.shape(), &mut run.budget)?;
        match &self.imputed[..] {
            [one] => out.extend(values.iter().map(|value| if missing(*value) { *one } else { *value })),
            many if many.len() == features => {
                for row in values.chunks_exact(features) {
                    out.extend(row.iter().zip(many).map(|(value, by)| if missing(*value) { *by } else { *value }));
                }
            }
            many => return Err(Fault::Extent { what: "features", got: features, wanted: many.len() }),
        }
        Ok(())
    }
}

/// `Binarizer`: 1 above the threshold, else 0. NaN is refused: it is neither.
struct Binarizer(f32);

pub(super) fn binarizer(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, &[DType::F32], "float")?;
    Lowered::kernel(Binarizer(node.float("threshold")?.unwrap_or(0.0)), node.arg(0)?.ty.clone())
}

impl Kernel for Binarizer {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let input = inputs.get(0);
        let values = input.values::<f32>()?;
        if let Some(index) = values.iter().position(|value| value.is_nan()) {
            return Err(Fault::Missing { index });
        }
        let out = outputs[0].reset_empty::<f32>(*input.shape(), &mut run.budget)?;
        out.extend(values.iter().map(|value| if *value > self.0 { 1.0 } else { 0.0 }));
        Ok(())
    }
}

/// `FeatureVectorizer`: inputs side by side as floats; a narrow one is padded with zeros, a wide one cut.
struct FeatureVectorizer {
    widths: Vec<usize>,
    total: usize,
}

pub(super) fn feature_vectorizer(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    let widths = node.ints("inputdimensions")?;
    node::length("inputdimensions", widths.len(), node.args.len())?;
    node.arity(1, usize::MAX, "1 or more")?;
    for index in 0..node.args.len() {
        node.dtype_of(index, NUMBERS, "a number type")?;
    }
    let mut total = 0usize;
    let widths: Vec<usize> = widths
        .into_iter()
        .map(|width| {
            let size = usize::try_from(width).ok().filter(|size| *size <= 1 << 20);
            let size = size.ok_or(NodeFault::AttributeValue {
                name: "inputdimensions",
                got: width.to_string(),
                wanted: "0 to 1048576",
            })?;
            total += size;
            Ok(size)
        })
        .collect::<Result<_, NodeFault>>()?;
    let rows = node.arg(0)?.ty.rows();
    Lowered::kernel(FeatureVectorizer { widths, total }, ValueType::new(DType::F32, &[rows, Some(total)]))
}

impl Kernel for FeatureVectorizer {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (rows, _) = inputs.get(0).shape().as_rows()?;
        let out = outputs[0].reset::<f32>(Shape::matrix(rows, self.total)?, &mut run.budget)?;
        let mut start = 0;
        for (index, &width) in self.widths.iter().enumerate() {
            let input = inputs.get(index);
            let (got, features) = input.shape().as_rows()?;
            if got != rows {
                return Err(Fault::Extent { what: "rows of an input", got, wanted: rows });
            }
            let taken = width.min(features);
            for row in 0..rows {
                let to = &mut out[row * self.total + start..][..taken];
                let from = row * features..row * features + taken;
                match input.data() {
                    Data::F32(values) => to.copy_from_slice(&values[from]),
                    Data::F64(values) => to.iter_mut().zip(&values[from]).for_each(|(to, x)| *to = *x as f32),
                    Data::I64(values) => to.iter_mut().zip(&values[from]).for_each(|(to, x)| *to = *x as f32),
                    Data::I32(values) => to.iter_mut().zip(&values[from]).for_each(|(to, x)| *to = *x as f32),
                    other => return Err(Fault::Type { got: other.dtype(), wanted: DType::F32 }),
                }
            }
            start += width;
        }
        Ok(())
    }
}
