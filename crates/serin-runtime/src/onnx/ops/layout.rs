//! Operators that move elements, or make them.

use std::sync::Arc;

use super::super::error::{Fault, NodeFault};
use super::super::node::{self, Labels, Lowered, Node, ValueType};
use super::super::plan::{Inputs, Kernel, Run};
use super::super::tensor::{Budget, DType, Data, Element, RANK_MAX, Shape, Tensor};
use super::broadcast::Walk;
use super::elementwise::push;

/// Appends `source[i]` for each index; the caller guarantees that the indices lie within and fill `shape`.
fn take(source: &Tensor, indices: &[usize], shape: Shape, out: &mut Tensor, budget: &mut Budget) -> Result<(), Fault> {
    fn of<T: Element>(
        values: &[T],
        indices: &[usize],
        shape: Shape,
        out: &mut Tensor,
        budget: &mut Budget,
    ) -> Result<(), Fault> {
        out.reset_empty::<T>(shape, budget)?.extend(indices.iter().map(|index| values[*index]));
        Ok(())
    }
    match source.data() {
        Data::F32(values) => of(values, indices, shape, out, budget),
        Data::F64(values) => of(values, indices, shape, out, budget),
        Data::I64(values) => of(values, indices, shape, out, budget),
        Data::I32(values) => of(values, indices, shape, out, budget),
        Data::Bool(values) => of(values, indices, shape, out, budget),
        Data::Str(values) => {
            let texts = out.reset_strings(shape, budget)?;
            for index in indices {
                push(texts, values.get(*index), budget)?;
            }
            Ok(())
        }
    }
}

/// As [`take`], with the indices made by `fill` into a buffer that is kept. They are paid for like a result, so that
/// a huge shape is refused before they are made.
fn take_by(
    source: &Tensor,
    shape: Shape,
    out: &mut Tensor,
    run: &mut Run,
    fill: impl FnOnce(&mut Vec<usize>),
) -> Result<(), Fault> {
    run.budget.take(shape.elements(), size_of::<usize>())?;
    run.work.indices.clear();
    fill(&mut run.work.indices);
    if run.work.indices.len() != shape.elements() {
        return Err(Fault::Elements { got: run.work.indices.len(), wanted: shape.elements() });
    }
    take(source, &run.work.indices, shape, out, &mut run.budget)
}

pub(super) fn ints(tensor: &Tensor) -> Result<Vec<i64>, Fault> {
    match tensor.data() {
        Data::I64(values) => Ok(values.clone()),
        Data::I32(values) => Ok(values.iter().map(|value| i64::from(*value)).collect()),
        other => Err(Fault::Type { got: other.dtype(), wanted: DType::I64 }),
    }
}

pub(super) fn resolve_axis(got: i64, rank: usize) -> Result<usize, Fault> {
    let resolved = if got < 0 { got.saturating_add(rank as i64) } else { got };
    usize::try_from(resolved).ok().filter(|axis| *axis < rank).ok_or(Fault::Value { what: "axis", got })
}

fn resolve_index(got: i64, extent: usize) -> Result<usize, Fault> {
    let resolved = if got < 0 { got.saturating_add(extent as i64) } else { got };
    usize::try_from(resolved).ok().filter(|index| *index < extent).ok_or(Fault::Index { got, extent })
}

pub(super) fn require_ints(node: &Node<'_, '_>, index: usize) -> Result<(), NodeFault> {
    node.dtype_of(index, &[DType::I64, DType::I32], "int64 or int32").map(|_| ())
}

struct Constant(Tensor);

