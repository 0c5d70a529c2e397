#!/usr/bin/env python3
"""CPU per proxied request: the gateway against nginx, doing the same split over the same upstreams.

    bench/gateway/run.py [--rounds 5] [--seconds 4] [--gateway PATH] [--upstream PATH]

Both proxies have one worker on core 0; wrk and the upstreams share core 1. A request is a POST of 400 B that is answered with
200 B of JSON. The targets alternate within each round, after a warm-up. CPU per request is (utime + stime of the proxy's
processes) / requests, and the medians of all rounds are compared. The gateway signs a receipt for every answer, counts every
request, and reports to nobody (there is no control here); nginx has its logs off and keeps its connections alive.

Everything runs in a session of its own at raised priority where that is permitted, so that other jobs on the machine disturb
it little. Writes target/bench/gateway.json and prints a table. Exits 1 if a request failed, 2 if something is missing.
"""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROXY_CORE, LOAD_CORE = 0, 1
CONNECTIONS = 64
TICKS = os.sysconf("SC_CLK_TCK")

CASES = {
    "HTTP/1.1, 90/10 split": {"sticky": False},
    "HTTP/1.1, 90/10 split, sticky": {"sticky": True},
}


def main():
    args = parse_args()
    missing = [tool for tool in ("wrk", "nginx", "taskset") if not find(tool)]
    if missing:
        print(f"missing: {', '.join(missing)}; on Debian: apt-get install -y wrk nginx-light util-linux", file=sys.stderr)
        return 2
    for binary in (args.gateway, args.upstream):
        if not binary.exists():
            print(f"missing: {binary}; build it with: cargo build --release -p serin-gateway --examples", file=sys.stderr)
            return 2
    if os.cpu_count() < 2:
        print("missing: a second core; the proxy and the load must not share one", file=sys.stderr)
        return 2
    raised = raise_priority()
    print(f"priority raised: {'yes' if raised else 'no (not permitted; other jobs will disturb the figures)'}")
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serin-bench-")))
        rows = []
        for case, settings in CASES.items():
            with contextlib.ExitStack() as running:
                runs = run_case(running, folder, args, settings)
            rows += report(case, runs)
    out = ROOT / "target" / "bench" / "gateway.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=2) + "\n")
    print_table(rows)
    print(f"written to {out}")
    return 0


def parse_args():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "examples"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--gateway", type=pathlib.Path, default=target / "gateway")
    parser.add_argument("--upstream", type=pathlib.Path, default=target / "upstream")
    args = parser.parse_args()
    if args.rounds < 5:
        parser.error("--rounds is below 5; a median of fewer says little")
    return args


def find(tool):
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def raise_priority():
    """Our own scheduler group, at nice -15; True if that was permitted."""
    with contextlib.suppress(PermissionError):
        os.setsid()
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    except PermissionError:
        return False
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/autogroup").write_text("-15")
    return True


def run_case(running, folder, args, settings):
    upstreams = [free_port(), free_port()]
    for port in upstreams:
        start(running, LOAD_CORE, [args.upstream, f"127.0.0.1:{port}", "200"])
    gateway_port, nginx_port = free_port(), free_port()
    gateway = start_gateway(running, folder, args.gateway, gateway_port, upstreams, settings)
    nginx = start_nginx(running, folder, nginx_port, upstreams, settings)
    script = write_script(folder, settings)
    targets = {"ours": (gateway_port, gateway), "theirs": (nginx_port, nginx), "direct": (upstreams[0], None)}
    for port, _ in targets.values():
        wait_for(port)
    check_answer(gateway_port)
    runs = {name: [] for name in targets}
    for number in range(args.rounds):
        # Who comes first alternates too.
        order = list(targets) if number % 2 == 0 else list(targets)[::-1]
        for name in order:
            port, process = targets[name]
            drive(script, port, 1)
            before = cpu_seconds(process)
            result = drive(script, port, args.seconds)
            result["cpu_us"] = (cpu_seconds(process) - before) / result["requests"] * 1e6
            runs[name].append(result)
            print(f"  round {number + 1} {name:7} {result['cpu_us']:6.2f} us/request {result['rps']:9.0f} requests/s")
    return runs


def start(running, core, command, **kwargs):
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        **kwargs,
    )
    running.callback(stop, process)
    return process


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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
        "bucketing": {"version": "v1", "seed": "bench"},
        "unitHeader": "x-user" if settings["sticky"] else None,
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
    return start(running, PROXY_CORE, [binary, "--dir", home, "--listen", listen, "--admin", admin, "--workers", "1"])


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
    return start(running, PROXY_CORE, [find("nginx"), "-p", home, "-c", home / "nginx.conf", "-e", home / "logs/start.log"])


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


def drive(script, port, seconds):
    """Runs wrk; requests, rate and p99 in microseconds. Any failed request ends the benchmark."""
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    command += ["-s", str(script), f"http://127.0.0.1:{port}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Non-2xx.*|Socket errors.*", text)
    if failed:
        sys.exit(f"requests failed: {failed.group(0)}\n{text}")
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()
    return {"requests": requests, "rps": rate, "p99_us": float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]}


def cpu_seconds(process):
    """CPU time of a process, its threads and its children."""
    if process is None:
        return 0.0
    pids = [process.pid]
    for pid in pids:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
        with contextlib.suppress(OSError):
            pids += map(int, children.read_text().split())
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port} after 10 s")


def check_answer(port):
    """The comparison is void if the gateway leaves out what it must do: sign, and name the version."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/models/bench/infer", b"{}")
    with urllib.request.urlopen(request, timeout=5) as answer:
        receipt, version = answer.headers.get("serin-receipt", ""), answer.headers.get("serin-version")
        length = len(answer.read())
    payload = base64.urlsafe_b64decode((receipt.split(".") + ["", ""])[1] + "==")
    if length != 200 or version not in ("v1", "v2") or b"default/bench" not in payload:
        sys.exit(f"the gateway's answer is not what is measured: {length} B, version {version}, receipt {receipt!r}")


def report(case, runs):
    metrics = [("CPU per request", "us", "cpu_us"), ("requests per second", "1/s", "rps"), ("p99 latency", "us", "p99_us")]
    rows = []
    for metric, unit, key in metrics:
        ours = statistics.median(run[key] for run in runs["ours"])
        theirs = statistics.median(run[key] for run in runs["theirs"])
        row = {"case": case, "metric": metric, "unit": unit, "ours": round(ours, 3), "peer": "nginx"}
        row |= {"theirs": round(theirs, 3), "ratio": round(ours / theirs, 3), "runs": len(runs["ours"])}
        rows.append(row)
    return rows


def print_table(rows):
    print(f"\n{'case':32} {'metric':20} {'unit':5} {'ours':>10} {'nginx':>10} {'ratio':>6}  runs")
    for row in rows:
        print(
            f"{row['case']:32} {row['metric']:20} {row['unit']:5} {row['ours']:10.2f} {row['theirs']:10.2f}"
            f" {row['ratio']:6.3f}  {row['runs']}"
        )


if __name__ == "__main__":
    sys.exit(main())
