"""Ablation variants: train and evaluate the params with one change each. `python -m stages.ablate core`"""

import argparse
from contextlib import nullcontext
from pathlib import Path

from pipeline import packed, params, tracking
from pipeline.cache import digest, digest_file
from pipeline.evaluation import logged
from pipeline.files import whole_directory
from pipeline.model.localizer import load
from pipeline.params import Params
from pipeline.runtime import distributed, precision
from pipeline.training.checkpoint import Checkpoint, fingerprint
from pipeline.training.loop import long_enough
from stages import sharing
from stages.evaluate import evaluate
from stages.layout import ABLATION, PREPARED, run_name
from stages.localize import fitted
from stages.train import trained, write_history


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.ablate", description=__doc__)
    parser.add_argument(
        "name", help="a variant, a study, core or all: a name that ablate.run may hold"
    )
    name: str = parser.parse_args().name
    sharing.run(lambda: run_all(name))


def run_all(name: str) -> None:
    """Run the variants that `name` stands for; write metrics/ablation/<name>/<variant>/."""
    keys = params.load_ablate().asked(name)
    if not keys:
        params.variant(name)  # raises: unknown
    leads = distributed.share().leads
    with whole_directory(ABLATION / name) if leads else nullcontext(Path()) as partial:
        for number, key in enumerate(keys, 1):
            print(f"{key} ({number} of {len(keys)})", flush=True)
            if leads:
                (partial / key).mkdir()
            run(key, params.variant(key), partial / key)


def run(key: str, settings: Params, folder: Path) -> None:
    """Train (or take the same training finished before) and evaluate one variant into `folder`."""
    meta = packed.read_meta(PREPARED)
    settings = long_enough(precision.resolved(settings), meta.counts["train"])
    checkpoint = Checkpoint.of(fingerprint(settings, PREPARED))
    leads = distributed.share().leads
    packed.check_selection(meta, settings.box.selection)
    identity = [
        checkpoint.fingerprint.encode(),
        key.encode(),
        settings.box.model_dump_json().encode(),
        settings.localizer.encode(),
    ]
    with tracking.Run.open(
        key=digest(identity)[:32],
        name=f"{key}: {run_name(settings)}",
        params=params.flat(settings),
        tags={"seed": str(settings.seed), "ablation": key},
        live=False,
    ) as tracked:
        tracked.dataset(settings.dataset, meta.checksum, f"datasets.{settings.dataset}", "train")
        model, history = trained(settings, checkpoint, tracked)
        if leads:
            write_history(folder, history)
        sha256 = digest_file(checkpoint.weights)
        # One process fits; the others take what it has left.
        state = distributed.agreed(fitted(model, sha256, settings, key) if leads else None)
        localizer = load(state, model) if state else None
        evaluate(model, settings, folder, sha256, key, localizer)
        if leads:
            tracked.outcome(logged.outcome(folder))


if __name__ == "__main__":
    main()