pub(super) fn constant(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    let vector = |data: Data| Tensor::new(Shape::vector(data.len()), data);
    let scalar = |data: Data| Tensor::new(Shape::SCALAR, data);
    let value = if let Some(tensor) = node.tensor("value")? {
        Some(tensor)
    } else if let Some(value) = node.float("value_float")? {
        scalar(Data::F32(vec![value]))
    } else if node.has("value_floats") {
        vector(Data::F32(node.floats("value_floats")?))
    } else if let Some(value) = node.int("value_int")? {
        scalar(Data::I64(vec![value]))
    } else if node.has("value_ints") {
        vector(Data::I64(node.ints("value_ints")?))
    } else if let Some(value) = node.text("value_string")? {
        scalar(Data::Str([value].into_iter().collect()))
    } else if node.has("value_strings") {
        vector(Data::Str(node.texts("value_strings")?.into_iter().collect()))
    } else {
        return Err(NodeFault::AttributeMissing { name: "value" });
    };
    let value = value.ok_or(NodeFault::AttributeMissing { name: "value" })?;
    let ty = ValueType::of(&value);
    Lowered::kernel(Constant(value), ty)
}

impl Kernel for Constant {
    fn run(&self, _: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        outputs[0].copy_reshaped(&self.0, *self.0.shape(), &mut run.budget)
    }
}

/// `ConstantOfShape`.
struct Fill(Tensor);

pub(super) fn constant_of_shape(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, &[DType::I64], "int64")?;
    let value = match node.tensor("value")? {
        Some(value) => value,
        None => Constant::zero(),
    };
    if value.data().len() != 1 {
        return Err(NodeFault::AttributeLength { name: "value", got: value.data().len(), wanted: "1".to_owned() });
    }
    let ty = ValueType::unknown(value.dtype());
    Lowered::kernel(Fill(value), ty)
}

impl Constant {
    fn zero() -> Tensor {
        Tensor::new(Shape::SCALAR, Data::F32(vec![0.0])).unwrap_or_default()
    }
}

impl Kernel for Fill {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let shape = extents(&ints(inputs.get(0))?)?;
        take_by(&self.0, shape, &mut outputs[0], run, |indices| indices.resize(shape.elements(), 0))
    }
}

fn extents(dims: &[i64]) -> Result<Shape, Fault> {
    let mut extents = [0; RANK_MAX];
    let extents = extents.get_mut(..dims.len()).ok_or(Fault::Rank { got: dims.len(), wanted: "at most 8" })?;
    for (extent, &dim) in extents.iter_mut().zip(dims) {
        *extent = usize::try_from(dim).map_err(|_| Fault::Value { what: "extent", got: dim })?;
    }
    Shape::new(extents).ok_or(Fault::Huge)
}

/// `Transpose`.
struct Transpose(Option<Vec<i64>>);

pub(super) fn transpose(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let order = node.has("perm").then(|| node.ints("perm")).transpose()?;
    let ty = node.arg(0)?.ty;
    let out = match ty.dims.as_deref() {
        Some(dims) => {
            let order = permutation(order.as_deref(), dims.len()).map_err(|_| NodeFault::AttributeValue {
                name: "perm",
                got: format!("{order:?}"),
                wanted: "each axis of the input once",
            })?;
            ValueType::new(ty.dtype, &order.iter().map(|axis| dims[*axis]).collect::<Vec<_>>())
        }
        None => ValueType::unknown(ty.dtype),
    };
    Lowered::kernel(Transpose(order), out)
}

fn permutation(order: Option<&[i64]>, rank: usize) -> Result<Vec<usize>, Fault> {
    let Some(order) = order else { return Ok((0..rank).rev().collect()) };
    if order.len() != rank {
        return Err(Fault::Extent { what: "axes of a permutation", got: order.len(), wanted: rank });
    }
    let mut seen = vec![false; rank];
    order
        .iter()
        .map(|&axis| {
            let axis = resolve_axis(axis, rank)?;
            match std::mem::replace(&mut seen[axis], true) {
                true => Err(Fault::Value { what: "repeated axis", got: axis as i64 }),
                false => Ok(axis),
            }
        })
        .collect()
}

fn row_major_strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (0..dims.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * dims[axis + 1];
    }
    strides
}

