"""What the suites share: servers on one core, the load on the other, CPU and memory from /proc, medians, tables.

Everything runs in a session of its own at raised priority where that is permitted, so that other jobs on the machine disturb
it little. CPU per request is (utime + stime of all the server's processes) / requests.
"""

import argparse
import contextlib
import dataclasses
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
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SERVER_CORE, LOAD_CORE = 0, 1
WARM_UP_SECONDS = 1
# A median of fewer runs says little.
RUNS_WANTED = 5
TICKS = os.sysconf("SC_CLK_TCK")

# (metric, unit, key of a result); a key that a suite does not measure is left out of its table.
METRICS = [
    ("CPU per request", "us", "cpu_us"),
    ("requests per second", "1/s", "rps"),
    ("p99 latency", "us", "p99_us"),
    ("memory", "MB", "memory_mb"),
]


class Missing(Exception):
    """Something that the suite needs is not here, and what to do about it."""


def run_suite(main):
    """Runs `main` in a session of its own. Exits with what it returns, or 2 if something is missing."""
    own_session()
    # Servers are stopped on the way out, also when the suite is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except Missing as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def own_session():
    """Goes on in a child with a session, hence a scheduler group, of its own; the parent waits and passes signals on."""
    child = os.fork()
    if child == 0:
        os.setsid()
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    status = os.waitpid(child, 0)[1]
    sys.exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def raise_priority():
    """Nice -15 for the session, or a word that it is not permitted. After the set-up, which nobody measures."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path("/proc/self/autogroup").write_text("-15")
    except OSError:
        print("priority raised: no (not permitted; other jobs will disturb the figures)")
        return
    print("priority raised: yes")


def parser(doc, seconds):
    """Flags of every suite, with RUNS and RUN_SECONDS of the environment as their defaults."""
    built = argparse.ArgumentParser(description=doc.splitlines()[0])
    runs, seconds = os.environ.get("RUNS") or RUNS_WANTED, os.environ.get("RUN_SECONDS") or seconds
    built.add_argument("--runs", type=positive, default=runs, help="measured runs of each server")
    built.add_argument("--seconds", type=positive, default=seconds, help="length of a run")
    return built


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {number}, want at least 1")
    return number


def say_how(args):
    """One line on how this is measured."""
    quick = f"; fewer than {RUNS_WANTED} runs, a quick look only" if args.runs < RUNS_WANTED else ""
    cores = f"the server has core {SERVER_CORE}, the load core {LOAD_CORE}"
    print(f"{args.runs} runs of {args.seconds} s each; {cores}{quick}", flush=True)


def require(*tools):
    """Stops unless the tools and a second core are there."""
    missing = [tool for tool in tools if not find(tool)]
    if missing:
        raise Missing(f"missing: {', '.join(missing)}; tests/setup/setup.sh installs wrk and nginx, or says how")
    if len(os.sched_getaffinity(0)) < 2:
        raise Missing("a second core is missing; the server and the load must not share one")


def find(tool):
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def target_dir():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def start(running, core, command, log=subprocess.DEVNULL, **kwargs):
    """A server in a process group of its own, on one core, until `running` is left."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        preexec_fn=os.setpgrp,
        **kwargs,
    )
    running.callback(stop, process)
    return process


