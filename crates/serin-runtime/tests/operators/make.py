"""Small graphs, one operator each, with what ONNX Runtime answers on them.

    python -m venv .venv && .venv/bin/pip install onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
    .venv/bin/python make.py            # writes cases.jsonl beside this file

Where an operator's definition leaves room (the two-class cases of tree ensembles, what a transform does to a single
score), the reference is ONNX Runtime; these cases hold the evaluator to it. Everything is seeded. A case that ONNX
Runtime refuses, or answers with memory it never wrote, is not written.
"""

import base64
import json
import pathlib

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(20241124)
onnxruntime.set_default_logger_severity(4)
CASES = []
SKIPPED = []
CODES = {
    np.dtype("float32"): TensorProto.FLOAT,
    np.dtype("float64"): TensorProto.DOUBLE,
    np.dtype("int64"): TensorProto.INT64,
    np.dtype("int32"): TensorProto.INT32,
    np.dtype("bool"): TensorProto.BOOL,
    np.dtype("object"): TensorProto.STRING,
}


def encode(name, array):
    """A tensor as JSON: raw little-endian bytes, or a list of texts."""
    array = np.asarray(array)
    out = {"name": name, "shape": list(array.shape)}
    if array.dtype == object or array.dtype.kind == "U":
        return out | {"dtype": "string", "texts": [str(text) for text in array.reshape(-1)]}
    return out | {"dtype": str(array.dtype), "raw": base64.b64encode(array.tobytes()).decode()}


def case(name, op, inputs, outputs=1, domain="", opset=17, ml=3, constants=None, dynamic=True, **attributes):
    """Adds a case: `inputs` come at run time, `constants` are initializers, in the order of the operator's inputs."""
    constants = constants or {}
    names = list(inputs) + [key for key in constants if key not in inputs]
    names.sort(key=lambda key: int(key[1:]))
    output_names = [f"y{index}" for index in range(outputs)]
    node_inputs = []
    for key in names:
        while len(node_inputs) < int(key[1:]):
            node_inputs.append("")
        node_inputs.append(key)
    attributes = {key: value for key, value in attributes.items() if value is not None}
    inputs = {key: np.asarray(value) for key, value in inputs.items()}
    node = helper.make_node(op, node_inputs, output_names, domain=domain, name=name, **attributes)
    graph_inputs = []
    for key, value in inputs.items():
        shape = list(np.asarray(value).shape)
        if dynamic and len(shape) > 1:
            shape[0] = "N"
        graph_inputs.append(helper.make_tensor_value_info(key, CODES[np.asarray(value).dtype], shape))
    initializers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph_outputs = [helper.make_empty_tensor_value_info(key) for key in output_names]
    graph = helper.make_graph([node], "case", graph_inputs, graph_outputs, initializers)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="serin")
    model = model.SerializeToString()
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        answers = session.run(output_names, inputs)
    except Exception as error:
        SKIPPED.append((name, str(error).splitlines()[0][:150]))
        return
    CASES.append(
        {
            "name": name,
            "model": base64.b64encode(model).decode(),
            "inputs": [encode(key, value) for key, value in inputs.items()],
            "outputs": [encode(key, value) for key, value in zip(output_names, answers)],
        }
    )


def floats(*shape, gaps=0.0, scale=1.0):
    values = (random.standard_normal(shape) * scale).astype(np.float32)
    values[random.random(shape) < gaps] = np.nan
    return values


def ml(name, op, inputs, outputs=1, **attributes):
    case(name, op, inputs, outputs, domain="ai.onnx.ml", **attributes)


# Tree ensembles.

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def trees(count, depth, features, modes, targets_of_leaf, weight, missing=False, whole=False):
    """Attributes of random trees, as lists; `targets_of_leaf()` gives the targets of a leaf."""
    nodes = {key: [] for key in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "tracks")}
    leaves = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}

    def add(tree, depth):
        node = sum(1 for id in nodes["treeids"] if id == tree)
        leaf = depth == 0 or (random.random() < 0.2 and node > 0)
        threshold = float(np.float32(random.integers(-2, 3) if whole else random.standard_normal()))
        row = [tree, node, 0 if leaf else int(random.integers(features)), "LEAF" if leaf else str(random.choice(modes))]
        row += [0.0 if leaf else threshold, 0, 0, int(missing and not leaf and random.random() < 0.5)]
        for key, value in zip(nodes, row):
            nodes[key].append(value)
        if leaf:
            for target in targets_of_leaf():
                for key, value in zip(leaves, [tree, node, target, weight()]):
                    leaves[key].append(value)
            return node
        place = len(nodes["treeids"]) - 1
        nodes["truenodeids"][place] = add(tree, depth - 1)
        nodes["falsenodeids"][place] = add(tree, depth - 1)
        return node

    for tree in range(count):
        add(tree, depth)
    return nodes, leaves


