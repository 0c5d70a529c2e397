"""Callers for the pages of this folder: asks a model about the rows of the test set, one after the other, until it is ended.

    python3 docs/replay.py income            # 400 requests a second, or what the machine can
    python3 docs/replay.py income --labels   # and says after each answer what is true
"""

import argparse
import csv
import http.client
import itertools
import json
import os
import pathlib
import time

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("endpoint")
arguments.add_argument("--labels", action="store_true")
arguments.add_argument("--rate", type=float, default=400.0, help="requests per second")
arguments = arguments.parse_args()


def post(path, body):
    gateway.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = gateway.getresponse()
    answer.read()
    return answer


home = pathlib.Path(os.environ.get("SERIN_HOME") or "~/.serin").expanduser()
gateway = http.client.HTTPConnection(json.loads((home / "up.json").read_text())["gateway"], timeout=30)
with open("examples/adult/rows.csv", newline="") as file:
    rows = list(csv.reader(file))[1:]
due = time.monotonic()
for row in itertools.cycle(rows):
    *values, truth = map(float, row)
    request = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 14], "data": values}]}
    try:
        answer = post(f"/v2/models/{arguments.endpoint}/infer", request)
        receipt = answer.getheader("serin-receipt")
        if arguments.labels and receipt:
            post("/serin/v1/outcomes", {"receipt": receipt, "label": int(truth)})
    except (OSError, http.client.HTTPException):
        # The connection broke; the next request makes a new one.
        gateway.close()
    due = max(due + 1 / arguments.rate, time.monotonic() - 1)
    time.sleep(max(0.0, due - time.monotonic()))
