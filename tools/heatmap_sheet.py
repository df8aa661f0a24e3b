"""The table and the picture of `wsol heatmaps`."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline import packed, params, pictures
from pipeline.evaluation import evaluator, metrics
from pipeline.files import write_csv
from pipeline.loading import placement
from pipeline.model import saved
from pipeline.output_folder import OutputFolder
from pipeline.params import Params
from pipeline.params.settings import HeatmapName
from pipeline.report import galleries, published
from pipeline.runtime import precision
from pipeline.runtime.devices import pick_device
from stages.evaluate import Evaluated, evaluate
from stages.layout import MODELS, PREPARED, run_name


def make(names: Sequence[HeatmapName], out: OutputFolder, images: int) -> None:
    """Evaluate the trained model with each heatmap and replace the folder `out`; print the table."""
    settings = precision.resolved(params.load())
    device = pick_device(settings.train.device)
    trained = saved.load(MODELS, device, settings.method_params)
    rows: list[dict[str, Any]] = []
    seen: dict[str, Evaluated] = {}
    with out.replaced() as partial:
        for name in names:
            own = replace(settings, heatmap=name)
            start = time.perf_counter()
            title = f"{run_name(settings)} {name}"
            seen[name] = evaluate(trained.method, own, partial / name, trained.sha256, title)
            seconds = round(time.perf_counter() - start, 1)
            rows.append({"heatmap": name, **row(seen[name].figures), "seconds": seconds})
        write_csv(partial / "heatmaps.csv", rows, columns())
        chosen = pick(seen, images, settings)
        sheet = strips(seen, chosen, settings)
        pictures.save(partial / "heatmaps.png", sheet)
    print("\n".join(table(rows)))
    print(f"{out.path}/heatmaps.csv, {out.path}/heatmaps.png")


def row(figures: dict[str, Any]) -> dict[str, float]:
    """The figures that depend on the heatmap, as far as there are true boxes."""
    return {name: round(figures[name], 2) for name in columns() if figures.get(name) is not None}


def columns() -> list[str]:
    """Those of heatmaps.csv."""
    names = [metric.name for metric in metrics.brief() if metric.boxed]
    return ["heatmap", *names, "seconds"]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as Markdown."""
    names = columns()
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return lines + [f"| {' | '.join(str(row.get(name, '–')) for name in names)} |" for row in rows]


def pick(seen: dict[str, Evaluated], count: int, settings: Params) -> list[int]:
    """Images drawn at random, classes in turn."""
    any_of = next(iter(seen.values())).test
    return pictures.choose(any_of.iou_predicted, any_of.labels, count, settings.seed)[
        "random"
    ].tolist()


def strips(seen: dict[str, Evaluated], chosen: list[int], settings: Params) -> Any:
    """For each chosen image a row: the photograph, and each heatmap with its box."""
    images = packed.Split.open(PREPARED, "test")
    names = packed.read_meta(PREPARED).class_names
    size = settings.evaluate.batch_size
    maps = {
        name: evaluator.predicted_maps(of.reader, images, chosen, of.kept, size)
        for name, of in seen.items()
    }
    method, first = published.name(settings.method), next(iter(seen.values())).test
    panels = []
    for k, index in enumerate(chosen):
        boxes = placement.boxes_to_image(
            np.concatenate([of.test.boxes_predicted[[index]] for of in seen.values()]),
            (int(images.sizes[index, 0]), int(images.sizes[index, 1])),
            settings.input,
        )
        photograph, in_view, truth = galleries.view(images, index, boxes, settings.input)
        predicted = names[first.top[index, 0]]
        panels.append(
            pictures.strip(
                photograph,
                {name: of[k] for name, of in maps.items()},
                boxes=dict(zip(seen, in_view, strict=True)),
                truth=truth,
                caption=f"{method} · {galleries.class_title(predicted)}",
            )
        )
    return pictures.gallery(panels, 1, f"{method} · Heatmaps")
