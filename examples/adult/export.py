"""Export scikit-learn models to ONNX, and read and edit the trees of an exported forest."""

import numpy as np
import onnx
from onnx import helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common import tree_ensemble
from skl2onnx.common.data_types import FloatTensorType
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC


def accept_boolean_flags() -> None:
    """Make skl2onnx write `nodes_missing_value_tracks_true` as integers.

    skl2onnx 1.20 passes Python booleans for the leaves of histogram boosting, which onnx 1.17
    and newer refuse ("Expected an int, got a boolean").
    """
    original = tree_ensemble.add_node
    if getattr(original, "coerces", False):
        return

    def add_node(*args, nodes_missing_value_tracks_true=0, **kwargs):
        original(*args, nodes_missing_value_tracks_true=int(nodes_missing_value_tracks_true), **kwargs)

    add_node.coerces = True
    tree_ensemble.add_node = add_node


OPSET = {"": 21, "ai.onnx.ml": 3}


def export(model, features: int, name: str, doc: str = "", zipmap: bool = False, opset: dict[str, int] = OPSET) -> onnx.ModelProto:
    """Export a fitted estimator whose input is one float32 tensor `input` of shape [None, features].

    Classifiers get the outputs `label` (int64, [N]) and `probabilities` (float32, [N, classes]),
    regressors `variable` (float32, [N, targets]).
    """
    accept_boolean_flags()
    graph = to_onnx(
        model,
        initial_types=[("input", FloatTensorType([None, features]))],
        options=zipmap_option(model, zipmap),
        target_opset=opset,
        name=name,
    )
    graph.doc_string = doc
    return tidy(graph)


def zipmap_option(model, zipmap: bool) -> dict:
    """The converter's `zipmap` option, for the estimators that know it."""
    if not hasattr(model, "classes_"):
        return {}
    # Without an entry of its own a LinearSVC in a pipeline is given the option, and refuses it.
    last = model[-1] if isinstance(model, Pipeline) else model
    return {LinearSVC: {}} if isinstance(last, LinearSVC) else {"zipmap": zipmap}


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make what a converter wrote the same in every run, and name its outputs alike.

    The imported operator sets are sorted (they come in the order of a Python set). A classifier's
    outputs become `label` and `probabilities`; a graph that ends in ZipMap has those names inside,
    and keeps `output_label` and `output_probability` for its outputs.
    """
    model.opset_import.sort(key=lambda entry: entry.domain)
    wanted = {"output_label": "label", "output_probability": "probabilities"}
    if not any(name in wanted.values() for node in model.graph.node for name in node.output):
        for node in model.graph.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    names[i] = wanted.get(name, name)
        for output in model.graph.output:
            output.name = wanted.get(output.name, output.name)
    onnx.checker.check_model(model)
    return model


def tree_attributes(model: onnx.ModelProto) -> dict[str, object]:
    """Return the attributes of the one TreeEnsembleClassifier in `model`, arrays as lists."""
    nodes = [node for node in model.graph.node if node.op_type == "TreeEnsembleClassifier"]
    if len(nodes) != 1:
        raise ValueError(f"the graph has {len(nodes)} TreeEnsembleClassifier nodes, want 1")
    values = {a.name: helper.get_attribute_value(a) for a in nodes[0].attribute}
    return {name: numpy_helper.to_array(value).tolist() if isinstance(value, onnx.TensorProto) else value for name, value in values.items()}


def with_tree_attributes(model: onnx.ModelProto, attributes: dict[str, object], doc: str) -> onnx.ModelProto:
    """Return a copy of `model` whose TreeEnsembleClassifier has these attributes instead."""
    edited = onnx.ModelProto()
    edited.CopyFrom(model)
    edited.doc_string = doc
    (node,) = [node for node in edited.graph.node if node.op_type == "TreeEnsembleClassifier"]
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    onnx.checker.check_model(edited)
    return edited


class Trees:
    """The branches and leaves of a binary TreeEnsembleClassifier, by (tree, node)."""

    def __init__(self, attributes: dict[str, object]):
        if set(attributes["class_ids"]) != {0} or set(attributes["nodes_modes"]) != {b"BRANCH_LEQ", b"LEAF"}:
            raise ValueError("want one score per leaf and only BRANCH_LEQ nodes")
        self.node = {
            key: row
            for key, *row in zip(
                zip(attributes["nodes_treeids"], attributes["nodes_nodeids"]),
                attributes["nodes_modes"],
                attributes["nodes_featureids"],
                attributes["nodes_values"],
                attributes["nodes_truenodeids"],
                attributes["nodes_falsenodeids"],
            )
        }
        leaves = zip(attributes["class_treeids"], attributes["class_nodeids"], attributes["class_weights"])
        self.weight = {(tree, node): weight for tree, node, weight in leaves}
        self.count = len(set(attributes["nodes_treeids"]))

    def leaf_weight(self, tree: int, row: np.ndarray) -> float:
        """The score that `tree` adds for one float32 row without missing values."""
        node = 0
        while True:
            mode, feature, value, when_true, when_false = self.node[tree, node]
            if mode == b"LEAF":
                return self.weight[tree, node]
            node = when_true if row[feature] <= np.float32(value) else when_false
