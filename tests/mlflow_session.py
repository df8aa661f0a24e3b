"""A migrated MLflow database and real MLflow servers, made once for all tests that need them.

A fresh database takes MLflow 10 to 20 seconds, a server's imports as long; a copy of the database and
a fork of the imported server take none.
"""

import atexit
import functools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

from pipeline.tracking import store

NURSERY = """
import os, sys, uvicorn
from mlflow.server.fastapi_app import app
print("ready", flush=True)
for port in sys.stdin:
    if (pid := os.fork()) == 0:
        uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error")
        os._exit(0)
    print(pid, flush=True)
"""


def repository(folder: Path) -> Path:
    """`folder` as the root of a repository with a migrated, empty MLflow database."""
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy(_first_use()[0] / "mlflow.db", folder / "mlflow.db")
    return folder


def first_use() -> list[int | None]:
    """Exit codes of the processes that all at once were the first to use one database."""
    return _first_use()[1]


@functools.cache
def _first_use() -> tuple[Path, list[int | None]]:
    folder = _folder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.store.tracking.sqlalchemy_store
        import mlflow.tracking  # noqa: F401  so that the forks need not, and meet

        fork = multiprocessing.get_context("fork")
        processes = [fork.Process(target=_connect, args=(folder,)) for _ in range(4)]
        for process in processes:
            process.start()
    for process in processes:
        process.join()
    return folder, [process.exitcode for process in processes]


def _connect(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store.connect(store.Store(folder, "first"))


class Server:
    """A real MLflow server on 127.0.0.1 that can be killed and started again."""

    def __init__(self) -> None:
        folder = _folder()
        shutil.copy(_first_use()[0] / "mlflow.db", folder / "mlflow.db")
        settings = {
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        self._nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | settings,
        )
        self._pid = 0
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        atexit.register(self._end)

    def start(self) -> None:
        """Return when the server answers."""
        assert self._nursery.stdin and self._nursery.stdout
        if not self._pid:
            assert self._nursery.stdout.readline() == "ready\n"
        print(self.port, file=self._nursery.stdin, flush=True)
        self._pid = int(self._nursery.stdout.readline())
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=10).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise TimeoutError(self.address)

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory ends."""
        os.kill(self._pid, signal.SIGKILL)

    def _end(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)  # at worst the zombie of one killed before
        self._nursery.kill()
        self._nursery.communicate()


@functools.cache
def server() -> Server:
    """The session's server; its imports begin with the first call and go on meanwhile."""
    return Server()


def free_port() -> int:
    """A port nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mlflow-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