def tree_attributes(nodes, leaves, prefix, missing):
    attributes = {f"nodes_{key}": value for key, value in nodes.items() if key != "tracks"}
    attributes |= {f"{prefix}_{key}": value for key, value in leaves.items()}
    if missing:
        attributes["nodes_missing_value_tracks_true"] = nodes["tracks"]
    return attributes


def tree_input(rows, features, whole, missing):
    values = random.integers(-2, 3, (rows, features)).astype(np.float32) if whole else floats(rows, features)
    if missing:
        values[random.random(values.shape) < 0.3] = np.nan
    return values


def tree_cases():
    number = 0
    for transform in ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]:
        for layout in ["first", "second", "both", "three", "three-sparse"]:
            classes = 3 if layout.startswith("three") else 2
            for bases in [0, 1, 2] if classes == 2 else [0, 3]:
                for positive in [True, False]:
                    number += 1
                    if transform == "PROBIT" and layout == "first":
                        continue  # one column is written, the other is memory
                    targets = {
                        "first": lambda: [0],
                        "second": lambda: [1],
                        "both": lambda: [0, 1],
                        "three": lambda: [0, 1, 2],
                        "three-sparse": lambda: [int(random.integers(3))],
                    }[layout]
                    weight = (lambda: float(random.random() / 4)) if positive else (lambda: float(random.standard_normal() / 3))
                    whole, missing = number % 2 == 0, number % 3 == 0
                    modes = MODES if number % 4 == 0 else [MODES[number % 6]]
                    nodes, leaves = trees(3, 3, 4, modes, targets, weight, missing, whole)
                    # Of both classes' scores ONNX Runtime makes the labels 0 and 1, whatever the classes.
                    known = [0, 1] if layout == "both" else [2, 5, 9]
                    labels = {"classlabels_int64s": known[:classes]}
                    if number % 5 == 0:
                        labels = {"classlabels_strings": ["no", "yes", "so"][:classes]}
                    base = [float(v) for v in random.random(bases) / 4] if bases else None
                    ml(
                        f"tree-classifier-{layout}-{transform}-base{bases}-{'positive' if positive else 'mixed'}",
                        "TreeEnsembleClassifier",
                        {"x0": tree_input(9, 4, whole, missing)},
                        2,
                        post_transform=transform,
                        base_values=base,
                        **labels,
                        **tree_attributes(nodes, leaves, "class", missing),
                    )
    for aggregate in ["SUM", "AVERAGE", "MIN", "MAX"]:
        for targets in [1, 3]:
            for transform in ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]:
                number += 1
                based = number % 2 == 0
                missing, whole = number % 3 == 0, number % 4 == 0
                each = (lambda: [0]) if targets == 1 else (lambda: sorted({int(random.integers(3)), int(random.integers(3))}))
                weight = (lambda: float(random.random() / 8)) if transform == "PROBIT" else (lambda: float(random.standard_normal()))
                nodes, leaves = trees(4, 3, 4, MODES, each, weight, missing, whole)
                kind = np.float64 if number % 3 == 1 else np.float32
                values = tree_input(9, 4, whole, missing).astype(kind)
                ml(
                    f"tree-regressor-{aggregate}-{targets}-{transform}-{np.dtype(kind).name}-base{int(based)}",
                    "TreeEnsembleRegressor",
                    {"x0": values},
                    n_targets=targets,
                    aggregate_function=aggregate,
                    post_transform=transform,
                    base_values=[0.25, 0.5, 0.125][:targets] if based else None,
                    **tree_attributes(nodes, leaves, "target", missing),
                )
    # Doubles in tensors.
    for classes in [1, 2]:
        nodes, leaves = trees(3, 3, 4, MODES[:4], lambda: [0], lambda: float(random.standard_normal()), True)
        attributes = tree_attributes(nodes, leaves, "target" if classes == 1 else "class", True)
        values = floats(9, 4, gaps=0.2).astype(np.float64)
        for key in list(attributes):
            if key in ("nodes_values", "target_weights", "class_weights"):
                array = np.array(attributes.pop(key), dtype=np.float64) + 1e-9
                attributes[f"{key}_as_tensor"] = numpy_helper.from_array(array, key)
        if classes == 1:
            attributes |= {"base_values_as_tensor": numpy_helper.from_array(np.array([0.1]), "b"), "n_targets": 1}
            ml("tree-regressor-double-tensors", "TreeEnsembleRegressor", {"x0": values}, **attributes)
        else:
            attributes |= {"classlabels_int64s": [0, 1], "post_transform": "LOGISTIC"}
            ml("tree-classifier-double-tensors", "TreeEnsembleClassifier", {"x0": values}, 2, **attributes)
    ensemble_cases()


