#!/usr/bin/env python3
"""Records how a Kubernetes API server writes the objects of samples.yaml, in protobuf and in JSON: one line each in samples.jsonl.

    record.py https://HOST:PORT TOKEN
"""

import base64
import json
import pathlib
import ssl
import sys
import urllib.error
import urllib.request

import yaml

HERE = pathlib.Path(__file__).parent
ACCEPT = {"protobuf": "application/vnd.kubernetes.protobuf", "json": "application/json"}
PLURALS = {"EndpointSlice": "endpointslices", "HorizontalPodAutoscaler": "horizontalpodautoscalers"}


def call(server, token, method, path, accept, body=None):
    headers = {"Authorization": f"Bearer {token}", "Accept": accept, "Content-Type": f"application/{'merge-patch+' if method == 'PATCH' else ''}json"}
    request = urllib.request.Request(server + path, body and json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request, context=ssl._create_unverified_context()) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {path}: {error}: {error.read().decode()}")


def main(server, token):
    lines = []
    for sample in yaml.safe_load((HERE / "samples.yaml").read_text()):
        version, kind = sample["apiVersion"], sample["kind"]
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        path = f"{root}/namespaces/default/{PLURALS.get(kind, kind.lower() + 's')}"
        call(server, token, "POST", path, ACCEPT["json"], sample)
        path += "/" + sample["metadata"]["name"]
        answers = {form: call(server, token, "GET", path, accept) for form, accept in ACCEPT.items()}
        merge_patch = {"metadata": {"finalizers": None}}
        call(server, token, "PATCH", path, ACCEPT["json"], merge_patch)
        call(server, token, "DELETE", path, ACCEPT["json"])
        lines.append({"protobuf": base64.b64encode(answers["protobuf"]).decode(), "json": json.loads(answers["json"])})
    (HERE / "samples.jsonl").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    print(f"{len(lines)} objects written to {HERE / 'samples.jsonl'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
