//! Operators along axes: reductions, arg-max, softmax, top-k.

use super::super::error::{Fault, NodeFault};
use super::super::node::{self, Lowered, Node, ValueType};
use super::super::plan::{Inputs, Kernel, Run};
use super::super::tensor::{Budget, DType, Data, RANK_MAX, Shape, Tensor};
use super::broadcast::Walk;
use super::elementwise::Number;

const NUMBERS: &[DType] = &[DType::F32, DType::F64, DType::I64, DType::I32];
const FLOATS: &[DType] = &[DType::F32, DType::F64];

/// A reduction of many elements to one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    SumSquare,
    L1,
    L2,
    LogSum,
    LogSumExp,
}

struct Reduce {
    reduction: Reduction,
    /// Axes from the attribute or a constant; empty for all.
    axes: Option<Vec<i64>>,
    keep: bool,
    /// No axes means nothing is reduced, instead of everything.
    empty_is_noop: bool,
}

pub(super) fn reduce(node: &Node<'_, '_>, reduction: Reduction) -> Result<Lowered, NodeFault> {
    node.arity(1, 2, "1 or 2")?;
    let integers_too = matches!(
        reduction,
        Reduction::Sum | Reduction::Max | Reduction::Min | Reduction::Prod | Reduction::SumSquare | Reduction::L1
    );
    let dtype = match integers_too {
        true => node.dtype_of(0, NUMBERS, "a number type")?,
        false => node.dtype_of(0, FLOATS, "float or double")?,
    };
    let keep = node.int("keepdims")?.unwrap_or(1) != 0;
    let empty_is_noop = node.int("noop_with_empty_axes")?.unwrap_or(0) != 0;
    // Axes became an input with opset 13 (ReduceSum) and 18 (the others); an exporter writes one or the other.
    let axes = match node.opt(1) {
        Some(axes) => {
            node.dtype_of(1, &[DType::I64], "int64")?;
            axes.constant.map(|_| node.constant_ints(1)).transpose()?
        }
        None => Some(node.ints("axes")?),
    };
    let ty = node.arg(0)?.ty;
    let dims = match (&ty.dims, &axes) {
        (Some(dims), Some(axes)) => {
            let gone = reduced_axes(axes, dims.len(), empty_is_noop).map_err(|_| NodeFault::AttributeValue {
                name: "axes",
                got: format!("{axes:?}"),
                wanted: "axes of the input",
            })?;
            Some(reduced(dims, &gone, keep, Some(1)))
        }
        _ => None,
    };
    Lowered::kernel(Reduce { reduction, axes, keep, empty_is_noop }, ValueType { dtype, dims })
}

fn reduced_axes(axes: &[i64], rank: usize, empty_is_noop: bool) -> Result<[bool; RANK_MAX], Fault> {
    let mut gone = [false; RANK_MAX];
    if axes.is_empty() {
        gone[..rank].fill(!empty_is_noop);
    }
    for &got in axes {
        let resolved = if got < 0 { got.saturating_add(rank as i64) } else { got };
        let axis = usize::try_from(resolved).ok().filter(|axis| *axis < rank);
        gone[axis.ok_or(Fault::Value { what: "axis", got })?] = true;
    }
    Ok(gone)
}

fn reduced<T: Copy>(dims: &[T], gone: &[bool], keep: bool, one: T) -> Vec<T> {
    dims.iter()
        .zip(gone)
        .filter(|(_, gone)| keep || !**gone)
        .map(|(dim, gone)| if *gone { one } else { *dim })
        .collect()
}

/// Number types with what the reductions need beside arithmetic.
trait Reducible: Number {
    const LOWEST: Self;
    const HIGHEST: Self;
    const ONE: Self;
    fn finish(self, reduction: Reduction, count: usize) -> Self;
    fn exp_above(self, max: Self) -> Self;
    fn ln_plus(self, max: Self) -> Self;
}

macro_rules! float_reducible {
    ($float:ty) => {
        impl Reducible for $float {
            const LOWEST: Self = <$float>::NEG_INFINITY;
            const HIGHEST: Self = <$float>::INFINITY;
            const ONE: Self = 1.0;
            fn finish(self, reduction: Reduction, count: usize) -> Self {
                match reduction {
                    Reduction::Mean => self / count as $float,
                    Reduction::L2 => self.sqrt(),
                    Reduction::LogSum => self.ln(),
                    _ => self,
                }
            }
            fn exp_above(self, max: Self) -> Self {
                (self - max).exp()
            }
            fn ln_plus(self, max: Self) -> Self {
                self.ln() + max
            }
        }
    };
}
float_reducible!(f32);
float_reducible!(f64);

