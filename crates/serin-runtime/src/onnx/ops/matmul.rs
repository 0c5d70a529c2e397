//! Matrix products.

use super::super::error::{Fault, NodeFault};
use super::super::node::{self, Lowered, Node, ValueType};
use super::super::plan::{Inputs, Kernel, Run};
use super::super::tensor::{DType, Data, RANK_MAX, Shape, Tensor};
use super::broadcast::Walk;
use super::elementwise::{Number, broadcast_type};

const NUMBERS: &[DType] = &[DType::F32, DType::F64, DType::I64, DType::I32];

/// The dot product, in eight partial sums so that it runs in vector registers.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_tail) = a.as_chunks::<8>();
    let (b_chunks, b_tail) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
    ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7)) + tail
}

/// `out += a · b` for `a` of `rows × inner` and `b` of `inner × columns`, both row-major. The innermost loop runs
/// along rows of `b` and `out`.
fn multiply<T: Number>(a: &[T], b: &[T], out: &mut [T], inner: usize, columns: usize) {
    if inner == 0 || columns == 0 {
        return;
    }
    for (a_row, out_row) in a.chunks_exact(inner).zip(out.chunks_exact_mut(columns)) {
        for (&factor, b_row) in a_row.iter().zip(b.chunks_exact(columns)) {
            for (sum, &value) in out_row.iter_mut().zip(b_row) {
                *sum = sum.add(factor.mul(value));
            }
        }
    }
}

/// `MatMul`, as numpy's `matmul`: the last two axes are matrices, the others broadcast, one axis is a vector.
struct MatMul;

pub(super) fn matmul(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(2, 2, "2")?;
    let dtype = node.dtype_of(0, NUMBERS, "a number type")?;
    if node.dtype(1)? != dtype {
        return Err(NodeFault::InputType { index: 1, got: node.dtype(1)?, wanted: "the type of input 0" });
    }
    let ty = match (node.arg(0)?.ty.dims.as_deref(), node.arg(1)?.ty.dims.as_deref()) {
        (Some(a), Some(b)) => {
            if a.is_empty() || b.is_empty() {
                return Err(NodeFault::Extent { what: "axes of a factor", got: 0, wanted: 1 });
            }
            let a_matrix = if a.len() == 1 { vec![Some(1), a[0]] } else { a.to_vec() };
            let b_matrix = if b.len() == 1 { vec![b[0], Some(1)] } else { b.to_vec() };
            let (a_outer, a_last) = a_matrix.split_at(a_matrix.len() - 2);
            let (b_outer, b_last) = b_matrix.split_at(b_matrix.len() - 2);
            if let Some(wanted) = b_last[0] {
                node::extent("inner extents of the product", a_last[1], wanted)?;
            }
            let outer = broadcast_type(dtype, &[&ValueType::new(dtype, a_outer), &ValueType::new(dtype, b_outer)])?;
            let mut dims = outer.dims.unwrap_or_default();
            dims.extend((a.len() > 1).then_some(a_last[0]));
            dims.extend((b.len() > 1).then_some(b_last[1]));
            ValueType::new(dtype, &dims)
        }
        _ => ValueType::unknown(dtype),
    };
    Lowered::kernel(MatMul, ty)
}

fn matmul_of<T: Number>(a: &Tensor, b: &Tensor, out: &mut Tensor, run: &mut Run) -> Result<(), Fault> {
    let (a_values, b_values) = (a.values::<T>()?, b.values::<T>()?);
    let (rows, a_inner, a_outer) = match a.dims() {
        [] => return Err(Fault::Rank { got: 0, wanted: "1 or more" }),
        [inner] => (1, *inner, &[][..]),
        [outer @ .., rows, inner] => (*rows, *inner, outer),
    };
    let (b_inner, columns, b_outer) = match b.dims() {
        [] => return Err(Fault::Rank { got: 0, wanted: "1 or more" }),
        [inner] => (*inner, 1, &[][..]),
        [outer @ .., inner, columns] => (*inner, *columns, outer),
    };
    if a_inner != b_inner {
        return Err(Fault::Extent { what: "inner extent of the product", got: a_inner, wanted: b_inner });
    }
    let a_stack = Shape::new(a_outer).ok_or(Fault::Huge)?;
    let b_stack = Shape::new(b_outer).ok_or(Fault::Huge)?;
    let (stack, walk) = Walk::broadcast([&a_stack, &b_stack])?;
    let mut dims = [0; RANK_MAX + 2];
    let mut rank = stack.rank();
    dims[..rank].copy_from_slice(stack.dims());
    for (extent, kept) in [(rows, a.dims().len() > 1), (columns, b.dims().len() > 1)] {
        if kept {
            dims[rank] = extent;
            rank += 1;
        }
    }
    let shape = Shape::new(&dims[..rank]).ok_or(Fault::Huge)?;
    let results = out.reset::<T>(shape, &mut run.budget)?;
    let (a_size, b_size, size) = (rows * a_inner, a_inner * columns, rows * columns);
    let mut at = 0;
    walk.runs(|[a_at, b_at], count, [a_step, b_step]| {
        for index in 0..count {
            let a_start = (a_at + index * a_step) * a_size;
            let b_start = (b_at + index * b_step) * b_size;
            multiply(
                &a_values[a_start..a_start + a_size],
                &b_values[b_start..b_start + b_size],
                &mut results[at..at + size],
                a_inner,
                columns,
            );
            at += size;
        }
    });
    Ok(())
}

