"""MLflow runs for results that came out of the DVC cache without a training or an evaluation here.

Pictures as well: they are drawn after the evaluation, whose run has ended, and from the cache too.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline import params, tables
from pipeline.cache import digest, project_root
from pipeline.evaluation import logged
from pipeline.evaluation.formats import localization
from pipeline.files import read_json
from pipeline.tracking import Run, store
from pipeline.tracking.mirror import MODEL
from pipeline.tracking.sync import Say, sync

LOCK = Path("dvc.lock")
PICTURES = "pictures.sha256"
STAGES = ("preprocess", "train", "evaluate")


def deliver_rest(metrics: Path, models: Path) -> None:
    """What `wsol track sync` does, for a stage: an unreachable store is reported and no failure."""
    if os.environ.get("WSOL_TRACKING") == "off":
        return
    try:
        sync(project_root(), print)
        restore_all(metrics, models, print)
        deliver_pictures(metrics)
    except Exception as error:  # tracking never fails a stage
        print(f"tracking: {error}; later: wsol track sync", file=sys.stderr)


def restore_all(metrics: Path, models: Path, say: Say, *, experiments: bool = False) -> None:
    """Make runs for the workspace's results and, if asked for, for those of all experiments."""
    if restore(Path(), metrics, models, {}):
        say(f"workspace: a run was made for the results in {metrics}/")
    if are_drawn(Path(), metrics):
        deliver_pictures(metrics)
    if experiments:
        for reference, name, baseline in dvc_experiments():
            with tempfile.TemporaryDirectory() as folder:
                origin = {"git.commit": baseline, "dvc.experiment": name}
                try:
                    fetch(reference, metrics, Path(folder))
                    made = restore(Path(folder), metrics, models, origin)
                    if are_drawn(Path(folder), metrics):
                        deliver_pictures(Path(folder) / metrics)
                except OSError as error:
                    say(f"{name}: not in the DVC cache ({error}); fetch it with `dvc exp pull`")
                else:
                    say(f"{name}: {'a run was made' if made else 'has a run, or no results'}")


def restore(folder: Path, metrics: Path, models: Path, origin: dict[str, str]) -> bool:
    """Make runs of the results below `folder` unless the store has them; whether it did.

    Results are known by content: the model's hash and that of localization.json. What they were made
    with is what dvc.lock says, not today's params.yaml; where dvc.lock speaks of other results (a
    stage was interrupted), nothing is made.
    """
    results = metrics / localization.FILE
    if not (folder / results).exists() or not (folder / LOCK).exists():
        return False
    stages = yaml.safe_load((folder / LOCK).read_text(encoding="utf-8")).get("stages", {})
    if not is_locked(folder / results, results, stages):
        return False
    values = read_json(folder / results)
    sha256 = logged.sha256(folder / metrics)
    target = store.current(project_root())
    model = values["model_sha256"]
    if store.runs(target, {MODEL: model, logged.SHA256: sha256}):
        return False
    used = locked_params(stages)
    name = "{method}-{backbone}-{dataset}-s{seed}".format_map(values)
    origin = {**origin, "restored": "from the DVC cache; the times are those of restoring"}
    tags = {"seed": str(values["seed"])}
    epochs = folder / metrics / "epochs.csv"
    if epochs.exists() and not store.runs(target, {MODEL: model}):
        key = f"restored-{model[:24]}"
        with Run.open(key=key, name=name, params=used, tags=tags, origin=origin) as run:
            for row in tables.typed(epochs):
                numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
                run.metrics(numbers, step=int(row["epoch"]))
            run.artifact(epochs, "training")
            run.tag(MODEL, model)
    with Run.find_or_open(
        model_sha256=model,
        evaluation_sha256=values.get("evaluation_sha256", sha256),
        name=name,
        params=used,
        tags=tags,
        origin=origin,
    ) as run:
        run.outcome(logged.outcome(folder / metrics))
        if (folder / models).is_dir():
            run.model(folder / models, folder / results, (folder / models).with_name("localizer"))
    return True


def is_locked(file: Path, output: Path, stages: dict[str, Any], kind: str = "outs") -> bool:
    """Whether `file` is the `output` that dvc.lock speaks of; with `kind` deps, as a dependency."""
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    outputs = (out for stage in stages.values() for out in stage.get(kind, []))
    return any(out["path"] == output.as_posix() and out["md5"] == md5 for out in outputs)


def are_drawn(folder: Path, metrics: Path) -> bool:
    """Whether the pictures below `folder` are of the figures there, by dvc.lock."""
    results = metrics / localization.FILE
    if not (folder / results).exists() or not (folder / LOCK).exists():
        return False
    stages = yaml.safe_load((folder / LOCK).read_text(encoding="utf-8")).get("stages", {})
    stage = {name: of for name, of in stages.items() if name == "report"}
    return is_locked(folder / results, results, stage, "deps")


def deliver_pictures(metrics: Path) -> None:
    """Give the runs that have the figures of `metrics` its pictures, unless they have the same ones.

    Raises StoreError where the store does not answer.
    """
    drawn = sorted((metrics / "pictures").glob("*"))
    if not drawn or not (metrics / localization.FILE).exists():
        return
    target = store.current(project_root())
    own = digest(part for file in drawn for part in (file.name.encode(), file.read_bytes()))
    for run in store.runs(target, {logged.SHA256: logged.sha256(metrics)}):
        if run.data.tags.get(PICTURES) != own:
            store.upload(target, run.info.run_id, metrics / "pictures", {PICTURES: own})


def locked_params(stages: dict[str, Any]) -> dict[str, Any]:
    """The params of the main run's stages by dotted key, as `params.flat` has them."""
    found: dict[str, Any] = {}
    for stage in STAGES:
        for values in stages.get(stage, {}).get("params", {}).values():
            found |= params.leaves(values)
    return {
        key: ",".join(map(str, value)) if isinstance(value, list) else value
        for key, value in found.items()
    }


def dvc_experiments() -> Iterator[tuple[str, str, str]]:
    """Git reference, name and baseline commit of every DVC experiment of this repository."""
    asked = ["git", "for-each-ref", "--format=%(refname)", "refs/exps"]
    for reference in subprocess.run(asked, capture_output=True, text=True).stdout.split():
        # refs/exps/<2 digits of the baseline>/<38 digits>/<name>; others are DVC's own business
        parts = reference.split("/")
        if len(parts) == 5 and len(parts[2] + parts[3]) == 40:
            yield reference, parts[4], parts[2] + parts[3]


def fetch(reference: str, metrics: Path, folder: Path) -> None:
    """Copy an experiment's dvc.lock and metrics out of Git and the DVC cache; OSError if not there."""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(rev=reference)
    for path in (LOCK, metrics):
        if files.exists(path.as_posix()):
            files.get(path.as_posix(), str(folder / path), recursive=True)