macro_rules! int_reducible {
    ($int:ty) => {
        impl Reducible for $int {
            const LOWEST: Self = <$int>::MIN;
            const HIGHEST: Self = <$int>::MAX;
            const ONE: Self = 1;
            fn finish(self, _: Reduction, _: usize) -> Self {
                self
            }
            fn exp_above(self, _: Self) -> Self {
                self
            }
            fn ln_plus(self, _: Self) -> Self {
                self
            }
        }
    };
}
int_reducible!(i64);
int_reducible!(i32);

/// Folds every element into the element of the result it belongs to.
fn fold<T: Copy>(walk: &Walk<2>, values: &[T], out: &mut [T], f: impl Fn(T, T) -> T) {
    walk.runs(|[from, to], count, [from_step, to_step]| {
        if to_step == 0 {
            let mut so_far = out[to];
            for index in 0..count {
                so_far = f(so_far, values[from + index * from_step]);
            }
            out[to] = so_far;
        } else {
            for index in 0..count {
                let at = to + index * to_step;
                out[at] = f(out[at], values[from + index * from_step]);
            }
        }
    });
}

impl Reduce {
    fn on<T: Reducible>(&self, input: &Tensor, axes: &[i64], out: &mut Tensor, run: &mut Run) -> Result<(), Fault> {
        let dims = input.dims();
        let gone = reduced_axes(axes, dims.len(), self.empty_is_noop)?;
        let gone = &gone[..dims.len()];
        let shape = Shape::new(&reduced(dims, gone, self.keep, 1)).ok_or(Fault::Huge)?;
        let walk = reduction_walk(dims, gone);
        let values = input.values::<T>()?;
        let count: usize = dims.iter().zip(gone).filter(|(_, gone)| **gone).map(|(dim, _)| *dim).product();
        let results = out.reset::<T>(shape, &mut run.budget)?;
        match self.reduction {
            Reduction::Sum | Reduction::Mean | Reduction::LogSum => fold(&walk, values, results, T::add),
            Reduction::SumSquare | Reduction::L2 => fold(&walk, values, results, |sum, x| sum.add(x.mul(x))),
            Reduction::L1 => fold(&walk, values, results, |sum, x| sum.add(x.abs())),
            Reduction::Prod => {
                results.fill(T::ONE);
                fold(&walk, values, results, T::mul);
            }
            Reduction::Max => {
                results.fill(T::LOWEST);
                fold(&walk, values, results, |max, x| if x > max || x.is_nan() { x } else { max });
            }
            Reduction::Min => {
                results.fill(T::HIGHEST);
                fold(&walk, values, results, |min, x| if x < min || x.is_nan() { x } else { min });
            }
            Reduction::LogSumExp => {
                // log Σ eˣ = m + log Σ e^(x−m), with m the largest x; only where m is finite is the shift needed.
                let mut largest = vec![T::LOWEST; results.len()];
                run.budget.take(largest.len(), T::DTYPE.size())?;
                fold(&walk, values, &mut largest, |max, x| if x > max { x } else { max });
                for max in &mut largest {
                    if !(*max > T::LOWEST && *max < T::HIGHEST) {
                        *max = T::default();
                    }
                }
                walk.runs(|[from, to], count, [from_step, to_step]| {
                    for index in 0..count {
                        let at = to + index * to_step;
                        results[at] = results[at].add(values[from + index * from_step].exp_above(largest[at]));
                    }
                });
                for (result, max) in results.iter_mut().zip(&largest) {
                    *result = result.ln_plus(*max);
                }
            }
        }
        for result in results {
            *result = result.finish(self.reduction, count);
        }
        Ok(())
    }
}

/// Walks the input, with the positions of each element and of the result it goes to.
fn reduction_walk(dims: &[usize], gone: &[bool]) -> Walk<2> {
    let mut steps = [[0; 2]; RANK_MAX];
    let (mut from, mut to) = (1, 1);
    for axis in (0..dims.len()).rev() {
        steps[axis] = [from, if gone[axis] { 0 } else { to }];
        from *= dims[axis];
        if !gone[axis] {
            to *= dims[axis];
        }
    }
    Walk::merged(dims, &steps[..dims.len()])
}