def ensemble_cases():
    """Opset 5. Modes 0 to 5 as before; 6 is membership in a set, sets being separated by NaN."""
    number = 0
    for aggregate in range(4):
        for transform in range(5):
            number += 1
            kind = np.float64 if number % 3 == 0 else np.float32
            # Of several targets, ONNX and ONNX Runtime read the transforms 1 and 2 differently.
            targets = 2 if number % 2 and transform not in (1, 2) else 1
            inner, leaves, roots, members = [], [], [], []

            def build(depth):
                """Returns (position, is leaf)."""
                if depth == 0:
                    leaves.append((int(random.integers(targets)), float(random.random() / 8 if transform == 4 else random.standard_normal())))
                    return len(leaves) - 1, 1
                place = len(inner)
                inner.append(None)
                mode = int(random.integers(7))
                yes, no = build(depth - 1), build(depth - 1)
                inner[place] = (int(random.integers(3)), mode, float(random.integers(-2, 3)), yes, no, int(random.random() < 0.5))
                return place, 0

            for _ in range(3):
                roots.append(build(2)[0])
            for node in inner:
                if node[1] == 6:
                    chosen = random.permutation([0.0, 1.0, 2.0, 40.0, -1.0])[: int(random.integers(1, 4))]
                    members += [float(v) for v in chosen] + [float("nan")]
            tensor = lambda values, kind: numpy_helper.from_array(np.array(values, dtype=kind), "t")
            values = random.integers(-2, 4, (9, 3)).astype(kind)
            values[random.random(values.shape) < 0.15] = np.nan
            ml(
                f"tree-ensemble-{aggregate}-{transform}-{np.dtype(kind).name}",
                "TreeEnsemble",
                {"x0": values},
                ml=5,
                opset=21,
                aggregate_function=aggregate,
                post_transform=transform,
                n_targets=targets,
                nodes_featureids=[node[0] for node in inner],
                nodes_modes=tensor([node[1] for node in inner], np.uint8),
                nodes_splits=tensor([node[2] for node in inner], kind),
                nodes_truenodeids=[node[3][0] for node in inner],
                nodes_trueleafs=[node[3][1] for node in inner],
                nodes_falsenodeids=[node[4][0] for node in inner],
                nodes_falseleafs=[node[4][1] for node in inner],
                nodes_missing_value_tracks_true=[node[5] for node in inner],
                leaf_targetids=[leaf[0] for leaf in leaves],
                leaf_weights=tensor([leaf[1] for leaf in leaves], kind),
                tree_roots=roots,
                membership_values=tensor(members, kind) if members else None,
            )


# Linear models and support vectors.

TRANSFORMS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]


def linear_cases():
    for transform in TRANSFORMS:
        for scores in [1, 2, 3]:
            for texts in [False, True]:
                if transform == "PROBIT" and scores == 1:
                    continue
                classes = max(scores, 2)
                labels = {"classlabels_strings": ["a", "b", "c"][:classes]} if texts else {"classlabels_ints": [3, 1, 8][:classes]}
                ml(
                    f"linear-classifier-{scores}-{transform}-{'texts' if texts else 'ints'}",
                    "LinearClassifier",
                    {"x0": floats(6, 5) if scores != 3 else random.integers(-3, 4, (6, 5))},
                    2,
                    coefficients=floats(scores * 5, scale=0.3).tolist(),
                    intercepts=floats(scores, scale=0.3).tolist(),
                    post_transform=transform,
                    **labels,
                )
        for targets in [1, 3]:
            ml(
                f"linear-regressor-{targets}-{transform}",
                "LinearRegressor",
                {"x0": floats(6, 11, scale=0.1)},
                targets=targets,
                coefficients=floats(targets * 11, scale=0.1).tolist(),
                intercepts=(floats(targets, scale=0.1) + 0.5).tolist(),
                post_transform=transform,
            )
    ml("linear-regressor-without-intercepts", "LinearRegressor", {"x0": floats(4, 3)}, targets=1, coefficients=floats(3).tolist())


