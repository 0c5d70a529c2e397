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
            let tensor = proto.decode().map_err(|fault| ModelError::Tensor { tensor: shown(proto.name), fault })?;
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
        let fail = |fault| {
            let fault = Box::new(fault);
            ModelError::Node { node: proto.label(), operator: shown(proto.op_type), fault }
        };
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
                let value =
                    Value { at: source.at, ty: source.ty.clone(), classes: classes.or_else(|| source.classes.clone()) };
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
            Some(_) => Err(fail(NodeFault::Arity { side: "output", got: proto.outputs.len(), wanted: "fewer" })),
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

#[cfg(test)]
mod tests {
    use super::super::error::{Fault, TensorFault};
    use super::super::plan::RunOptions;
    use super::super::tensor::{Data, Shape};
    use super::super::testing::{FLOAT, INT64, ModelBuilder, NodeBuilder, STRING};
    use super::*;

    fn one_node(node: NodeBuilder) -> Vec<u8> {
        ModelBuilder::new().input("x", FLOAT, &[-1, 2]).node(node).output("y").build()
    }

    fn tree(change: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Vec<u8> {
        let node = NodeBuilder::ml("TreeEnsembleRegressor", &["x"], &["y"])
            .int("n_targets", 1)
            .ints("nodes_treeids", &[0, 0, 0])
            .ints("nodes_nodeids", &[0, 1, 2])
            .ints("target_treeids", &[0, 0])
            .ints("target_nodeids", &[1, 2])
            .ints("target_ids", &[0, 0])
            .floats("target_weights", &[1.0, 2.0]);
        one_node(change(node))
    }

    #[test]
    fn a_refused_model_is_told_what_is_wrong_with_it() {
        let relu = || NodeBuilder::new("Relu", &["x"], &["y"]);
        let rows: Vec<(Vec<u8>, &str)> = vec![
            (vec![], "the file holds no ONNX graph; want a ModelProto with a graph (`.onnx`)"),
            (
                ModelBuilder::new().node(relu()).output("y").build(),
                "node `y` reads value `x`, which no input, initializer or node defines",
            ),
            (ModelBuilder::new().input("x", FLOAT, &[2]).build(), "the graph declares no outputs"),
            (
                ModelBuilder::new().input("x", FLOAT, &[2]).node(relu()).node(relu()).output("y").build(),
                "value `y` is defined twice",
            ),
            (
                ModelBuilder::new()
                    .input("x", FLOAT, &[2])
                    .node(NodeBuilder::new("Add", &["x", "z"], &["y"]))
                    .node(NodeBuilder::new("Add", &["x", "y"], &["z"]))
                    .output("y")
                    .build(),
                "node `y` depends on its own output (a cycle)",
            ),
            (
                ModelBuilder::new().ml_opset(9).input("x", FLOAT, &[2]).node(relu()).output("y").build(),
                "the model imports opset 9 of domain \"ai.onnx.ml\"; this runtime knows 1 to 5; export it with a lower target opset, or serve it with a command runtime",
            ),
            (
                ModelBuilder::new().input("x", 16, &[2]).node(relu()).output("y").build(),
                "graph input `x` is of type tensor of element type 16; want a tensor of float, double, int64, int32, bool or string",
            ),
            (
                one_node(NodeBuilder::new("Conv", &["x"], &["y"])),
                "operator `Conv` (domain ai.onnx) of node `y` is not supported by the built-in runtime; serve the model with a command runtime (for example ONNX Runtime in MLServer), or export it without that operator",
            ),
            (one_node(NodeBuilder::new("Add", &["x"], &["y"])), "node `y` (`Add`): it has 1 inputs, want 2"),
            (one_node(NodeBuilder::new("Cast", &["x"], &["y"])), "node `y` (`Cast`): attribute to is missing"),
            (
                one_node(NodeBuilder::new("Cast", &["x"], &["y"]).int("to", 10)),
                "node `y` (`Cast`): a cast to element type 10 is not supported by the built-in runtime; serve the model with a command runtime",
            ),
            (
                one_node(NodeBuilder::new("Cast", &["x"], &["y"]).text("to", "float")),
                "node `y` (`Cast`): attribute to has another type than its definition; want int",
            ),
            (
                one_node(
                    NodeBuilder::ml("Scaler", &["x"], &["y"]).floats("scale", &[1.0]).floats("offset", &[1.0, 2.0]),
                ),
                "node `y` (`Scaler`): attribute offset has 2 values, want 1",
            ),
            (
                one_node(
                    NodeBuilder::ml("Scaler", &["x"], &["y"]).floats("scale", &[1.0; 3]).floats("offset", &[1.0; 3]),
                ),
                "node `y` (`Scaler`): features: got 2, want 3",
            ),
            (
                one_node(NodeBuilder::ml("Normalizer", &["x"], &["y"]).text("norm", "L7")),
                "node `y` (`Normalizer`): attribute norm is `L7`, want MAX, L1 or L2",
            ),
            (
                ModelBuilder::new().input("x", STRING, &[-1, 1]).node(relu()).output("y").build(),
                "node `y` (`Relu`): input 0 is string, want a number type",
            ),
            (
                ModelBuilder::new()
                    .input("x", FLOAT, &[2])
                    .floats("w", &[3], &[1.0])
                    .node(NodeBuilder::new("Add", &["x", "w"], &["y"]))
                    .output("y")
                    .build(),
                "tensor `w`: it holds 1 elements, its extents say 3",
            ),
            (
                ModelBuilder::new()
                    .input("x", FLOAT, &[-1, 2])
                    .floats("w", &[3], &[1.0; 3])
                    .node(NodeBuilder::new("Add", &["x", "w"], &["y"]))
                    .output("y")
                    .build(),
                "node `y` (`Add`): shapes do not broadcast: got 3, want 2",
            ),
        ];
        for (file, want) in rows {
            let got = Plan::compile(&file).err().map(|error| error.to_string());
            assert_eq!(got.as_deref(), Some(want));
        }
    }

    #[test]
    fn a_refused_tree_is_told_which_node() {
        let leaves = ["BRANCH_LEQ", "LEAF", "LEAF"];
        type Change = fn(NodeBuilder) -> NodeBuilder;
        type Row<'a> = (&'a [&'a str], [i64; 3], [i64; 3], f32, Change, &'a str);
        let rows: Vec<Row<'_>> = vec![
            (&leaves, [0, 0, 0], [1, 0, 0], 0.5, |node| node.ints("nodes_falsenodeids", &[2, 0, 0]), ""),
            (
                &leaves,
                [0, 0, 0],
                [1, 0, 0],
                0.5,
                |node| node.ints("nodes_falsenodeids", &[7, 0, 0]),
                "tree 0 has no node 7, which node 0 names as its child",
            ),
            (
                &leaves,
                [0, 0, 0],
                [0, 0, 0],
                0.5,
                |node| node.ints("nodes_falsenodeids", &[2, 0, 0]),
                "node 0 of tree 0 leads back to itself (a cycle)",
            ),
            (
                &leaves,
                [2, 0, 0],
                [1, 0, 0],
                0.5,
                |node| node.ints("nodes_falsenodeids", &[2, 0, 0]),
                "features, at least: got 2, want 3",
            ),
            (
                &leaves,
                [-1, 0, 0],
                [1, 0, 0],
                0.5,
                |node| node.ints("nodes_falsenodeids", &[2, 0, 0]),
                "a feature id -1 is out of range, want 0 to 1073741823",
            ),
            (
                &leaves,
                [0, 0, 0],
                [1, 0, 0],
                f32::NAN,
                |node| node.ints("nodes_falsenodeids", &[2, 0, 0]),
                "attribute nodes_values is NaN at node 0 of tree 0, want a number",
            ),
            (
                &leaves,
                [0, 0, 0],
                [1, 0, 0],
                0.5,
                |node| node.ints("nodes_falsenodeids", &[2, 0]),
                "attribute nodes_falsenodeids has 2 values, want 3",
            ),
            (
                &["BRANCH_X", "LEAF", "LEAF"],
                [0, 0, 0],
                [1, 0, 0],
                0.5,
                |node| node.ints("nodes_falsenodeids", &[2, 0, 0]),
                "attribute nodes_modes is `BRANCH_X`, want BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT, BRANCH_EQ, BRANCH_NEQ or LEAF",
            ),
        ];
        for (modes, features, holds, threshold, change, want) in rows {
            let file = tree(|node| {
                change(
                    node.texts("nodes_modes", modes)
                        .ints("nodes_featureids", &features)
                        .ints("nodes_truenodeids", &holds),
                )
                .floats("nodes_values", &[threshold, 0.0, 0.0])
            });
            match Plan::compile(&file) {
                Ok(_) => assert_eq!(want, ""),
                Err(error) => assert_eq!(error.to_string(), format!("node `y` (`TreeEnsembleRegressor`): {want}")),
            }
        }
    }

