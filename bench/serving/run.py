#!/usr/bin/env python3
"""CPU per prediction: `serin model-server` against MLServer 1.7 with the same model.

    bench/serving/run.py [--runs 5] [--seconds 4] [--serin PATH]

The load goes straight to the model servers: Open Inference Protocol over REST, 32 connections, one row a request, the rows
of examples/adult in turn. Each request asks for the class probabilities alone (scikit-learn would walk the model a second
time for the label). Either server has core 0, wrk has core 1; the two alternate, after a warm-up, and the medians are compared.
MLServer has its defaults (one worker process, one line of log per request), but for uvloop below 0.22, without which its
workers end; the CPU and memory of all its processes count. Ours is one process with its defaults, from the ONNX files of
the example; MLServer gets the scikit-learn models they were exported from. First both must give equal answers.

Writes target/bench/serving.json and prints a table. Exits 1 if a request failed or answers differ, 2 if something is missing,
3 if the target is missed.
"""

import contextlib
import csv
import itertools
import json
import os
import pathlib
import sys
import tempfile
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import common
import peer
from common import Missing, Target, free_port

CONNECTIONS = 32
# CPU per request, ours / MLServer's, that is wanted at most.
RATIO_MAX = 0.01
# Rows that are compared first, and sent in turn under load.
ROWS = 300
# Absolute, on probabilities: float32 sums of a hundred trees against float64 ones.
TOLERANCE = 1e-5

CASES = {"logistic regression": "lr", "random forest": "rf"}
# What the servers call the probabilities.
OUTPUTS = {"ours": "probabilities", "theirs": "predict_proba"}


def main():
    args = parse_args()
    common.require("wrk", "taskset")
    if not args.serin.exists():
        raise Missing(f"missing: {args.serin}; build it with: cargo build --release -p serin")
    venv = peer.install()
    table = []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serin-bench-")))
        peer.train(venv, folder / "models")
        common.say_how(args)
        common.raise_priority()
        for case, model in CASES.items():
            print(case)
            with contextlib.ExitStack() as running:
                results = run_case(running, folder, args, venv, model)
            table += common.rows_of(case, "MLServer", results)
    return common.publish("serving", table, RATIO_MAX)


def parse_args():
    parser = common.parser(__doc__, seconds=4)
    default = os.environ.get("SERIN_BIN") or common.target_dir() / "release" / "serin"
    parser.add_argument("--serin", type=pathlib.Path, default=pathlib.Path(default), help="the binary (environment: SERIN_BIN)")
    return parser.parse_args()


def run_case(running, folder, args, venv, model):
    servers = {
        "ours": start_serin(running, args.serin, model),
        "theirs": peer.start(running, venv, folder, model, folder / "models" / f"{model}.joblib"),
    }
    rows = read_rows()
    bodies = {name: [body(row, OUTPUTS[name]) for row in rows] for name in servers}
    compare(model, servers, bodies)
    targets = {}
    for name, (port, process) in servers.items():
        script = write_script(folder, f"{model}-{name}", model, bodies[name])
        targets[name] = Target(port, script, process, CONNECTIONS)
    return common.alternate(targets, args)


def start_serin(running, binary, model):
    port = free_port()
    artifact = peer.ADULT / f"{model}.onnx"
    command = [binary, "model-server", "--name", model, "--artifact", artifact, "--listen", f"127.0.0.1:{port}"]
    process = common.start(running, common.SERVER_CORE, command)
    common.wait_for("serin model-server", lambda: peer.is_ready(port, model), process)
    return port, process


def read_rows():
    with (peer.ADULT / "rows.csv").open(newline="") as file:
        reader = csv.reader(file)
        features = len(next(reader)) - 1
        return [list(map(int, row[:features])) for row in itertools.islice(reader, ROWS)]


def body(row, output):
    request = {"inputs": [{"name": "input", "shape": [1, len(row)], "datatype": "FP32", "data": row}]}
    return json.dumps(request | {"outputs": [{"name": output}]}, separators=(",", ":"))


def compare(model, servers, bodies):
    """The comparison is void unless both servers answer the same."""
    worst = 0.0
    for index, pair in enumerate(zip(*bodies.values(), strict=True)):
        answers = {}
        for (name, (port, _)), text in zip(servers.items(), pair, strict=True):
            answers[name] = probabilities(port, model, text, OUTPUTS[name])
        difference = max(abs(one - other) for one, other in zip(answers["ours"], answers["theirs"], strict=True))
        worst = max(worst, difference)
        if not difference <= TOLERANCE:
            sys.exit(f"{model}: answers differ by {difference:.2g} in row {index + 1}, want at most {TOLERANCE:g}: {answers}")
    print(f"  {ROWS} rows one by one: answers are equal within {TOLERANCE:g} (largest difference {worst:.1e})")


def probabilities(port, model, text, output):
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/models/{model}/infer", text.encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        outputs = json.load(answer)["outputs"]
    if len(outputs) != 1 or outputs[0]["name"] != output or outputs[0]["shape"] != [1, 2]:
        sys.exit(f"port {port} answers {outputs}, want one row of two probabilities in {output}")
    return outputs[0]["data"]


def write_script(folder, name, model, bodies):
    script = folder / f"{name}.lua"
    lines = ",\n".join(f"[==[{text}]==]" for text in bodies)
    script.write_text(
        f"""
        local bodies = {{ {lines} }}
        local requests, next_one = {{}}, 0
        function init()
            local headers = {{ ["Content-Type"] = "application/json" }}
            for i, body in ipairs(bodies) do
                requests[i - 1] = wrk.format("POST", "/v2/models/{model}/infer", headers, body)
            end
        end
        function request()
            next_one = (next_one + 1) % #bodies
            return requests[next_one]
        end
        """
    )
    return script


if __name__ == "__main__":
    common.run_suite(main)
