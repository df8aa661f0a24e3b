"""Journal → MLflow.

A journal is delivered from where its `.sent` file says it was left. Delivering twice changes nothing:
runs are found again by tag, MLflow drops a point it has (same key, step, time and value), tags and
artifacts are replaced. So a training's live mirror and a later `track sync` are the same code.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.tracking import journal, store
from pipeline.tracking.journal import Event
from pipeline.tracking.store import Store
from pipeline.tracking.waiting import Caller, Deadline

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as MlflowRun

MODEL = "model.sha256"
EVALUATION = "evaluation.sha256"
PARENT = "mlflow.parentRunId"
PATIENT_SECONDS = 60  # for a request of `wsol track sync`, once the server has answered


class Mirror:
    """Delivers one journal to one store; `refused` collects what the store will never take."""

    def __init__(self, path: Path, target: Store, patient: bool = False) -> None:
        self.path, self.store = path, target
        self.refused: list[str] = []
        self._bounds = (30, 2) if patient else (store.LIVE_SECONDS, 0)
        self._step = PATIENT_SECONDS if patient else store.LIVE_SECONDS
        self._caller, self._deadline = Caller(), Deadline()
        self._run: MlflowRun | None = None
        self._batch: dict[str, list[Any]] = {}

    def deliver(self, seconds: float | None = None) -> int:
        """Send the store every event it does not have; return how many there were.

        Raises StoreError when the store does not answer, for `seconds` (default LIVE_SECONDS) at the
        first contact; what was delivered until then is remembered.
        """
        self._deadline.allow(float("inf"))  # connecting has a bound of its own
        try:
            return self._caller.call(lambda: self._deliver(seconds), self._deadline)
        except Exception as error:
            raise store.unavailable(self.store, error) from error

    def _deliver(self, seconds: float | None) -> int:
        with journal.sent(self.path) as state:
            if state is None:  # a sync is at it
                return 0
            progress = state.setdefault(self.store.key, {"offset": 0})
            self._client, self._experiment = store.connect(self.store, seconds)
            self._deadline.allow(store.LIVE_SECONDS)
            try:
                with store.patience(store.LIVE_SECONDS, 0):
                    self._reopen(progress)
                with store.patience(*self._bounds):
                    delivered = self._deliver_from(progress)
            except Exception as error:
                if store.is_inactive(error):
                    store.check_active(self.store, self._client.get_experiment(self._experiment))
                    raise store.StoreError(
                        f"MLflow ({self.store}): the run was deleted", "restore it there"
                    ) from error
                raise
        shutil.rmtree(journal.files(self.path), ignore_errors=True)
        return delivered

    def _reopen(self, progress: dict[str, Any]) -> None:
        """Find the run of an earlier delivery; one that is gone is delivered anew from the start."""
        if self._run is not None or "run" not in progress:
            return
        try:
            run = self._client.get_run(progress["run"])
        except Exception as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                raise
            run = None
        if run is None or run.info.lifecycle_stage == "deleted":
            progress.clear()
            progress["offset"] = 0
        else:
            self._run = run

    def _deliver_from(self, progress: dict[str, Any]) -> int:
        """Params, tags and points wait until something else comes, or there are many of them."""
        self._batch = {"params": [], "tags": [], "metrics": []}
        delivered, end = 0, progress["offset"]
        for event, end in journal.read(self.path, progress["offset"]):
            delivered += 1
            if event["event"] in self._batch:
                self._collect(event["event"], event)
            else:
                self._send_batch()
                self._apply(event, progress)
            self._deadline.allow(self._step)
            if not any(self._batch.values()) or len(self._batch["metrics"]) >= 1000:
                self._send_batch()
                progress["offset"] = end
        self._send_batch()
        progress["offset"] = end
        return delivered

    def _apply(self, event: Event, progress: dict[str, Any]) -> None:
        """One event that is not batched."""
        kind = event["event"]
        if kind == "open":
            if self._run is None:
                self._run, progress["own"] = self._resolve(event)
                progress["run"] = self._run.info.run_id
            elif progress["own"]:
                self._client.update_run(self._run.info.run_id, status="RUNNING")
            self._collect("params", {"values": event["params"]})
            self._collect("tags", {"values": event["tags"]})
            if found := event.get("provenance"):
                what = "evaluation" if event["match"] else "training"
                self._deadline.allow(store.UPLOAD_SECONDS)
                self._client.log_dict(self._run.info.run_id, found, f"provenance/{what}.json")
            return
        run = self._opened().info.run_id
        try:
            if kind == "end" and progress["own"]:
                self._client.set_terminated(run, event["status"], end_time=event["t"])
            elif kind == "end":  # the run is a training's, and its status the training's
                self._client.set_tag(run, "evaluation.status", event["status"])
            elif kind == "dataset":
                self._log_dataset(run, event)
            else:
                self._deadline.allow(store.UPLOAD_SECONDS)
                with store.patience(store.UPLOAD_SECONDS, self._bounds[1]):
                    self._upload(run, event)
        except Exception as error:
            if not store.is_permanent(error):
                raise
            self.refused.append(f"{kind} {event.get('file', '')}: {store.why(error)}")

    def _opened(self) -> "MlflowRun":
        if self._run is None:
            raise ValueError(f"{self.path}: the first event is no opening")
        return self._run

    # --- which run -------------------------------------------------------------------------------

    def _resolve(self, event: Event) -> "tuple[MlflowRun, bool]":
        """The run to write to, and whether it is this journal's own.

        An evaluation (`match`) continues the newest run of its model that has no figures yet, or
        figures of the same evaluation, and whose params do not say otherwise. Where there is none
        but the model has runs, it gets a sibling below the training's run, with a copy of the
        training's params and curves: no figure is ever replaced by one that means something else.
        """
        if found := store.runs(self.store, {"journal": event["uid"]}):
            return found[0], True
        tags = {**event["tags"], "journal": event["uid"]}
        params: list[Any] = []
        curves: list[Any] = []
        if match := event.get("match"):
            kin = store.runs(self.store, {MODEL: match[MODEL]})
            for run in kin:
                same = run.data.tags.get(EVALUATION) in (None, match[EVALUATION])
                if same and _agrees(run.data.params, event["params"]):
                    return run, False
            if kin:
                parent = next((run for run in kin if PARENT not in run.data.tags), kin[0])
                tags = {**_training_tags(parent), PARENT: parent.info.run_id, **tags}
                params, curves = self._training_of(parent, event)
        run = self._client.create_run(
            self._experiment, start_time=event["t"], tags=tags, run_name=event["name"]
        )
        self._send(run.info.run_id, "params", params)
        self._send(run.info.run_id, "metrics", curves)
        return run, True

    def _training_of(self, parent: "MlflowRun", event: Event) -> tuple[list[Any], list[Any]]:
        """The parent's params that `event` does not set itself, and its training curves."""
        from mlflow.entities import Param

        values = parent.data.params.items()
        params = [Param(key, value) for key, value in values if key not in event["params"]]
        others = ("loc", "curve", "system")
        keys = [key for key in parent.data.metrics if key.split("/")[0] not in others]
        history = self._client.get_metric_history
        return params, [point for key in keys for point in history(parent.info.run_id, key)]

    # --- what is said ----------------------------------------------------------------------------

    def _collect(self, kind: str, event: Event) -> None:
        from mlflow.entities import Metric, Param, RunTag

        tags = event["values"] if kind == "tags" else {}
        if kind == "metrics":
            self._batch["metrics"] += [
                Metric(key, value, event["t"], event["step"])
                for key, value in event["values"].items()
            ]
        if kind == "params":
            known = self._opened().data.params
            new = {key: value for key, value in event["values"].items() if key not in known}
            known.update(new)
            self._batch["params"] += [Param(key, value) for key, value in new.items()]
            # MLflow never changes a param: what a resumed run has changed becomes a tag.
            tags = {f"params.{k}": v for k, v in event["values"].items() if known[k] != v}
        self._batch["tags"] += [RunTag(key, value) for key, value in tags.items()]

    def _send_batch(self) -> None:
        for kind, items in self._batch.items():
            self._send(self._opened().info.run_id, kind, items) if items else None
            items.clear()

    def _send(self, run: str, kind: str, items: Sequence[Any]) -> None:
        """Log `items` in as few requests as MLflow allows; what it refuses is left out alone."""
        size = 1000 if kind == "metrics" else 100
        for start in range(0, len(items), size):
            chunk = list(items[start : start + size])
            try:
                self._client.log_batch(run, **{kind: chunk}, synchronous=True)
            except Exception as error:
                if not store.is_permanent(error):
                    raise
                if len(chunk) == 1:
                    self.refused.append(f"{kind} {chunk[0].key}: {store.why(error)}")
                else:
                    for item in chunk:
                        self._send(run, kind, [item])

    def _log_dataset(self, run: str, event: Event) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.http_dataset_source import HTTPDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        origin = event["source"]
        is_http = origin.startswith(("http://", "https://"))
        source = HTTPDatasetSource(origin) if is_http else CodeDatasetSource({"source": origin})
        data = MetaDataset(source, name=event["name"], digest=event["digest"][:36])  # type: ignore[abstract]
        context = InputTag("mlflow.data.context", event["context"])
        self._client.log_inputs(run, [DatasetInput(data._to_mlflow_entity(), [context])])

    def _upload(self, run: str, event: Event) -> None:
        source = journal.files(self.path) / event["file"]
        if not source.exists():
            raise FileNotFoundError(f"{source} is gone: delivered to another store, or deleted")
        if event["event"] == "model":
            self._upload_model(run, event, source)
        elif source.is_dir():
            self._client.log_artifacts(run, str(source), event["folder"] or None)
        else:
            self._client.log_artifact(run, str(source), event["folder"] or None)

    def _upload_model(self, run: str, event: Event, source: Path) -> None:
        """A saved pyfunc model becomes a logged model of the run, as `mlflow.pyfunc.log_model` does."""
        from mlflow.entities import LoggedModelOutput, Metric
        from mlflow.models import Model

        model = self._logged_model(event["file"])
        if model is None:
            model = self._client.create_logged_model(
                self._experiment,
                name="localizer",
                source_run_id=run,
                tags={MODEL: event["sha256"], "journal.file": event["file"]},
                model_type="localizer",
            )
        described = Model.load(str(source))
        described.model_id = described.model_uuid = model.model_id
        described.run_id = run
        described.artifact_path = model.artifact_location
        described.save(str(source / "MLmodel"))
        self._client.log_model_artifacts(model.model_id, str(source))
        self._client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
        self._client.finalize_logged_model(model.model_id, "READY")
        figures = [key for key in self._client.get_run(run).data.metrics if key.startswith("loc/")]
        points = [self._client.get_metric_history(run, key)[-1] for key in figures]
        linked = [Metric(p.key, p.value, p.timestamp, p.step, model.model_id) for p in points]
        self._send(run, "metrics", linked)

    def _logged_model(self, file: str) -> "LoggedModel | None":
        """The model that an interrupted delivery of the same `file` began."""
        wanted = f"tags.`journal.file` = '{file}'"
        found = self._client.search_logged_models([self._experiment], wanted, max_results=1)
        return found[0] if found else None


def _agrees(known: dict[str, str], given: dict[str, str]) -> bool:
    """Whether no param has two values, but for `train.…`: the weights are the same, byte for byte."""
    return all(
        known.get(key, value) == value
        for key, value in given.items()
        if not key.startswith("train.")
    )


def _training_tags(run: "MlflowRun") -> dict[str, str]:
    """The tags that a sibling takes over: neither MLflow's own nor those of an evaluation."""
    others = ("mlflow.", "evaluation.", "localization.", "journal", "params.")
    return {key: value for key, value in run.data.tags.items() if not key.startswith(others)}
