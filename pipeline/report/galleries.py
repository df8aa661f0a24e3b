"""Galleries of an evaluation: its best, its worst and random test images, with heatmap and boxes.

Drawn from what evaluate leaves, per_image.csv and maps.npz, and from the prepared images; no network
is asked. Photographs are shown as the network saw them, in their own proportions.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import packed, pictures
from pipeline.errors import UserError
from pipeline.evaluation.formats import map_file
from pipeline.evaluation.formats.per_image import EDGES
from pipeline.evaluation.runs import Run
from pipeline.files import whole_directory
from pipeline.loading import placement
from pipeline.params import Input
from pipeline.report import published

TITLES = {"best": "Best boxes", "worst": "Worst boxes", "random": "Drawn at random"}


def draw(run: Run, prepared: Path, folder: Path, count: int) -> None:
    """Replace `folder` by the galleries of `run`, each of up to `count` images, as <name>.png."""
    rows, images = list(run.images.values()), packed.Split.open(prepared, "test")
    ids, maps = map_file.read(run.folder)
    if not [row["id"] for row in rows] == ids == images.ids:
        raise UserError(
            f"{run.folder}: per_image.csv and {map_file.NAME} are not of the images in {prepared}; "
            "`dvc repro` makes them anew"
        )
    iou = np.array([float(row["iou_predicted"] or "nan") for row in rows])
    chosen = pictures.choose(iou, images.labels, count, run.values["seed"])
    input = Input(**run.values["reading"]["input"])
    method = published.name(run.values["method"])
    with whole_directory(folder) as partial:
        for name, indices in chosen.items():
            panels = []
            for i in indices.tolist():
                box = np.array([[float(rows[i][edge]) for edge in EDGES]])
                photograph, boxes, truth = view(images, i, box, input)
                caption, note = titles(method, rows[i])
                heatmap = maps.values[i] / np.float32(255)
                panels.append(
                    pictures.panel(photograph, heatmap, boxes[0], truth, caption, note=note)
                )
            if panels:
                sheet = pictures.gallery(panels, 2, f"{method} · {TITLES[name]}")
                pictures.save(partial / f"{name}.png", sheet)


def titles(method: str, row: Mapping[str, str]) -> tuple[str, str]:
    """The line above a test image, `RCAM · Crested Auklet · IoU 0.73`, and a second one with details."""
    caption = [method, class_title(row["predicted"])]
    if row["iou_predicted"]:
        caption.append(f"IoU {float(row['iou_predicted']):.2f}")
    note = [
        f"score {float(row['score']):.0%}",
        f"threshold {float(row['threshold']):.2f}",
        row["id"],
    ]
    if row["predicted"] != row["label"]:
        note.insert(0, f"is {class_title(row['label'])}")
    return " · ".join(caption), " · ".join(note)


def class_title(name: str) -> str:
    """A class's name for people: `Crested Auklet` of CUB's 006.Crested_Auklet."""
    return re.sub(r"^\d+\.(?=.)", "", name).replace("_", " ").strip() or name


def view(
    images: packed.Split, index: int, boxes: np.ndarray, input: Input
) -> tuple[np.ndarray, np.ndarray, Sequence[np.ndarray]]:
    """What the network saw of an image, uint8 [h, w, 3]; in its pixels the `boxes` [n, 4], which are in
    pixels of the original image, and the true ones.
    """
    stored = Image.open(io.BytesIO(images.encoded(index))).convert("RGB")
    size = (stored.height, stored.width)
    shrink = np.array([stored.width, stored.height] * 2) / np.tile(images.sizes[index][::-1], 2)
    grid = np.array([[0, 0, input.crop, input.crop]], np.float32)
    seen = placement.boxes_to_image(grid, size, input)[0].round()
    corner = np.tile(seen[:2], 2)
    return (
        np.asarray(stored.crop(tuple(seen.tolist()))),
        boxes * shrink - corner,
        list(images.boxes[index] * shrink - corner),
    )