impl Kernel for Reduce {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (input, out) = (inputs.get(0), &mut outputs[0]);
        let axes: &[i64] = match &self.axes {
            Some(axes) => axes,
            None => inputs.get(1).values()?,
        };
        match input.data() {
            Data::F32(_) => self.on::<f32>(input, axes, out, run),
            Data::F64(_) => self.on::<f64>(input, axes, out, run),
            Data::I64(_) => self.on::<i64>(input, axes, out, run),
            Data::I32(_) => self.on::<i32>(input, axes, out, run),
            other => Err(Fault::Type { got: other.dtype(), wanted: DType::F32 }),
        }
    }
}

/// Extents before, of, and after an axis.
fn around(dims: &[usize], axis: i64) -> Result<(usize, usize, usize, usize), Fault> {
    let resolved = if axis < 0 { axis.saturating_add(dims.len() as i64) } else { axis };
    let at = usize::try_from(resolved).ok().filter(|at| *at < dims.len());
    let at = at.ok_or(Fault::Value { what: "axis", got: axis })?;
    Ok((dims[..at].iter().product(), dims[at], dims[at + 1..].iter().product(), at))
}

/// `ArgMax` and `ArgMin`.
struct Arg {
    axis: i64,
    keep: bool,
    largest: bool,
    last: bool,
}

pub(super) fn arg(node: &Node<'_, '_>, largest: bool) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, NUMBERS, "a number type")?;
    let axis = node.int("axis")?.unwrap_or(0);
    let keep = node.int("keepdims")?.unwrap_or(1) != 0;
    let last = node.int("select_last_index")?.unwrap_or(0) != 0;
    let dims = match &node.arg(0)?.ty.dims {
        Some(dims) => {
            let along = node::axis(axis, dims.len())?;
            let mut gone = vec![false; dims.len()];
            gone[along] = true;
            Some(reduced(dims, &gone, keep, Some(1)))
        }
        None => None,
    };
    Lowered::kernel(Arg { axis, keep, largest, last }, ValueType { dtype: DType::I64, dims })
}

impl Arg {
    fn on<T: Number>(&self, input: &Tensor, out: &mut Tensor, budget: &mut Budget) -> Result<(), Fault> {
        let (outer, extent, inner, at) = around(input.dims(), self.axis)?;
        if extent == 0 {
            return Err(Fault::Value { what: "empty axis", got: self.axis });
        }
        let mut gone = [false; RANK_MAX];
        gone[at] = true;
        let shape = Shape::new(&reduced(input.dims(), &gone, self.keep, 1)).ok_or(Fault::Huge)?;
        let values = input.values::<T>()?;
        let out = out.reset_empty::<i64>(shape, budget)?;
        for block in 0..outer {
            for offset in 0..inner {
                let at = |index: usize| values[(block * extent + index) * inner + offset];
                let (mut best, mut best_value) = (0, at(0));
                for index in 1..extent {
                    let value = at(index);
                    let better = match (self.largest, self.last) {
                        (true, false) => value > best_value,
                        (true, true) => value >= best_value,
                        (false, false) => value < best_value,
                        (false, true) => value <= best_value,
                    };
                    if better {
                        (best, best_value) = (index, value);
                    }
                }
                out.push(best as i64);
            }
        }
        Ok(())
    }
}

impl Kernel for Arg {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (input, out, budget) = (inputs.get(0), &mut outputs[0], &mut run.budget);
        match input.data() {
            Data::F32(_) => self.on::<f32>(input, out, budget),
            Data::F64(_) => self.on::<f64>(input, out, budget),
            Data::I64(_) => self.on::<i64>(input, out, budget),
            Data::I32(_) => self.on::<i32>(input, out, budget),
            other => Err(Fault::Type { got: other.dtype(), wanted: DType::F32 }),
        }
    }
}

/// `Softmax` and `LogSoftmax`. Before opset 13 all axes from `axis` on are one distribution; since, one axis is.
struct Softmax {
    axis: i64,
    flatten: bool,
    log: bool,
}

pub(super) fn softmax(node: &Node<'_, '_>, log: bool) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, FLOATS, "float or double")?;
    let flatten = node.opset < 13;
    let axis = node.int("axis")?.unwrap_or(if flatten { 1 } else { -1 });
    Lowered::kernel(Softmax { axis, flatten, log }, node.arg(0)?.ty.clone())
}

