#!/usr/bin/env python3
"""Train a tiny classifier on Fisher's iris measurements and export it to ONNX.

Writes iris.onnx (scaler and logistic regression: four measurements in centimetres in, one of
three species out) and rows.csv (all 150 flowers). Uses ../adult/requirements.txt; the data come
with scikit-learn.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

COLUMNS = ["sepal-length", "sepal-width", "petal-length", "petal-width"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent, help="folder for iris.onnx and rows.csv (default: this one)"
    )
    out = parser.parse_args().out
    rows, species = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows, species)
    proto = to_onnx(
        model,
        initial_types=[("input", FloatTensorType([None, len(COLUMNS)]))],
        options={"zipmap": False},
        target_opset={"": 21, "ai.onnx.ml": 3},
        name="iris",
    )
    proto.opset_import.sort(key=lambda entry: entry.domain)  # they come in the order of a set
    content = proto.SerializeToString(deterministic=True)

    out.mkdir(parents=True, exist_ok=True)
    (out / "iris.onnx").write_bytes(content)
    lines = [",".join([*map("{:.1f}".format, row), str(label)]) for row, label in zip(rows, species)]
    (out / "rows.csv").write_text("\n".join([",".join([*COLUMNS, "species"]), *lines]) + "\n")

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(["label", "probabilities"], {"input": rows})
    print(f"{len(content)} bytes, {(labels == species).mean():.3f} of {len(rows)} right (on the rows it was trained on)")
    print(f"first row {rows[0].tolist()}: label {labels[0]}, probabilities {probabilities[0].tolist()}")


if __name__ == "__main__":
    main()
