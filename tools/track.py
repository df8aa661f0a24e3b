"""MLflow's runs and the journals behind them: `python -m tools.track status`, `python -m tools.track sync`

sync delivers what a dead server missed, and makes runs for results that came out of the DVC cache
without a training. Twice is as good as once.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline import params
from pipeline.cache import project_root
from pipeline.errors import UserError
from pipeline.evaluation.figures import read_csv
from pipeline.files import read_json
from pipeline.tracking import Run, journal, store
from pipeline.tracking.mirror import MODEL, Mirror
from pipeline.tracking.store import Store
from stages import entry
from stages.layout import METRICS, MODELS

LOCK = Path("dvc.lock")
STAGES = ("preprocess", "train", "evaluate")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("status", help="say what waits for delivery")
    sync_parser = commands.add_parser("sync", help="deliver it")
    sync_parser.add_argument("--to", metavar="URI", help="another MLflow than each run began with")
    sync_parser.add_argument(
        "--again", action="store_true", help="also what was delivered before: a store was lost"
    )
    sync_parser.add_argument(
        "--experiments",
        action="store_true",
        help="make runs for all DVC experiments of this repository, not only for the workspace",
    )
    given = parser.parse_args()
    if given.command == "status":
        status(project_root())
    else:
        sync(project_root(), to=given.to, again=given.again)
        restore_all(given.experiments)


def deliver_rest() -> None:
    """What `sync` does, for a stage: a store that is away is told of, and is no failure."""
    if os.environ.get("WSOL_TRACKING") == "off":
        return
    try:
        sync(project_root())
        restore_all(experiments=False)
    except Exception as error:  # tracking never fails a stage
        print(f"tracking: {error}; later: python -m tools.track sync", file=sys.stderr)


def target_of(path: Path, root: Path, to: str | None = None) -> tuple[Store, str]:
    """The store a journal was last opened for, or `to`, and the run's name."""
    opened = [event for event, _ in journal.read(path) if event["event"] == "open"][-1]
    address = opened["store"] if to is None else store.without_credentials(store.absolute(to, root))
    return Store(root, opened["experiment"], address), opened["name"]


def status(root: Path) -> None:
    """Print one line per journal that has something to deliver."""
    waiting = 0
    for path in journal.all_journals(root):
        target, name = target_of(path, root)
        if events := journal.left(path, target.key):
            waiting += 1
            with journal.unheld(path) as file:
                running = "" if file else ", still running"
            print(f"{name}: {events} events for MLflow ({target}){running}, in {path}")
    print(
        f"waiting: {waiting}; to deliver: python -m tools.track sync"
        if waiting
        else "every run is in MLflow"
    )


def sync(root: Path, *, to: str | None = None, again: bool = False) -> None:
    """Deliver every journal that no living run holds; UserError for each store that does not answer."""
    down: dict[Store, str] = {}
    for path in journal.all_journals(root):
        target, name = target_of(path, root, to)
        if not end_killed(path):
            print(f"{name}: still running; it delivers by itself")
            continue
        if again:
            forget(path, target)
        if target in down or not journal.left(path, target.key):
            continue
        mirror = Mirror(path, target, patient=True)
        try:
            delivered = mirror.deliver()
        except Exception as error:
            down[target] = store.why(error)
            continue
        print(f"{name}: {delivered} events delivered to MLflow ({target})")
        for refused in mirror.refused:
            print(f"{name}: MLflow refused {refused}")
    if down:
        raise UserError(
            [
                f"MLflow ({target}) cannot be reached: {cause}; start it, or name another: "
                "python -m tools.track sync --to URI"
                for target, cause in down.items()
            ]
        )


def end_killed(path: Path) -> bool:
    """End a journal whose process died without a word, at its last word; False if it is alive."""
    with journal.unheld(path) as file:
        if file is None:
            return False
        *_, (last, _) = journal.read(path)
        if last["event"] != "end":
            journal.write(file, {"event": "end", "t": last["t"], "status": "KILLED"})
    return True


def forget(path: Path, target: Store) -> None:
    """Have the whole journal delivered once more."""
    with journal.sent(path) as state:
        if state is not None and target.key in state:
            state[target.key]["offset"] = 0


# --- results without a run: they came out of DVC's cache ------------------------------------------


def restore_all(experiments: bool) -> None:
    """Make runs for the workspace's results and, if asked for, for those of all experiments."""
    if restore(Path(), {}):
        print("workspace: a run was made for the results in metrics/")
    if experiments:
        for reference, name, baseline in dvc_experiments():
            with tempfile.TemporaryDirectory() as folder:
                origin = {"git.commit": baseline, "dvc.experiment": name}
                try:
                    fetch(reference, Path(folder))
                    made = restore(Path(folder), origin)
                except OSError as error:
                    print(f"{name}: not in the DVC cache ({error}); fetch it with `dvc exp pull`")
                else:
                    print(f"{name}: {'a run was made' if made else 'has a run, or no results'}")


def restore(folder: Path, origin: dict[str, str]) -> bool:
    """Make runs of the results below `folder` unless the store has them; whether it did.

    Results are known by content: the model's hash and that of localization.json. What they were made
    with is what dvc.lock says, not today's params.yaml; where dvc.lock speaks of other results (a
    stage was interrupted), nothing is made.
    """
    localization = folder / METRICS / "localization.json"
    if not localization.exists() or not (folder / LOCK).exists():
        return False
    stages = yaml.safe_load((folder / LOCK).read_text(encoding="utf-8")).get("stages", {})
    if not is_locked(localization, METRICS / "localization.json", stages):
        return False
    values = read_json(localization)
    digest = hashlib.sha256(localization.read_bytes()).hexdigest()
    target = store.current(project_root())
    model = values["model_sha256"]
    if store.runs(target, {MODEL: model, "localization.sha256": digest}):
        return False
    used = locked_params(stages)
    name = "{method}-{backbone}-{dataset}-s{seed}".format_map(values)
    origin = {**origin, "restored": "from the DVC cache; the times are those of restoring"}
    tags = {"seed": str(values["seed"])}
    epochs = folder / METRICS / "epochs.csv"
    if epochs.exists() and not store.runs(target, {MODEL: model}):
        key = f"restored-{model[:24]}"
        with Run.open(key=key, name=name, params=used, tags=tags, origin=origin) as run:
            for row in read_csv(epochs):
                numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
                run.metrics(numbers, step=int(row["epoch"]))
            run.artifact(epochs, "training")
            run.tag(MODEL, model)
    with Run.find_or_open(
        model_sha256=model,
        evaluation_sha256=values.get("evaluation_sha256", digest),
        name=name,
        params=used,
        tags=tags,
        origin=origin,
    ) as run:
        run.evaluation(folder / METRICS)
        if (folder / MODELS).is_dir():
            run.model(folder / MODELS, localization)
    return True


def is_locked(file: Path, output: Path, stages: dict[str, Any]) -> bool:
    """Whether `file` is the `output` that dvc.lock speaks of."""
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    outputs = (out for stage in stages.values() for out in stage.get("outs", []))
    return any(out["path"] == output.as_posix() and out["md5"] == md5 for out in outputs)


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


def fetch(reference: str, folder: Path) -> None:
    """Copy an experiment's dvc.lock and metrics out of Git and the DVC cache; OSError if not there."""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(rev=reference)
    for path in (LOCK, METRICS):
        if files.exists(path.as_posix()):
            files.get(path.as_posix(), str(folder / path), recursive=True)


if __name__ == "__main__":
    entry.run(main)
