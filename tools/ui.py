"""Browse the runs: sync, then MLflow's pages on http://127.0.0.1:5000 until Ctrl-C.

wsol ui --port 5001
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from pipeline.cache import project_root
from pipeline.errors import UserError
from pipeline.tracking import store
from pipeline.tracking.restore import restore_all
from pipeline.tracking.store import Store
from pipeline.tracking.sync import sync
from stages.layout import METRICS, MODELS

HOST = "127.0.0.1"
# The default server is ten processes and 2.4 GB; runs need none of its job queues.
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5000, help="default: %(default)s")


def main(options: argparse.Namespace) -> None:
    port: int = options.port
    root = project_root()
    target = store.current(root)
    if target.uri.startswith("http"):
        raise UserError(
            f"MLFLOW_TRACKING_URI is {target}: its server shows the runs already; "
            "unset it to browse those of this repository"
        )
    check_free(port)
    try:
        sync(root, print)
        restore_all(METRICS, MODELS, print)
    except UserError as error:  # another store's runs may wait; this one's can be looked at
        print("\n".join(error.problems), file=sys.stderr)
    serve(target, port)


def check_free(port: int) -> None:
    """Raise UserError if somebody listens on `port` already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port {port} of {HOST} cannot be used ({error}); "
                "name a free one from 1024 to 65535: wsol ui --port 5001"
            ) from None


def command(target: Store, port: int) -> list[str]:
    """The server's command line: one worker, this repository's runs and artifacts."""
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", target.uri),
        *("--artifacts-destination", (target.root / "mlartifacts").as_uri()),
    ]


def serve(target: Store, port: int) -> None:
    """Run the server until it ends or Ctrl-C."""
    store.connect(target)  # creates a fresh database under the lock
    address = f"http://{HOST}:{port}"
    print(f"MLflow starts, which takes about half a minute: {address}", flush=True)
    # A process group of its own: the server's worker would survive the end of its parent.
    server = subprocess.Popen(
        command(target, port), env=os.environ | ENVIRONMENT, cwd=target.root, process_group=0
    )
    try:
        if is_ready(server, address):
            print(f"MLflow is ready: {address} (Ctrl-C ends it)", flush=True)
        if code := server.wait():
            raise UserError(f"MLflow's server ended with {code}; its own words are above")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def is_ready(server: "subprocess.Popen[bytes]", address: str) -> bool:
    """Wait until the server answers; False if it ends before."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    return False