impl Kernel for MatMul {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (a, b, out) = (inputs.get(0), inputs.get(1), &mut outputs[0]);
        match a.data() {
            Data::F32(_) => matmul_of::<f32>(a, b, out, run),
            Data::F64(_) => matmul_of::<f64>(a, b, out, run),
            Data::I64(_) => matmul_of::<i64>(a, b, out, run),
            Data::I32(_) => matmul_of::<i32>(a, b, out, run),
            other => Err(Fault::Type { got: other.dtype(), wanted: DType::F32 }),
        }
    }
}

/// `Gemm`: `alpha · A′ · B′ + beta · C`.
struct Gemm {
    alpha: f32,
    beta: f32,
    transpose_a: bool,
    transpose_b: bool,
}

pub(super) fn gemm(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(2, 3, "2 or 3")?;
    let dtype = node.dtype_of(0, &[DType::F32, DType::F64], "float or double")?;
    for index in 1..node.args.len() {
        if let Some(arg) = node.opt(index)
            && arg.ty.dtype != dtype
        {
            return Err(NodeFault::InputType { index, got: arg.ty.dtype, wanted: "the type of input 0" });
        }
    }
    let gemm = Gemm {
        alpha: node.float("alpha")?.unwrap_or(1.0),
        beta: node.float("beta")?.unwrap_or(1.0),
        transpose_a: node.int("transA")?.unwrap_or(0) != 0,
        transpose_b: node.int("transB")?.unwrap_or(0) != 0,
    };
    let matrix = |index: usize, transposed: bool| -> Result<[Option<usize>; 2], NodeFault> {
        match node.arg(index)?.ty.dims.as_deref() {
            None => Ok([None, None]),
            Some(&[rows, columns]) => Ok(if transposed { [columns, rows] } else { [rows, columns] }),
            Some(other) => Err(NodeFault::Extent { what: "axes of a factor", got: other.len(), wanted: 2 }),
        }
    };
    let [rows, a_inner] = matrix(0, gemm.transpose_a)?;
    let [b_inner, columns] = matrix(1, gemm.transpose_b)?;
    if let Some(wanted) = b_inner {
        node::extent("inner extents of the product", a_inner, wanted)?;
    }
    Lowered::kernel(gemm, ValueType::new(dtype, &[rows, columns]))
}

fn transposed<T: Number>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| values[row * columns + column]));
    }
    out
}

impl Gemm {
    fn on<T: Number>(
        &self,
        inputs: Inputs<'_>,
        out: &mut Tensor,
        run: &mut Run,
        scale: impl Fn(f32) -> T,
    ) -> Result<(), Fault> {
        let matrix = |tensor: &Tensor| match *tensor.dims() {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(Fault::Rank { got: tensor.shape().rank(), wanted: "2" }),
        };
        let (a, b) = (inputs.get(0), inputs.get(1));
        let ((a_rows, a_columns), (b_rows, b_columns)) = (matrix(a)?, matrix(b)?);
        let (rows, inner) = if self.transpose_a { (a_columns, a_rows) } else { (a_rows, a_columns) };
        let (b_inner, columns) = if self.transpose_b { (b_columns, b_rows) } else { (b_rows, b_columns) };
        if inner != b_inner {
            return Err(Fault::Extent { what: "inner extent of the product", got: inner, wanted: b_inner });
        }
        let (mut a_values, mut b_values) = (a.values::<T>()?, b.values::<T>()?);
        let (a_copy, b_copy);
        if self.transpose_a {
            run.budget.take(a_values.len(), T::DTYPE.size())?;
            a_copy = transposed(a_values, a_rows, a_columns);
            a_values = &a_copy;
        }
        if self.transpose_b {
            run.budget.take(b_values.len(), T::DTYPE.size())?;
            b_copy = transposed(b_values, b_rows, b_columns);
            b_values = &b_copy;
        }
        let shape = Shape::matrix(rows, columns)?;
        let results = out.reset::<T>(shape, &mut run.budget)?;
        multiply(a_values, b_values, results, inner, columns);
        if self.alpha != 1.0 {
            let alpha = scale(self.alpha);
            results.iter_mut().for_each(|value| *value = value.mul(alpha));
        }
        let Some(c) = inputs.opt(2).filter(|_| self.beta != 0.0) else { return Ok(()) };
        let (joint, walk) = Walk::broadcast([&shape, c.shape()])?;
        if joint != shape {
            return Err(Fault::Elements { got: joint.elements(), wanted: shape.elements() });
        }
        let (beta, c) = (scale(self.beta), c.values::<T>()?);
        walk.runs(|[at, c_at], count, [step, c_step]| {
            for index in 0..count {
                let value = &mut results[at + index * step];
                *value = value.add(beta.mul(c[c_at + index * c_step]));
            }
        });
        Ok(())
    }
}

impl Kernel for Gemm {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        match inputs.get(0).dtype() {
            DType::F32 => self.on::<f32>(inputs, &mut outputs[0], run, |value| value),
            DType::F64 => self.on::<f64>(inputs, &mut outputs[0], run, f64::from),
            got => Err(Fault::Type { got, wanted: DType::F32 }),
        }
    }
}