def stop(process):
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    # Whoever of the group is left.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, ready, process, seconds=10):
    """Waits until `ready()` holds; stops when the process has ended or the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"{what} ended with code {process.returncode} before it was ready")
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.05)
    sys.exit(f"{what} is not ready after {seconds} s")


def listens(port):
    def connect():
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    return connect


@dataclasses.dataclass
class Target:
    """Something to put load on: where it listens, what is sent, whose CPU and memory count (None: nobody's)."""

    port: int
    script: pathlib.Path
    process: subprocess.Popen | None
    connections: int


def alternate(targets, args):
    """Runs all targets in turn, as often as told; the results of each by name."""
    results = {name: [] for name in targets}
    for number in range(args.runs):
        # Who comes first alternates too.
        order = list(targets) if number % 2 == 0 else list(targets)[::-1]
        for name in order:
            result = measure(targets[name], args.seconds)
            results[name].append(result)
            cpu = f"{result['cpu_us']:9.2f} us/request" if targets[name].process else " " * 20
            print(f"  run {number + 1} {name:7} {cpu} {result['rps']:9.0f} requests/s", flush=True)
    return results


def measure(target, seconds):
    drive(target, WARM_UP_SECONDS)
    before = settled_cpu_seconds(target.process)
    result = drive(target, seconds)
    # Every connection has a request under way when the load ends. The server works on it, so it counts as served.
    served = result["requests"] + target.connections
    result["cpu_us"] = (settled_cpu_seconds(target.process) - before) / served * 1e6
    result["memory_mb"] = memory_bytes(target.process) / 1e6
    return result


def drive(target, seconds):
    """Runs wrk; requests, rate and p99 in microseconds. Any failed request ends the benchmark."""
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{target.connections}", f"-d{seconds}s", "--latency"]
    command += ["--timeout", "30s", "-s", str(target.script), f"http://127.0.0.1:{target.port}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Non-2xx.*|Socket errors.*", text)
    if failed:
        sys.exit(f"requests failed: {failed.group(0)}\n{text}")
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()
    return {"requests": requests, "rps": rate, "p99_us": float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]}


def settled_cpu_seconds(process):
    """CPU time once the server has nothing left to do (at most 5 s later)."""
    now = cpu_seconds(process)
    for _ in range(25):
        if process is None:
            break
        before = now
        time.sleep(0.2)
        now = cpu_seconds(process)
        if now - before <= 1 / TICKS:
            break
    return now


def cpu_seconds(process):
    """User and system time of a server's whole process group so far."""
    return sum(int(fields[11]) + int(fields[12]) for _, fields in group(process)) / TICKS


def memory_bytes(process):
    """Proportional set size of a server's whole process group: each page counts once, split among all who map it."""
    total = 0
    for pid, _ in group(process):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024
    return total


def group(process):
    """(pid, the fields of /proc/PID/stat after the name) of every process in a server's group."""
    if process is None:
        return
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[2]) == process.pid:
                    yield int(folder.name), fields


def rows_of(case, peer, results):
    """Rows of the result file: medians of our runs and the peer's."""
    rows = []
    for metric, unit, key in METRICS:
        ours = statistics.median(result[key] for result in results["ours"])
        theirs = statistics.median(result[key] for result in results["theirs"])
        row = {"case": case, "metric": metric, "unit": unit, "ours": round(ours, 3), "peer": peer}
        row |= {"theirs": round(theirs, 3), "ratio": round(ours / theirs, 5), "runs": len(results["ours"])}
        rows.append(row)
    return rows


def publish(suite, rows, ratio_max):
    """Writes target/bench/SUITE.json and prints it as a table; gives the exit code: 3 if the CPU per request
    misses its target."""
    out = ROOT / "target" / "bench" / f"{suite}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=2) + "\n")
    width = max(len(row["case"]) for row in rows)
    print(f"\n{'case':{width}}  {'metric':20} {'unit':5} {'ours':>11} {rows[0]['peer']:>12} {'ratio':>9}  runs")
    for row in rows:
        print(
            f"{row['case']:{width}}  {row['metric']:20} {row['unit']:5} {row['ours']:11.2f} {row['theirs']:12.2f}"
            f" {row['ratio']:9.4f}  {row['runs']}"
        )
    code = 0
    for row in rows:
        if row["metric"] == METRICS[0][0]:
            code = code if row["ratio"] <= ratio_max else 3
            verdict = "within" if row["ratio"] <= ratio_max else "MISSES"
            print(f"{row['case']}: CPU per request {verdict} the target, a ratio of at most {ratio_max} ({row['ratio']:.4f})")
    print(f"written to {out}")
    return code
