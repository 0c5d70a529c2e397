//! Operators that compute each element of the result from one element of each operand.

use super::super::error::{Fault, NodeFault};
use super::super::node::{Lowered, Node, ValueType};
use super::super::plan::{Inputs, Kernel, Run};
use super::super::tensor::{Budget, DType, Data, Element, Shape, Strings, Tensor};
use super::broadcast::{Walk, apply2};
use super::scores;

const NUMBERS: &[DType] = &[DType::F32, DType::F64, DType::I64, DType::I32];
const FLOATS: &[DType] = &[DType::F32, DType::F64];

/// A number type that the arithmetic operators work on. Integers wrap around, as in ONNX Runtime.
pub(super) trait Number: Element + PartialOrd {
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// The divisor of an integer is not zero.
    fn div(self, other: Self) -> Self;
    fn pow(self, other: Self) -> Self;
    fn abs(self) -> Self;
    fn neg(self) -> Self;
    fn sign(self) -> Self;
    /// Whether dividing by it fails.
    fn divides(self) -> bool;
    fn is_nan(self) -> bool;
}

macro_rules! float_number {
    ($float:ty) => {
        impl Number for $float {
            fn add(self, other: Self) -> Self {
                self + other
            }
            fn sub(self, other: Self) -> Self {
                self - other
            }
            fn mul(self, other: Self) -> Self {
                self * other
            }
            fn div(self, other: Self) -> Self {
                self / other
            }
            fn pow(self, other: Self) -> Self {
                self.powf(other)
            }
            fn abs(self) -> Self {
                self.abs()
            }
            fn neg(self) -> Self {
                -self
            }
            fn sign(self) -> Self {
                if self > 0.0 {
                    1.0
                } else if self < 0.0 {
                    -1.0
                } else {
                    self
                }
            }
            fn divides(self) -> bool {
                true
            }
            fn is_nan(self) -> bool {
                self.is_nan()
            }
        }
    };
}
float_number!(f32);
float_number!(f64);

macro_rules! int_number {
    ($int:ty) => {
        impl Number for $int {
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            fn div(self, other: Self) -> Self {
                self.wrapping_div(other)
            }
            fn pow(self, other: Self) -> Self {
                (self as f64).powf(other as f64) as $int
            }
            fn abs(self) -> Self {
                self.wrapping_abs()
            }
            fn neg(self) -> Self {
                self.wrapping_neg()
            }
            fn sign(self) -> Self {
                self.signum()
            }
            fn divides(self) -> bool {
                self != 0
            }
            fn is_nan(self) -> bool {
                false
            }
        }
    };
}
int_number!(i64);
int_number!(i32);

/// The static shape of a broadcast, as far as it is known.
pub(super) fn broadcast_type(dtype: DType, operands: &[&ValueType]) -> Result<ValueType, NodeFault> {
    let Some(all) = operands.iter().map(|ty| ty.dims.as_deref()).collect::<Option<Vec<_>>>() else {
        return Ok(ValueType::unknown(dtype));
    };
    let rank = all.iter().map(|dims| dims.len()).max().unwrap_or(0);
    let mut dims = vec![Some(1); rank];
    for operand in all {
        for (dim, got) in dims.iter_mut().rev().zip(operand.iter().rev()) {
            *dim = match (*dim, *got) {
                (Some(1), got) => got,
                (dim, Some(1)) => dim,
                (Some(left), Some(right)) if left != right => {
                    return Err(NodeFault::Extent { what: "shapes do not broadcast", got: right, wanted: left });
                }
                (Some(dim), _) | (None, Some(dim)) => Some(dim),
                (None, None) => None,
            };
        }
    }
    Ok(ValueType { dtype, dims: Some(dims) })
}

/// Two-operand arithmetic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Max,
    Min,
}

struct BinaryKernel(Binary);

/// Refuses the axis-aligned broadcasting of operator sets before 7.
fn no_legacy_broadcast(node: &Node<'_, '_>) -> Result<(), NodeFault> {
    if node.opset < 7 && node.has("axis") {
        return Err(node.unsupported("broadcasting along `axis`, as before opset 7"));
    }
    Ok(())
}

