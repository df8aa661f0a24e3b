"""Which MLflow store runs go to, how it is opened, and how long it may keep us waiting."""

import fcntl
import logging
import os
import re
import shlex
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from pipeline.errors import UserError
from pipeline.tracking.waiting import Caller, Deadline

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

HOLD_SECONDS = 5.0  # in all, that a dead or hanging store may hold a training up
LIVE_SECONDS = 4  # of these, for the first contact; the rest is for another try at the end
LOCK_SECONDS = 2  # to wait for a database that another process writes
NOTE = "mlflow.note.content"
DESCRIPTION = (
    "Boxes learned from image labels: a run per experiment (dataset, method, backbone, seed). `loc/…` are "
    "localization errors and accuracies in percent; artifacts hold tables, curves and pictures."
)
UPLOAD_SECONDS = 120  # a server may take its time with a large file
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
            return sqlite_uri(self.root / "mlflow.db")
        given = absolute(os.environ.get("MLFLOW_TRACKING_URI", ""), self.root)
        return given if without_credentials(given) == self.address else self.address

    @property
    def file(self) -> Path | None:
        """The SQLite file, if it is one."""
        found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", self.uri)
        return Path(unquote(found[1])) if found and found[1] != ":memory:" else None

    @property
    def key(self) -> str:
        """Its name in `.sent` files; the own store moves with the repository."""
        return f"{self} {self.experiment}"

    def __str__(self) -> str:
        return self.address or "mlflow.db"


def absolute(uri: str, root: Path) -> str:
    """A relative SQLite path means one below `root`, whatever the working directory is."""
    found = re.fullmatch(r"sqlite(\+\w+)?:///([^/].*)", uri)
    if not found:
        return uri
    scheme, _, place = sqlite_uri(root).partition(":")
    return f"{f'sqlite{found[1]}' if found[1] else scheme}:{place}/{found[2]}"


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite file whatever its path holds: ?, #, %, spaces, other scripts.

    An escaped path goes with the driver's name: without it MLflow makes folders for the path as it is
    spelled in the address.
    """
    escaped = quote(path.as_posix())
    return f"sqlite{'' if escaped == path.as_posix() else '+pysqlite'}:///{escaped}"


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


class StoreError(UserError):
    """The store cannot be used now: what is wrong with it, and what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(f"{problem}; {remedy}")


def unavailable(store: Store, error: BaseException) -> StoreError:
    """`error`, which using `store` has raised, for people."""
    if isinstance(error, StoreError):
        return error
    return StoreError(
        f"MLflow ({store}) cannot be reached: {why(error)}",
        "start it, or name another: wsol track sync --to URI",
    )


_connected: "dict[Store, tuple[MlflowClient, str]]" = {}


def connect(store: Store, seconds: float | None = None) -> "tuple[MlflowClient, str]":
    """A client and the experiment's id, created on first use with artifacts below the root.

    Raises StoreError after `seconds` (default LIVE_SECONDS) at most; a fresh database may take
    FIRST_USE_SECONDS.
    """
    if store not in _connected:
        _load_client()
        try:
            fresh = store.file is not None and not _is_usable(store.file, store.experiment)
            limit = FIRST_USE_SECONDS if fresh else LIVE_SECONDS if seconds is None else seconds
            opened = Caller().call(lambda: _open(store, fresh), Deadline(limit))
        except Exception as error:
            raise unavailable(store, error) from error
        _connected[store] = opened
    return _connected[store]


def disconnect() -> None:
    """Forget all clients."""
    _connected.clear()