fn fill_indices(walk: &Walk<1>, indices: &mut Vec<usize>) {
    walk.runs(|[at], count, [step]| indices.extend((0..count).map(|i| at + i * step)));
}

impl Kernel for Transpose {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let data = inputs.get(0);
        let order = permutation(self.0.as_deref(), data.shape().rank())?;
        let strides = row_major_strides(data.dims());
        let dims: Vec<usize> = order.iter().map(|axis| data.dims()[*axis]).collect();
        let steps: Vec<[usize; 1]> = order.iter().map(|axis| [strides[*axis]]).collect();
        let shape = Shape::new(&dims).ok_or(Fault::Huge)?;
        let walk = Walk::merged(&dims, &steps);
        take_by(data, shape, &mut outputs[0], run, |indices| fill_indices(&walk, indices))
    }
}

/// `Expand`.
struct Expand;

pub(super) fn expand(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(2, 2, "2")?;
    node.dtype_of(1, &[DType::I64], "int64")?;
    Lowered::kernel(Expand, ValueType::unknown(node.dtype(0)?))
}

impl Kernel for Expand {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let data = inputs.get(0);
        let target = extents(&ints(inputs.get(1))?)?;
        let (shape, walk) = Walk::<2>::broadcast([data.shape(), &target])?;
        take_by(data, shape, &mut outputs[0], run, |indices| {
            walk.runs(|[at, _], count, [step, _]| indices.extend((0..count).map(|i| at + i * step)));
        })
    }
}

/// `Tile`.
struct Tile;

pub(super) fn tile(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(2, 2, "2")?;
    node.dtype_of(1, &[DType::I64], "int64")?;
    Lowered::kernel(Tile, ValueType::unknown(node.dtype(0)?))
}

impl Kernel for Tile {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let data = inputs.get(0);
        let repeats = extents(&ints(inputs.get(1))?)?;
        let rank = data.shape().rank();
        if repeats.rank() != rank {
            return Err(Fault::Extent { what: "repeats", got: repeats.rank(), wanted: rank });
        }
        let mut dims = [0; RANK_MAX];
        for (axis, dim) in dims[..rank].iter_mut().enumerate() {
            *dim = data.dims()[axis].checked_mul(repeats.dims()[axis]).ok_or(Fault::Huge)?;
        }
        let shape = Shape::new(&dims[..rank]).ok_or(Fault::Huge)?;
        let strides = row_major_strides(data.dims());
        take_by(data, shape, &mut outputs[0], run, |indices| {
            let source = data.dims();
            for position in 0..shape.elements() {
                let (mut left, mut at) = (position, 0);
                for axis in (0..rank).rev() {
                    at += (left % dims[axis] % source[axis]) * strides[axis];
                    left /= dims[axis];
                }
                indices.push(at);
            }
        })
    }
}

/// `Concat`.
struct Concat(i64);

pub(super) fn concat(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, usize::MAX, "1 or more")?;
    let axis = match node.int("axis")? {
        Some(axis) => axis,
        None if node.opset < 4 => 1,
        None => return Err(NodeFault::AttributeMissing { name: "axis" }),
    };
    let dtype = node.dtype(0)?;
    let mut joined: Option<Vec<Option<usize>>> = node.arg(0)?.ty.dims.clone();
    for index in 1..node.args.len() {
        let arg = node.arg(index)?;
        if arg.ty.dtype != dtype {
            return Err(NodeFault::InputType { index, got: arg.ty.dtype, wanted: "the type of input 0" });
        }
        joined = match (joined, arg.ty.dims.as_deref()) {
            (Some(mut so_far), Some(next)) => {
                node::extent("axes of the inputs", Some(next.len()), so_far.len())?;
                let along = node::axis(axis, so_far.len())?;
                for (position, (dim, got)) in so_far.iter_mut().zip(next).enumerate() {
                    if position == along {
                        *dim = dim.and_then(|dim| dim.checked_add((*got)?));
                    } else if let (Some(wanted), got) = (*dim, *got) {
                        node::extent("extents besides the joined axis", got, wanted)?;
                    } else {
                        *dim = *got;
                    }
                }
                Some(so_far)
            }
            _ => None,
        };
    }
    if let Some(dims) = &joined {
        node::axis(axis, dims.len())?;
    }
    if node.args.len() == 1 {
        return Lowered::alias(0);
    }
    Lowered::kernel(Concat(axis), ValueType { dtype, dims: joined })
}

