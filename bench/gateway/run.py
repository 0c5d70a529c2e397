#!/usr/bin/env python3
"""CPU per proxied request: the gateway against nginx, doing the same split over the same upstreams.

    bench/gateway/run.py [--runs 5] [--seconds 4] [--gateway PATH] [--upstream PATH]

Both proxies have one worker on core 0; wrk and the upstreams share core 1. A request is a POST of 400 B that is answered with
200 B of JSON. The targets alternate within each round, after a warm-up, and the medians of all runs are compared. The gateway
signs a receipt for every answer, counts every request, and reports to nobody (there is no control here); nginx has its logs
off and keeps its connections alive.

Writes target/bench/gateway.json and prints a table. Exits 1 if a request failed, 2 if something is missing,
3 if the target is missed.
"""

import base64
import contextlib
import json
import pathlib
import sys
import tempfile
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import common
from common import LOAD_CORE, SERVER_CORE, Missing, Target, find, free_port, start

CONNECTIONS = 64
# CPU per request, ours / nginx's, that is wanted at most.
RATIO_MAX = 1.15

CASES = {
    "HTTP/1.1, 90/10 split": {"sticky": False},
    "HTTP/1.1, 90/10 split, sticky": {"sticky": True},
}


def main():
    args = parse_args()
    common.require("wrk", "nginx", "taskset")
    for binary in (args.gateway, args.upstream):
        if not binary.exists():
            raise Missing(f"missing: {binary}; build it with: cargo build --release -p serin-gateway --examples")
    common.say_how(args)
    common.raise_priority()
    rows = []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serin-bench-")))
        for case, settings in CASES.items():
            print(case)
            with contextlib.ExitStack() as running:
                results = run_case(running, folder, args, settings)
            rows += common.rows_of(case, "nginx", results)
    return common.publish("gateway", rows, RATIO_MAX)


def parse_args():
    target = common.target_dir() / "release" / "examples"
    parser = common.parser(__doc__, seconds=4)
    parser.add_argument("--gateway", type=pathlib.Path, default=target / "gateway")
    parser.add_argument("--upstream", type=pathlib.Path, default=target / "upstream")
    return parser.parse_args()


def run_case(running, folder, args, settings):
    upstreams = [free_port(), free_port()]
    servers = [start(running, LOAD_CORE, [args.upstream, f"127.0.0.1:{port}", "200"]) for port in upstreams]
    gateway_port, nginx_port = free_port(), free_port()
    gateway = start_gateway(running, folder, args.gateway, gateway_port, upstreams, settings)
    nginx = start_nginx(running, folder, nginx_port, upstreams, settings)
    script = write_script(folder, settings)
    for port, process in zip([*upstreams, gateway_port, nginx_port], [*servers, gateway, nginx], strict=True):
        common.wait_for(pathlib.Path(process.args[3]).name, common.listens(port), process)
    check_answer(gateway_port)
    targets = {"ours": (gateway_port, gateway), "theirs": (nginx_port, nginx), "direct": (upstreams[0], None)}
    targets = {name: Target(port, script, process, CONNECTIONS) for name, (port, process) in targets.items()}
    return common.alternate(targets, args)


def start_gateway(running, folder, binary, port, upstreams, settings):
    home = folder / f"gateway-{port}"
    home.mkdir()
    arm = lambda role, version, upstream: {
        "role": role,
        "revision": f"bench-{version}",
        "version": version,
        "digest": "sha256:" + version[-1] * 64,
        "replicas": [{"id": f"bench-{version}-0", "address": {"tcp": f"127.0.0.1:{upstream}"}}],
    }
    route = {
        "namespace": "default",
        "name": "bench",
        "generation": 1,
        "epoch": 1,
        "rollout": "bench-1",
        "arms": [arm("active", "v1", upstreams[0]), arm("candidate", "v2", upstreams[1])],
        "strata": [10, 0, 100],
        "rules": [],
        "bucketing": {"version": "v1", "seed": "bench", "unitHeader": "x-user" if settings["sticky"] else None},
        "limits": {
            "timeoutMs": 30000,
            "connectTimeoutMs": 1000,
            "maxBodyBytes": 1 << 24,
            "idempotent": True,
            "retryBufferBytes": 65536,
            "drainMs": 30000,
        },
    }
    key = {"id": "00000001", "secret": "42" * 32}
    table = {"generation": 1, "endpoints": {"default/bench": route}, "receiptKeys": [key]}
    (home / "routes.json").write_text(json.dumps(table))
    listen, admin = f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"
    return start(running, SERVER_CORE, [binary, "--dir", home, "--listen", listen, "--admin", admin, "--workers", "1"])


def start_nginx(running, folder, port, upstreams, settings):
    home = folder / f"nginx-{port}"
    (home / "logs").mkdir(parents=True)
    keep = "keepalive 256; keepalive_requests 1000000000;"
    if settings["sticky"]:
        split = f"""
            split_clients "$http_x_user" $arm {{ 10% v2; * v1; }}
            upstream v1 {{ server 127.0.0.1:{upstreams[0]}; {keep} }}
            upstream v2 {{ server 127.0.0.1:{upstreams[1]}; {keep} }}"""
        to = "http://$arm"
    else:
        split = f"""
            upstream split {{
                server 127.0.0.1:{upstreams[0]} weight=9; server 127.0.0.1:{upstreams[1]} weight=1; {keep}
            }}"""
        to = "http://split"
    temp = "".join(f"{kind}_temp_path {home}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    # The prefix is ours: no configuration, log or socket of the system's nginx is touched.
    (home / "nginx.conf").write_text(
        f"""
        daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/logs/error.log crit;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; tcp_nodelay on; keepalive_timeout 75s; keepalive_requests 1000000000;
            {temp} {split}
            server {{
                listen 127.0.0.1:{port};
                location / {{ proxy_pass {to}; proxy_http_version 1.1; proxy_set_header Connection ""; }}
            }}
        }}"""
    )
    return start(running, SERVER_CORE, [find("nginx"), "-p", home, "-c", home / "nginx.conf", "-e", home / "logs/start.log"])


def write_script(folder, settings):
    script = folder / f"post-{settings['sticky']}.lua"
    text = """
        wrk.method = "POST"
        wrk.path = "/v2/models/bench/infer"
        wrk.headers["Content-Type"] = "application/json"
        wrk.body = '{"inputs":"' .. string.rep("x", 387) .. '"}'
    """
    if settings["sticky"]:
        text += """
        local requests, next_one = {}, 0
        function init()
            for i = 0, 1023 do
                wrk.headers["X-User"] = "user-" .. i
                requests[i] = wrk.format()
            end
        end
        function request()
            next_one = (next_one + 1) % 1024
            return requests[next_one]
        end
        """
    script.write_text(text)
    return script


def check_answer(port):
    """The comparison is void if the gateway leaves out what it must do: sign, and name the version."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/models/bench/infer", b"{}")
    with urllib.request.urlopen(request, timeout=5) as answer:
        receipt, version = answer.headers.get("serin-receipt", ""), answer.headers.get("serin-version")
        length = len(answer.read())
    payload = base64.urlsafe_b64decode((receipt.split(".") + ["", ""])[1] + "==")
    if length != 200 or version not in ("v1", "v2") or b"default/bench" not in payload:
        sys.exit(f"the gateway's answer is not what is measured: {length} B, version {version}, receipt {receipt!r}")


if __name__ == "__main__":
    common.run_suite(main)
