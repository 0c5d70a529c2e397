#!/usr/bin/env python3
"""Train the example's models on UCI Adult and export them to ONNX.

Reads rows.csv and data/train.csv (run prepare.py first). Writes, next to this script,
  v1.onnx        histogram boosting that does not see capital-gain and capital-loss
  v2.onnx        histogram boosting on all 14 columns: the better version
  v2-again.onnx  v2 exported again: another digest, equal answers
  v3.onnx        v2 behind a broken feature pipeline: answers, fast, and is wrong
  lr.onnx        scaler and logistic regression, for benchmarks
  rf.onnx        random forest, 100 trees of depth 8, for benchmarks
  report.json    scores on the test set, distances between versions, SHA-256 digests

Everything is seeded. All files take one float32 tensor `input` of shape [N, 14] and give
`label` (int64, [N]) and `probabilities` (float32, [N, 2]).
"""

import argparse
from pathlib import Path

import joblib
import numpy as np
from estimators import forest, load, logistic_regression

HERE = Path(__file__).resolve().parent


def dump_sklearn(folder: Path, train: np.ndarray, labels: np.ndarray) -> None:
    """Train lr and rf and store them as joblib files, the form that Python model servers load."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in [("lr", logistic_regression()), ("rf", forest())]:
        joblib.dump(model.fit(train, labels), folder / f"{name}.joblib")
        print(f"wrote {folder / name}.joblib")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the ONNX files and report.json (default: this one)")
    parser.add_argument(
        "--sklearn-out",
        type=Path,
        metavar="DIR",
        help="only train lr and rf, and store them as DIR/lr.joblib and DIR/rf.joblib (needs scikit-learn alone)",
    )
    arguments = parser.parse_args()

    train, train_labels = load(HERE / "data" / "train.csv")
    if arguments.sklearn_out:
        dump_sklearn(arguments.sklearn_out, train, train_labels)
        return

    import versions  # here, because it needs the ONNX packages and --sklearn-out does not

    versions.write_all(arguments.out, train, train_labels, *load(HERE / "rows.csv"))


if __name__ == "__main__":
    main()