fn same_types(node: &Node<'_, '_>, of: &[DType], wanted: &'static str) -> Result<DType, NodeFault> {
    let dtype = node.dtype_of(0, of, wanted)?;
    for index in 1..node.args.len() {
        let got = node.dtype(index)?;
        if got != dtype {
            return Err(NodeFault::InputType { index, got, wanted: "the type of input 0" });
        }
    }
    Ok(dtype)
}

pub(super) fn binary(node: &Node<'_, '_>, op: Binary) -> Result<Lowered, NodeFault> {
    node.arity(2, 2, "2")?;
    no_legacy_broadcast(node)?;
    let dtype = same_types(node, NUMBERS, "a number type")?;
    let output = broadcast_type(dtype, &[node.arg(0)?.ty, node.arg(1)?.ty])?;
    Lowered::kernel(BinaryKernel(op), output)
}

/// `Pow`, whose exponent may be of another type.
pub(super) fn pow(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(2, 2, "2")?;
    no_legacy_broadcast(node)?;
    let dtype = node.dtype_of(0, NUMBERS, "a number type")?;
    let exponent = node.arg(1)?;
    let output = broadcast_type(dtype, &[node.arg(0)?.ty, exponent.ty])?;
    if exponent.ty.dtype == dtype {
        return Lowered::kernel(BinaryKernel(Binary::Pow), output);
    }
    let Some(constant) = exponent.constant else {
        return Err(node.unsupported("an exponent of another type than the base that is not a constant"));
    };
    let mut converted = Tensor::default();
    super::cast::convert(constant, dtype, &mut converted, &mut Budget::new(usize::MAX)).map_err(NodeFault::Constant)?;
    Lowered::kernel(ConstantPow(converted), output)
}

/// `Max`, `Min` or `Sum` of any number of operands.
pub(super) fn variadic(node: &Node<'_, '_>, op: Binary) -> Result<Lowered, NodeFault> {
    node.arity(1, usize::MAX, "1 or more")?;
    let dtype = same_types(node, NUMBERS, "a number type")?;
    match node.args.len() {
        1 => Lowered::alias(0),
        2 => binary(node, op),
        _ => {
            let types: Vec<&ValueType> =
                (0..node.args.len()).map(|index| Ok(node.arg(index)?.ty)).collect::<Result<_, NodeFault>>()?;
            Lowered::kernel(Variadic { op, mean: false }, broadcast_type(dtype, &types)?)
        }
    }
}

pub(super) fn mean(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, usize::MAX, "1 or more")?;
    let dtype = same_types(node, FLOATS, "float or double")?;
    let types: Vec<&ValueType> =
        (0..node.args.len()).map(|index| Ok(node.arg(index)?.ty)).collect::<Result<_, NodeFault>>()?;
    Lowered::kernel(Variadic { op: Binary::Add, mean: true }, broadcast_type(dtype, &types)?)
}

fn arithmetic<T: Number>(
    op: Binary,
    (a, a_shape): (&[T], &Shape),
    (b, b_shape): (&[T], &Shape),
    out: &mut Tensor,
    budget: &mut Budget,
) -> Result<(), Fault> {
    let (shape, walk) = Walk::broadcast([a_shape, b_shape])?;
    let out = out.reset_empty::<T>(shape, budget)?;
    match op {
        Binary::Add => apply2(&walk, a, b, out, T::add),
        Binary::Sub => apply2(&walk, a, b, out, T::sub),
        Binary::Mul => apply2(&walk, a, b, out, T::mul),
        Binary::Div => {
            if let Some(index) = b.iter().position(|value| !value.divides()) {
                return Err(Fault::DivisionByZero { index });
            }
            apply2(&walk, a, b, out, T::div);
        }
        Binary::Pow => apply2(&walk, a, b, out, T::pow),
        // NaN wins, as in numpy and ONNX Runtime.
        Binary::Max => apply2(&walk, a, b, out, |a, b| if a > b || a.is_nan() { a } else { b }),
        Binary::Min => apply2(&walk, a, b, out, |a, b| if a < b || a.is_nan() { a } else { b }),
    }
    Ok(())
}