def svm_cases():
    for kernel in ["LINEAR", "POLY", "RBF", "SIGMOID"]:
        for classes in [2, 3, 4]:
            for probabilities in [False, True]:
                transform = TRANSFORMS[(classes + len(kernel)) % 4]
                if transform == "SOFTMAX_ZERO":
                    transform = "NONE"
                vectors = [3, 2, 4, 1][:classes]
                pairs = classes * (classes - 1) // 2
                ml(
                    f"svm-classifier-{kernel}-{classes}-{'probabilities' if probabilities else 'decisions'}-{transform}",
                    "SVMClassifier",
                    {"x0": floats(7, 9)},
                    2,
                    kernel_type=kernel,
                    kernel_params=[0.2, 0.3, 2.0 if classes == 2 else 3.0 if classes == 3 else 1.5 if kernel != "POLY" else 4.0],
                    support_vectors=floats(sum(vectors) * 9).tolist(),
                    vectors_per_class=vectors,
                    coefficients=floats((classes - 1) * sum(vectors), scale=0.5).tolist(),
                    rho=floats(pairs, scale=0.2).tolist(),
                    prob_a=(-random.random(pairs) - 0.5).tolist() if probabilities else None,
                    prob_b=floats(pairs, scale=0.1).tolist() if probabilities else None,
                    post_transform=transform,
                    **({"classlabels_strings": list("abcd")[:classes]} if classes == 3 else {"classlabels_ints": [7, 3, 5, 1][:classes]}),
                )
        ml(
            f"svm-regressor-{kernel}",
            "SVMRegressor",
            {"x0": floats(7, 9)},
            kernel_type=kernel,
            kernel_params=[0.2, 0.3, 3.0],
            support_vectors=floats(5 * 9).tolist(),
            n_supports=5,
            coefficients=floats(5).tolist(),
            rho=[0.25],
            one_class=int(kernel == "SIGMOID"),
        )
    for classes in [2, 3]:
        for transform in TRANSFORMS[:3]:
            for positive in [True, False]:
                coefficients = floats(classes * 4)
                ml(
                    f"svm-classifier-without-vectors-{classes}-{transform}-{'positive' if positive else 'mixed'}",
                    "SVMClassifier",
                    {"x0": floats(7, 4)},
                    2,
                    coefficients=(np.abs(coefficients) if positive else coefficients).tolist(),
                    kernel_params=[0.0, 0.0, 0.0],
                    rho=[0.1],
                    classlabels_ints=[4, 6, 2][:classes],
                    post_transform=transform,
                )
    ml("svm-regressor-without-vectors", "SVMRegressor", {"x0": floats(7, 4)}, coefficients=floats(4).tolist(), kernel_params=[0.0, 0.0, 0.0], rho=[0.1], n_supports=0)


# Preprocessing.


