//! Operators that change or tell a shape, and leave the elements as they are.

use super::super::error::{Fault, NodeFault};
use super::super::node::{Lowered, Node, ValueType};
use super::super::plan::{Inputs, Kernel, Run};
use super::super::tensor::{DType, RANK_MAX, Shape, Tensor};
use super::layout::{ints, require_ints, resolve_axis, sliced};

/// `Identity` and, at inference, `Dropout`.
pub(super) fn identity(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 3, "1")?;
    Lowered::alias(0)
}

/// `Reshape`: 0 keeps an extent (unless `allowzero`), one -1 takes what is left.
struct Reshape {
    /// The target, when it is an attribute or a constant.
    target: Option<Vec<i64>>,
    allow_zero: bool,
}

pub(super) fn reshape(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    let allow_zero = node.int("allowzero")?.unwrap_or(0) != 0;
    let target = if node.opset < 5 {
        node.arity(1, 1, "1")?;
        Some(node.ints("shape")?)
    } else {
        node.arity(2, 2, "2")?;
        require_ints(node, 1)?;
        match node.arg(1)?.constant {
            Some(_) => Some(node.constant_ints(1)?),
            None => None,
        }
    };
    if let Some(target) = &target {
        let open = target.iter().filter(|dim| **dim == -1).count();
        if open > 1 || target.iter().any(|dim| *dim < -1) || target.len() > RANK_MAX {
            let wanted = "at most 8 extents, at most one of them -1";
            return Err(NodeFault::AttributeValue { name: "shape", got: format!("{target:?}"), wanted });
        }
    }
    let data = node.arg(0)?;
    let ty = match &target {
        Some(target) => {
            let kept = |axis: usize| data.ty.dims.as_ref().and_then(|dims| dims.get(axis).copied().flatten());
            let extent = |(axis, dim): (usize, &i64)| match *dim {
                0 if !allow_zero => kept(axis),
                dim => usize::try_from(dim).ok(),
            };
            ValueType { dtype: data.ty.dtype, dims: Some(target.iter().enumerate().map(extent).collect()) }
        }
        None => ValueType::unknown(data.ty.dtype),
    };
    Lowered::kernels(Reshape { target, allow_zero }, vec![ty], data.classes.cloned())
}

impl Kernel for Reshape {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let data = inputs.get(0);
        let computed;
        let target = match &self.target {
            Some(target) => target,
            None => {
                computed = ints(inputs.get(1))?;
                &computed
            }
        };
        let mut dims = [0; RANK_MAX];
        let dims = dims.get_mut(..target.len()).ok_or(Fault::Rank { got: target.len(), wanted: "at most 8" })?;
        let (mut known, mut open) = (1usize, None);
        for (axis, (dim, &wanted)) in dims.iter_mut().zip(target).enumerate() {
            *dim = match wanted {
                -1 if open.is_none() => {
                    open = Some(axis);
                    continue;
                }
                0 if !self.allow_zero => {
                    *data.dims().get(axis).ok_or(Fault::Value { what: "kept axis", got: axis as i64 })?
                }
                wanted => usize::try_from(wanted).map_err(|_| Fault::Value { what: "extent", got: wanted })?,
            };
            known = known.checked_mul(*dim).ok_or(Fault::Huge)?;
        }
        if let Some(open) = open {
            let elements = data.shape().elements();
            if known == 0 || !elements.is_multiple_of(known) {
                return Err(Fault::Elements { got: elements, wanted: known });
            }
            dims[open] = elements / known;
        }
        let shape = Shape::new(dims).ok_or(Fault::Huge)?;
        outputs[0].copy_reshaped(data, shape, &mut run.budget)
    }
}

/// `Flatten` to two axes.
struct Flatten(i64);

pub(super) fn flatten(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let axis = node.int("axis")?.unwrap_or(1);
    let ty = node.arg(0)?.ty;
    let dims = match ty.dims.as_deref() {
        Some(dims) => {
            let split = usize::try_from(if axis < 0 { axis + dims.len() as i64 } else { axis }).unwrap_or(usize::MAX);
            let Some((outer, inner)) = dims.split_at_checked(split) else {
                return Err(NodeFault::AttributeValue {
                    name: "axis",
                    got: axis.to_string(),
                    wanted: "at most the rank",
                });
            };
            let product =
                |dims: &[Option<usize>]| dims.iter().try_fold(1usize, |product, dim| product.checked_mul((*dim)?));
            [product(outer), product(inner)]
        }
        None => [None, None],
    };
    Lowered::kernel(Flatten(axis), ValueType::new(ty.dtype, &dims))
}

impl Kernel for Flatten {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let data = inputs.get(0);
        let rank = data.shape().rank();
        let axis = if self.0 == rank as i64 { rank } else { resolve_axis(self.0, rank)? };
        let (outer, inner) = data.dims().split_at(axis);
        let shape = Shape::matrix(outer.iter().product(), inner.iter().product())?;
        outputs[0].copy_reshaped(data, shape, &mut run.budget)
    }
}