fn arithmetic_of(op: Binary, a: &Tensor, b: &Tensor, out: &mut Tensor, budget: &mut Budget) -> Result<(), Fault> {
    match a.data() {
        Data::F32(left) => arithmetic(op, (left, a.shape()), (b.values()?, b.shape()), out, budget),
        Data::F64(left) => arithmetic(op, (left, a.shape()), (b.values()?, b.shape()), out, budget),
        Data::I64(left) => arithmetic(op, (left, a.shape()), (b.values()?, b.shape()), out, budget),
        Data::I32(left) => arithmetic(op, (left, a.shape()), (b.values()?, b.shape()), out, budget),
        other => Err(Fault::Type { got: other.dtype(), wanted: DType::F32 }),
    }
}

impl Kernel for BinaryKernel {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        arithmetic_of(self.0, inputs.get(0), inputs.get(1), &mut outputs[0], &mut run.budget)
    }
}

struct ConstantPow(Tensor);

impl Kernel for ConstantPow {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        arithmetic_of(Binary::Pow, inputs.get(0), &self.0, &mut outputs[0], &mut run.budget)
    }
}

struct Variadic {
    op: Binary,
    mean: bool,
}

impl Kernel for Variadic {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let out = &mut outputs[0];
        let first = inputs.get(0);
        out.copy_reshaped(first, *first.shape(), &mut run.budget)?;
        for index in 1..inputs.len() {
            let so_far = std::mem::take(out);
            arithmetic_of(self.op, &so_far, inputs.get(index), out, &mut run.budget)?;
        }
        if self.mean {
            let count = Tensor::new(Shape::SCALAR, Data::F64(vec![inputs.len() as f64])).ok_or(Fault::Huge)?;
            let mut divisor = Tensor::default();
            super::cast::convert(&count, out.dtype(), &mut divisor, &mut run.budget)?;
            let sum = std::mem::take(out);
            arithmetic_of(Binary::Div, &sum, &divisor, out, &mut run.budget)?;
        }
        Ok(())
    }
}

/// One-operand functions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Unary {
    Abs,
    Ceil,
    Elu,
    Erf,
    Exp,
    Floor,
    LeakyRelu,
    Log,
    Neg,
    Reciprocal,
    Relu,
    Round,
    Sigmoid,
    Sign,
    Softplus,
    Sqrt,
    Tanh,
}

struct UnaryKernel {
    op: Unary,
    alpha: f32,
}

pub(super) fn unary(node: &Node<'_, '_>, op: Unary) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let on_integers = matches!(op, Unary::Abs | Unary::Neg | Unary::Sign | Unary::Relu);
    let dtype = match on_integers {
        true => node.dtype_of(0, NUMBERS, "a number type")?,
        false => node.dtype_of(0, FLOATS, "float or double")?,
    };
    let alpha = match op {
        Unary::Elu => node.float("alpha")?.unwrap_or(1.0),
        Unary::LeakyRelu => node.float("alpha")?.unwrap_or(0.01),
        _ => 0.0,
    };
    Lowered::kernel(UnaryKernel { op, alpha }, node.arg(0)?.ty.with_dtype(dtype))
}

fn map<T: Element>(
    values: &[T],
    shape: &Shape,
    out: &mut Tensor,
    budget: &mut Budget,
    f: impl Fn(T) -> T,
) -> Result<(), Fault> {
    out.reset_empty::<T>(*shape, budget)?.extend(values.iter().map(|value| f(*value)));
    Ok(())
}

macro_rules! float_unary {
    ($float:ty, $kernel:expr, $values:expr, $shape:expr, $out:expr, $budget:expr) => {{
        let (values, shape, out, budget) = ($values, $shape, $out, $budget);
        let alpha = <$float>::from($kernel.alpha);
        match $kernel.op {
            Unary::Abs => map(values, shape, out, budget, <$float>::abs),
            Unary::Ceil => map(values, shape, out, budget, <$float>::ceil),
            Unary::Elu => map(values, shape, out, budget, |x| if x < 0.0 { alpha * x.exp_m1() } else { x }),
            Unary::Erf => map(values, shape, out, budget, |x| scores::erf(f64::from(x)) as $float),
            Unary::Exp => map(values, shape, out, budget, <$float>::exp),
            Unary::Floor => map(values, shape, out, budget, <$float>::floor),
            Unary::LeakyRelu => map(values, shape, out, budget, |x| if x < 0.0 { alpha * x } else { x }),
            Unary::Log => map(values, shape, out, budget, <$float>::ln),
            Unary::Neg => map(values, shape, out, budget, |x: $float| -x),
            Unary::Reciprocal => map(values, shape, out, budget, |x: $float| 1.0 / x),
            Unary::Relu => map(values, shape, out, budget, |x| if x < 0.0 { 0.0 } else { x }),
            Unary::Round => map(values, shape, out, budget, <$float>::round_ties_even),
            Unary::Sigmoid => map(values, shape, out, budget, |x: $float| {
                // Both forms are exact where their exponential does not overflow.
                if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
            }),
            Unary::Sign => map(values, shape, out, budget, Number::sign),
            Unary::Softplus => map(values, shape, out, budget, |x: $float| x.max(0.0) + (-x.abs()).exp().ln_1p()),
            Unary::Sqrt => map(values, shape, out, budget, <$float>::sqrt),
            Unary::Tanh => map(values, shape, out, budget, <$float>::tanh),
        }
    }};
}

