"""The rows as numbers, and the estimators of the example. Needs numpy and scikit-learn only."""

import sys
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

FEATURES = 14
FNLWGT, CAPITAL_GAIN, CAPITAL_LOSS = 2, 10, 11


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a coded CSV: the 14 columns as float32 (all values are whole and below 2^24), the label."""
    table = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.int64)
    if table.shape[1] != FEATURES + 1:
        sys.exit(f"{path} has {table.shape[1]} columns, want {FEATURES + 1}; run prepare.py")
    return table[:, :FEATURES].astype(np.float32), table[:, FEATURES]


def boosting() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)


def logistic_regression() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(n_estimators=100, max_depth=8, random_state=0, n_jobs=1)


def without_capital(rows: np.ndarray) -> np.ndarray:
    """Blank both capital columns. A constant column is never split on, so the model ignores it."""
    blanked = rows.copy()
    blanked[:, [CAPITAL_GAIN, CAPITAL_LOSS]] = 0
    return blanked