/// `Squeeze` and `Unsqueeze`.
struct Axes {
    /// From the attribute or a constant; `None` when they are computed, or left out.
    axes: Option<Vec<i64>>,
    insert: bool,
}

fn axes(node: &Node<'_, '_>, insert: bool) -> Result<Lowered, NodeFault> {
    let axes = if node.opset < 13 {
        node.arity(1, 1, "1")?;
        node.has("axes").then(|| node.ints("axes")).transpose()?
    } else {
        node.arity(1, 2, "1 or 2")?;
        match node.opt(1) {
            Some(axes) => {
                require_ints(node, 1)?;
                axes.constant.map(|_| node.constant_ints(1)).transpose()?
            }
            None => None,
        }
    };
    if insert && axes.is_none() && node.opt(1).is_none() {
        return Err(NodeFault::AttributeMissing { name: "axes" });
    }
    let data = node.arg(0)?;
    let dims = match (&data.ty.dims, &axes) {
        (Some(dims), Some(axes)) if insert => inserted(dims, axes, Some(1)),
        (Some(dims), Some(axes)) => removed(dims, axes, |_| true),
        (Some(dims), None) if !insert && node.opt(1).is_none() && dims.iter().all(Option::is_some) => {
            Ok(dims.iter().filter(|dim| **dim != Some(1)).copied().collect())
        }
        _ => {
            return Lowered::kernels(
                Axes { axes, insert },
                vec![ValueType::unknown(data.ty.dtype)],
                data.classes.cloned(),
            );
        }
    };
    let dims = dims.map_err(|_| NodeFault::AttributeValue {
        name: "axes",
        got: format!("{axes:?}"),
        wanted: "distinct axes of the input",
    })?;
    Lowered::kernels(Axes { axes, insert }, vec![ValueType::new(data.ty.dtype, &dims)], data.classes.cloned())
}

pub(super) fn squeeze(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    axes(node, false)
}

pub(super) fn unsqueeze(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    axes(node, true)
}

fn inserted<T: Copy>(dims: &[T], axes: &[i64], one: T) -> Result<Vec<T>, Fault> {
    let rank = dims.len() + axes.len();
    if rank > RANK_MAX {
        return Err(Fault::Rank { got: rank, wanted: "at most 8" });
    }
    let mut new = vec![false; rank];
    for &axis in axes {
        let axis = resolve_axis(axis, rank)?;
        if std::mem::replace(&mut new[axis], true) {
            return Err(Fault::Value { what: "axis", got: axis as i64 });
        }
    }
    let mut old = dims.iter();
    Ok(new.into_iter().map(|new| if new { one } else { old.next().copied().unwrap_or(one) }).collect())
}

fn removed<T: Copy>(dims: &[T], axes: &[i64], is_one: impl Fn(T) -> bool) -> Result<Vec<T>, Fault> {
    let mut gone = vec![false; dims.len()];
    for &axis in axes {
        let axis = resolve_axis(axis, dims.len())?;
        if !is_one(dims[axis]) {
            return Err(Fault::Value { what: "squeezed axis", got: axis as i64 });
        }
        gone[axis] = true;
    }
    Ok(dims.iter().zip(gone).filter(|(_, gone)| !gone).map(|(dim, _)| *dim).collect())
}

impl Kernel for Axes {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let data = inputs.get(0);
        let computed;
        let axes = match (&self.axes, inputs.opt(1)) {
            (Some(axes), _) => Some(axes),
            (None, Some(tensor)) => {
                computed = ints(tensor)?;
                Some(&computed)
            }
            (None, None) => None,
        };
        let dims = match axes {
            Some(axes) if self.insert => inserted(data.dims(), axes, 1)?,
            Some(axes) => removed(data.dims(), axes, |dim| dim == 1)?,
            None => data.dims().iter().filter(|dim| **dim != 1).copied().collect(),
        };
        let shape = Shape::new(&dims).ok_or(Fault::Huge)?;
        outputs[0].copy_reshaped(data, shape, &mut run.budget)
    }
}

/// `Shape`.
struct ShapeOf {
    start: i64,
    end: i64,
}

pub(super) fn shape(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let start = node.int("start")?.unwrap_or(0);
    let end = node.int("end")?.unwrap_or(i64::MAX);
    let rank = node.arg(0)?.ty.dims.as_ref().and_then(|dims| Some(sliced(dims.len(), start, end, 1).ok()?.1));
    Lowered::kernel(ShapeOf { start, end }, ValueType::new(DType::I64, &[rank]))
}

impl Kernel for ShapeOf {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let dims = inputs.get(0).dims();
        let (first, count) = sliced(dims.len(), self.start, self.end, 1)?;
        let out = outputs[0].reset_empty::<i64>(Shape::vector(count), &mut run.budget)?;
        out.extend(dims[first..first + count].iter().map(|dim| *dim as i64));
        Ok(())
    }
}