impl UnaryKernel {
    fn on_integers<T: Number>(
        &self,
        values: &[T],
        shape: &Shape,
        out: &mut Tensor,
        budget: &mut Budget,
    ) -> Result<(), Fault> {
        match self.op {
            Unary::Abs => map(values, shape, out, budget, T::abs),
            Unary::Neg => map(values, shape, out, budget, T::neg),
            Unary::Sign => map(values, shape, out, budget, T::sign),
            Unary::Relu => map(values, shape, out, budget, |x| if x < T::default() { T::default() } else { x }),
            _ => Err(Fault::Type { got: T::DTYPE, wanted: DType::F32 }),
        }
    }
}

impl Kernel for UnaryKernel {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (input, out, budget) = (inputs.get(0), &mut outputs[0], &mut run.budget);
        match input.data() {
            Data::F32(values) => float_unary!(f32, self, values, input.shape(), out, budget),
            Data::F64(values) => float_unary!(f64, self, values, input.shape(), out, budget),
            Data::I64(values) => self.on_integers(values, input.shape(), out, budget),
            Data::I32(values) => self.on_integers(values, input.shape(), out, budget),
            other => Err(Fault::Type { got: other.dtype(), wanted: DType::F32 }),
        }
    }
}

/// Comparisons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Compare {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

struct CompareKernel(Compare);

pub(super) fn compare(node: &Node<'_, '_>, op: Compare) -> Result<Lowered, NodeFault> {
    node.arity(2, 2, "2")?;
    no_legacy_broadcast(node)?;
    let every = [NUMBERS, &[DType::Bool, DType::Str]].concat();
    match op {
        Compare::Equal => same_types(node, &every, "a tensor")?,
        _ => same_types(node, NUMBERS, "a number type")?,
    };
    Lowered::kernel(CompareKernel(op), broadcast_type(DType::Bool, &[node.arg(0)?.ty, node.arg(1)?.ty])?)
}

impl CompareKernel {
    fn on<T: Element + PartialOrd>(
        &self,
        a: &Tensor,
        b: &Tensor,
        out: &mut Tensor,
        run: &mut Run,
    ) -> Result<(), Fault> {
        let (shape, walk) = Walk::broadcast([a.shape(), b.shape()])?;
        let (a, b) = (a.values::<T>()?, b.values::<T>()?);
        let out = out.reset_empty::<bool>(shape, &mut run.budget)?;
        match self.0 {
            Compare::Equal => apply2(&walk, a, b, out, |a, b| a == b),
            Compare::Less => apply2(&walk, a, b, out, |a, b| a < b),
            Compare::LessOrEqual => apply2(&walk, a, b, out, |a, b| a <= b),
            Compare::Greater => apply2(&walk, a, b, out, |a, b| a > b),
            Compare::GreaterOrEqual => apply2(&walk, a, b, out, |a, b| a >= b),
        }
        Ok(())
    }
}

impl Kernel for CompareKernel {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (a, b, out) = (inputs.get(0), inputs.get(1), &mut outputs[0]);
        match a.data() {
            Data::F32(_) => self.on::<f32>(a, b, out, run),
            Data::F64(_) => self.on::<f64>(a, b, out, run),
            Data::I64(_) => self.on::<i64>(a, b, out, run),
            Data::I32(_) => self.on::<i32>(a, b, out, run),
            Data::Bool(_) => self.on::<bool>(a, b, out, run),
            Data::Str(left) => {
                let right = b.strings()?;
                let (shape, walk) = Walk::broadcast([a.shape(), b.shape()])?;
                let out = out.reset_empty::<bool>(shape, &mut run.budget)?;
                walk.runs(|[a_at, b_at], count, [a_step, b_step]| {
                    out.extend((0..count).map(|i| left.get(a_at + i * a_step) == right.get(b_at + i * b_step)));
                });
                Ok(())
            }
        }
    }
}

