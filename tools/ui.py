"""Browse the runs: sync, then MLflow's pages on http://127.0.0.1:5000 until Ctrl-C.

wsol ui --port 5001
"""

import argparse
import contextlib
import socket
import sys

from pipeline.cache import project_root
from pipeline.errors import UserError
from pipeline.restore import restore_all
from pipeline.tracking import pages, store
from pipeline.tracking.pages import HOST
from pipeline.tracking.store import Store
from pipeline.tracking.sync import sync
from stages.layout import METRICS, MODELS


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


def serve(target: Store, port: int) -> None:
    """Run the pages until Ctrl-C or SIGTERM."""
    _, experiment = store.connect(target)  # creates a fresh database under the lock
    address = f"http://{HOST}:{port}"
    print(f"MLflow starts, which takes some seconds: {address}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is the ordinary end
        pages.serve(
            target,
            experiment,
            port,
            lambda: print(f"MLflow is ready: {address} (Ctrl-C ends it)", flush=True),
        )