macro_rules! softmax_of {
    ($float:ty, $kernel:expr, $input:expr, $out:expr, $run:expr) => {{
        let input: &Tensor = $input;
        let dims = input.dims();
        let (outer, extent, inner, _) = around(dims, $kernel.axis)?;
        let (extent, inner) = if $kernel.flatten { (extent * inner, 1) } else { (extent, inner) };
        $out.copy_reshaped(input, *input.shape(), &mut $run.budget)?;
        let values = $out.values_mut::<$float>()?;
        for block in 0..outer {
            for offset in 0..inner {
                let at = |index: usize| (block * extent + index) * inner + offset;
                let max = (0..extent).map(|index| values[at(index)]).fold(<$float>::NEG_INFINITY, <$float>::max);
                let sum: $float = (0..extent).map(|index| (values[at(index)] - max).exp()).sum();
                for index in 0..extent {
                    let shifted = values[at(index)] - max;
                    values[at(index)] = if $kernel.log { shifted - sum.ln() } else { shifted.exp() / sum };
                }
            }
        }
        Ok(())
    }};
}

impl Kernel for Softmax {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (input, out) = (inputs.get(0), &mut outputs[0]);
        match input.dtype() {
            DType::F32 => softmax_of!(f32, self, input, out, run),
            DType::F64 => softmax_of!(f64, self, input, out, run),
            got => Err(Fault::Type { got, wanted: DType::F32 }),
        }
    }
}

/// `TopK`: values and indices of the largest (or smallest) along an axis; of equal values the first comes first.
struct TopK {
    axis: i64,
    /// How many, when it is an attribute.
    count: Option<i64>,
    largest: bool,
}

pub(super) fn top_k(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    let dtype = node.dtype_of(0, NUMBERS, "a number type")?;
    let axis = node.int("axis")?.unwrap_or(-1);
    let largest = node.int("largest")?.unwrap_or(1) != 0;
    let count = if node.opset < 10 {
        node.arity(1, 1, "1")?;
        Some(node.int("k")?.ok_or(NodeFault::AttributeMissing { name: "k" })?)
    } else {
        node.arity(2, 2, "2")?;
        node.dtype_of(1, &[DType::I64], "int64")?;
        node.arg(1)?.constant.map(|_| node.constant_ints(1)).transpose()?.and_then(|counts| counts.first().copied())
    };
    let dims = match &node.arg(0)?.ty.dims {
        Some(dims) => {
            let mut dims = dims.clone();
            let along = node::axis(axis, dims.len())?;
            dims[along] = count.and_then(|count| usize::try_from(count).ok());
            Some(dims)
        }
        None => None,
    };
    let outputs = vec![ValueType { dtype, dims: dims.clone() }, ValueType { dtype: DType::I64, dims }];
    Lowered::kernels(TopK { axis, count, largest }, outputs, None)
}

impl TopK {
    fn on<T: Number>(&self, input: &Tensor, count: i64, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (outer, extent, inner, at) = around(input.dims(), self.axis)?;
        let count = usize::try_from(count).ok().filter(|count| *count <= extent);
        let count = count.ok_or(Fault::Value { what: "k", got: self.count.unwrap_or(-1) })?;
        let mut dims = [0; RANK_MAX];
        dims[..input.dims().len()].copy_from_slice(input.dims());
        dims[at] = count;
        let shape = Shape::new(&dims[..input.dims().len()]).ok_or(Fault::Huge)?;
        let values = input.values::<T>()?;
        let (top, rest) = outputs.split_at_mut(1);
        let top = top[0].reset::<T>(shape, &mut run.budget)?;
        let places = rest[0].reset::<i64>(shape, &mut run.budget)?;
        let order = &mut run.work.indices;
        for block in 0..outer {
            for offset in 0..inner {
                let value = |index: usize| values[(block * extent + index) * inner + offset];
                order.clear();
                order.extend(0..extent);
                order.sort_by(|a, b| {
                    let (a, b) = (value(*a), value(*b));
                    let (a, b) = if self.largest { (b, a) } else { (a, b) };
                    a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
                });
                for (rank, index) in order.iter().take(count).enumerate() {
                    let to = (block * count + rank) * inner + offset;
                    top[to] = value(*index);
                    places[to] = *index as i64;
                }
            }
        }
        Ok(())
    }
}

impl Kernel for TopK {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let input = inputs.get(0);
        let count = match self.count {
            Some(count) => count,
            None => match inputs.get(1).values::<i64>()? {
                [count] => *count,
                other => return Err(Fault::Extent { what: "elements of k", got: other.len(), wanted: 1 }),
            },
        };
        match input.data() {
            Data::F32(_) => self.on::<f32>(input, count, outputs, run),
            Data::F64(_) => self.on::<f64>(input, count, outputs, run),
            Data::I64(_) => self.on::<i64>(input, count, outputs, run),
            Data::I32(_) => self.on::<i32>(input, count, outputs, run),
            other => Err(Fault::Type { got: other.dtype(), wanted: DType::F32 }),
        }
    }
}
