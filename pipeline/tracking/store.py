"""Which MLflow store runs go to, how it is opened, and how long it may keep us waiting."""

import fcntl
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

LIVE_SECONDS = 5  # a dead or hanging server may hold a training up for this long, once
FIRST_USE_SECONDS = 120  # a fresh database takes 10 to 20


@dataclass(frozen=True)
class Store:
    """An experiment in an MLflow store; `address` "" is the repository's own mlflow.db.

    `address` never holds a user name or password: it is written into journals and messages.
    """

    root: Path
    experiment: str
    address: str = ""

    @property
    def uri(self) -> str:
        """What MLflow is given; credentials come from MLFLOW_TRACKING_URI if it is the same store."""
        if not self.address:
            return f"sqlite:///{self.root}/mlflow.db"
        given = absolute(os.environ.get("MLFLOW_TRACKING_URI", ""), self.root)
        return given if without_credentials(given) == self.address else self.address

    @property
    def key(self) -> str:
        """Its name in `.sent` files; the own store moves with the repository."""
        return f"{self} {self.experiment}"

    def __str__(self) -> str:
        return self.address or "mlflow.db"


def absolute(uri: str, root: Path) -> str:
    """A relative SQLite path means one below `root`, whatever the working directory is."""
    found = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/].*)", uri)
    return f"{found[1]}{root / found[2]}" if found else uri


def without_credentials(text: str) -> str:
    """`text` without the user:password@ of its addresses."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def current(root: Path, experiment: str | None = None) -> Store:
    """The store that MLFLOW_TRACKING_URI names, else the repository's own."""
    address = without_credentials(absolute(os.environ.get("MLFLOW_TRACKING_URI", ""), root))
    return Store(root, experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "wsol", address)


@contextmanager
def patience(seconds: int, retries: int) -> Iterator[None]:
    """Bound every request to a server; MLflow's own bounds amount to four minutes per call."""
    ours = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _first_use(root: Path) -> Iterator[None]:
    """One process at a time creates the tables of a fresh database: MLflow's own start-up races."""
    with (root / ".mlflow.lock").open("w") as file:
        end = time.monotonic() + FIRST_USE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError(f"{file.name} is held by another process") from None
                time.sleep(0.1)
        yield


@lru_cache
def connect(store: Store) -> "tuple[MlflowClient, str]":
    """A client and the experiment's id, created on first use with artifacts below the root."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations between its own dependencies
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

    local = store.uri.startswith("sqlite")
    with patience(LIVE_SECONDS, 0), _first_use(store.root) if local else nullcontext():
        client = MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)
        experiment = client.get_experiment_by_name(store.experiment)
        if experiment is None:
            # Left to MLflow, a local experiment would keep its artifacts below the working
            # directory, for ever: in a temporary copy of the repository that folder is deleted.
            place = (store.root / "mlartifacts").as_uri() if local else None
            try:
                return client, client.create_experiment(store.experiment, artifact_location=place)
            except MlflowException:  # another machine may have been quicker
                experiment = client.get_experiment_by_name(store.experiment)
                if experiment is None:
                    raise
    return client, experiment.experiment_id


def runs(store: Store, tags: dict[str, str]) -> "list[MlflowRun]":
    """Active runs that carry all `tags`, the newest first."""
    client, experiment = connect(store)
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    return list(client.search_runs([experiment], wanted, order_by=["attributes.start_time DESC"]))


def why(error: BaseException) -> str:
    """The cause on one line, short, without passwords."""
    text = without_credentials(" ".join(str(error).split())) or type(error).__name__
    if found := re.search(r"Connection refused|timed out|Name or service not known", text):
        return found[0]
    return text if len(text) <= 200 else text[:200] + "…"


def is_permanent(error: Exception) -> bool:
    """Whether the store understood what it was told and will never take it, however often it comes."""
    if isinstance(error, FileNotFoundError):
        return True
    if status := getattr(getattr(error, "response", None), "status_code", None):
        return 400 <= status < 500 and status not in (401, 403, 408, 429)
    return getattr(error, "error_code", None) in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
