//! From a graph to a [`Plan`]: order the nodes, check and lower each, compute what is constant.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::{ModelError, NodeFault, shown};
use super::node::{Arg, Built, Labels, Lowered, Node, ValueType};
use super::ops;
use super::plan::{InputPort, Inputs, OutputPort, Plan, Ref, Run, Step, Workspace};
use super::proto::{GraphProto, ModelProto, NodeProto, PortKind, ValueInfo};
use super::tensor::{Budget, DType, RANK_MAX, Tensor};

/// Newest operator sets whose meaning is known here. A newer one may have changed an operator.
const ONNX_OPSET_MAX: i64 = 28;
const ML_OPSET_MAX: i64 = 5;

/// Memory for results that are computed while compiling: this much, and the file's size four times over.
const FOLD_BYTES: usize = 1 << 20;

impl Plan {
    /// Reads and checks a model file, and prepares it for evaluation.
    ///
    /// Memory used is bounded by a small multiple of `file.len()`; nothing panics, whatever the bytes.
    ///
    /// # Errors
    /// Any [`ModelError`]; the message names the node, attribute or tensor, what was found and what was wanted.
    pub fn compile(file: &[u8]) -> Result<Plan, ModelError> {
        let model = ModelProto::read(file)?;
        let opsets = Opsets::read(&model)?;
        let order = order(&model.graph)?;
        let mut compiler = Compiler {
            values: HashMap::new(),
            plan: Plan { inputs: vec![], outputs: vec![], constants: vec![], steps: vec![], slot_count: 0 },
            run: Run {
                budget: Budget::new(FOLD_BYTES.saturating_add(file.len().saturating_mul(4))),
                lenient_categories: false,
                work: Workspace::default(),
            },
        };
        compiler.add_inputs_and_constants(&model.graph, &order)?;
        for &index in &order.nodes {
            compiler.add_node(&model.graph.nodes[index], &opsets)?;
        }
        compiler.add_outputs(&model.graph)?;
        Ok(compiler.plan)
    }
}

/// Versions that the two operator domains were imported at.
struct Opsets {
    onnx: i64,
    ml: i64,
}

impl Opsets {
    fn read(model: &ModelProto<'_>) -> Result<Opsets, ModelError> {
        let mut opsets = Opsets { onnx: ONNX_OPSET_MAX, ml: ML_OPSET_MAX };
        for &(domain, version) in &model.opsets {
            let (slot, known, name) = match domain {
                "" | "ai.onnx" => (&mut opsets.onnx, ONNX_OPSET_MAX, "ai.onnx"),
                "ai.onnx.ml" => (&mut opsets.ml, ML_OPSET_MAX, "ai.onnx.ml"),
                // Other domains matter only when a node is of one, which is then refused by name.
                _ => continue,
            };
            if !(1..=known).contains(&version) {
                return Err(ModelError::Opset { domain: name.to_owned(), got: version, known });
            }
            *slot = version;
        }
        Ok(opsets)
    }
}

/// The nodes that the outputs need, each after what it reads, and how many read each initializer.
struct Order<'a> {
    nodes: Vec<usize>,
    initializers: HashMap<&'a str, usize>,
}

fn order<'a>(graph: &'a GraphProto<'_>) -> Result<Order<'a>, ModelError> {
    let mut producers: HashMap<&str, usize> = HashMap::new();
    let mut initializers: HashMap<&str, usize> = HashMap::new();
    for (index, tensor) in graph.initializers.iter().enumerate() {
        if initializers.insert(tensor.name, index).is_some() {
            return Err(ModelError::DefinedTwice { name: shown(tensor.name) });
        }
    }
    let mut inputs: HashMap<&str, ()> = HashMap::new();
    for input in &graph.inputs {
        if inputs.insert(input.name, ()).is_some() {
            return Err(ModelError::DefinedTwice { name: shown(input.name) });
        }
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        for &output in node.outputs.iter().filter(|output| !output.is_empty()) {
            let taken = initializers.contains_key(output) || inputs.contains_key(output);
            if producers.insert(output, index).is_some() || taken {
                return Err(ModelError::DefinedTwice { name: shown(output) });
            }
        }
    }

    // Depth first from the outputs, on a stack of our own: a chain of nodes may be as long as the file allows.
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut states = vec![State::New; graph.nodes.len()];
    let mut nodes = Vec::new();
    let mut stack: Vec<(usize, usize)> = Vec::new();
    let known = |name: &str| initializers.contains_key(name) || inputs.contains_key(name);
    for output in &graph.outputs {
        match producers.get(output.name) {
            Some(&node) if states[node] == State::New => {
                states[node] = State::Open;
                stack.push((node, 0));
            }
            Some(_) => continue,
            None if known(output.name) => continue,
            None => return Err(ModelError::Undefined { name: shown(output.name), by: "the output list".to_owned() }),
        }
        while let Some((node, next)) = stack.pop() {
            let Some(&name) = graph.nodes[node].inputs.get(next) else {
                states[node] = State::Done;
                nodes.push(node);
                continue;
            };
            stack.push((node, next + 1));
            match producers.get(name) {
                Some(&producer) => match states[producer] {
                    State::New => {
                        states[producer] = State::Open;
                        stack.push((producer, 0));
                    }
                    State::Open => return Err(ModelError::Cycle { node: graph.nodes[producer].label() }),
                    State::Done => {}
                },
                None if name.is_empty() || known(name) => {}
                None => {
                    let by = format!("node {}", graph.nodes[node].label());
                    return Err(ModelError::Undefined { name: shown(name), by });
                }
            }
        }
    }
    Ok(Order { nodes, initializers })
}