/// Logic on truth values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Logic {
    And,
    Or,
    Xor,
}

struct LogicKernel(Logic);

pub(super) fn logic(node: &Node<'_, '_>, op: Logic) -> Result<Lowered, NodeFault> {
    node.arity(2, 2, "2")?;
    no_legacy_broadcast(node)?;
    same_types(node, &[DType::Bool], "bool")?;
    Lowered::kernel(LogicKernel(op), broadcast_type(DType::Bool, &[node.arg(0)?.ty, node.arg(1)?.ty])?)
}

impl Kernel for LogicKernel {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (a, b) = (inputs.get(0), inputs.get(1));
        let (shape, walk) = Walk::broadcast([a.shape(), b.shape()])?;
        let out = outputs[0].reset_empty::<bool>(shape, &mut run.budget)?;
        let (a, b) = (a.values::<bool>()?, b.values::<bool>()?);
        match self.0 {
            Logic::And => apply2(&walk, a, b, out, |a, b| a & b),
            Logic::Or => apply2(&walk, a, b, out, |a, b| a | b),
            Logic::Xor => apply2(&walk, a, b, out, |a, b| a ^ b),
        }
        Ok(())
    }
}

/// A test of each number.
enum Test {
    Not,
    NaN,
    Inf { negative: bool, positive: bool },
}

pub(super) fn not(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, &[DType::Bool], "bool")?;
    Lowered::kernel(Test::Not, node.arg(0)?.ty.clone())
}

pub(super) fn is_nan(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, FLOATS, "float or double")?;
    Lowered::kernel(Test::NaN, node.arg(0)?.ty.with_dtype(DType::Bool))
}

pub(super) fn is_inf(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, FLOATS, "float or double")?;
    let negative = node.int("detect_negative")?.unwrap_or(1) != 0;
    let positive = node.int("detect_positive")?.unwrap_or(1) != 0;
    Lowered::kernel(Test::Inf { negative, positive }, node.arg(0)?.ty.with_dtype(DType::Bool))
}

impl Kernel for Test {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let input = inputs.get(0);
        let out = outputs[0].reset_empty::<bool>(*input.shape(), &mut run.budget)?;
        match (self, input.data()) {
            (Test::Not, Data::Bool(values)) => out.extend(values.iter().map(|value| !value)),
            (Test::NaN, Data::F32(values)) => out.extend(values.iter().map(|value| value.is_nan())),
            (Test::NaN, Data::F64(values)) => out.extend(values.iter().map(|value| value.is_nan())),
            (Test::Inf { negative, positive }, Data::F32(values)) => {
                out.extend(values.iter().map(|x| x.is_infinite() && if *x < 0.0 { *negative } else { *positive }));
            }
            (Test::Inf { negative, positive }, Data::F64(values)) => {
                out.extend(values.iter().map(|x| x.is_infinite() && if *x < 0.0 { *negative } else { *positive }));
            }
            (_, other) => return Err(Fault::Type { got: other.dtype(), wanted: DType::F32 }),
        }
        Ok(())
    }
}

/// `Clip`: bounds are attributes before opset 11, inputs since.
struct Clip {
    min: Option<f32>,
    max: Option<f32>,
}

pub(super) fn clip(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 3, "1 to 3")?;
    let dtype = node.dtype_of(0, NUMBERS, "a number type")?;
    for index in 1..node.args.len() {
        if let Some(bound) = node.opt(index)
            && bound.ty.dtype != dtype
        {
            return Err(NodeFault::InputType { index, got: bound.ty.dtype, wanted: "the type of input 0" });
        }
    }
    let kernel = match node.opset < 11 {
        true => Clip { min: node.float("min")?, max: node.float("max")? },
        false => Clip { min: None, max: None },
    };
    Lowered::kernel(kernel, node.arg(0)?.ty.clone())
}