impl Kernel for Concat {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let first = inputs.get(0).shape();
        let axis = resolve_axis(self.0, first.rank())?;
        let mut dims = [0; RANK_MAX];
        dims[..first.rank()].copy_from_slice(first.dims());
        for index in 1..inputs.len() {
            let next = inputs.get(index).dims();
            if next.len() != first.rank() {
                return Err(Fault::Rank { got: next.len(), wanted: "the rank of the first input" });
            }
            for (position, &got) in next.iter().enumerate() {
                if position == axis {
                    dims[axis] = dims[axis].checked_add(got).ok_or(Fault::Huge)?;
                } else if got != dims[position] {
                    return Err(Fault::Extent { what: "extent besides the joined axis", got, wanted: dims[position] });
                }
            }
        }
        let dims = &dims[..first.rank()];
        let shape = Shape::new(dims).ok_or(Fault::Huge)?;
        let outer: usize = dims[..axis].iter().product();
        let inner: usize = dims[axis + 1..].iter().product();
        let out = &mut outputs[0];
        match inputs.get(0).dtype() {
            DType::F32 => join::<f32>(inputs, axis, outer, inner, shape, out, run),
            DType::F64 => join::<f64>(inputs, axis, outer, inner, shape, out, run),
            DType::I64 => join::<i64>(inputs, axis, outer, inner, shape, out, run),
            DType::I32 => join::<i32>(inputs, axis, outer, inner, shape, out, run),
            DType::Bool => join::<bool>(inputs, axis, outer, inner, shape, out, run),
            DType::Str => {
                let texts = out.reset_strings(shape, &mut run.budget)?;
                for block in 0..outer {
                    for index in 0..inputs.len() {
                        let source = inputs.get(index);
                        let count = source.dims()[axis] * inner;
                        for at in block * count..(block + 1) * count {
                            push(texts, source.strings()?.get(at), &mut run.budget)?;
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

fn join<T: Element>(
    inputs: Inputs<'_>,
    axis: usize,
    outer: usize,
    inner: usize,
    shape: Shape,
    out: &mut Tensor,
    run: &mut Run,
) -> Result<(), Fault> {
    let out = out.reset_empty::<T>(shape, &mut run.budget)?;
    for block in 0..outer {
        for index in 0..inputs.len() {
            let source = inputs.get(index);
            let count = source.dims()[axis] * inner;
            out.extend_from_slice(&source.values::<T>()?[block * count..(block + 1) * count]);
        }
    }
    Ok(())
}

/// `Split` into parts of known size.
struct Split {
    axis: i64,
    /// Sizes of the parts; `None` for equal parts, the last one smaller where it does not come out even.
    sizes: Option<Vec<i64>>,
    parts: usize,
}

pub(super) fn split(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 2, "1 or 2")?;
    let axis = node.int("axis")?.unwrap_or(0);
    let parts = node.proto.outputs.len();
    let sizes = if node.opset < 13 {
        node.has("split").then(|| node.ints("split")).transpose()?
    } else {
        node.opt(1).map(|_| node.constant_ints(1)).transpose()?
    };
    if let Some(sizes) = &sizes {
        node::length("split", sizes.len(), parts)?;
    }
    let data = node.arg(0)?;
    let outputs = (0..parts)
        .map(|part| {
            let Some(dims) = &data.ty.dims else { return Ok(ValueType::unknown(data.ty.dtype)) };
            let mut dims = dims.clone();
            let along = node::axis(axis, dims.len())?;
            dims[along] = sizes.as_ref().and_then(|sizes| usize::try_from(sizes[part]).ok());
            Ok(ValueType::new(data.ty.dtype, &dims))
        })
        .collect::<Result<_, NodeFault>>()?;
    Lowered::kernels(Split { axis, sizes, parts }, outputs, None)
}

impl Kernel for Split {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let data = inputs.get(0);
        let axis = resolve_axis(self.axis, data.shape().rank())?;
        let extent = data.dims()[axis];
        let inner: usize = data.dims()[axis + 1..].iter().product();
        let outer: usize = data.dims()[..axis].iter().product();
        let even = extent.div_ceil(self.parts.max(1));
        let mut start = 0;
        for (part, out) in outputs.iter_mut().enumerate() {
            let size = match &self.sizes {
                Some(sizes) => {
                    usize::try_from(sizes[part]).map_err(|_| Fault::Value { what: "size", got: sizes[part] })?
                }
                None => even.min(extent - start),
            };
            if size > extent - start {
                return Err(Fault::Extent {
                    what: "sum of the split sizes",
                    got: start.saturating_add(size),
                    wanted: extent,
                });
            }
            let mut dims = [0; RANK_MAX];
            dims[..data.shape().rank()].copy_from_slice(data.dims());
            dims[axis] = size;
            let shape = Shape::new(&dims[..data.shape().rank()]).ok_or(Fault::Huge)?;
            take_by(data, shape, out, run, |indices| {
                for block in 0..outer {
                    let first = (block * extent + start) * inner;
                    indices.extend(first..first + size * inner);
                }
            })?;
            start += size;
        }
        match start == extent {
            true => Ok(()),
            false => Err(Fault::Extent { what: "sum of the split sizes", got: start, wanted: extent }),
        }
    }
}

/// `Gather` along an axis.
struct Gather(i64);

pub(super) fn gather(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(2, 2, "2")?;
    require_ints(node, 1)?;
    let axis = node.int("axis")?.unwrap_or(0);
    let (data, indices) = (node.arg(0)?, node.arg(1)?);
    let dims = match (data.ty.dims.as_deref(), indices.ty.dims.as_deref()) {
        (Some(data), Some(indices)) => {
            let along = node::axis(axis, data.len())?;
            Some([&data[..along], indices, &data[along + 1..]].concat())
        }
        _ => None,
    };
    // Looking labels up by class index makes a label output.
    let classes = data.constant.filter(|table| table.shape().rank() == 1).and_then(Labels::from_tensor);
    Lowered::kernels(Gather(axis), vec![ValueType { dtype: data.ty.dtype, dims }], classes.map(Arc::new))
}

impl Kernel for Gather {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (data, index_tensor) = (inputs.get(0), inputs.get(1));
        let axis = resolve_axis(self.0, data.shape().rank())?;
        let extent = data.dims()[axis];
        let positions: Vec<usize> =
            ints(index_tensor)?.into_iter().map(|index| resolve_index(index, extent)).collect::<Result<_, _>>()?;
        let dims = [&data.dims()[..axis], index_tensor.dims(), &data.dims()[axis + 1..]].concat();
        let shape = Shape::new(&dims).ok_or(Fault::Huge)?;
        let outer: usize = data.dims()[..axis].iter().product();
        let inner: usize = data.dims()[axis + 1..].iter().product();
        take_by(data, shape, &mut outputs[0], run, |indices| {
            for block in 0..outer {
                for position in &positions {
                    let first = (block * extent + position) * inner;
                    indices.extend(first..first + inner);
                }
            }
        })
    }
}

/// `ArrayFeatureExtractor`: columns of the last axis.
struct Columns {
    /// The columns, when they are a constant.
    columns: Option<Vec<i64>>,
}

pub(super) fn array_feature_extractor(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(2, 2, "2")?;
    node.dtype_of(1, &[DType::I64], "int64")?;
    let (data, indices) = (node.arg(0)?, node.arg(1)?);
    let columns = indices.constant.map(|_| node.constant_ints(1)).transpose()?;
    let count = match &columns {
        Some(columns) => Some(columns.len()),
        None => indices.ty.dims.as_ref().and_then(|dims| dims.iter().try_fold(1usize, |n, dim| n.checked_mul((*dim)?))),
    };
    let dims = data.ty.dims.as_deref().map(|dims| match dims {
        [_] | [] => vec![Some(1), count],
        [outer @ .., _] => [outer, &[count]].concat(),
    });
    if let (Some(columns), Some(Some(width))) = (&columns, data.ty.dims.as_ref().and_then(|dims| dims.last()))
        && let Some(&got) = columns.iter().find(|column| !(0..*width as i64).contains(column))
    {
        return Err(NodeFault::Constant(Fault::Index { got, extent: *width }));
    }
    let one_row = |table: &&Tensor| matches!(table.dims(), [_] | [1, _]);
    let classes = data.constant.filter(one_row).and_then(Labels::from_tensor);
    Lowered::kernels(Columns { columns }, vec![ValueType { dtype: data.ty.dtype, dims }], classes.map(Arc::new))
}

impl Kernel for Columns {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let data = inputs.get(0);
        let columns: &[i64] = match &self.columns {
            Some(columns) => columns,
            None => inputs.get(1).values()?,
        };
        let Some((&width, outer)) = data.dims().split_last() else {
            return Err(Fault::Rank { got: 0, wanted: "1 or more" });
        };
        if let Some(&got) = columns.iter().find(|column| !(0..width as i64).contains(column)) {
            return Err(Fault::Index { got, extent: width });
        }
        let dims = match outer {
            [] => vec![1, columns.len()],
            outer => [outer, &[columns.len()]].concat(),
        };
        let rows: usize = outer.iter().product();
        let shape = Shape::new(&dims).ok_or(Fault::Huge)?;
        take_by(data, shape, &mut outputs[0], run, |indices| {
            for row in 0..rows {
                indices.extend(columns.iter().map(|column| row * width + *column as usize));
            }
        })
    }
}

/// `Slice`.
struct Slice {
    /// Starts, ends, axes and steps where they are attributes or constants.
    bounds: Option<Bounds>,
}

#[derive(Clone)]
struct Bounds {
    starts: Vec<i64>,
    ends: Vec<i64>,
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
}

pub(super) fn slice(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    let bounds = if node.opset < 10 {
        node.arity(1, 1, "1")?;
        let axes = node.has("axes").then(|| node.ints("axes")).transpose()?;
        Some(Bounds { starts: node.ints("starts")?, ends: node.ints("ends")?, axes, steps: None })
    } else {
        node.arity(3, 5, "3 to 5")?;
        for index in 1..node.args.len() {
            if node.opt(index).is_some() {
                require_ints(node, index)?;
            }
        }
        let all_constant = (1..node.args.len()).all(|index| node.opt(index).is_none_or(|arg| arg.constant.is_some()));
        let optional = |index: usize| node.opt(index).map(|_| node.constant_ints(index)).transpose();
        match all_constant {
            true => Some(Bounds {
                starts: node.constant_ints(1)?,
                ends: node.constant_ints(2)?,
                axes: optional(3)?,
                steps: optional(4)?,
            }),
            false => None,
        }
    };
    let ty = node.arg(0)?.ty;
    let mut out = ValueType::unknown(ty.dtype);
    if let (Some(bounds), Some(dims)) = (&bounds, &ty.dims) {
        // Extents along sliced axes are left open; the others are kept.
        let mut dims = dims.clone();
        for position in 0..bounds.starts.len() {
            let axis = bounds.axes.as_ref().map_or(Some(position as i64), |axes| axes.get(position).copied());
            let axis = node::axis(axis.unwrap_or(-1), dims.len())?;
            dims[axis] = dims[axis].and_then(|extent| {
                let step = bounds.steps.as_ref().map_or(Some(1), |steps| steps.get(position).copied())?;
                sliced(extent, bounds.starts[position], *bounds.ends.get(position)?, step).ok().map(|range| range.1)
            });
        }
        out.dims = Some(dims);
    }
    Lowered::kernel(Slice { bounds }, out)
}

/// Start and number of elements of a slice of an axis.
pub(super) fn sliced(extent: usize, start: i64, end: i64, step: i64) -> Result<(usize, usize), Fault> {
    let length = extent as i64;
    let clamp = |at: i64, low: i64, high: i64| (if at < 0 { at.saturating_add(length) } else { at }).clamp(low, high);
    match step {
        0 | i64::MIN => Err(Fault::Value { what: "step", got: step }),
        1.. => {
            let (start, end) = (clamp(start, 0, length), clamp(end, 0, length));
            let count = (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs());
            Ok((start as usize, count as usize))
        }
        _ => {
            if length == 0 {
                return Ok((0, 0));
            }
            let (start, end) = (clamp(start, 0, length - 1), clamp(end, -1, length - 1));
            let count = (start - end).max(0).unsigned_abs().div_ceil(step.unsigned_abs());
            Ok((start as usize, count as usize))
        }
    }
}

impl Kernel for Slice {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let data = inputs.get(0);
        let computed;
        let bounds = match &self.bounds {
            Some(bounds) => bounds,
            None => {
                computed = Bounds {
                    starts: ints(inputs.get(1))?,
                    ends: ints(inputs.get(2))?,
                    axes: inputs.opt(3).map(ints).transpose()?,
                    steps: inputs.opt(4).map(ints).transpose()?,
                };
                &computed
            }
        };
        let rank = data.shape().rank();
        let strides = row_major_strides(data.dims());
        // Per axis: first index, count and step.
        let mut picks: Vec<(usize, usize, i64)> = data.dims().iter().map(|extent| (0, *extent, 1)).collect();
        for (position, &start) in bounds.starts.iter().enumerate() {
            let missing = Fault::Extent { what: "slice bounds", got: position, wanted: bounds.starts.len() };
            let end = *bounds.ends.get(position).ok_or(missing)?;
            let axis = match &bounds.axes {
                Some(axes) => *axes.get(position).ok_or(missing)?,
                None => position as i64,
            };
            let step = match &bounds.steps {
                Some(steps) => *steps.get(position).ok_or(missing)?,
                None => 1,
            };
            let axis = resolve_axis(axis, rank)?;
            let (first, count) = sliced(data.dims()[axis], start, end, step)?;
            picks[axis] = (first, count, step);
        }
        let dims: Vec<usize> = picks.iter().map(|pick| pick.1).collect();
        let shape = Shape::new(&dims).ok_or(Fault::Huge)?;
        take_by(data, shape, &mut outputs[0], run, |indices| {
            for position in 0..shape.elements() {
                let (mut left, mut at) = (position, 0i64);
                for axis in (0..rank).rev() {
                    let (first, count, step) = picks[axis];
                    let index = first as i64 + (left % count) as i64 * step;
                    at += index * strides[axis] as i64;
                    left /= count;
                }
                indices.push(at as usize);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_pick_what_python_would() {
        //    extent start end step -> first, count
        let rows = [
            (5, 0, 5, 1, (0, 5)),
            (5, 1, -1, 1, (1, 3)),
            (5, -2, i64::MAX, 1, (3, 2)),
            (5, 0, 5, 2, (0, 3)),
            (5, 4, i64::MIN, -1, (4, 5)),
            (5, -1, 0, -2, (4, 2)),
            (5, 3, 1, 1, (3, 0)),
            (0, 0, 5, -1, (0, 0)),
        ];
        for (extent, start, end, step, want) in rows {
            assert_eq!(sliced(extent, start, end, step), Ok(want), "[{start}:{end}:{step}] of {extent}");
        }
        assert!(sliced(5, 0, 5, 0).is_err());
    }
}
