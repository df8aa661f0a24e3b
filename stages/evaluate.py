"""Read boxes off the trained model's heatmaps and score them: localization.json, tables, curve, maps."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from pipeline import packed, params, tracking
from pipeline.errors import UserError
from pipeline.evaluation import diagnosis, evaluator, logged, results
from pipeline.evaluation.evaluator import Evaluation
from pipeline.evaluation.formats import localization, map_file
from pipeline.localizers.base import Localizer
from pipeline.methods.base import Method
from pipeline.model import localizer as localizers
from pipeline.model import saved
from pipeline.model.output_cache import Kept
from pipeline.model.reader import Reader, resolve
from pipeline.params import CLASS_MAP, Params
from pipeline.runtime import distributed, precision
from pipeline.runtime.devices import pick_device
from stages import entry, sharing
from stages.layout import LOCALIZER, METRICS, MODELS, PREPARED, run_name


def main() -> None:
    settings = precision.resolved(params.load(localizer=True))
    device = pick_device(settings.train.device)
    trained = saved.load(MODELS, device, settings.method_params)
    fitted = None
    if settings.localizer != CLASS_MAP:
        fitted = localizers.load(LOCALIZER, trained.method, settings.localizer)
    meta = packed.read_meta(PREPARED)
    with tracking.Run.find_or_open(
        model_sha256=trained.sha256,
        evaluation_sha256=results.settings_sha256(settings),
        name=run_name(settings),
        params=params.flat(settings),
        tags={"seed": str(settings.seed)},
    ) as run:
        title = run_name(settings)
        evaluated = evaluate(trained.method, settings, METRICS, trained.sha256, title, fitted)
        if not distributed.share().leads:
            return
        test = evaluated.test
        maps = map_file.Maps(test.maps, test.map_low, test.map_high)
        map_file.write(METRICS, packed.Split.open(PREPARED, "test").ids, maps)
        run.dataset(settings.dataset, meta.checksum, f"datasets.{settings.dataset}", "test")
        run.outcome(logged.outcome(METRICS))
        run.model(MODELS, METRICS / localization.FILE, LOCALIZER)


class Evaluated(NamedTuple):
    """The figures of an evaluation, the rows behind them, how boxes were read, and what is kept of it."""

    figures: dict[str, Any]
    test: Evaluation
    reader: Reader
    kept: Kept


def evaluate(
    model: Method,
    settings: Params,
    folder: Path,
    sha256: str,
    title: str,
    localizer: Localizer | None = None,
) -> Evaluated:
    """Score `model` on `test`, with its class map or a fitted `localizer`, and write the tables into `folder`.

    Processes that share the work all know the result; the first one writes it.
    """
    meta = packed.read_meta(PREPARED)
    packed.check_selection(meta, settings.box.selection)
    scoring = evaluator.Scoring.of(settings)
    reader = Reader(model, resolve(settings, model, meta.short_side, localizer), localizer)
    if split := reader.reading.box_rule.chosen_on:
        # The benchmark's thresholds are shares of a map's range, whatever its unit.
        own = reader.reading.unit == "absolute"
        how = replace(scoring, protocol="classic") if own else scoring
        seen = _pass(reader, how, split, sha256, title, settings.evaluate.keep_mib)[0]
        reader = replace(reader, reading=reader.reading.at(evaluator.best_threshold(seen)))
    test, kept = _pass(reader, scoring, "test", sha256, title, settings.evaluate.keep_mib)
    figures = results.summary(
        test,
        settings,
        reader.reading,
        baselines={"centre_box": evaluator.centre_baseline(PREPARED, "test", settings.input)},
        model_sha256=sha256,
    )
    images = packed.Split.open(PREPARED, "test")
    if invalid := {id: meta.invalid_boxes[id] for id in images.ids if id in meta.invalid_boxes}:
        figures["invalid_boxes"] = invalid
    if model.reconstruction:
        figures["reconstruction"] = True
    reading, classes = reader.reading, len(meta.class_names)
    for line in diagnosis.lines(test, reading.side, classes, reading.localizer):
        tqdm.write(f"{title}: {line}")
    if distributed.share().leads:
        results.write(folder, figures, test, images, meta.class_names, settings.input)
    return Evaluated(figures, test, reader, kept)


def _pass(
    reader: Reader, scoring: evaluator.Scoring, split: str, sha256: str, title: str, mib: int
) -> tuple[Evaluation, Kept]:
    total = len(packed.Split.open(PREPARED, split))
    if not total:
        raise UserError(
            f"the {split} split has no images; params.yaml: "
            + ("prepare.val_fraction" if split == "val" else "datasets.*.test_fraction")
            + " decides how many it gets"
        )
    kept = Kept.of(
        *(reader, sha256, PREPARED, split),
        mib=mib,
        say=lambda line: tqdm.write(f"{title}: {split}: {line}"),
    )
    if why := distributed.agreed(kept.missing(reader.outputs)):
        each = reader.passes
        cost = f"{total * each} forward passes, {each} per image" if each > 1 else "forward pass"
        tqdm.write(f"{title}: {split}: {cost} over {total} images: {why}")
    else:
        tqdm.write(f"{title}: {split}: heatmaps kept, no forward pass")
    leads = distributed.share().leads
    with tqdm(total=total, desc=f"{title}: {split}", unit="image", disable=not leads) as bar:
        evaluation = evaluator.evaluate(
            reader,
            PREPARED,
            split,
            scoring,
            kept=kept,
            progress=lambda done, _: bar.update(done - bar.n),
        )
    return evaluation, kept


if __name__ == "__main__":
    sharing.run(main, __doc__, entry.NOTHING_HALF)
