//! What a model became: a list of steps over numbered tensors.

use std::sync::Arc;

use super::error::{EvalError, Fault};
use super::node::Labels;
use super::tensor::{Budget, DType, Tensor};

/// A compiled model. Immutable; share it between threads, with one [`Scratch`] per evaluation under way.
pub struct Plan {
    pub(super) inputs: Vec<InputPort>,
    pub(super) outputs: Vec<OutputPort>,
    pub(super) constants: Vec<Tensor>,
    /// In an order in which every step reads only inputs, constants and results of earlier steps.
    pub(super) steps: Vec<Step>,
    pub(super) slot_count: usize,
}

/// An input of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPort {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its extents, `None` for "any"; the whole is `None` when the model does not say. Usually `[None, features]`.
    pub dims: Option<Vec<Option<usize>>>,
}

/// An output of the model.
#[derive(Debug, Clone)]
pub struct OutputPort {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its extents as far as they are known before a run.
    pub dims: Option<Vec<Option<usize>>>,
    /// The classes that its values name (a label output) or that its columns stand for (a score output).
    pub classes: Option<Arc<Labels>>,
    pub(super) source: Ref,
}

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ref {
    Constant(u32),
    Slot(u32),
    /// An optional input that the node leaves out.
    Absent,
}

/// One operator with its operands resolved.
pub(super) struct Step {
    pub(super) kernel: Box<dyn Kernel>,
    pub(super) inputs: Box<[Ref]>,
    /// Its results are the slots `first_output..first_output + output_count`; all it reads lies below.
    pub(super) first_output: usize,
    pub(super) output_count: usize,
    pub(super) label: Box<str>,
}

/// An operator, compiled. Its attributes were checked when it was made; shapes are checked once per call, never per row.
pub(super) trait Kernel: Send + Sync {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault>;
}

/// The operands of a step.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) refs: &'a [Ref],
    pub(super) constants: &'a [Tensor],
    pub(super) slots: &'a [Tensor],
}

impl<'a> Inputs<'a> {
    /// A required operand. The builder of the kernel has checked that it is there.
    pub(super) fn get(&self, index: usize) -> &'a Tensor {
        self.opt(index).expect("the kernel's builder checked its arity")
    }

    /// An optional operand.
    pub(super) fn opt(&self, index: usize) -> Option<&'a Tensor> {
        match *self.refs.get(index)? {
            Ref::Constant(index) => self.constants.get(index as usize),
            Ref::Slot(index) => self.slots.get(index as usize),
            Ref::Absent => None,
        }
    }

    /// Number of operands, left-out ones included.
    pub(super) fn len(&self) -> usize {
        self.refs.len()
    }
}

/// The state of one evaluation that kernels share.
pub(super) struct Run {
    pub(super) budget: Budget,
    pub(super) lenient_categories: bool,
    pub(super) work: Workspace,
}

/// Buffers that kernels use within one call, kept for their storage. Their contents mean nothing between calls.
#[derive(Default)]
pub(super) struct Workspace {
    pub(super) f32s: Vec<f32>,
    pub(super) f64s: Vec<f64>,
    pub(super) flags: Vec<bool>,
    pub(super) indices: Vec<usize>,
}

/// The tensors of one evaluation. Made by [`Plan::scratch`]; reuse it with the same plan.
#[derive(Default)]
pub struct Scratch {
    slots: Vec<Tensor>,
    work: Workspace,
}

impl Scratch {
    /// The model's inputs, in the order of [`Plan::inputs`], to be filled before a run.
    pub fn inputs_mut(&mut self, plan: &Plan) -> &mut [Tensor] {
        let count = plan.inputs.len().min(self.slots.len());
        &mut self.slots[..count]
    }

    /// Bytes held, used or not.
    pub fn capacity_bytes(&self) -> usize {
        let work = &self.work;
        self.slots.iter().map(Tensor::capacity_bytes).sum::<usize>()
            + work.f32s.capacity() * 4
            + work.f64s.capacity() * 8
            + work.flags.capacity()
            + work.indices.capacity() * 8
    }
}

/// How to run.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// Bytes that the results of all operators may take together.
    pub memory_bytes_max: usize,
    /// Encode unknown categories as all zeros where the model would refuse them. For synthetic warm-up rows only.
    pub lenient_categories: bool,
}

impl Default for RunOptions {
    /// 256 MiB: a request body of 16 MiB holds up to 8 million numbers, and a pipeline keeps a handful of copies.
    fn default() -> RunOptions {
        RunOptions { memory_bytes_max: 256 << 20, lenient_categories: false }
    }
}

impl Plan {
    /// The model's inputs.
    pub fn inputs(&self) -> &[InputPort] {
        &self.inputs
    }

    /// The model's outputs.
    pub fn outputs(&self) -> &[OutputPort] {
        &self.outputs
    }

    /// Number of operators that run per evaluation.
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }

    /// Empty storage for evaluations.
    pub fn scratch(&self) -> Scratch {
        let mut slots = Vec::new();
        slots.resize_with(self.slot_count, Tensor::default);
        Scratch { slots, work: Workspace::default() }
    }

    /// Evaluates the model on the inputs in `scratch` ([`Scratch::inputs_mut`]), whose types and extents must be those
    /// of [`Plan::inputs`]. The results are then at [`Plan::output`].
    ///
    /// # Errors
    /// [`EvalError`], which names the node. All of them come from the inputs (an unknown category, extents that do not
    /// fit, too many rows), since the model itself was checked when it was compiled.
    pub fn run(&self, scratch: &mut Scratch, options: RunOptions) -> Result<(), EvalError> {
        if scratch.slots.len() != self.slot_count {
            *scratch = self.scratch();
        }
        let mut run = Run {
            budget: Budget::new(options.memory_bytes_max),
            lenient_categories: options.lenient_categories,
            work: std::mem::take(&mut scratch.work),
        };
        let result = self.run_steps(&mut scratch.slots, &mut run);
        scratch.work = run.work;
        result
    }

    fn run_steps(&self, slots: &mut [Tensor], run: &mut Run) -> Result<(), EvalError> {
        for step in &self.steps {
            let (before, after) = slots.split_at_mut(step.first_output);
            let inputs = Inputs { refs: &step.inputs, constants: &self.constants, slots: before };
            step.kernel
                .run(inputs, &mut after[..step.output_count], run)
                .map_err(|fault| EvalError { node: step.label.to_string(), fault })?;
        }
        Ok(())
    }

    /// The result of the last [`Plan::run`] for output number `index`.
    ///
    /// # Panics
    /// When `index` is not less than the number of outputs.
    pub fn output<'a>(&'a self, scratch: &'a Scratch, index: usize) -> &'a Tensor {
        match self.outputs[index].source {
            Ref::Constant(constant) => &self.constants[constant as usize],
            Ref::Slot(slot) => &scratch.slots[slot as usize],
            Ref::Absent => unreachable!("an output always has a source"),
        }
    }
}

impl Plan {
    /// The same, to be changed; `None` for an output that is a constant of the model.
    pub fn output_mut<'a>(&self, scratch: &'a mut Scratch, index: usize) -> Option<&'a mut Tensor> {
        match self.outputs.get(index)?.source {
            Ref::Slot(slot) => scratch.slots.get_mut(slot as usize),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .field("steps", &self.steps.iter().map(|step| &*step.label).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