    #[test]
    fn nodes_run_in_the_order_they_need_and_only_those_needed() {
        // Listed last to first, with a node that nothing reads and that could not run.
        let file = ModelBuilder::new()
            .input("x", FLOAT, &[-1, 2])
            .floats("w", &[2], &[10.0, 20.0])
            .node(NodeBuilder::new("Neg", &["b"], &["y"]))
            .node(NodeBuilder::new("Conv", &["x"], &["unused"]))
            .node(NodeBuilder::new("Add", &["a", "doubled"], &["b"]))
            .node(NodeBuilder::new("Add", &["w", "w"], &["doubled"]))
            .node(NodeBuilder::new("Identity", &["x"], &["a"]))
            .output("y")
            .build();
        let plan = Plan::compile(&file).unwrap();
        // The identity is an alias and the sum of constants is computed once.
        assert_eq!(plan.step_count(), 2);
        let mut scratch = plan.scratch();
        scratch.inputs_mut(&plan)[0] = Tensor::new(Shape::new(&[1, 2]).unwrap(), Data::F32(vec![1.0, 2.0])).unwrap();
        plan.run(&mut scratch, RunOptions::default()).unwrap();
        assert_eq!(plan.output(&scratch, 0).values::<f32>(), Ok(&[-21.0, -42.0][..]));
        assert_eq!(plan.outputs()[0].dims, Some(vec![None, Some(2)]));
    }