/// A value with a name in the graph.
struct Value {
    at: Ref,
    ty: ValueType,
    classes: Option<Arc<Labels>>,
}

struct Compiler<'a> {
    values: HashMap<&'a str, Value>,
    plan: Plan,
    run: Run,
}

impl<'a> Compiler<'a> {
    fn add_inputs_and_constants(&mut self, graph: &GraphProto<'a>, order: &Order<'_>) -> Result<(), ModelError> {
        for input in graph.inputs.iter().filter(|input| !order.initializers.contains_key(input.name)) {
            let (dtype, dims) = port_type("input", input)?;
            let at = Ref::Slot(self.plan.slot_count as u32);
            self.plan.slot_count += 1;
            let ty = ValueType { dtype, dims: dims.clone() };
            self.define(input.name, Value { at, ty, classes: None });
            self.plan.inputs.push(InputPort { name: input.name.to_owned(), dtype, dims });
        }
        if self.plan.inputs.is_empty() {
            return Err(ModelError::NoPorts { side: "input" });
        }
        // Only what is read, so that a type this runtime does not hold is no obstacle where nothing uses it.
        let mut used: HashMap<&str, ()> = graph.outputs.iter().map(|output| (output.name, ())).collect();
        for &node in &order.nodes {
            used.extend(graph.nodes[node].inputs.iter().map(|name| (*name, ())));
        }
        for proto in graph.initializers.iter().filter(|tensor| used.contains_key(tensor.name)) {
            let tensor =
                proto.decode().map_err(|fault| ModelError::Tensor { tensor: shown(proto.name), fault })?;
            let value = self.constant(tensor, None);
            self.define(proto.name, value);
        }
        Ok(())
    }

    /// Gives a value its name. The empty name stands for "left out" and never names a value.
    fn define(&mut self, name: &'a str, value: Value) {
        if !name.is_empty() {
            self.values.insert(name, value);
        }
    }

    fn constant(&mut self, tensor: Tensor, classes: Option<Arc<Labels>>) -> Value {
        let at = Ref::Constant(self.plan.constants.len() as u32);
        let ty = ValueType::of(&tensor);
        self.plan.constants.push(tensor);
        Value { at, ty, classes }
    }