def feature_cases():
    for kind in [np.int64, np.int32]:
        nodes, leaves = trees(3, 3, 3, MODES, lambda: [0], lambda: float(random.standard_normal()), whole=True)
        values = random.integers(-3, 4, (9, 3)).astype(kind)
        ml(f"tree-classifier-{np.dtype(kind).name}", "TreeEnsembleClassifier", {"x0": values}, 2, classlabels_int64s=[0, 1], post_transform="LOGISTIC", **tree_attributes(nodes, leaves, "class", False))
    for kind in [np.float32, np.float64, np.int64, np.int32]:
        values = (random.standard_normal((4, 3)) * 5).astype(kind)
        ml(f"scaler-{np.dtype(kind).name}", "Scaler", {"x0": values}, offset=[1.0, -2.0, 0.5], scale=[2.0, 0.5, 3.0])
        ml(f"scaler-one-{np.dtype(kind).name}", "Scaler", {"x0": values}, offset=[1.0], scale=[2.0])
        values[1] = 0
        for norm in ["MAX", "L1", "L2"]:
            ml(f"normalizer-{norm}-{np.dtype(kind).name}", "Normalizer", {"x0": values}, norm=norm)
    gaps = floats(5, 3, gaps=0.4)
    ml("imputer-nan", "Imputer", {"x0": gaps}, imputed_value_floats=[1.0, 2.0, 3.0], replaced_value_float=float("nan"))
    ml("imputer-nan-one", "Imputer", {"x0": gaps}, imputed_value_floats=[9.0], replaced_value_float=float("nan"))
    ml("imputer-value", "Imputer", {"x0": np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)}, imputed_value_floats=[5.0, 6.0], replaced_value_float=0.0)
    ml("imputer-int", "Imputer", {"x0": random.integers(-1, 2, (5, 2))}, imputed_value_int64s=[7, 8], replaced_value_int64=-1)
    ml("binarizer", "Binarizer", {"x0": np.array([[0.5, 0.4, -0.1, 0.6]], np.float32)}, threshold=0.5)
    ml("feature-vectorizer", "FeatureVectorizer", {"x0": floats(3, 2), "x1": floats(3, 3), "x2": floats(3, 1)}, inputdimensions=[2, 2, 3])
    texts = np.array([["a", "b"], ["c", "zz"], ["", "a"]], dtype=object)
    numbers = random.integers(0, 4, (3, 2))
    ml("one-hot-texts", "OneHotEncoder", {"x0": texts}, cats_strings=["c", "a", "b"], zeros=1)
    ml("one-hot-texts-vector", "OneHotEncoder", {"x0": texts[:, 0]}, cats_strings=["c", "a", "b", ""], zeros=0)
    ml("one-hot-ints", "OneHotEncoder", {"x0": numbers}, cats_int64s=[0, 2, 3], zeros=1)
    ml("one-hot-floats", "OneHotEncoder", {"x0": floats(3, 2, scale=2.0)}, cats_int64s=[0, 1, -1, 2], zeros=1)
    ml("one-hot-repeated", "OneHotEncoder", {"x0": texts}, cats_strings=["a", "a", "b"], zeros=1)
    ml("label-1-texts", "LabelEncoder", {"x0": texts}, ml=1, classes_strings=["a", "b", "c"], default_int64=-7, default_string="?")
    ml("label-1-ints", "LabelEncoder", {"x0": numbers}, ml=1, classes_strings=["a", "b", "c"], default_int64=-7, default_string="?")
    keys = {"strings": ["a", "b", "c", "a"], "int64s": [0, 2, 3, 0], "floats": [0.0, 1.5, float("nan"), 2.0]}
    values = {"strings": ["x", "y", "z", "w"], "int64s": [10, 20, 30, 40], "floats": [0.1, 0.2, 0.3, 0.4]}
    inputs = {"strings": texts, "int64s": numbers, "floats": np.array([[0.0, -0.0, 1.5, np.nan, 7.0]], np.float32)}
    for version in [2, 4]:
        for key in keys:
            for value in values:
                default = {"strings": {"default_string": "?"}, "int64s": {"default_int64": -5}, "floats": {"default_float": -0.5}}[value]
                if (version + len(key) + len(value)) % 2:
                    default = {}
                ml(f"label-{version}-{key}-{value}", "LabelEncoder", {"x0": inputs[key]}, ml=version, **{f"keys_{key}": keys[key], f"values_{value}": values[value]}, **default)
    tensor = lambda values: numpy_helper.from_array(np.array(values), "t")
    ml("label-4-doubles", "LabelEncoder", {"x0": np.array([[0.5, np.nan, 3.0]])}, ml=4, keys_tensor=tensor([0.5, float("nan")]), values_tensor=tensor([1.5, 2.5]), default_tensor=tensor([9.5]))
    ml("label-4-tensors", "LabelEncoder", {"x0": numbers}, ml=4, keys_tensor=tensor([0, 1]), values_tensor=numpy_helper.from_array(np.array(["p", "q"], dtype=object), "t"), default_tensor=numpy_helper.from_array(np.array(["r"], dtype=object), "t"))
    ml("category-mapper-texts", "CategoryMapper", {"x0": texts}, cats_strings=["a", "b", "c"], cats_int64s=[5, 6, 7], default_int64=-1)
    ml("category-mapper-ints", "CategoryMapper", {"x0": random.integers(4, 9, (2, 3))}, cats_strings=["a", "b", "c"], cats_int64s=[5, 6, 7], default_string="none")
    ml("columns-floats", "ArrayFeatureExtractor", {"x0": floats(3, 4)}, constants={"x1": np.array([2, 0, 2])})
    ml("columns-texts", "ArrayFeatureExtractor", {"x0": texts}, constants={"x1": np.array([[1]])})
    ml("columns-of-a-row", "ArrayFeatureExtractor", {"x1": np.array([2, 1, 0, 2])}, constants={"x0": np.array([10, 20, 30])})
    ml("columns-of-three-axes", "ArrayFeatureExtractor", {"x0": floats(2, 3, 4)}, constants={"x1": np.array([3, 1])})


# Plain operators.