    /// A tensor doubled 40 times, from the model's input or from a constant.
    fn doubling(start: &str) -> Vec<u8> {
        let mut model = ModelBuilder::new().input("x", FLOAT, &[-1]).floats("w", &[1], &[1.0]);
        let mut last = start.to_owned();
        for index in 0..40 {
            let next = if index == 39 { "y".to_owned() } else { format!("v{index}") };
            model = model.node(NodeBuilder::new("Concat", &[&last, &last], &[&next]).int("axis", 0));
            last = next;
        }
        model.output("y").build()
    }

    #[test]
    fn a_graph_that_grows_stops_at_its_budget() {
        let plan = Plan::compile(&doubling("x")).unwrap();
        let mut scratch = plan.scratch();
        scratch.inputs_mut(&plan)[0] = Tensor::new(Shape::vector(1), Data::F32(vec![1.0])).unwrap();
        let options = RunOptions { memory_bytes_max: 1 << 20, ..RunOptions::default() };
        assert_eq!(plan.run(&mut scratch, options).unwrap_err().fault, Fault::OverBudget { limit_bytes: 1 << 20 });
        assert!(scratch.capacity_bytes() <= 2 << 20, "{}", scratch.capacity_bytes());

        let error = Plan::compile(&doubling("w")).unwrap_err().to_string();
        assert!(error.contains("computing its constant result failed: the request needs more than"), "{error}");
    }

    #[test]
    fn a_chain_as_long_as_the_file_allows_overflows_no_stack() {
        let mut model = ModelBuilder::new().input("x", FLOAT, &[-1, 1]);
        let mut last = "x".to_owned();
        for index in 0..40_000 {
            let next = format!("v{index}");
            model = model.node(NodeBuilder::new("Neg", &[&last], &[&next]));
            last = next;
        }
        let file = model.node(NodeBuilder::new("Neg", &[&last], &["y"])).output("y").build();
        assert_eq!(Plan::compile(&file).unwrap().step_count(), 40_001);
    }

    #[test]
    fn empty_messages_by_the_million_are_refused_by_their_number() {
        // A graph of nodes of two bytes each would take a hundred times the file's size in memory.
        let nodes = [0x0a, 0x00].repeat(1_000_000);
        let mut file = Vec::new();
        super::super::wire::build::bytes(&mut file, 7, &nodes);
        let error = Plan::compile(&file).unwrap_err().to_string();
        assert_eq!(error, "the model has more than 50000 nodes; serve it with a command runtime");
    }

    #[test]
    fn old_files_list_their_constants_among_the_inputs() {
        let file = ModelBuilder::new()
            .input("x", FLOAT, &[-1, 2])
            .input("w", FLOAT, &[2])
            .floats("w", &[2], &[1.0, 1.0])
            .node(NodeBuilder::new("Add", &["x", "w"], &["y"]))
            .output("y")
            .build();
        let plan = Plan::compile(&file).unwrap();
        assert_eq!(plan.inputs().iter().map(|input| &input.name).collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn a_computed_shape_is_followed_at_run_time() {
        let file = ModelBuilder::new()
            .input("x", FLOAT, &[-1, 2])
            .input("shape", INT64, &[2])
            .node(NodeBuilder::new("Reshape", &["x", "shape"], &["y"]))
            .output("y")
            .build();
        let plan = Plan::compile(&file).unwrap();
        assert_eq!(plan.outputs()[0].dims, None);
        let mut scratch = plan.scratch();
        let inputs = scratch.inputs_mut(&plan);
        inputs[0] = Tensor::new(Shape::new(&[3, 2]).unwrap(), Data::F32(vec![0.0; 6])).unwrap();
        inputs[1] = Tensor::new(Shape::vector(2), Data::I64(vec![2, -1])).unwrap();
        plan.run(&mut scratch, RunOptions::default()).unwrap();
        assert_eq!(plan.output(&scratch, 0).dims(), [2, 3]);
        scratch.inputs_mut(&plan)[1] = Tensor::new(Shape::vector(2), Data::I64(vec![4, -1])).unwrap();
        let error = plan.run(&mut scratch, RunOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "node `y` (`Reshape`): 6 elements cannot take a shape of 4");
        assert_eq!(TensorFault::External.to_string(), "its values are in an external file; save the model in one file");
    }
}
