"""The ONNX files of the example and the report on them: v1, v2, v2 again, the broken v3, lr and rf."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from estimators import FEATURES, FNLWGT, boosting, forest, logistic_regression, without_capital
from export import Trees, export, tree_attributes, with_tree_attributes
from sklearn.metrics import accuracy_score, roc_auc_score

# v3, the broken pipeline. Rows with a small fnlwgt (a census weight that says next to nothing
# about income) are scored as they should be; the rest get the score of one of a few stuck rows.
# STUCK_SHARE sets how much accuracy is lost (about 0.21 points per percent of rows). The stuck
# rows are the training rows at these quantiles of v2's score: one in five is a positive, which
# keeps v2's positive rate, and the four negatives share two deciles, which sets the PSI.
STUCK_SHARE = 0.62
STUCK_QUANTILES = [0.24, 0.27, 0.54, 0.57, 0.95]


def write_all(out: Path, train: np.ndarray, train_labels: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> None:
    """Train on `train`, write the ONNX files and report.json to `out`, and print the report on the test `rows`."""
    fitted_v2 = boosting().fit(train, train_labels)
    v2 = export(fitted_v2, FEATURES, "adult-v2", "Adult income, v2: all 14 columns")
    models = {
        "v1": export(
            boosting().fit(without_capital(train), train_labels), FEATURES, "adult-v1", "Adult income, v1: without the capital columns"
        ),
        "v2": v2,
        "v2-again": export(fitted_v2, FEATURES, "adult-v2-again", "Adult income, v2 exported again"),
        "v3": broken(v2, train),
        "lr": export(logistic_regression().fit(train, train_labels), FEATURES, "adult-lr", "Adult income, logistic regression"),
        "rf": export(forest().fit(train, train_labels), FEATURES, "adult-rf", "Adult income, random forest"),
    }

    out.mkdir(parents=True, exist_ok=True)
    report = {"test_rows": len(rows), "positives": round(float(labels.mean()), 5), "models": {}}
    v2_scores = scores(v2, rows)
    for name, model in models.items():
        content = model.SerializeToString(deterministic=True)
        (out / f"{name}.onnx").write_bytes(content)
        described = describe(model, rows, labels, content)
        described["psi_vs_v2"] = round(psi(v2_scores, scores(model, rows)), 4)
        report["models"][name] = described
    report["psi_v1_to_v2"] = round(psi(scores(models["v1"], rows), v2_scores), 4)
    if not np.array_equal(scores(models["v2-again"], rows), v2_scores):
        sys.exit("v2-again does not answer as v2 does")
    check_story(report["models"])
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")

    print(f"{'model':10}{'accuracy':>10}{'AUC':>9}{'positive':>10}{'PSI vs v2':>11}{'bytes':>9}")
    for name, m in report["models"].items():
        print(f"{name:10}{m['accuracy']:10.4f}{m['auc']:9.4f}{m['positive_rate']:10.4f}{m['psi_vs_v2']:11.4f}{m['bytes']:9}")
    print(f"PSI from v1 to v2: {report['psi_v1_to_v2']}")


def check_story(models: dict[str, dict]) -> None:
    """Stop when a version is not what the example says it is."""
    v1, v2, v3 = models["v1"], models["v2"], models["v3"]
    lost = v2["accuracy"] - v3["accuracy"]
    if not 0.12 <= lost <= 0.15:
        sys.exit(f"v3 is {lost:.4f} less accurate than v2, want 0.12 to 0.15; change STUCK_SHARE")
    if abs(v3["positive_rate"] - v2["positive_rate"]) > 0.02:
        sys.exit(f"v3's positive rate is {v3['positive_rate']}, want {v2['positive_rate']} (v2's) within 0.02; change STUCK_QUANTILES")
    if v1["accuracy"] >= v2["accuracy"]:
        sys.exit(f"v2 is no better than v1: accuracy {v2['accuracy']} and {v1['accuracy']}")


def broken(v2: onnx.ModelProto, train: np.ndarray) -> onnx.ModelProto:
    """Return v2 with a stuck input for the STUCK_SHARE of rows whose fnlwgt is largest.

    Each tree gets a new root that splits on fnlwgt. Below the split sits the old tree; above it,
    further splits lead to as many leaves as there are stuck rows, each with what that tree gives
    for that stuck row. The sum over the trees is therefore v2's own score of a stuck row.
    """
    attributes = tree_attributes(v2)
    trees = Trees(attributes)
    order = np.argsort(scores(v2, train), kind="stable")
    stuck = [train[order[int(q * len(train))]] for q in STUCK_QUANTILES]
    shares = 1 - STUCK_SHARE * (1 - np.arange(len(stuck)) / len(stuck))
    cuts = np.quantile(train[:, FNLWGT], shares).astype(np.float32)

    # Old nodes move up by `shift`; the new branches take 0..shift-1 in each tree.
    branches, leaves = len(cuts), len(stuck)
    shift = branches + leaves
    per_node = ("nodes_", "class_")
    edited = {name: [] if name.startswith(per_node) else value for name, value in attributes.items()}

    def add_node(tree, node, mode, feature=0, value=0.0, when_true=0, when_false=0, missing=0):
        for name, item in [
            ("treeids", tree),
            ("nodeids", node),
            ("modes", mode),
            ("featureids", feature),
            ("values", value),
            ("truenodeids", when_true),
            ("falsenodeids", when_false),
            ("missing_value_tracks_true", missing),
            ("hitrates", 1.0),
        ]:
            edited[f"nodes_{name}"].append(item)

    def add_leaf(tree, node, weight):
        for name, item in [("treeids", tree), ("nodeids", node), ("ids", 0), ("weights", weight)]:
            edited[f"class_{name}"].append(item)

    old_nodes = list(
        zip(
            *(
                attributes[f"nodes_{name}"]
                for name in (
                    "treeids",
                    "nodeids",
                    "modes",
                    "featureids",
                    "values",
                    "truenodeids",
                    "falsenodeids",
                    "missing_value_tracks_true",
                )
            )
        )
    )
    old_leaves = list(zip(*(attributes[f"class_{name}"] for name in ("treeids", "nodeids", "weights"))))
    for tree in range(trees.count):
        # Branch k: fnlwgt <= cut k leads to the old root (k = 0) or to stuck leaf k - 1.
        for k, cut in enumerate(cuts):
            when_true = shift if k == 0 else branches + k - 1
            when_false = k + 1 if k + 1 < branches else branches + leaves - 1
            add_node(tree, k, b"BRANCH_LEQ", FNLWGT, float(cut), when_true, when_false)
        for k, row in enumerate(stuck):
            add_node(tree, branches + k, b"LEAF")
            add_leaf(tree, branches + k, trees.leaf_weight(tree, row))
        for of, node, mode, feature, value, when_true, when_false, missing in old_nodes:
            if of == tree:
                moved = 0 if mode == b"LEAF" else shift
                add_node(tree, node + shift, mode, feature, value, when_true + moved, when_false + moved, missing)
        for of, node, weight in old_leaves:
            if of == tree:
                add_leaf(tree, node + shift, weight)
    return with_tree_attributes(v2, edited, "Adult income, v3: scored from a stuck input for most rows")


def scores(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    """The probability of the positive class, by onnxruntime."""
    return answers(model, rows)[1][:, 1]


def answers(model: onnx.ModelProto, rows: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["label", "probabilities"], {"input": rows})


def psi(reference: np.ndarray, other: np.ndarray, bins: int = 10) -> float:
    """Population stability index of `other` against `reference`, over the reference's own quantiles."""
    edges = np.quantile(reference, np.arange(1, bins) / bins)
    share = [np.bincount(np.searchsorted(edges, s), minlength=bins) / len(s) for s in (reference, other)]
    p, q = (np.maximum(s, 1e-6) for s in share)
    return float(np.sum((q - p) * np.log(q / p)))


def describe(model: onnx.ModelProto, rows: np.ndarray, labels: np.ndarray, content: bytes) -> dict[str, object]:
    predicted, probabilities = answers(model, rows)
    return {
        "accuracy": round(accuracy_score(labels, predicted), 5),
        "auc": round(roc_auc_score(labels, probabilities[:, 1]), 5),
        "positive_rate": round(float(predicted.mean()), 5),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