def plain_cases():
    shapes = [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 4), (3, 1)), ((2, 3, 4), (3, 1)), ((3, 1), (1, 4)), ((3, 4), ())]
    for op in ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"]:
        for index, (left, right) in enumerate(shapes):
            kind = [np.float32, np.float64, np.int64, np.int32][index % 4]
            a = np.asarray(random.standard_normal(left) * 4).astype(kind)
            b = np.asarray(random.standard_normal(right) * 4).astype(kind)
            if op in ("Div", "Pow"):
                b = np.abs(b) + 1
            if op == "Pow":
                a, b = np.abs(a), np.minimum(b, 3)
            if op == "Equal":
                a, b = np.round(a / 4).astype(kind), np.round(b / 4).astype(kind)
            case(f"{op}-{np.dtype(kind).name}-{index}", op, {"x0": a, "x1": b}, dynamic=False)
    case("Max-nan", "Max", {"x0": np.array([np.nan, 1, 2], np.float32), "x1": np.array([1, np.nan, 3], np.float32)})
    case("Min-nan", "Min", {"x0": np.array([np.nan, 1, 2], np.float32), "x1": np.array([1, np.nan, 3], np.float32)})
    case("Pow-int-exponent", "Pow", {"x0": floats(2, 3)}, constants={"x1": np.array(2)})
    case("Equal-texts", "Equal", {"x0": np.array([["a", "b"]], dtype=object)}, constants={"x1": np.array("b", dtype=object)}, opset=19)
    for op in ["Max", "Min", "Sum", "Mean"]:
        case(f"{op}-three", op, {"x0": floats(2, 3), "x1": floats(3), "x2": floats(2, 1)}, dynamic=False)
        case(f"{op}-one", op, {"x0": floats(2, 3)}, dynamic=False)
    for op in ["And", "Or", "Xor"]:
        case(op, op, {"x0": np.array([[True, True], [False, False]]), "x1": np.array([True, False])})
    case("Not", "Not", {"x0": np.array([True, False])})
    values = np.array([[-2.5, -0.5, 0.0, 0.5, 1.5, 2.5, 30.0, -30.0]], np.float32)
    for op in ["Abs", "Ceil", "Elu", "Erf", "Exp", "Floor", "LeakyRelu", "Neg", "Relu", "Round", "Sigmoid", "Sign", "Softplus", "Tanh", "Reciprocal"]:
        inputs = values + 0.25 if op == "Reciprocal" else values
        case(f"{op}-float32", op, {"x0": inputs.astype(np.float32)})
        case(f"{op}-float64", op, {"x0": inputs.astype(np.float64)})
    for op in ["Log", "Sqrt"]:
        case(op, op, {"x0": np.array([[0.0, 1e-3, 1.0, 50.0, -1.0]], np.float32)})
    case("Elu-alpha", "Elu", {"x0": values}, alpha=0.3)
    case("LeakyRelu-alpha", "LeakyRelu", {"x0": values}, alpha=0.3)
    for op in ["Abs", "Neg", "Sign", "Relu"]:
        case(f"{op}-int64", op, {"x0": np.array([[-3, 0, 4]])})
    special = np.array([[np.nan, np.inf, -np.inf, 0.0]], np.float32)
    case("IsNaN", "IsNaN", {"x0": special})
    case("IsInf", "IsInf", {"x0": special})
    case("IsInf-negative", "IsInf", {"x0": special}, detect_positive=0)
    case("Clip", "Clip", {"x0": values}, constants={"x1": np.array(-1.0, np.float32), "x2": np.array(2.0, np.float32)})
    case("Clip-max-only", "Clip", {"x0": values}, constants={"x2": np.array(2.0, np.float32)})
    case("Clip-old", "Clip", {"x0": values}, opset=10, min=-1.0, max=0.25)
    case("Clip-int", "Clip", {"x0": np.array([[-9, 0, 9]])}, constants={"x1": np.array(-3), "x2": np.array(3)})
    condition = random.random((3, 4)) < 0.5
    case("Where", "Where", {"x0": condition, "x1": floats(3, 4), "x2": floats(4)}, dynamic=False)
    case("Where-texts", "Where", {"x0": condition}, constants={"x1": np.array("yes", dtype=object), "x2": np.array("no", dtype=object)}, dynamic=False)
    for source in [np.float32, np.float64, np.int64, np.int32, np.bool_]:
        data = np.array([[-1.75, 0.0, 2.5, 7.0, 100000.0]]).astype(source)
        for target in [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING]:
            case(f"Cast-{np.dtype(source).name}-{target}", "Cast", {"x0": data}, to=target)
    odd = np.array([[0.1, 1e-5, 123456.789, 1e10, 1e20, np.nan, np.inf, -np.inf, 1.0, 0.3333333333]])
    case("Cast-odd-float32-texts", "Cast", {"x0": odd.astype(np.float32)}, to=TensorProto.STRING)
    case("Cast-odd-float64-texts", "Cast", {"x0": odd}, to=TensorProto.STRING)
    for target in [TensorProto.FLOAT, TensorProto.DOUBLE]:
        case(f"Cast-texts-{target}", "Cast", {"x0": np.array([["1.5", "-2e3", "NaN", "INF", "-INF", "7"]], dtype=object)}, to=target)
    case("Cast-texts-int", "Cast", {"x0": np.array([["15", "-2"]], dtype=object)}, to=TensorProto.INT64)
    layout_cases()
    reduce_cases()