impl Clip {
    fn on<T: Number>(
        &self,
        inputs: Inputs<'_>,
        out: &mut Tensor,
        run: &mut Run,
        bound: impl Fn(f32) -> T,
    ) -> Result<(), Fault> {
        let one = |index: usize| -> Result<Option<T>, Fault> {
            let Some(tensor) = inputs.opt(index) else { return Ok(None) };
            match tensor.values::<T>()? {
                [value] => Ok(Some(*value)),
                other => Err(Fault::Extent { what: "elements of a bound", got: other.len(), wanted: 1 }),
            }
        };
        let min = one(1)?.or(self.min.map(&bound));
        let max = one(2)?.or(self.max.map(&bound));
        let input = inputs.get(0);
        map(input.values::<T>()?, input.shape(), out, &mut run.budget, |mut value| {
            if let Some(min) = min
                && value < min
            {
                value = min;
            }
            match max {
                Some(max) if value > max => max,
                _ => value,
            }
        })
    }
}

impl Kernel for Clip {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let out = &mut outputs[0];
        match inputs.get(0).dtype() {
            DType::F32 => self.on::<f32>(inputs, out, run, |bound| bound),
            DType::F64 => self.on::<f64>(inputs, out, run, f64::from),
            DType::I64 => self.on::<i64>(inputs, out, run, |bound| bound as i64),
            DType::I32 => self.on::<i32>(inputs, out, run, |bound| bound as i32),
            got => Err(Fault::Type { got, wanted: DType::F32 }),
        }
    }
}

/// `Where`.
struct Select;

pub(super) fn select(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(3, 3, "3")?;
    node.dtype_of(0, &[DType::Bool], "bool")?;
    let dtype = node.dtype(1)?;
    if node.dtype(2)? != dtype {
        return Err(NodeFault::InputType { index: 2, got: node.dtype(2)?, wanted: "the type of input 1" });
    }
    let types = [node.arg(0)?.ty, node.arg(1)?.ty, node.arg(2)?.ty];
    Lowered::kernel(Select, broadcast_type(dtype, &types)?)
}

fn select_of<T: Element>(inputs: Inputs<'_>, out: &mut Tensor, run: &mut Run) -> Result<(), Fault> {
    let (condition, a, b) = (inputs.get(0), inputs.get(1), inputs.get(2));
    let (shape, walk) = Walk::broadcast([condition.shape(), a.shape(), b.shape()])?;
    let (condition, a, b) = (condition.values::<bool>()?, a.values::<T>()?, b.values::<T>()?);
    let out = out.reset_empty::<T>(shape, &mut run.budget)?;
    walk.runs(|[c_at, a_at, b_at], count, [c_step, a_step, b_step]| {
        out.extend((0..count).map(|i| match condition[c_at + i * c_step] {
            true => a[a_at + i * a_step],
            false => b[b_at + i * b_step],
        }));
    });
    Ok(())
}

impl Kernel for Select {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let out = &mut outputs[0];
        match inputs.get(1).data() {
            Data::F32(_) => select_of::<f32>(inputs, out, run),
            Data::F64(_) => select_of::<f64>(inputs, out, run),
            Data::I64(_) => select_of::<i64>(inputs, out, run),
            Data::I32(_) => select_of::<i32>(inputs, out, run),
            Data::Bool(_) => select_of::<bool>(inputs, out, run),
            Data::Str(a) => {
                let (condition, b) = (inputs.get(0), inputs.get(2));
                let (shape, walk) = Walk::broadcast([condition.shape(), inputs.get(1).shape(), b.shape()])?;
                let (condition, b) = (condition.values::<bool>()?, b.strings()?);
                let texts = out.reset_strings(shape, &mut run.budget)?;
                let mut over = Ok(());
                walk.runs(|[c_at, a_at, b_at], count, [c_step, a_step, b_step]| {
                    for i in 0..count {
                        let text = match condition[c_at + i * c_step] {
                            true => a.get(a_at + i * a_step),
                            false => b.get(b_at + i * b_step),
                        };
                        over = over.and_then(|()| push(texts, text, &mut run.budget));
                    }
                });
                over
            }
        }
    }
}

/// Appends a text, paying for its bytes.
pub(super) fn push(texts: &mut Strings, text: &str, budget: &mut Budget) -> Result<(), Fault> {
    budget.take(text.len(), 1)?;
    texts.push(text);
    Ok(())
}
