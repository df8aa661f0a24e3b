"""Score anybody's heatmaps against boxes, and masks: MaxBoxAcc, MaxBoxAccV2, GT-known error, PxAP.

wsol score --maps maps --boxes boxes.csv --protocol wsoleval --out scores.json

boxes.csv: image_id,x0,y0,x1,y1,width,height in pixels, a line per box (coordinates left empty: an
image without a box). maps/<image_id>.npy: one array (height, width), of any size. masks/<image_id>.png:
nonzero on the object; <image_id>_ignore.png: nonzero where pixels are not counted.

classic    boxes are half-open edges; maps are resized (bilinear) to the image, scaled from their
           minimum and maximum to 0 … 1; a pixel is on if value ≥ threshold; the largest component has
           most pixels.
wsoleval   the conventions of clovaai/wsolevaluation, bit for bit, on its grid of 224 × 224; boxes are
           the numbers of its lists. A map of 224 × 224 is scored as it is and must be in 0 … 1; maps
           of other sizes are resized (bicubic) and scaled from their minimum and maximum.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline import tables
from pipeline.errors import UserError
from pipeline.evaluation.formats import localization, per_image, threshold_curve
from pipeline.files import write_json
from pipeline.raw import coordinates

if TYPE_CHECKING:
    from pipeline.evaluation.saved_maps import Truth

AT_ONCE = 64  # images in memory, fewer where their grids are larger than
PIXELS = 2**26  # in all


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--maps", type=Path, required=True, help="folder of <image_id>.npy")
    parser.add_argument("--boxes", type=Path, required=True, help="boxes.csv")
    parser.add_argument("--masks", type=Path, help="folder of <image_id>.png; adds PxAP")
    parser.add_argument("--protocol", choices=["classic", "wsoleval"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="scores.json to write")
    parser.add_argument("--per-image", type=Path, help="also write id,iou_true as CSV, for compare")
    parser.add_argument(
        "--size", type=int, help="classic: score on a grid of SIZE × SIZE, not in image pixels"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.2, help="of the GT-known error (default %(default)s)"
    )
    parser.add_argument(
        "--thresholds", type=int, default=1000, help="0, 1/N, … of the curve (default %(default)s)"
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="resamples (default %(default)s; 0: none)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the resamples (default %(default)s)"
    )


def main(options: argparse.Namespace) -> None:
    check(options)
    from pipeline.evaluation import saved_maps  # loads torch

    truth = saved_maps.read_boxes(options.boxes)
    if warning := coordinates.percent_suspected(
        [of.boxes for of in truth.values()], np.array([of.size for of in truth.values()])
    ):
        tqdm.write(f"{options.boxes}: {warning}", file=sys.stderr)
    saved_maps.check_present(options.maps, options.masks, list(truth), options.boxes)

    from pipeline.evaluation import map_scores

    thresholds = np.arange(options.thresholds) / options.thresholds
    images = list(truth.items())
    parts: list[map_scores.Measured] = []
    problems: list[str] = []
    with tqdm(total=len(images), desc="score", unit="image") as bar:
        step = at_once([of for _, of in images], options)
        for start in range(0, len(images), step):
            batch = images[start : start + step]
            maps, masks = load(batch, options, problems)
            if not problems:  # else only look for more of them
                truths = [of for _, of in batch]
                parts.append(
                    map_scores.measure(
                        maps,
                        truths,
                        masks,
                        options.protocol,
                        options.size,
                        options.threshold,
                        thresholds,
                    )
                )
            bar.update(len(batch))
    tables.raise_if_any(problems)
    measured = map_scores.Measured.concatenate(parts)
    curve = threshold_curve.columns(measured.scored, thresholds)
    figures = map_scores.figures(measured, bootstrap=options.bootstrap, seed=options.seed)
    write_json(
        options.out,
        {
            "protocol": options.protocol,
            "n": len(images),
            "n_boxes": int((~np.isnan(measured.fixed)).sum()),
            "size": options.size or (224 if options.protocol == "wsoleval" else "image"),
            "threshold": options.threshold,
            "bootstrap": options.bootstrap,
            "seed": options.seed,
            **localization.of_figures(figures),
            "curve": {name: column.tolist() for name, column in curve.items()},
        },
    )
    if options.per_image:
        rows = [
            per_image.Row(id=image, iou_true="" if np.isnan(iou) else f"{iou:.6f}")
            for image, iou in zip(truth, measured.fixed, strict=True)
        ]
        per_image.write(options.per_image, rows)
    print(f"{len(images)} images, {options.protocol}; percent, 95 % interval over images")
    for metric in map_scores.table():
        if (of := figures.get(metric.name)) is not None:
            print(f"{metric.title:30}{of.value:7.2f}  {of.low:.2f} … {of.high:.2f}")


def check(options: argparse.Namespace) -> None:
    """UserError for numbers outside their range."""
    if options.thresholds < 1 or options.bootstrap < 0 or not 0 <= options.threshold < 1:
        raise UserError(
            f"--thresholds is {options.thresholds}, --bootstrap {options.bootstrap}, --threshold "
            f"{options.threshold}; allowed: 1 or more, 0 or more, in [0, 1)"
        )
    if options.size is not None and (options.size < 1 or options.protocol == "wsoleval"):
        raise UserError(
            f"--size is {options.size}; allowed: 1 or more, with --protocol classic (wsoleval always "
            "scores on 224 × 224)"
        )


def at_once(truths: "list[Truth]", options: argparse.Namespace) -> int:
    """How many images the memory holds, by the largest of their grids; UserError for one too large."""
    from pipeline.evaluation.map_scores import grid_of

    grids = {grid_of(truth, options.protocol, options.size) for truth in truths}
    height, width = max(grids, key=math.prod)
    if height * width > PIXELS:
        raise UserError(
            f"{options.boxes} has an image of {width} × {height}; allowed: up to {PIXELS:,} pixels, "
            "or a grid for all images (--size)"
        )
    return min(AT_ONCE, PIXELS // (height * width))


def load(
    batch: "list[tuple[str, Truth]]", options: argparse.Namespace, problems: list[str]
) -> tuple[list[NDArray[Any]], list[NDArray[np.uint8]] | None]:
    """The batch's maps, and masks where asked for; what is wrong with one is added to `problems`."""
    from pipeline.evaluation import saved_maps
    from pipeline.evaluation.map_scores import grid_of, on_grid

    maps, masks = [], []
    for image, truth in batch:
        try:
            grid = grid_of(truth, options.protocol, options.size)
            raw = saved_maps.read_map(options.maps, image)
            try:
                maps.append(on_grid(raw, grid, options.protocol))
            except ValueError as error:
                raise ValueError(f"{options.maps / image}.npy {error}") from error
            if options.masks:
                masks.append(saved_maps.read_mask(options.masks, image, grid))
        except ValueError as error:
            problems.append(str(error))
    return maps, masks if options.masks else None