def layout_cases():
    x = floats(2, 3, 4)
    texts = np.array([["a", "b", "c"], ["d", "e", "f"]], dtype=object)
    for index, shape in enumerate([[2, 12], [-1], [0, -1], [3, 2, 4], [1, 0, -1, 2][:1] + [24]]):
        case(f"Reshape-{index}", "Reshape", {"x0": x}, constants={"x1": np.array(shape)}, dynamic=False)
    case("Reshape-dynamic", "Reshape", {"x0": x, "x1": np.array([4, -1])}, dynamic=False)
    case("Reshape-texts", "Reshape", {"x0": texts}, constants={"x1": np.array([3, 2])}, dynamic=False)
    for axis in [0, 1, 2, 3, -1]:
        case(f"Flatten-{axis}", "Flatten", {"x0": x}, axis=axis, dynamic=False)
    for perm in [None, [0, 2, 1], [2, 0, 1]]:
        case(f"Transpose-{perm}", "Transpose", {"x0": x}, perm=perm, dynamic=False)
    case("Transpose-texts", "Transpose", {"x0": texts}, dynamic=False)
    for axis in [0, 1, -1]:
        case(f"Concat-{axis}", "Concat", {"x0": floats(2, 3), "x1": floats(2, 3), "x2": floats(2, 3)}, axis=axis, dynamic=False)
    case("Concat-texts", "Concat", {"x0": texts, "x1": texts}, axis=1, dynamic=False)
    for axis in [0, 1, 2]:
        case(f"Gather-{axis}", "Gather", {"x0": x}, constants={"x1": np.array([[1, 0], [-1, 1]])}, axis=axis, dynamic=False)
    case("Gather-scalar", "Gather", {"x0": x}, constants={"x1": np.array(1)}, axis=2, dynamic=False)
    case("Gather-texts", "Gather", {"x1": np.array([[2, 0]])}, constants={"x0": np.array(["p", "q", "r"], dtype=object)})
    slices = [([0, 1], [2, 3], [0, 2], None), ([-1], [-4], [2], [-2]), ([0], [100], [1], [2]), ([1], [1], [0], None)]
    for index, (starts, ends, axes, steps) in enumerate(slices):
        constants = {"x1": np.array(starts), "x2": np.array(ends), "x3": np.array(axes)}
        if steps:
            constants["x4"] = np.array(steps)
        case(f"Slice-{index}", "Slice", {"x0": x}, constants=constants, dynamic=False)
    case("Slice-old", "Slice", {"x0": x}, opset=9, starts=[0, 1], ends=[1, 3], axes=[0, 2], dynamic=False)
    case("Slice-texts", "Slice", {"x0": texts}, constants={"x1": np.array([1]), "x2": np.array([3]), "x3": np.array([1])}, dynamic=False)
    case("Squeeze", "Squeeze", {"x0": floats(2, 1, 3, 1)}, constants={"x1": np.array([1])}, dynamic=False)
    case("Squeeze-all", "Squeeze", {"x0": floats(2, 1, 3, 1)}, dynamic=False)
    case("Squeeze-old", "Squeeze", {"x0": floats(2, 1, 3, 1)}, opset=11, axes=[-1], dynamic=False)
    case("Unsqueeze", "Unsqueeze", {"x0": floats(2, 3)}, constants={"x1": np.array([0, -1])}, dynamic=False)
    case("Unsqueeze-old", "Unsqueeze", {"x0": floats(2, 3)}, opset=11, axes=[1], dynamic=False)
    case("Split", "Split", {"x0": floats(2, 7)}, 2, constants={"x1": np.array([3, 4])}, axis=1, dynamic=False)
    case("Split-even", "Split", {"x0": floats(4, 3)}, 2, axis=0, dynamic=False)
    case("Split-old", "Split", {"x0": floats(4, 3)}, 3, opset=11, axis=0, split=[1, 1, 2], dynamic=False)
    case("Split-uneven", "Split", {"x0": floats(7, 2)}, 3, opset=18, axis=0, num_outputs=3, dynamic=False)
    case("Shape", "Shape", {"x0": x}, dynamic=False)
    case("Shape-part", "Shape", {"x0": x}, start=1, end=-1, dynamic=False)
    case("Expand", "Expand", {"x0": floats(3, 1)}, constants={"x1": np.array([2, 1, 4])}, dynamic=False)
    case("Tile", "Tile", {"x0": floats(2, 3)}, constants={"x1": np.array([2, 2])}, dynamic=False)
    case("ConstantOfShape", "ConstantOfShape", {"x0": np.array([2, 3])}, value=numpy_helper.from_array(np.array([7]), "v"))
    case("ConstantOfShape-zero", "ConstantOfShape", {"x0": np.array([2])})
    for left, right in [((3, 4), (4, 2)), ((4,), (4, 2)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 2)), ((5, 1, 3, 4), (2, 4, 2))]:
        case(f"MatMul-{left}-{right}", "MatMul", {"x0": floats(*left), "x1": floats(*right)}, dynamic=False)
    case("MatMul-double", "MatMul", {"x0": floats(3, 4).astype(np.float64), "x1": floats(4, 2).astype(np.float64)}, dynamic=False)
    case("MatMul-int", "MatMul", {"x0": random.integers(-5, 5, (3, 4)), "x1": random.integers(-5, 5, (4, 2))}, dynamic=False)
    for index, (a, b, c, attributes) in enumerate(
        [
            ((3, 4), (4, 2), (2,), {}),
            ((4, 3), (4, 2), (3, 1), {"transA": 1, "alpha": 0.5}),
            ((3, 4), (2, 4), (1, 2), {"transB": 1, "beta": 2.0}),
            ((4, 3), (2, 4), (), {"transA": 1, "transB": 1}),
            ((3, 4), (4, 2), None, {}),
        ]
    ):
        inputs = {"x0": floats(*a), "x1": floats(*b)}
        if c is not None:
            inputs["x2"] = np.asarray(floats(*c)) if c else np.float32(0.5)
        case(f"Gemm-{index}", "Gemm", inputs, dynamic=False, **attributes)


