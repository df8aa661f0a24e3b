"""The only module that stages use to reach MLflow; it never raises into the training.

    with tracking.Run.open(key=fingerprint, name="cam-vgg16-cub-s0", params=flat, tags={}) as run:
        run.metrics({"train_loss": 1.2}, step=1)
        run.tag("model.sha256", digest)

Everything is written to a journal on disk first and mirrored to MLflow as it comes. A store that does
not answer is waited for no more than five seconds in all, reported once, and tried once more at the
end; `wsol track sync` delivers the rest. No method of a run raises.
"""

import functools
import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Concatenate, ParamSpec

from pipeline.cache import project_root
from pipeline.tracking import provenance, serving, store
from pipeline.tracking.journal import Journal, now
from pipeline.tracking.mirror import EVALUATION, MODEL, Mirror
from pipeline.tracking.system_metrics import Sampler

P = ParamSpec("P")
Guarded = Callable[Concatenate["Run", P], None]


def _never_raises(method: Guarded[P]) -> Guarded[P]:
    """Say what went wrong and go on; do nothing in a forked child, which inherits the run."""

    @functools.wraps(method)
    def guarded(self: "Run", /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self._process == os.getpid() and self._journal is not None:
            try:
                method(self, *args, **kwargs)
            except Exception as error:
                self._say(
                    f"{method.__name__}: {type(error).__name__}: {store.why(error)}; left out"
                )

    return guarded


@dataclass(frozen=True)
class Outcome:
    """What an evaluation hands over to be logged."""

    figures: Mapping[str, float | None]
    description: str  # Markdown
    tables: Mapping[str, Sequence[Mapping[str, Any]]]  # by the .json file that MLflow's pages show
    files: Sequence[tuple[Path, str]]  # a file or a folder's content, and the folder it goes to
    tags: Mapping[str, str]


class Run:
    """One run: a journal, and its mirror in MLflow as long as that answers.

    A context manager: the run ends FINISHED, FAILED on an exception, KILLED on SIGTERM or Ctrl-C.
    With WSOL_TRACKING=off in the environment nothing is written anywhere.
    """

    def __init__(
        self,
        key: str,
        opening: Mapping[str, Any],
        *,
        experiment: str | None,
        reopen: bool = False,
        is_sampled: bool = False,
        is_live: bool = True,
    ) -> None:
        """Begin or continue the journal of `key`; stages call `open` or `find_or_open`."""
        self._process = os.getpid()
        self._is_live = is_live
        self._journal: Journal | None = None
        self._said: set[str] = set()
        self._is_down = self._is_terminated = False
        self._patience = store.HOLD_SECONDS
        self._tables: list[dict[str, str]] = []
        self._again = provenance.again(opening["provenance"])
        self._sampler = Sampler(self._sample, self._unwatched) if is_sampled else None
        if os.environ.get("WSOL_TRACKING") == "off":
            return
        try:
            root = project_root()
            self._journal = Journal(root, key, reopen)
        except OSError as error:  # a full or read-only disk
            self._say(f"nothing of this run is kept: {error}")
            return
        self._store = store.current(root, experiment)
        self._mirror = Mirror(self._journal.path, self._store)
        events = self._journal.events
        self._began: int = events[0]["t"] if events else now()
        self._logged = {
            (key, event["step"]): value
            for event in events
            if event["event"] == "metrics"
            for key, value in event["values"].items()
        }
        self._open(opening)

    @_never_raises
    def _open(self, opening: Mapping[str, Any]) -> None:
        journal, target = self._held(), self._store
        place = {"store": target.address, "experiment": target.experiment}
        params, tags = (_texts(opening[kind]) for kind in ("params", "tags"))
        journal.append(
            "open", uid=journal.uid, **place, **{**opening, "params": params, "tags": tags}
        )
        self._deliver()

    @classmethod
    def open(
        cls,
        *,
        key: str,
        name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        description: str | None = None,
        experiment: str | None = None,
        reopen: bool = False,
        origin: Mapping[str, str] | None = None,
        live: bool = True,
    ) -> "Run":
        """A training's run, named by its fingerprint `key`.

        The same key again continues the run if that has not finished (a resumed training), else
        begins another. reopen: continue a finished one as well (its training is not repeated);
        points it has already are not logged twice. origin: where the run comes from, if that is not
        this process; then this machine is not watched either. live: False only keeps the journal, for
        short runs that should not wait for MLflow; the stage `report` delivers them.
        """
        here = provenance.here() if origin is None else dict(origin)
        shown = provenance.mlflow_tags(here, description)
        tags = {**provenance.tags(here), **shown, "training.key": key, **tags}
        opening = {"name": name, "params": params, "tags": tags, "match": None, "provenance": here}
        return cls(
            key,
            opening,
            experiment=experiment,
            reopen=reopen,
            is_sampled=live and origin is None,
            is_live=live,
        )

    @classmethod
    def find_or_open(
        cls,
        *,
        model_sha256: str,
        evaluation_sha256: str,
        name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        experiment: str | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> "Run":
        """An evaluation's run: that of the training which tagged itself `model.sha256`, or a new one.

        evaluation_sha256: fingerprint of the settings that decide the figures. A run that has
        figures of other settings, or other params, is left as it is; this evaluation then gets a
        sibling below it, with a copy of the training's params and curves. The training's status and
        times stay as they are; how the evaluation ended is the tag `evaluation.status`.
        """
        match = {MODEL: model_sha256, EVALUATION: evaluation_sha256}
        here = provenance.here() if origin is None else dict(origin)
        key = hashlib.sha256("".join(match.values()).encode()).hexdigest()[:32]
        tags = {**match, **tags}
        opening = {"name": name, "params": params, "tags": tags, "match": match, "provenance": here}
        return cls(f"evaluation-{key}", opening, experiment=experiment)

    # --- what a stage says -----------------------------------------------------------------------

    @_never_raises
    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Log numbers of one step; None is left out, and so is a point logged before (a resumed run)."""
        self._note(values, step)
        self._deliver()

    @_never_raises
    def params(self, values: Mapping[str, object]) -> None:
        """Log settings."""
        self._held().append("params", values=_texts(values))
        self._deliver()

    @_never_raises
    def tag(self, key: str, value: object) -> None:
        """Set a tag."""
        self._held().append("tags", values=_texts({key: value}))
        self._deliver()

    @_never_raises
    def artifact(self, path: Path, folder: str = "") -> None:
        """Log a file, or a folder's content, into `folder`."""
        self._held().append("artifact", file=self._held().keep(path), folder=folder)
        self._deliver()

    @_never_raises
    def table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Log rows with equal keys as the table `file` (.json), which MLflow's pages can show."""
        target = self._held().slot(Path(file).name)
        columns = list(rows[0]) if rows else []
        data = [[row[column] for column in columns] for row in rows]
        target.write_text(json.dumps({"columns": columns, "data": data}), encoding="utf-8")
        folder = Path(file).parent.as_posix().removeprefix(".")
        self._held().append("artifact", file="/".join(target.parts[-2:]), folder=folder)
        self._tables.append({"path": file, "type": "table"})
        self.tag("mlflow.loggedArtifacts", json.dumps(self._tables))

    @_never_raises
    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Log what the run has read: `source` is an http address or a word, `context` train or test."""
        self._held().append("dataset", name=name, digest=digest, source=source, context=context)
        self._deliver()

    @_never_raises
    def model(self, models: Path, localization: Path, localizer: Path) -> None:
        """Log the model as `mlflow.pyfunc.load_model` loads it: weights, code, signature, requirements."""
        target = self._held().slot("model")
        serving.save(target, models, localization, localizer)
        with (models / "weights.safetensors").open("rb") as weights:
            sha256 = hashlib.file_digest(weights, "sha256").hexdigest()
        self._held().append("model", file="/".join(target.parts[-2:]), sha256=sha256)
        self._deliver()

    @_never_raises
    def outcome(self, outcome: "Outcome") -> None:
        """Log what an evaluation found; the description stands above how to run it again."""
        self._note(outcome.figures, 0)
        self.tag("mlflow.note.content", f"{outcome.description}\n\n{self._again}".rstrip())
        for file, rows in outcome.tables.items():
            self.table(rows, file)
        for path, folder in outcome.files:
            if path.exists():
                self.artifact(path, folder)
        for key, value in outcome.tags.items():
            self.tag(key, value)

    # --- beginning and end -----------------------------------------------------------------------

    def __enter__(self) -> "Run":
        self._before: Any = signal.getsignal(signal.SIGTERM)
        is_main = threading.current_thread() is threading.main_thread()
        self._is_listening = is_main and self._before not in (signal.SIG_IGN, None)
        if self._is_listening:
            signal.signal(signal.SIGTERM, self._on_sigterm)
        if self._sampler and self._journal:
            self._sampler.start()
        return self

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        """Leave by the ordinary way, so that every `with` and `finally` on it is run."""
        self._is_terminated = True
        if callable(self._before):
            self._before(signum, frame)
        raise SystemExit(128 + signum)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_listening:
            signal.signal(signal.SIGTERM, self._before)
        stopped = self._is_terminated or isinstance(error, KeyboardInterrupt)
        self._close("KILLED" if stopped else "FAILED" if kind else "FINISHED")

    @_never_raises
    def _close(self, status: str) -> None:
        if self._sampler:
            self._sampler.stop()
        self._held().append("end", status=status)
        self._deliver(last=True)
        self._held().close()
        self._journal = None

    # --- journal and mirror ----------------------------------------------------------------------

    def _held(self) -> Journal:
        if self._journal is None:
            raise ValueError("the run has ended")
        return self._journal

    def _note(self, values: Mapping[str, float | None], step: int) -> None:
        points = {_name(key): float(value) for key, value in values.items() if value is not None}
        new = {key: v for key, v in points.items() if self._logged.get((key, step)) != v}
        self._logged.update({(key, step): value for key, value in new.items()})
        if new:
            self._held().append("metrics", step=step, values=new)

    def _sample(self, values: Mapping[str, float]) -> None:
        """System metrics, from another thread: into the journal only. A step is a second of the run."""
        named = {f"system/{key}": value for key, value in values.items()}
        self._held().append("metrics", step=(now() - self._began) // 1000, values=named)

    def _unwatched(self, error: Exception) -> None:
        self._say(f"no more system metrics: {store.why(error)}")

    def _deliver(self, last: bool = False) -> None:
        if not self._is_live or (self._is_down and not last):
            return
        start = time.monotonic()
        try:
            self._mirror.deliver(None if not self._is_down else max(0.2, self._patience))
        except Exception as error:
            self._patience -= time.monotonic() - start
            if not self._is_down:
                cause = store.unavailable(self._store, error)
                remedy = f"; {cause.remedy}" if "cannot be reached" not in cause.problem else ""
                self._say(
                    f"{cause.problem}{remedy}. The run continues and is kept in {self._held().path}; to "
                    "deliver it later: wsol track sync"
                )
            self._is_down = True
        else:
            if self._is_down:
                self._say(f"MLflow ({self._store}) answers again; everything is delivered")
            self._is_down = False
        while self._mirror.refused:
            self._say(f"MLflow refused {self._mirror.refused.pop(0)}")

    def _say(self, message: str) -> None:
        """On standard error, each message once."""
        if message not in self._said:
            self._said.add(message)
            print(f"tracking: {message}", file=sys.stderr, flush=True)


def _name(key: str) -> str:
    """MLflow's names allow letters, digits and `_-. :/` only."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    """Params or tags as MLflow stores them."""
    return {_name(key): str(value)[:6000] for key, value in values.items()}
