"""One ablation variant: train and evaluate the params with one change. `python -m stages.ablate methods-ass`"""

import argparse
from contextlib import nullcontext
from pathlib import Path

from pipeline import params
from pipeline.files import whole_directory, write_json
from pipeline.params import Params
from stages import entry
from stages.layout import ABLATION, PREPARED, run_name


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.ablate", description=__doc__)
    parser.add_argument("variant", help="a key of ablate.variants in params.yaml")
    key: str = parser.parse_args().variant
    ablate = params.load_ablate()
    if key in ablate.variants and not ablate.runs(key):
        switch = f"ablate.{ablate.variants[key].when}"
        with whole_directory(ABLATION / key) as partial:
            write_json(partial / "localization.json", {"run": False, "when": switch})
        print(f"{key}: not run, since {switch} is false in params.yaml")
        return
    # Not at the top: a variant that is not run should not wait for torch.
    from stages import sharing

    sharing.run(lambda: run(key, params.variant(key)))


def run(key: str, settings: Params) -> None:
    """Train (or take the same training finished before) and evaluate; write metrics/ablation/<key>/."""
    from pipeline import packed, tracking
    from pipeline.cache import digest, digest_file
    from pipeline.runtime import distributed, precision
    from pipeline.training.checkpoint import Checkpoint, fingerprint
    from stages.evaluate import evaluate
    from stages.train import trained, write_history

    settings = precision.resolved(settings)
    checkpoint = Checkpoint.of(fingerprint(settings, PREPARED))
    leads = distributed.share().leads
    meta = packed.read_meta(PREPARED)
    packed.check_selection(meta, settings.box.selection)
    identity = [
        checkpoint.fingerprint.encode(),
        key.encode(),
        settings.box.model_dump_json().encode(),
    ]
    with (
        tracking.Run.open(
            key=digest(identity)[:32],
            name=f"{key}: {run_name(settings)}",
            params=params.flat(settings),
            tags={"seed": str(settings.seed), "ablation": key},
            live=False,
        ) as tracked,
        whole_directory(ABLATION / key) if leads else nullcontext(Path()) as partial,
    ):
        tracked.dataset(settings.dataset, meta.checksum, f"datasets.{settings.dataset}", "train")
        model, history = trained(settings, checkpoint, tracked)
        if leads:
            write_history(partial, history)
        sha256 = digest_file(checkpoint.weights)
        evaluate(model, settings, partial, sha256, key)
        if leads:
            tracked.evaluation(partial)


if __name__ == "__main__":
    entry.run(main)
