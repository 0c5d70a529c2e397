"""MLServer, installed and started as its documentation says, with everything that has a default left at it."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import common
from common import Missing, free_port

REQUIREMENTS = pathlib.Path(__file__).resolve().parent / "requirements.txt"
ADULT = common.ROOT / "examples" / "adult"
# What the packages in requirements.txt run on.
PYTHONS = [(3, 11), (3, 12)]
# MLServer starts a worker process, which imports scikit-learn.
READY_SECONDS = 90


def install():
    """The environment with MLServer, in the cache folder; made if it is not there, or if requirements.txt is another one."""
    cache = pathlib.Path(os.environ.get("SERIN_CACHE") or pathlib.Path.home() / ".cache" / "serin")
    venv = cache / "venv-mlserver"
    stamp = venv / f".requirements-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
    if stamp.exists():
        return venv
    python = interpreter()
    print(f"installing MLServer into {venv} (about 500 MB)", flush=True)
    if venv.exists():
        shutil.rmtree(venv)
    cache.mkdir(parents=True, exist_ok=True)
    run([python, "-m", "venv", venv], "cannot make a Python environment; on Debian: apt-get install python3-venv")
    command = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", REQUIREMENTS]
    run(command, f"cannot install MLServer; the serving suite needs a Python package index once (it keeps {venv})")
    stamp.touch()
    return venv


def interpreter():
    names = [f"python{major}.{minor}" for major, minor in PYTHONS] + ["python3"]
    for path in filter(None, map(shutil.which, names)):
        command = [path, "-c", "import sys; print(*sys.version_info[:2])"]
        # Nothing is printed by a name that a version manager has set, but holds no Python behind.
        version = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        if tuple(map(int, version)) in PYTHONS:
            return path
    wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    found = sys.version.split()[0]
    raise Missing(
        f"missing: Python {wanted}, which MLServer 1.7.1 and scikit-learn 1.9.1 both run on; this is {found}."
        " Put one of them on the PATH, as python3.11 or python3.12, with its venv module"
    )


def train(venv, folder):
    """The scikit-learn models that the example's ONNX files were exported from, as joblib files in `folder`."""
    python = venv / "bin" / "python"
    if not (ADULT / "data" / "train.csv").exists():
        print("fetching the training rows (28 MB)", flush=True)
        run([python, ADULT / "prepare.py"], "cannot fetch the training rows; examples/adult/README.md says where they come from")
    run([python, ADULT / "train.py", "--sklearn-out", folder], "cannot train the example's models")


def run(command, failed):
    """Runs a command quietly; what it printed is shown if it fails."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"{failed}\n{done.stdout.strip()}")


def start(running, venv, folder, model, joblib):
    """MLServer with one model; its port and its first process."""
    port = free_port()
    home = folder / f"mlserver-{model}"
    (home / model).mkdir(parents=True)
    # Loopback and free ports; by default it listens on all addresses at 8080 to 8082.
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    (home / "settings.json").write_text(json.dumps(settings))
    of_model = {
        "name": model,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": f"./{model}.joblib", "version": "1"},
    }
    (home / model / "model-settings.json").write_text(json.dumps(of_model))
    shutil.copy(joblib, home / model / f"{model}.joblib")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLSERVER_")}
    log = running.enter_context((home / "log").open("w"))
    # It writes folders of its own into the current one.
    process = common.start(
        running, common.SERVER_CORE, [venv / "bin" / "mlserver", "start", home], log=log, cwd=home, env=environment
    )
    # Before it is stopped, which it has a lot to say about.
    running.push(lambda _, error, __: show_log(home / "log") if failed(error) else None)
    common.wait_for("mlserver", lambda: is_ready(port, model), process, READY_SECONDS)
    return port, process


def is_ready(port, model):
    with contextlib.suppress(urllib.error.HTTPError):  # 400 while it loads
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/{model}/ready", timeout=5) as answer:
            return answer.status == 200
    return False


def failed(error):
    """Whether a suite ends with a message, other than when it is told to end."""
    return isinstance(error, SystemExit) and isinstance(error.code, str)


def show_log(path):
    lines = path.read_text(errors="replace").splitlines()
    print("MLServer's last words:", *lines[-20:], sep="\n  ", file=sys.stderr)
