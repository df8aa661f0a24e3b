"""Train `method` on `backbone`: models/, metrics/train.json, metrics/epochs.csv. Goes on where it was cut short."""

import sys
import time
from pathlib import Path

from tqdm import tqdm

from pipeline import cache, methods, packed, params, tracking
from pipeline.cache import digest_file
from pipeline.files import write_csv, write_json
from pipeline.methods.base import Method
from pipeline.model import saved
from pipeline.params import Params
from pipeline.runtime import distributed, precision
from pipeline.runtime.devices import pick_device
from pipeline.training import loop
from pipeline.training.checkpoint import Checkpoint, fingerprint
from stages import sharing
from stages.layout import METRICS, MODELS, PREPARED, run_name

STEP_SECONDS = 0.1 if sys.stderr.isatty() else 10.0
"""Time between two shows of the step; a log file gets fewer lines than a terminal."""


def main() -> None:
    meta = packed.read_meta(PREPARED)
    settings = loop.long_enough(precision.resolved(params.load()), meta.counts["train"])
    checkpoint = Checkpoint.of(fingerprint(settings, PREPARED))
    packed.check_selection(meta, settings.box.selection)
    if distributed.share().leads:
        cache.drop_saved("preprocess", PREPARED)
    with tracking.Run.open(
        key=checkpoint.fingerprint,
        name=run_name(settings),
        params=params.flat(settings),
        tags={"seed": str(settings.seed)},
        reopen=checkpoint.weights.exists(),
    ) as run:
        run.dataset(settings.dataset, meta.checksum, f"datasets.{settings.dataset}", "train")
        model, history = trained(settings, checkpoint, run)
        if distributed.share().leads:
            saved.save(MODELS, model, settings, meta.class_names, meta.short_side)
            write_history(METRICS, history)
            run.metrics({f"total/{name}": value for name, value in totals(history).items()})
            run.tag("model.sha256", digest_file(MODELS / "weights.safetensors"))
            run.artifact(METRICS / "epochs.csv", "training")


def trained(
    settings: Params, checkpoint: Checkpoint, run: tracking.Run
) -> tuple[Method, list[loop.Epoch]]:
    """The trained model and its history: from this very training finished before, or by training now."""
    meta = packed.read_meta(PREPARED)
    leads = distributed.share().leads
    finished = checkpoint.finished(tqdm.write) if leads else None
    if (done := distributed.agreed(finished)) is not None:
        state, history = done
        model = methods.build(
            settings.method,
            settings.backbone,
            "none",
            len(meta.class_names),
            settings.method_params,
        )
        model.load_state_dict(state)
        tqdm.write(
            f"{run_name(settings)}: the same training is finished already; its weights are taken"
        )
        for record in history:
            run.metrics(record, step=int(record["epoch"]))
        return model.to(pick_device(settings.train.device)).eval(), history

    title = run_name(settings)
    if leads and (line := checkpoint.begin(settings)):
        tqdm.write(f"{title}: {line}")
    shown = [time.monotonic()]
    with tqdm(total=settings.train.epochs, desc=title, unit="epoch", disable=not leads) as bar:

        def on_resume(epoch: int) -> None:
            tqdm.write(f"{title}: continues after epoch {epoch}, where it was cut short")
            bar.update(epoch)

        def on_step(epoch: int, step: int, steps: int) -> None:
            bar.set_postfix_str(f"epoch {epoch} step {step}/{steps}", refresh=False)
            if time.monotonic() - shown[0] >= STEP_SECONDS:
                shown[0] = time.monotonic()
                bar.refresh()

        def on_epoch(record: loop.Epoch) -> None:
            run.metrics(record, step=int(record["epoch"]))
            bar.update(1)
            val = f"val {record['val_accuracy']:.1f} %, " if "val_accuracy" in record else ""
            bar.set_postfix_str(
                f"loss {record['train_loss']:.3f}, accuracy {record['train_accuracy']:.1f} %, {val}"
                f"{record['images_per_second']:.0f} images/s"
            )

        model, history = loop.train(
            settings,
            PREPARED,
            checkpoint,
            loop.Progress(
                lambda line: tqdm.write(f"{title}: {line}"), on_resume, on_step, on_epoch
            ),
        )
        bar.total = bar.n  # a frozen trunk takes one pass
        bar.refresh()
    if leads:
        checkpoint.finish(model, history)
    distributed.agreed(None)  # no process continues before the weights are there
    return model, history


def totals(history: list[loop.Epoch]) -> dict[str, float]:
    """What the whole training took, as far as it was measured: seconds, device hours, energy."""
    return {
        name: sum(record[name] for record in history)
        for name in ("seconds", "device_hours", "energy_wh")
        if name in history[-1]
    }


def write_history(folder: Path, history: list[loop.Epoch]) -> None:
    """epochs.csv: one row per epoch; train.json: the last one, and what all took together."""
    write_csv(folder / "epochs.csv", history, list(history[-1]))
    write_json(folder / "train.json", {**history[-1], **totals(history)})


if __name__ == "__main__":
    sharing.run(main, __doc__)