def reduce_cases():
    x = floats(2, 3, 4)
    for op in ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceLogSum"]:
        data = np.abs(x) if op == "ReduceLogSum" else x
        for index, (axes, keep) in enumerate([([1], 1), ([-1], 0), ([0, 2], 1), (None, 0)]):
            if op == "ReduceSum":
                constants = {"x1": np.array(axes)} if axes else None
                case(f"{op}-{index}", op, {"x0": data}, constants=constants, keepdims=keep, dynamic=False)
            else:
                case(f"{op}-{index}", op, {"x0": data}, opset=13, axes=axes, keepdims=keep, dynamic=False)
                constants = {"x1": np.array(axes)} if axes else None
                case(f"{op}-18-{index}", op, {"x0": data}, opset=18, constants=constants, keepdims=keep, dynamic=False)
    case("ReduceSum-noop", "ReduceSum", {"x0": x}, noop_with_empty_axes=1, dynamic=False)
    case("ReduceSum-int", "ReduceSum", {"x0": random.integers(-9, 9, (3, 4))}, constants={"x1": np.array([1])}, dynamic=False)
    case("ReduceMax-int", "ReduceMax", {"x0": random.integers(-9, 9, (3, 4))}, opset=13, axes=[1], dynamic=False)
    ties = np.array([[1, 3, 3, 0], [2, 2, 1, 2]], np.float32)
    for op in ["ArgMax", "ArgMin"]:
        for axis, keep, last in [(1, 1, 0), (-1, 0, 0), (0, 1, 0), (1, 0, 1)]:
            case(f"{op}-{axis}-{keep}-{last}", op, {"x0": ties}, axis=axis, keepdims=keep, select_last_index=last, dynamic=False)
    for op in ["Softmax", "LogSoftmax"]:
        for axis in [0, 1, 2, -1]:
            case(f"{op}-13-{axis}", op, {"x0": x}, axis=axis, dynamic=False)
            case(f"{op}-11-{axis}", op, {"x0": x}, opset=11, axis=axis, dynamic=False)
        case(f"{op}-double", op, {"x0": x.astype(np.float64)}, dynamic=False)
        case(f"{op}-default-old", op, {"x0": x}, opset=11, dynamic=False)
    for largest in [0, 1]:
        case(f"TopK-{largest}", "TopK", {"x0": ties}, 2, constants={"x1": np.array([3])}, largest=largest, axis=1, dynamic=False)
    case("TopK-axis", "TopK", {"x0": x}, 2, constants={"x1": np.array([2])}, axis=1, dynamic=False)


tree_cases()
linear_cases()
svm_cases()
feature_cases()
plain_cases()

names = [entry["name"] for entry in CASES]
assert len(names) == len(set(names)), "names are not unique"
path = pathlib.Path(__file__).parent / "cases.jsonl"
path.write_text("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in CASES))
print(f"{len(CASES)} cases, {path.stat().st_size} bytes; {len(SKIPPED)} not written:")
for name, error in SKIPPED:
    print(f"  {name}: {error}")