def _load_client() -> None:
    """Import MLflow, which takes seconds that are no server's fault."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations between its own dependencies
        import mlflow.store.tracking.sqlalchemy_store
        import mlflow.tracking  # noqa: F401


def _is_usable(file: Path, experiment: str) -> bool:
    """Whether the database has the experiment, and so its tables; False if it is yet to be made.

    Raises StoreError if it cannot be opened: MLflow would try for minutes.
    """
    if not file.exists():
        return False
    try:
        address = f"{file.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=LOCK_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")  # refused where it is locked or read-only
            database.execute("ROLLBACK")
            tables = "SELECT 1 FROM sqlite_master WHERE name = 'experiments'"
            named = "SELECT 1 FROM experiments WHERE name = ?"
            return bool(
                database.execute(tables).fetchone()
                and database.execute(named, (experiment,)).fetchone()
            )
    except sqlite3.Error as error:
        remedy = (
            "end the process that holds it"
            if "locked" in str(error)
            else "check who may write it, or move it away: `wsol track sync --again` fills a new one"
        )
        raise StoreError(f"{file} cannot be opened: {error}", remedy) from error


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


def _open(store: Store, fresh: bool) -> "tuple[MlflowClient, str]":
    """A client and the experiment's id; StoreError if the experiment was deleted."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    with patience(LIVE_SECONDS, 0), _first_use(store.root) if fresh else nullcontext():
        client = MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)
        experiment = client.get_experiment_by_name(store.experiment)
        if experiment is None:
            # Left to MLflow, a local experiment would keep its artifacts below the working
            # directory, for ever: in a temporary copy of the repository that folder is deleted.
            place = (store.root / "mlartifacts").as_uri() if store.file else None
            try:
                made = client.create_experiment(store.experiment, place, {NOTE: DESCRIPTION})
                if fresh:
                    _drop_default(client)
                return client, made
            except MlflowException:  # another machine may have been quicker
                experiment = client.get_experiment_by_name(store.experiment)
                if experiment is None:
                    raise
        check_active(store, experiment)
    return client, experiment.experiment_id


def _drop_default(client: "MlflowClient") -> None:
    """Delete the empty experiment that MLflow makes with a database."""
    default = client.get_experiment_by_name("Default")
    if default and not client.search_runs([default.experiment_id], max_results=1):
        client.delete_experiment(default.experiment_id)


def check_active(store: Store, experiment: "Experiment") -> None:
    """Raise StoreError if the experiment was deleted; MLflow's pages delete it and cannot restore it."""
    if experiment.lifecycle_stage == "deleted":
        uri = shlex.quote(without_credentials(store.uri))
        raise StoreError(
            f"MLflow ({store}): the experiment {store.experiment!r} was deleted",
            f"restore it: MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}, or set MLFLOW_EXPERIMENT_NAME to another name",
        )


def runs(store: Store, tags: dict[str, str]) -> "list[MlflowRun]":
    """Active runs that carry all `tags`, the newest first; StoreError if the store is not."""
    client, experiment = connect(store)
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())

    def search() -> "list[MlflowRun]":
        with patience(LIVE_SECONDS, 0):
            order = ["attributes.start_time DESC"]
            return list(client.search_runs([experiment], wanted, order_by=order))

    try:
        return Caller().call(search, Deadline(LIVE_SECONDS))
    except Exception as error:
        raise unavailable(store, error) from error


def upload(store: Store, run: str, folder: Path, tags: dict[str, str]) -> None:
    """Log a folder as an artifact of its name, then set `tags`; StoreError if the store is not there."""
    client, _ = connect(store)

    def send() -> None:
        with patience(UPLOAD_SECONDS, 0):
            client.log_artifacts(run, str(folder), folder.name)
            for key, value in tags.items():
                client.set_tag(run, key, value)

    try:
        Caller().call(send, Deadline(UPLOAD_SECONDS))
    except Exception as error:
        raise unavailable(store, error) from error


def why(error: BaseException) -> str:
    """The cause on one line, short, without passwords."""
    text = without_credentials(" ".join(str(error).split())) or type(error).__name__
    if found := re.search(r"Connection refused|timed out|Name or service not known", text):
        return found[0]
    return text if len(text) <= 200 else text[:200] + "…"


def is_inactive(error: Exception) -> bool:
    """Whether the run or its experiment was deleted, which can be undone."""
    return "must be in the 'active' state" in str(error)


def is_permanent(error: Exception) -> bool:
    """Whether the store understood what it was told and will never take it, however often it comes."""
    if isinstance(error, FileNotFoundError):
        return True
    if is_inactive(error):
        return False
    if status := getattr(getattr(error, "response", None), "status_code", None):
        return 400 <= status < 500 and status not in (401, 403, 408, 429)
    return getattr(error, "error_code", None) in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