    fn add_node(&mut self, proto: &NodeProto<'a>, opsets: &Opsets) -> Result<(), ModelError> {
        let fail = |fault| ModelError::Node { node: proto.label(), operator: shown(proto.op_type), fault };
        let refs: Vec<Ref> =
            proto.inputs.iter().map(|name| self.values.get(name).map_or(Ref::Absent, |value| value.at)).collect();
        let args: Vec<Option<Arg<'_>>> = proto
            .inputs
            .iter()
            .map(|name| {
                let value = self.values.get(name)?;
                let constant = match value.at {
                    Ref::Constant(index) => self.plan.constants.get(index as usize),
                    _ => None,
                };
                Some(Arg { ty: &value.ty, constant, classes: value.classes.as_ref() })
            })
            .collect();
        let all_constant = refs.iter().all(|at| !matches!(at, Ref::Slot(_)));

        let ml = match proto.domain {
            "" | "ai.onnx" => false,
            "ai.onnx.ml" => true,
            _ => return Err(unsupported_operator(proto)),
        };
        let opset = if ml { opsets.ml } else { opsets.onnx };
        let node = Node { proto, args: &args, opset };
        let lowered = ops::lower(&node, ml).ok_or_else(|| unsupported_operator(proto))?.map_err(fail)?;

        match lowered {
            Lowered::Alias { input, classes } => {
                let name = proto.inputs.get(input).copied().unwrap_or_default();
                let Some(source) = self.values.get(name) else {
                    return Err(fail(NodeFault::Arity { side: "input", got: proto.inputs.len(), wanted: "more" }));
                };
                let value = Value {
                    at: source.at,
                    ty: source.ty.clone(),
                    classes: classes.or_else(|| source.classes.clone()),
                };
                if let Some(&output) = proto.outputs.first() {
                    self.define(output, value);
                }
            }
            Lowered::Kernel(built) if all_constant => {
                let results = self.fold(&built, &refs).map_err(fail)?;
                for (tensor, &output) in results.into_iter().zip(&proto.outputs) {
                    let value = self.constant(tensor, built.classes.clone());
                    self.define(output, value);
                }
            }
            Lowered::Kernel(built) => self.add_step(proto, refs, built),
        }
        match proto.outputs.iter().find(|output| !output.is_empty() && !self.values.contains_key(*output)) {
            Some(_) => {
                Err(fail(NodeFault::Arity { side: "output", got: proto.outputs.len(), wanted: "fewer" }))
            }
            None => Ok(()),
        }
    }

    fn fold(&mut self, built: &Built, refs: &[Ref]) -> Result<Vec<Tensor>, NodeFault> {
        let mut results = Vec::new();
        results.resize_with(built.outputs.len(), Tensor::default);
        let inputs = Inputs { refs, constants: &self.plan.constants, slots: &[] };
        built.kernel.run(inputs, &mut results, &mut self.run).map_err(NodeFault::Constant)?;
        Ok(results)
    }

    fn add_step(&mut self, proto: &NodeProto<'a>, refs: Vec<Ref>, built: Built) {
        let first_output = self.plan.slot_count;
        let output_count = built.outputs.len();
        self.plan.slot_count += output_count;
        for (offset, (ty, &output)) in built.outputs.into_iter().zip(&proto.outputs).enumerate() {
            let at = Ref::Slot((first_output + offset) as u32);
            self.define(output, Value { at, ty, classes: built.classes.clone() });
        }
        self.plan.steps.push(Step {
            kernel: built.kernel,
            inputs: refs.into_boxed_slice(),
            first_output,
            output_count,
            label: format!("{} ({})", proto.label(), shown(proto.op_type)).into_boxed_str(),
        });
    }

    fn add_outputs(&mut self, graph: &GraphProto<'_>) -> Result<(), ModelError> {
        for output in &graph.outputs {
            let Some(value) = self.values.get(output.name) else {
                return Err(ModelError::Undefined { name: shown(output.name), by: "the output list".to_owned() });
            };
            self.plan.outputs.push(OutputPort {
                name: output.name.to_owned(),
                dtype: value.ty.dtype,
                // What the operators make counts, not what the file declares: exporters get the latter wrong.
                dims: value.ty.dims.clone(),
                classes: value.classes.clone(),
                source: value.at,
            });
        }
        if self.plan.outputs.is_empty() {
            return Err(ModelError::NoPorts { side: "output" });
        }
        Ok(())
    }
}

type PortType = (DType, Option<Vec<Option<usize>>>);

fn port_type(side: &'static str, port: &ValueInfo<'_>) -> Result<PortType, ModelError> {
    let refuse = |got: String| ModelError::PortType { side, name: shown(port.name), got };
    match &port.kind {
        PortKind::Other(kind) => Err(refuse((*kind).to_owned())),
        PortKind::Tensor { code, dims } => {
            let dtype = DType::from_onnx(*code).ok_or_else(|| refuse(format!("tensor of element type {code}")))?;
            let Some(dims) = dims else { return Ok((dtype, None)) };
            if dims.len() > RANK_MAX {
                return Err(refuse(format!("tensor of {} axes", dims.len())));
            }
            Ok((dtype, Some(dims.iter().map(|dim| dim.and_then(|dim| usize::try_from(dim).ok())).collect())))
        }
    }
}

fn unsupported_operator(proto: &NodeProto<'_>) -> ModelError {
    let domain = if proto.domain.is_empty() { "ai.onnx".to_owned() } else { shown(proto.domain) };
    ModelError::UnsupportedOperator { operator: shown(proto.op_type), domain, node: proto.label() }
}
